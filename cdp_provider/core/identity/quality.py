# SPDX-License-Identifier: Apache-2.0
"""How good the graph is: recorded with every run, so that a rule that glues or a source that stops
identifying shows the day it happens."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from cdp_provider.core.identity.decide import strongest

if TYPE_CHECKING:
    from cdp_provider.core.identity.decide import Facts
    from cdp_provider.core.identity.record import Record
    from cdp_provider.core.identity.store import Changes
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session

#: So many of the largest profiles are named.
_LISTED = 10


@dataclass(frozen=True)
class Large:
    """A large profile, and how many identifiers it holds."""

    profile_id: int
    identifiers: int


@dataclass(frozen=True)
class Quality:
    """One line of ``identity_runs``.

    :param refused: rule -> refused links.
    :param sizes: number of identifiers -> number of profiles that hold so many.
    """

    resolved_seq: int
    replayed: bool
    rules: str
    rows_in: int
    rows_without_identifier: int
    identifiers: int
    new_identifiers: int
    profiles: int
    new_profiles: int
    merged: int
    split: int
    refused: dict[str, int]
    sizes: dict[int, int]
    largest: list[Large]

    def detail(self) -> dict[str, Any]:
        """Counts for the run's report."""
        return {
            "profiles": self.profiles,
            "new_profiles": self.new_profiles,
            "identifiers": self.identifiers,
            "new_identifiers": self.new_identifiers,
            "merges": self.merged,
            "splits": self.split,
            "refused_links": sum(self.refused.values()),
            "rows_without_identifier": self.rows_without_identifier,
            "identifiers_p99": percentile(self.sizes, 0.99),
            "identifiers_max": max(self.sizes, default=0),
        }


def measure(session: Session, record: Record, changes: Changes, facts: Facts, fingerprint: str) -> Quality:
    """What a run found and made. Call it once the run has written, inside its transaction."""
    sizes, largest = _sizes(session, record, changes)
    new_rows = facts.seqs >= record.known.old_from
    has_none = strongest(facts.columns, len(facts.times)) < 0
    rules = changes.refused_links["rule"].to_pylist()
    return Quality(
        resolved_seq=record.plan.stands,
        replayed=record.plan.replay,
        rules=fingerprint,
        rows_in=int(np.count_nonzero(new_rows)),
        rows_without_identifier=int(np.count_nonzero(has_none & new_rows)),
        identifiers=sum(size * count for size, count in sizes.items()),
        new_identifiers=changes.added.num_rows,
        profiles=sum(sizes.values()),
        new_profiles=record.new_profiles(changes),
        merged=record.merged(changes),
        split=pc.count_distinct(changes.splits["profile_id"]).as_py(),
        refused=dict(Counter(rules)),
        sizes=sizes,
        largest=largest,
    )


def _sizes(session: Session, record: Record, changes: Changes) -> tuple[dict[int, int], list[Large]]:
    """Number of identifiers -> number of profiles that hold so many; and the largest profiles.

    What the last run recorded is brought up to date by the profiles that this one touched; only where that
    does not do are all identifiers counted.
    """
    last = None if record.plan.replay else _last(session)
    if last is None:
        sizes = _count(session)
        return sizes, _find_largest(session, sizes)
    before, after = record.sizes(changes)
    counted = Counter({int(size): count for size, count in last[0].items()})
    counted.subtract(before.values())
    counted.update(after.values())
    sizes = {size: count for size, count in sorted(counted.items()) if size and count}
    standing = [Large(**large) for large in last[1]]
    # A profile that was not listed and not touched is no larger than the smallest one listed.
    least = standing[-1].identifiers if len(standing) == _LISTED else 0
    known = {large.profile_id: large for large in standing if large.profile_id not in before}
    known |= {profile: Large(profile, size) for profile, size in after.items() if size > 0}
    listed = sorted(
        (large for large in known.values() if large.identifiers >= least),
        key=lambda large: (-large.identifiers, large.profile_id),
    )[:_LISTED]
    return sizes, listed if len(listed) == _LISTED or not least else _find_largest(session, sizes)


def _last(session: Session) -> tuple[dict[str, int], list[dict[str, Any]]] | None:
    """What the newest run recorded: its distribution of sizes and its largest profiles."""
    row = session.one(
        f"select sizes, largest from {session.warehouse.table('identity_runs')}"
        " order by resolved_seq desc, window_end desc limit 1"
    )
    return (json.loads(row[0]), json.loads(row[1])) if row else None


def _count(session: Session) -> dict[int, int]:
    identifiers = session.warehouse.table("identifiers")
    return dict(
        session.fetch(
            "select size, count(*) from (select count(*) as size"
            f" from {identifiers} where evicted_seq is null group by profile_id) p"
            " group by size order by size"
        )
    )


def _find_largest(session: Session, sizes: dict[int, int]) -> list[Large]:
    enough, least = 0, 1
    for least in sorted(sizes, reverse=True):
        enough += sizes[least]
        if enough >= _LISTED:
            break
    found = session.fetch(
        f"select profile_id, count(*) from {session.warehouse.table('identifiers')}"
        " where evicted_seq is null group by profile_id having count(*) >= :least"
        f" order by 2 desc, 1 limit {_LISTED}",
        {"least": least},
    )
    return [Large(*row) for row in found]


def percentile(sizes: dict[int, int], share: float) -> int:
    """The size that this share of profiles does not exceed; 0 without profiles."""
    ordered = sorted(sizes)
    reached = np.cumsum([sizes[size] for size in ordered])
    return ordered[int(np.searchsorted(reached, share * reached[-1]))] if ordered else 0


def write(session: Session, run: Run, found: Quality) -> None:
    """Put the line into ``identity_runs``, instead of one that the same run wrote before."""
    table = session.warehouse.table("identity_runs")
    values = {"pipeline": run.pipeline, "run_id": run.run_id, "window_end": run.window.end}
    values |= {
        name: json.dumps(value, default=asdict) if isinstance(value, dict | list) else value
        for name, value in vars(found).items()
    }
    session.execute(f"delete from {table} where pipeline = :pipeline and run_id = :run_id", values)
    names = ", ".join(values)
    session.execute(
        f"insert into {table} ({names}) values ({', '.join(':' + name for name in values)})", values
    )
