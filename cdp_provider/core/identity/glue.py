# SPDX-License-Identifier: Apache-2.0
"""What holds profiles together: the rows that belong to them, and what these rows link."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity import filters, history, store
from cdp_provider.core.identity.decide import star, strongest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cdp_provider.core.identity.history import History, RawRows
    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session

#: So many identifiers are named per profile.
_TOP = 3
_MOST_ROWS = 1_000_000


class Glue(NamedTuple):
    """An identifier that many others of its profile hang on.

    :param linked_with: distinct other identifiers that it shares a link with.
    """

    profile_id: int
    node_id: int
    type: str
    linked_with: int


@dataclass(frozen=True)
class Held:
    """Profiles, with their rows and what these link.

    :param rows: in the order in which they count; their columns hold what they carry.
    :param raw: the same rows as they lie in the raw tables.
    :param members: ``node_id``, ``type``, ``value``, ``profile_id``, ``evicted_seq`` of the identifiers that
        belong to the profiles, or did until they were evicted.
    :param places: per identifier of `rows`, its place in `members`, or -1; the last one for a value that left
        and came back.
    :param columns: identifier columns, strongest type first: per row, the place in `members` of an identifier
        that it links, or -1.
    :param refused: ``load_id``, ``position``, ``type``, ``value``, ``rule``: what the rows did not link.
    """

    rows: History
    raw: Sequence[RawRows]
    members: pa.Table
    places: NDArray[np.int64]
    columns: Sequence[NDArray[np.int32]]
    refused: pa.Table


def glue(
    session: Session,
    identity: Identity,
    streams: Sequence[Stream],
    profile_ids: Sequence[int],
    top: int = _TOP,
) -> list[Glue]:
    """Per profile, the identifiers that are linked with most others; profiles in ascending order.

    The cost follows the rows of these profiles. Names no value.

    :param streams: as identity resolution has them, the internal one of fuzzy links included.
    :returns: nothing where the profiles have more than a million rows: those do not belong into memory.
    """
    wanted = store.rows_of(session, np.array(profile_ids, np.int64))
    if session.scalar(f"select count(*) from {wanted}") > _MOST_ROWS:
        return []
    held = read(session, identity, streams, np.array(sorted(profile_ids), np.int64))
    profiles, nodes = (held.members[name].to_numpy() for name in ("profile_id", "node_id"))
    return [
        Glue(int(profiles[place]), int(nodes[place]), held.members["type"][place].as_py(), count)
        for place, count in most_linked(held.columns, profiles, top)
    ]


def most_linked(
    columns: Sequence[NDArray[np.int32]], profiles: NDArray[np.int64], top: int = _TOP
) -> list[tuple[int, int]]:
    """Per profile, the identifiers with most others, and how many these are.

    :param columns: identifier columns, strongest type first: the number of each row's identifier, or -1.
    :param profiles: per identifier, its profile.
    """
    count = len(profiles)
    links = star(columns, strongest(columns, len(columns[0]) if columns else 0))
    one = np.concatenate([np.empty(0, np.int64), *(left for left, _ in links)])
    other = np.concatenate([np.empty(0, np.int64), *(right for _, right in links)])
    pairs = np.unique(np.concatenate([one * count + other, other * count + one]))
    linked = np.bincount(pairs // max(count, 1), minlength=count)
    order = np.lexsort((np.arange(count), -linked, profiles))
    order = order[linked[order] > 0]
    starts = np.flatnonzero(np.diff(profiles[order], prepend=-1))
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    best = order[ranks < top]
    return list(zip(best.tolist(), linked[best].tolist(), strict=True))


def read(
    session: Session, identity: Identity, streams: Sequence[Stream], profiles: NDArray[np.int64]
) -> Held:
    """The rows of profiles, and what they link by what earlier runs decided.

    :param streams: all that rows of the profiles came from.
    :raises ConfigurationError: a stream is missing, or its rows are not those that were taken in.
    """
    wanted = store.rows_of(session, profiles)
    loads = history.loads_of(session, wanted)
    _check(loads, {stream.ref for stream in streams})
    raw = history.read(session, loads, streams, identity, wanted)
    rows = history.arrange([replace(one) for one in raw], loads, 0, identity, streams)
    kinds = list(history.types(identity, streams))
    members = _members(session, profiles)
    refused = _refused(session, wanted)
    places = np.full(len(rows.kinds), -1, np.int64)
    numbers = store.places(rows, members, kinds)
    places[numbers[numbers >= 0]] = np.flatnonzero(numbers >= 0)
    columns = filters.carried(rows, kinds, store.barred(session))
    # What breaks is cut off from the beginning: links that were denied at first may have been made then.
    if identity.over_limit != "break":
        columns = _without_refused(rows, columns, refused, kinds)
    linked = [np.append(places, -1)[column].astype(np.int32) for column in columns]
    owners = np.append(members["profile_id"].to_numpy(), 0)
    own = owners[strongest(linked, len(rows))]
    linked = [np.where(owners[column] == own, column, np.int32(-1)) for column in linked]
    return Held(rows, raw, members, places, linked, refused)


def _check(loads: frozenset[history.Load], refs: set[str]) -> None:
    if foreign := sorted({load.stream for load in loads} - refs):
        msg = (
            f"rows of the profile came from {', '.join(foreign)}, which is not among the streams given; give"
            " all streams that identity resolution has taken in"
        )
        raise ConfigurationError(msg)
    if landed := sorted({load.stream for load in loads if load.resolved_hash != load.content_hash}):
        msg = (
            f"batches of {', '.join(landed)} were landed again after identity resolution had taken them in,"
            " so the rows are not those it saw; let it run once more, and ask then"
        )
        raise ConfigurationError(msg)


def _members(session: Session, profiles: NDArray[np.int64]) -> pa.Table:
    """Those that left come first, so that of several lines of a value the last is the one that stands."""
    name = session.temp("cdp_wanted_profiles", pa.table({"profile_id": profiles}))
    return session.arrow(
        "select i.node_id as node_id, i.type as type, i.value as value, i.profile_id as profile_id,"
        f" i.evicted_seq as evicted_seq from {session.warehouse.table('identifiers')} i"
        f" join {name} w on w.profile_id = i.profile_id"
        " order by case when i.evicted_seq is null then 1 else 0 end, i.node_id"
    )


def _refused(session: Session, rows: str) -> pa.Table:
    return session.arrow(
        "select f.load_id as load_id, f.position as position, f.type as type, f.value as value,"
        f" f.rule as rule from {session.warehouse.table('refused_links')} f join {rows} o"
        " on o.stream = f.stream and o.load_id = f.load_id and o.position = f.position"
    )


def _without_refused(
    rows: History, columns: Sequence[NDArray[np.int32]], refused: pa.Table, kinds: Sequence[str]
) -> list[NDArray[np.int32]]:
    numbers = store.places(rows, refused, kinds)
    at = rows_at(rows, refused)
    columns = [column.copy() for column in columns]
    for column in columns:
        column[at[column[at] == numbers]] = -1
    return columns


def rows_at(rows: History, places: pa.Table) -> NDArray[np.int64]:
    """The numbers of the rows with these ``load_id`` and ``position``, all of which are there."""
    load_ids = np.array([load.load_id for load in rows.batches], np.int64)[rows.batch]
    numbers = {
        place: row for row, place in enumerate(zip(load_ids.tolist(), rows.positions.tolist(), strict=True))
    }
    wanted = zip(places["load_id"].to_pylist(), places["position"].to_pylist(), strict=True)
    return np.array([numbers[place] for place in wanted], np.int64)
