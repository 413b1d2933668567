# SPDX-License-Identifier: Apache-2.0
"""Made-up rows with identifiers, in the shape that real ones have: most persons hold two identifiers, few
hold hundreds, one phone number is on one in a hundred, and one chain is a thousand links long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("user_id", "email", "phone", "anonymous_id", "device_id")
#: user_id, email, phone, anonymous_id, device_id.
LIMITS = (1, 5, 5, 100, 100)

_EMAIL, _PHONE, _ANONYMOUS, _DEVICE = 1, 2, 3, 4
#: So many of the pairs share one phone number.
_ON_HUB = 0.01
_CHAIN = 1_000
#: Of the identifiers that are not a person's first, so many are of each type.
_SHARES = (0.0, 0.15, 0.1, 0.45, 0.3)
_SECOND = 1_000_000
_START = 1_780_000_000 * _SECOND


def edges(count: int, seed: int = 7) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """About `count` pairs of identifiers that were seen together, in random order.

    Sizes follow a Pareto distribution (p50 2, p90 5, p99 22, at most 500 identifiers to a person). A
    person's identifiers hang together as a random tree; as many further pairs as there are persons repeat
    or shorten its paths.

    :returns: both ends as numbers from 0, numbered in order of first sight, and each number's type.
    """
    rng = np.random.default_rng(seed)
    sizes = np.clip(np.round(1.2 * (1 + rng.pareto(1.554, count // 2))), 2, 500).astype(np.int64)
    hubs = int(count * _ON_HUB)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), 1.12 * (count - hubs) - _CHAIN)]
    starts = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    first = np.repeat(starts, sizes)
    place = np.arange(total) - first
    parents = first + (rng.random(total) * np.maximum(place, 1)).astype(np.int64)
    kinds = _kinds(rng, place, parents, starts)
    left, right = np.arange(total)[place > 0], parents[place > 0]
    more = starts + (rng.random(len(sizes)) * sizes).astype(np.int64)
    other = np.where(kinds[more] != kinds[starts], starts, parents[more])
    fine = (more != other) & (kinds[more] != kinds[other])
    hub, chain = total, total + 1 + np.arange(_CHAIN)
    on_hub = rng.choice(starts[kinds[starts] != _PHONE], hubs, replace=False)
    kinds = np.concatenate([kinds, [_PHONE], np.where(chain % 2, _ANONYMOUS, _DEVICE)]).astype(np.int8)
    left = np.concatenate([left, more[fine], on_hub, chain[1:]])
    right = np.concatenate([right, other[fine], np.full(len(on_hub), hub), chain[:-1]])
    order = rng.permutation(len(left))
    left, right = left[order], right[order]
    return (*_in_order_of_sight(left, right, kinds),)


def _kinds(
    rng: np.random.Generator,
    place: NDArray[np.int64],
    parents: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> NDArray[np.int8]:
    """Types, none equal to the type of the identifier it hangs on. A person's first is mostly a user_id."""
    kinds = rng.choice(5, len(place), p=_SHARES).astype(np.int8)
    kinds[starts] = np.where(rng.random(len(starts)) < 0.6, 0, kinds[starts])
    for depth in range(1, int(place.max()) + 1):
        at = np.flatnonzero(place == depth) if depth < 8 else np.flatnonzero(place >= 8)
        same = at[kinds[at] == kinds[parents[at]]]
        while len(same):
            kinds[same] = rng.choice(5, len(same), p=_SHARES)
            same = same[kinds[same] == kinds[parents[same]]]
        if depth == 8:
            break
    clash = np.flatnonzero((kinds == kinds[parents]) & (place > 0))
    while len(clash):
        kinds[clash] = rng.choice(5, len(clash), p=_SHARES)
        clash = np.flatnonzero((kinds == kinds[parents]) & (place > 0))
    return kinds


def _in_order_of_sight(
    left: NDArray[np.int64], right: NDArray[np.int64], kinds: NDArray[np.int8]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    both = np.stack([left, right], axis=1).ravel()
    first = np.full(len(kinds), len(both), np.int64)
    first[both[::-1]] = np.arange(len(both) - 1, -1, -1)
    seen = np.flatnonzero(first < len(both))
    order = seen[np.argsort(first[seen])]
    number = np.empty(len(kinds), np.int64)
    number[order] = np.arange(len(order))
    return number[left], number[right], kinds[order]


def more_edges(
    left: NDArray[np.int64], right: NDArray[np.int64], kinds: NDArray[np.int8], count: int, seed: int = 11
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """What the next day brings: of `count` pairs 40 % are of a known identifier and a new one, 30 % of two
    new ones, 20 % were seen before, and 10 % are of two known identifiers.

    :returns: both ends, and the types of all numbers, known and new.
    """
    rng = np.random.default_rng(seed)
    on_known, fresh, again, merging = (int(count * share) for share in (0.4, 0.3, 0.2, 0.1))
    known = rng.integers(0, len(kinds), on_known)
    repeated = rng.integers(0, len(left), again)
    one, other = rng.integers(0, len(kinds), (2, merging))
    apart = kinds[one] != kinds[other]
    new = len(kinds) + np.arange(on_known + 2 * fresh)
    beside = np.where(kinds[known] == _ANONYMOUS, _DEVICE, _ANONYMOUS)
    added = np.concatenate([beside, np.full(fresh, _ANONYMOUS), np.full(fresh, _DEVICE)]).astype(np.int8)
    ends = [
        (known, new[:on_known]),
        (new[on_known : on_known + fresh], new[on_known + fresh :]),
        (left[repeated], right[repeated]),
        (one[apart], other[apart]),
    ]
    order = rng.permutation(sum(len(a) for a, _ in ends))
    first, second = (np.concatenate(sides)[order] for sides in zip(*ends, strict=True))
    return first, second, np.concatenate([kinds, added])


def rows(count: int, seed: int = 7, first: int = 0) -> pa.Table:
    """The pairs as rows of a stream: ``key``, ``at`` and one text column per identifier type.

    :param first: number of the first row, where these rows come after others.
    """
    left, right, kinds = edges(count, seed)
    return as_rows(left, right, kinds, first)


def as_rows(
    left: NDArray[np.int64], right: NDArray[np.int64], kinds: NDArray[np.int8], first: int = 0
) -> pa.Table:
    """Each pair as a row; times rise by a second, give or take a minute."""
    rng = np.random.default_rng(first + 1)
    number = np.arange(first, first + len(left))
    times = _START + number * _SECOND + rng.integers(-60, 60, len(left)) * _SECOND
    columns = {
        "key": pc.binary_join_element_wise("r", pa.array(number).cast(pa.string()), ""),
        "at": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
    }
    for kind, name in enumerate(KINDS):
        at_left = kinds[left] == kind
        has = at_left | (kinds[right] == kind)
        values = np.where(at_left, left, right)
        columns[name] = _text(kind, pa.array(values, mask=~has).cast(pa.string()))
    return pa.table(columns)


def _text(kind: int, number: pa.Array) -> pa.Array:
    before = ("u", "person.", "+4915", "a-", "d-")[kind]
    after = "@example.com" if kind == _EMAIL else ""
    return pc.binary_join_element_wise(before, number, after, "")
