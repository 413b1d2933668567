# SPDX-License-Identifier: Apache-2.0
"""Which column type each field and trait of a profile has; nobody else decides that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.project.profiles import ProfileField, Profiles, Trait
    from cdp_provider.core.project.streams import Stream

NUMERIC = frozenset({"integer", "number", "decimal"})
TEMPORAL = frozenset({"date", "timestamp"})

#: Types of traits that do not follow from a column.
_FIXED = {
    "count": "integer",
    "distinct_count": "integer",
    "days_since_last": "integer",
    "average": "number",
    "exists": "boolean",
}


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
    """Type of the first column the field may come from; None when there is no such column."""
    return column_type(field.sources[0].stream, field.sources[0].column, streams)


def trait_type(trait: Trait, streams: Mapping[str, Stream]) -> str | None:
    """Type of the trait; None when it has no column that it could be computed from."""
    if trait.type in _FIXED:
        return _FIXED[trait.type]
    kind = column_type(trait.stream, trait.column, streams)
    return None if trait.type == "sum" and kind not in NUMERIC else kind


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
