# SPDX-License-Identifier: Apache-2.0
"""Which column type each field and trait of a profile has; nobody else decides that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.project.profiles import AccountTrait, ProfileField, Profiles, Trait
    from cdp_provider.core.project.streams import Stream

NUMERIC = frozenset({"integer", "number", "decimal"})
TEMPORAL = frozenset({"date", "timestamp"})
#: What has an order; and what two values can be told to be the same of.
ORDERED = NUMERIC | TEMPORAL | {"string", "boolean"}

_LIST = "list of "

#: What lists may be made of: values that JSON writes in one way only.
LISTABLE = frozenset({"string", "integer", "boolean", "date"})

#: Field rule -> column types that it can work on, and what it asks of them; the others take any.
FIELD_COLUMNS: Mapping[str, tuple[frozenset[str], str]] = {
    **dict.fromkeys(("sum", "average"), (NUMERIC, "numbers")),
    **dict.fromkeys(("min", "max"), (ORDERED, "values that have an order")),
    **dict.fromkeys(("any", "all"), (frozenset({"boolean"}), "booleans")),
    "most_frequent": (ORDERED, "values that can be told apart"),
    "list": (LISTABLE, "columns of type string, integer, boolean or date"),
}

#: Trait type -> column types that it can be computed from, likewise.
TRAIT_COLUMNS: Mapping[str, tuple[frozenset[str], str]] = {
    **dict.fromkeys(("sum", "average"), (NUMERIC, "numbers")),
    **dict.fromkeys(("min", "max"), FIELD_COLUMNS["min"]),
    **dict.fromkeys(("distinct_count", "most_frequent"), (ORDERED, "values that can be told apart")),
    "list": FIELD_COLUMNS["list"],
}

#: Types of traits that do not follow from a column.
_FIXED = {
    **dict.fromkeys(("count", "distinct_count", "days_since_last", "days_since_first"), "integer"),
    "average": "number",
    "exists": "boolean",
    "quantile": "integer",
    "rfm": "string",
    "ratio": "number",
}

#: Account trait -> types of its field or trait, likewise.
ACCOUNT_VALUES: Mapping[str, tuple[frozenset[str], str]] = {
    **{name: TRAIT_COLUMNS[name] for name in ("sum", "average", "distinct_count")},
    **dict.fromkeys(("min", "max"), (ORDERED - {"boolean"}, "values that have an order")),
    **dict.fromkeys(("any", "all"), FIELD_COLUMNS["any"]),
}

#: Types of accounts' traits that do not follow from their field or trait.
_OF_ACCOUNTS = {
    **dict.fromkeys(("count", "distinct_count"), "integer"),
    **dict.fromkeys(("any", "all"), "boolean"),
    "average": "number",
}


def is_list(kind: str) -> bool:
    """Whether values of a column type are lists: ``list of string``."""
    return kind.startswith(_LIST)


def element(kind: str) -> str:
    """Column type of what a list holds: ``string`` for ``list of string``."""
    return kind.removeprefix(_LIST)


def list_of(kind: str) -> str:
    """The type of lists of a column type."""
    return _LIST + kind


def trait_types(profiles: Profiles, streams: Mapping[str, Stream]) -> dict[str, str]:
    """Column type of every field and trait, fields first, in the order of the project.

    :param streams: by :attr:`Stream.ref`.
    :raises ConfigurationError: one names no stream or column that it could be computed from.
    """
    types: dict[str, str] = {}
    for name, field in profiles.fields.items():
        types[name] = _known(name, field_type(field, streams))
    for name, trait in profiles.traits.items():
        types[name] = _known(name, trait_type(trait, streams))
    return types


def field_type(field: ProfileField, streams: Mapping[str, Stream]) -> str | None:
    """Type of the field; None when there is no column that it could be kept of."""
    if field.keep == "sql":
        return field.type
    kind = column_type(field.sources[0].stream, field.sources[0].column, streams)
    if kind is None or kind not in FIELD_COLUMNS.get(field.keep, ({kind},))[0]:
        return None
    return {"average": "number", "list": list_of(kind)}.get(field.keep, kind)


def trait_type(trait: Trait, streams: Mapping[str, Stream]) -> str | None:
    """Type of the trait; None when it has no column that it could be computed from."""
    if trait.type in _FIXED:
        return _FIXED[trait.type]
    if trait.type in ("formula", "sql"):
        return trait.as_ or "number"
    kind = column_type(trait.stream or "", trait.column, streams)
    if kind is None or kind not in TRAIT_COLUMNS.get(trait.type, ({kind},))[0]:
        return None
    return list_of(kind) if trait.type == "list" else kind


def account_kinds(profiles: Profiles, kinds: Mapping[str, str]) -> dict[str, str]:
    """Column type of every trait of accounts, in the order of the project.

    :param kinds: of fields and traits, by :func:`trait_types`; a trait whose own one is missing is left out.
    """
    traits = profiles.accounts.traits if profiles.accounts else {}
    found = {name: account_kind(trait, kinds) for name, trait in traits.items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def account_kind(trait: AccountTrait, kinds: Mapping[str, str]) -> str | None:
    """Column type of a trait of accounts; None when it has nothing that it could be computed from."""
    if trait.type in _OF_ACCOUNTS:
        return _OF_ACCOUNTS[trait.type]
    kind = kinds.get(trait.of or "")
    return kind if kind in ACCOUNT_VALUES[trait.type][0] else None


def column_type(stream: str, column: str | None, streams: Mapping[str, Stream]) -> str | None:
    """Type of a stream's column; None when there is no such stream or column."""
    if column is None or stream not in streams:
        return None
    known = streams[stream].columns.get(column)
    return known.type if known else None


def _known(name: str, kind: str | None) -> str:
    if kind is None:
        msg = f"{name} names no column that it could be computed from; validate the project to see why"
        raise ConfigurationError(msg)
    return kind
