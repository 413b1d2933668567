# SPDX-License-Identifier: Apache-2.0
"""Traits: values computed from a profile's rows in one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.scan import filtered
from cdp_provider.core.project.typing import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdp_provider.core.profiles.scan import Scan
    from cdp_provider.core.project.profiles import Trait

#: Column types that a trait type can work on; those not listed take any, but `trait_types` refuses some sums.
_SUITABLE: Mapping[str, frozenset[str]] = {
    "average": NUMERIC,
    "min": NUMERIC | {"string", "boolean", "date", "timestamp"},
    "max": NUMERIC | {"string", "boolean", "date", "timestamp"},
}


def trait_sql(name: str, trait: Trait, scan: Scan) -> str:
    """SQL of a trait, to be selected where the scan's totals are joined.

    A profile without a matching row has a ``count`` and ``distinct_count`` of 0, an ``exists`` of false, and
    no value (null) of every other trait. Nulls in the column count for nothing, so ``first`` and ``last`` are
    those of the rows that have a value.

    :raises ConfigurationError: the stream lacks what the trait needs.
    """
    conditions = scan.conditions(trait.where, trait.within_last)
    if trait.column is None:
        return _ROW_TRAITS[trait.type](scan, conditions)
    column = scan.column(trait.column)
    kind = scan.stream.columns[trait.column].type
    suitable = _SUITABLE.get(trait.type)
    if suitable is not None and kind not in suitable:
        msg = (
            f"the trait {name} is the {trait.type} of {scan.stream.ref}.{trait.column}, which is of type"
            f" {kind}; {trait.type} needs one of {', '.join(sorted(suitable))}"
        )
        raise ConfigurationError(msg)
    return _COLUMN_TRAITS[trait.type](scan, column, kind, conditions)


def _count(scan: Scan, conditions: list[str]) -> str:
    return f"coalesce({scan.aggregate('count(*)' + filtered(conditions))}, 0)"


def _exists(scan: Scan, conditions: list[str]) -> str:
    return f"({_count(scan, conditions)} > 0)"


def _days_since_last(scan: Scan, conditions: list[str]) -> str:
    newest = scan.aggregate(f"max({scan.time}){filtered(conditions)}")
    # The difference is taken first: it is exact, whereas seconds since 1970 are rounded.
    return f"cast(floor(extract(epoch from ({scan.params.moment()} - {newest})) / 86400) as bigint)"


def _sum(scan: Scan, column: str, kind: str, conditions: list[str]) -> str:
    total = scan.aggregate(f"sum({column}){filtered(conditions)}")
    return f"cast({total} as {scan.params.warehouse.types[kind]})"


def _average(scan: Scan, column: str, kind: str, conditions: list[str]) -> str:
    if kind == "number":
        return scan.aggregate(f"avg({column}){filtered(conditions)}")
    # Exact sums, one division: the same double on every engine.
    total = scan.aggregate(f"sum({column}){filtered(conditions)}")
    values = scan.aggregate(f"count({column}){filtered(conditions)}")
    return f"cast({total} as double precision) / nullif({values}, 0)"


def _extreme(scan: Scan, column: str, kind: str, conditions: list[str], *, largest: bool) -> str:
    if kind == "boolean":
        return scan.aggregate(f"{'bool_or' if largest else 'bool_and'}({column}){filtered(conditions)}")
    if kind == "string":
        # By code point, whatever the database's locale, and without giving the result that collation.
        where = " and ".join([*conditions, f"{column} is not null"])
        pick = scan.params.warehouse.pick(column, f'{column} collate "C"', where, largest=largest)
        return scan.aggregate(pick)
    return scan.aggregate(f"{'max' if largest else 'min'}({column}){filtered(conditions)}")


def _min(scan: Scan, column: str, kind: str, conditions: list[str]) -> str:
    return _extreme(scan, column, kind, conditions, largest=False)


def _max(scan: Scan, column: str, kind: str, conditions: list[str]) -> str:
    return _extreme(scan, column, kind, conditions, largest=True)


def _distinct_count(scan: Scan, column: str, kind: str, conditions: list[str]) -> str:  # noqa: ARG001
    return f"coalesce({scan.aggregate(f'count(distinct {column}){filtered(conditions)}')}, 0)"


def _first(scan: Scan, column: str, kind: str, conditions: list[str]) -> str:  # noqa: ARG001
    where = " and ".join([*conditions, f"{column} is not null"])
    return scan.aggregate(scan.params.warehouse.pick(column, scan.order, where, largest=True))


def _last(scan: Scan, column: str, kind: str, conditions: list[str]) -> str:  # noqa: ARG001
    where = " and ".join([*conditions, f"{column} is not null"])
    return scan.aggregate(scan.params.warehouse.pick(column, scan.order, where))


_ROW_TRAITS: Mapping[str, Callable[[Scan, list[str]], str]] = {
    "count": _count,
    "exists": _exists,
    "days_since_last": _days_since_last,
}

_COLUMN_TRAITS: Mapping[str, Callable[[Scan, str, str, list[str]], str]] = {
    "sum": _sum,
    "average": _average,
    "min": _min,
    "max": _max,
    "distinct_count": _distinct_count,
    "first": _first,
    "last": _last,
}
