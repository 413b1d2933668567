# SPDX-License-Identifier: Apache-2.0
"""How large segments are, whether that is unusual, and how much they overlap."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from cdp_provider.core.segments.flags import TABLE, Bit, bits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session

#: So many changes make the history of a size.
CHANGES = 30
#: Windows that have to lie behind a segment before anything about its size is unusual.
EARLIER = 7
#: A change is unusual when it is farther from the median change than so many times their median absolute
#: deviation, and at least so far in parts of the last size.
DEVIATIONS = 6
#: That part is one of so many: 5 %.
PARTS = 20

_SCHEMA = pa.schema(
    {
        "segment": pa.string(),
        "window_end": pa.timestamp("us", tz="UTC"),
        "run_id": pa.string(),
        "size": pa.int64(),
        "entered": pa.int64(),
        "left": pa.int64(),
        "usual_low": pa.float64(),
        "usual_high": pa.float64(),
        "unusual": pa.bool_(),
    }
)


_OVERLAP = pa.schema({"segment": pa.string(), "other": pa.string(), "profiles": pa.int64()})

#: Sets of segments that are counted at a time: some tens of megabytes.
_AT_A_TIME = 16_384

_Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


@dataclass(frozen=True)
class Usual:
    """Sizes that a history explains: from `low` to `high`."""

    low: float
    high: float
    expected: float
    spread: float
    last: int

    def holds(self, size: int) -> bool:
        """Whether a size is one of them."""
        away = abs(size - self.expected)
        return away <= self.spread or away * PARTS < self.last


def usual(earlier: Sequence[int]) -> Usual | None:
    """What sizes of earlier windows, oldest first, let one expect of the next; None when they are too few.

    Only the last :data:`CHANGES` changes count.
    """
    if len(earlier) < EARLIER:
        return None
    known = earlier[-CHANGES - 1 :]
    changes = [after - before for before, after in zip(known, known[1:], strict=False)]
    middle, last = median(changes), known[-1]
    spread = DEVIATIONS * median(abs(change - middle) for change in changes)
    reach, expected = max(spread, last / PARTS), last + middle
    return Usual(max(0.0, expected - reach), expected + reach, expected, spread, last)


def note_sizes(session: Session, report: Report) -> bool:
    """Write this window's lines of ``segment_sizes``; unusual segments come into the report's ``unusual``.

    Call it in the transaction that writes memberships, when the report's ``sizes``, ``entered`` and ``left``
    stand. A window that is tried again gets new lines in place of its old ones.

    :returns: whether these are the first lines ever.
    """
    table, now = session.warehouse.table("segment_sizes"), report.run.window.end
    history = _history(session, report)
    lines = []
    for segment, size in report.detail["sizes"].items():
        known = usual(history.get(segment, ()))
        counts = {kind: report.detail[kind].get(segment, 0) for kind in ("entered", "left")}
        lines.append(
            {
                "segment": segment,
                "window_end": now,
                "run_id": report.run.run_id,
                "size": size,
                **counts,
                "usual_low": known and known.low,
                "usual_high": known and known.high,
                "unusual": known is not None and not known.holds(size),
            }
        )
    session.execute(f"delete from {table} where window_end = :now", {"now": now})
    session.load(table, pa.Table.from_pylist(lines, _SCHEMA))
    report.detail["unusual"] = {
        line["segment"]: {name: line[name] for name in ("size", "usual_low", "usual_high")}
        for line in lines
        if line["unusual"]
    }
    return not history


def _history(session: Session, report: Report) -> Mapping[str, list[int]]:
    """The last sizes of each segment before this window, oldest first."""
    rows = session.fetch(
        "select segment, size from (select segment, size, window_end,"
        " row_number() over (partition by segment order by window_end desc) as age"
        f" from {session.warehouse.table('segment_sizes')} where window_end < :now) past"
        " where age <= :known order by segment, window_end",
        {"now": report.run.window.end, "known": CHANGES + 1},
    )
    found: dict[str, list[int]] = {}
    for segment, size in rows:
        found.setdefault(segment, []).append(size)
    return found


def note_overlap(session: Session, segments: Sequence[str]) -> None:
    """Make ``segment_overlap`` speak of the flags that stand: how many profiles each two segments share.

    The warehouse gives each set of segments that profiles are in, as bits, and how many are in just these; a
    join of the stays with themselves would make a row for each pair of segments of each profile.

    :param segments: in the order of their bits.
    """
    table = session.warehouse.table("segment_overlap")
    session.execute(f"delete from {table}")
    shared = np.zeros((len(segments), len(segments)))
    for members, profiles in _sets(session, bits(segments)) if len(segments) > 1 else ():
        shared += (members * profiles[:, None]).T @ members
    lines = []
    for one, other in np.argwhere(np.triu(shared, 1)).tolist():
        first, second = sorted((segments[one], segments[other]))
        lines.append({"segment": first, "other": second, "profiles": int(shared[one, other])})
    session.load(table, pa.Table.from_pylist(lines, _OVERLAP))


def _sets(session: Session, places: Sequence[Bit]) -> Iterator[tuple[_Numbers, _Numbers]]:
    """Sets of segments, some at a time: a row of 0 and 1 each; how many profiles are in just these."""
    words = [f"w{word}" for word in range(places[-1].word + 1)]
    listed = ", ".join(words)
    found = session.arrow(
        f"select {listed}, count(*) as profiles from {session.warehouse.table(TABLE)} group by {listed}"
    )
    for part in found.to_batches(max_chunksize=_AT_A_TIME):
        columns = np.stack([part[word].to_numpy() for word in words], axis=1).astype("<i8")
        unpacked = np.unpackbits(columns.view(np.uint8), axis=1, bitorder="little")
        kept = [64 * bit.word + bit.value.bit_length() - 1 for bit in places]
        yield unpacked[:, kept].astype(np.float64), part["profiles"].to_numpy().astype(np.float64)
