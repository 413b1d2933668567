# SPDX-License-Identifier: Apache-2.0
"""Profiles divided by chance, which a hash of their ids plays: the same in every run and every warehouse."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.segments.columns import Expr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.project.model import Split
    from cdp_provider.core.segments.columns import Columns

#: The hash gives numbers below this.
_RANGE = 2**52

#: Of exact shares so many digits behind the point count, so that whole numbers of 64 bits can hold them.
_DIGITS = 9


def group_column(
    split: Split, members: Expr | None, strata: Sequence[Expr], columns: Columns, params: Params
) -> Expr:
    """A column with the number of each profile's group, counted from 0; that of the last is nobody's part.

    It is null for profiles that are not divided.

    :param members: who is divided; None: every profile.
    :param strata: the values within each combination of which the shares are exact.
    :raises ConfigurationError: the shares are more than the whole.
    """
    left = 1 - sum(split.groups.values(), start=Decimal())
    if left < 0:
        msg = (
            f"the shares of the split {split.name} add up to {1 - left}; they may be 1, all profiles, at most"
        )
        raise ConfigurationError(msg)
    number = (
        _exact(split, members, strata, columns, params)
        if strata
        else _nearest(split, members, columns, params)
    )
    if members is None:
        return columns.store(number)
    chosen = f"case when {members.sql} then {number.sql} end"
    return columns.store(Expr(chosen, max(members.level, number.level)))


def _nearest(split: Split, members: Expr | None, columns: Columns, params: Params) -> Expr:
    """Weighted rendezvous: who has the smallest -ln(u) / share gets the profile.

    That is the time at which the first of several clocks with these rates rings. A group's chance of being
    the first is its share of all, and which of the other groups rings before which is not touched by it.
    """
    shares = dict(split.groups)
    if (left := 1 - sum(shares.values(), start=Decimal())) > 0:
        shares[""] = left  # nobody's part; no group has that name
    times = []
    for group, share in shares.items():
        drawn = _drawn(f"{_salt(split)}:{group}:", params)
        weight = params.bind(float(share), "number")
        time = f"-ln((cast({drawn} as {params.warehouse.types['number']}) + 0.5) / {_RANGE}) / {weight}"
        level = 0 if members is None else members.level
        times.append(
            columns.store(Expr(f"case when {members.sql} then {time} end" if members else time, level))
        )
    cases = [
        f"when {time.sql} <= least({', '.join(other.sql for other in times[number + 1 :])}) then {number}"
        for number, time in enumerate(times[:-1])
    ]
    level = max(time.level for time in times)
    if not cases:
        return Expr("0", level)
    return Expr(f"case {' '.join(cases)} else {len(times) - 1} end", level)


def _exact(
    split: Split, members: Expr | None, strata: Sequence[Expr], columns: Columns, params: Params
) -> Expr:
    """In the order of a hash, the first of a stratum belong to the first group, and so on.

    A group ends behind the place n * c, rounded, of its n profiles, where c is the sum of shares up to it.
    """
    parts = [members, *strata] if members is not None else strata
    level = max(part.level for part in parts)
    alike = f"partition by {', '.join(part.sql for part in parts)}"
    order = f"order by {_drawn(f'{_salt(split)}:', params)}, profile_id"
    place = columns.store(Expr(f"row_number() over ({alike} {order})", level))
    size = columns.store(Expr(f"count(*) over ({alike})", level))
    cases = []
    for number, share in enumerate(accumulate(split.groups.values())):
        ends = Fraction(round(share, _DIGITS))
        top, bottom = ends.numerator, ends.denominator
        # place <= floor(size * top / bottom + 1/2), in whole numbers
        cases.append(f"when {place.sql} * {2 * bottom} <= {size.sql} * {2 * top} + {bottom} then {number}")
    return Expr(f"case {' '.join(cases)} else {len(cases)} end", place.level)


def _salt(split: Split) -> str:
    return split.name if split.salt is None else split.salt


def _drawn(prefix: str, params: Params) -> str:
    text = f"{params.bind(prefix, 'string')} || cast(profile_id as {params.warehouse.types['string']})"
    return params.warehouse.hash_number(text)
