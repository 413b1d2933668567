# SPDX-License-Identifier: Apache-2.0
"""Who is in which segment, as bits: what a run compares instead of all memberships.

The table ``membership_flags`` has a line per profile that is in a segment: whole numbers of 62 bits each, a
bit per segment in the order of the project. It says what the open stays of ``memberships`` say, and changes
in the same transactions; where it does not fit the project any more, it is made of them anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.warehouse import Session

TABLE = "membership_flags"
_NOW, _STANDING, _MOVED = '"cdp_flags_now"', '"cdp_flags_standing"', '"cdp_flags_moved"'
_BITS = 62


@dataclass(frozen=True)
class Bit:
    """A segment's place: the column, and the value of its bit."""

    segment: str
    word: int
    value: int


def bits(segments: Sequence[str]) -> list[Bit]:
    """The places of segments, by their order."""
    return [Bit(name, place // _BITS, 1 << place % _BITS) for place, name in enumerate(segments)]


def words(places: Sequence[Bit], members: Sequence[str], integer: str) -> list[str]:
    """SQL of the whole numbers that hold all bits, ``... as w0``.

    :param members: SQL of whether a profile is in each of the segments, never NULL.
    """
    columns: dict[int, list[str]] = {}
    for bit, member in zip(places, members, strict=True):
        columns.setdefault(bit.word, []).append(f"case when {member} then {bit.value} else 0 end")
    return [f"cast({' + '.join(parts)} as {integer}) as w{word}" for word, parts in columns.items()]


def changes(session: Session, segments: Sequence[str], select: str, params: Params) -> str:
    """Find out who entered and who left since the last run; returns a select of ``segment``, ``profile_id``
    and ``member``, whether the profile is in the segment now.

    :param select: ``profile_id`` and the :func:`words` of all profiles as they are now.
    """
    places = bits(segments)
    count = places[-1].word + 1 if places else 0
    temp(session, _NOW, select, params)
    temp(session, _STANDING, _standing(session, places, count, params), params)
    columns = ["coalesce(n.profile_id, s.profile_id) as profile_id"]
    for word in range(count):
        columns += [f"coalesce(n.w{word}, 0) as n{word}", f"coalesce(s.w{word}, 0) as s{word}"]
    differ = " or ".join(f"n{word} <> s{word}" for word in range(count)) or "false"
    temp(
        session,
        _MOVED,
        f"select * from (select {', '.join(columns)} from {_NOW} n"
        f" full join {_STANDING} s on s.profile_id = n.profile_id) b where {differ}",
        params,
    )
    found = [
        f"select {params.bind(bit.segment, 'string')} as segment, profile_id,"
        f" (n{bit.word} & {bit.value}) <> 0 as member from {_MOVED}"
        f" where (n{bit.word} & {bit.value}) <> (s{bit.word} & {bit.value})"
        for bit in places
    ]
    if not _fits(session, segments):
        found.append(_of_no_segment(session, places, params))
    integer, text = params.warehouse.types["integer"], params.warehouse.types["string"]
    nothing = f"select cast(null as {text}) as segment, cast(null as {integer}) as profile_id, true as member"
    return " union all ".join(found) or f"{nothing} where 1 = 0"


def remember(session: Session, segments: Sequence[str], params: Params) -> None:
    """Make the table say what :func:`changes` found. Call it in the transaction that changes memberships."""
    places = bits(segments)
    count = places[-1].word + 1 if places else 0
    table = session.warehouse.table(TABLE)
    names = ", ".join(["profile_id", *(f"w{word}" for word in range(count))])
    member = " or ".join(f"w{word} <> 0" for word in range(count)) or "false"
    if not _fits(session, segments):
        session.execute(f"drop table if exists {table}")
        session.execute(f"create table {table} as select {names} from {_NOW} where {member}")
        session.index(TABLE, "profile_id")
        session.analyze(table)
    else:
        moved = f"select profile_id from {_MOVED}"
        session.execute(f"delete from {table} where profile_id in ({moved})")
        session.execute(
            f"insert into {table} ({names}) select {names} from {_NOW}"
            f" where profile_id in ({moved}) and ({member})"
        )
    kept = session.warehouse.table("kept")
    session.execute(f"delete from {kept} where name = :name", {"name": TABLE})
    session.execute(
        f"insert into {kept} (name, fingerprint, window_end, resolved_seq, linked)"
        " values (:name, :fingerprint, :now, 0, '{}')",
        {"name": TABLE, "fingerprint": _fingerprint(segments), "now": params.now},
    )


def temp(session: Session, name: str, select: str, params: Params) -> None:
    """Put the result of a select into a session-local table."""
    session.execute(f"drop table if exists {name}")
    session.execute(f"create temporary table {name} as {select}", params.query(select).params)
    session.analyze(name)


def _fits(session: Session, segments: Sequence[str]) -> bool:
    """Whether the table is there, for these segments."""
    stands = session.scalar(
        f"select fingerprint from {session.warehouse.table('kept')} where name = :name", {"name": TABLE}
    )
    return bool(stands == _fingerprint(segments)) and session.exists(TABLE)


def _fingerprint(segments: Sequence[str]) -> str:
    return hashlib.sha256("\x1f".join(segments).encode()).hexdigest()[:16]


def _standing(session: Session, places: Sequence[Bit], count: int, params: Params) -> str:
    """A select of the flags that stand."""
    warehouse = session.warehouse
    if _fits(session, [bit.segment for bit in places]):
        return f"select * from {warehouse.table(TABLE)}"
    names = pa.table(
        {
            "segment": pa.array([bit.segment for bit in places], pa.string()),
            "word": pa.array([bit.word for bit in places], pa.int64()),
            "bit": pa.array([bit.value for bit in places], pa.int64()),
        }
    )
    listed = session.temp("cdp_segment_bits", names)
    integer = warehouse.types["integer"]
    sums = (f"coalesce(sum(b.bit) filter (where b.word = {word}), 0)" for word in range(count))
    columns = [f"cast({total} as {integer}) as w{word}" for word, total in enumerate(sums)]
    return (
        f"select {', '.join(['m.profile_id', *columns])} from {warehouse.table('memberships')} m"
        f" join {listed} b on b.segment = m.segment"
        f" where m.entered_at <= {params.moment()} and m.left_at is null group by m.profile_id"
    )


def _of_no_segment(session: Session, places: Sequence[Bit], params: Params) -> str:
    """Open stays in segments that the project no longer has."""
    known = ", ".join(params.bind(bit.segment, "string") for bit in places)
    among = f" and segment not in ({known})" if known else ""
    return (
        f"select segment, profile_id, false as member from {session.warehouse.table('memberships')}"
        f" where left_at is null and entered_at <= {params.moment()}{among}"
    )
