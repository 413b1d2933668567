# SPDX-License-Identifier: Apache-2.0
"""How good the graph is: recorded with every run, so that a rule that glues or a source that stops
identifying shows the day it happens."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
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
_LARGEST = 5


@dataclass(frozen=True)
class Quality:
    """One line of ``identity_runs``.

    :param refused: rule -> refused links.
    :param sizes: how many identifiers the profiles hold: p50, p90, p99, max.
    :param largest: profile id and number of its identifiers.
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
    sizes: dict[str, int]
    largest: list[dict[str, Any]]

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
            "largest_profile": self.sizes["max"],
        }


def measure(session: Session, record: Record, changes: Changes, facts: Facts, fingerprint: str) -> Quality:
    """What a run found and made. Call it once the run has written, inside its transaction."""
    sizes = _sizes(session)
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
        sizes=_percentiles(sizes),
        largest=_largest(session, sizes),
    )


def _sizes(session: Session) -> dict[int, int]:
    """Number of identifiers -> number of profiles that hold so many."""
    identifiers = session.warehouse.table("identifiers")
    return dict(
        session.fetch(
            "select size, count(*) from (select count(*) as size"
            f" from {identifiers} where evicted_seq is null group by profile_id) p group by size"
        )
    )


def _percentiles(sizes: dict[int, int]) -> dict[str, int]:
    if not sizes:
        return {"p50": 0, "p90": 0, "p99": 0, "max": 0}
    ordered = sorted(sizes)
    reached = np.cumsum([sizes[size] for size in ordered])
    places = {f"p{share}": np.searchsorted(reached, share / 100 * reached[-1]) for share in (50, 90, 99)}
    return {name: ordered[int(place)] for name, place in places.items()} | {"max": ordered[-1]}


def _largest(session: Session, sizes: dict[int, int]) -> list[dict[str, Any]]:
    if not sizes:
        return []
    enough, least = 0, 0
    for least in sorted(sizes, reverse=True):
        enough += sizes[least]
        if enough >= _LARGEST:
            break
    found = session.fetch(
        f"select profile_id, count(*) from {session.warehouse.table('identifiers')}"
        f" where evicted_seq is null group by profile_id having count(*) >= :least"
        f" order by 2 desc, 1 limit {_LARGEST}",
        {"least": least},
    )
    return [{"profile_id": profile, "identifiers": size} for profile, size in found]


def write(session: Session, run: Run, found: Quality) -> None:
    """Put the line into ``identity_runs``, instead of one that the same run wrote before."""
    table = session.warehouse.table("identity_runs")
    values = {"pipeline": run.pipeline, "run_id": run.run_id, "window_end": run.window.end}
    values |= {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in vars(found).items()
    }
    session.execute(f"delete from {table} where pipeline = :pipeline and run_id = :run_id", values)
    names = ", ".join(values)
    session.execute(
        f"insert into {table} ({names}) values ({', '.join(':' + name for name in values)})", values
    )
