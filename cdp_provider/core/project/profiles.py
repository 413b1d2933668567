# SPDX-License-Identifier: Apache-2.0
"""Fields and traits: what a profile says of its person."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cdp_provider.core.project.base import ColumnName, Duration, Model, Name
from cdp_provider.core.project.conditions import Filter


class FieldFrom(Model):
    """A column of a stream: ``crm.customers.email``."""

    stream: str
    column: ColumnName


def _field_from(value: Any) -> Any:
    if isinstance(value, str) and value.count(".") == 2:
        stream, _, column = value.rpartition(".")
        return {"stream": stream, "column": column}
    return value


class ProfileField(Model):
    """A value that several sources may state, and which of them counts.

    :param sources: where it may come from (``from`` in YAML), as ``source.stream.column``.
    :param keep: ``most_recent`` by the rows' time; ``first`` the oldest; ``source_priority`` the first source
        in the list that has one, its most recent; ``most_frequent``, ties to the most recent. Nulls and empty
        texts never count.
    """

    sources: tuple[
        Annotated[FieldFrom, BeforeValidator(_field_from, json_schema_input_type=str | FieldFrom)], ...
    ] = Field(alias="from", min_length=1)
    keep: Literal["most_recent", "first", "source_priority", "most_frequent"] = "most_recent"


class Trait(Model):
    """A value computed from a profile's rows in one stream.

    :param type: ``count`` of rows; ``sum``, ``min``, ``max``, ``average`` and ``distinct_count`` of `column`;
        ``first`` and ``last`` value by the rows' time; ``exists`` whether there is any row;
        ``days_since_last`` whole days (24 h) from the newest row's time to now.
    :param where: only rows that fulfil it count.
    :param within_last: only rows from now minus the duration (included) to now (excluded) count.
    """

    type: Literal[
        "count",
        "sum",
        "min",
        "max",
        "average",
        "distinct_count",
        "first",
        "last",
        "exists",
        "days_since_last",
    ]
    stream: str
    column: ColumnName | None = None
    where: Filter = Field(default_factory=dict)
    within_last: Duration | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a column where none is needed, and the lack of one where it is."""
        needs = self.type not in ("count", "exists", "days_since_last")
        if needs and self.column is None:
            msg = f"a trait of type {self.type} needs a column"
            raise ValueError(msg)
        if not needs and self.column is not None:
            msg = f"a trait of type {self.type} counts rows, not a column; leave the column out, or use where"
            raise ValueError(msg)


class Profiles(Model):
    """Everything a profile holds besides its id. Fields and traits share one set of names."""

    fields: dict[Name, ProfileField] = Field(default_factory=dict)
    traits: dict[Name, Trait] = Field(default_factory=dict)
