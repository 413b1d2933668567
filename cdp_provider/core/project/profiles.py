# SPDX-License-Identifier: Apache-2.0
"""Fields and traits: what a profile says of its person."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cdp_provider.core.project.base import ColumnName, Duration, Model, Name, Whole
from cdp_provider.core.project.conditions import Filter, Moment, Scalar
from cdp_provider.core.project.streams import ColumnType


class FieldFrom(Model):
    """A column of a stream: ``crm.customers.email``."""

    stream: str
    column: ColumnName


def _field_from(value: Any) -> Any:
    if isinstance(value, str) and value.count(".") == 2:
        stream, _, column = value.rpartition(".")
        return {"stream": stream, "column": column}
    return value


Keep = Literal[
    "most_recent",
    "first",
    "source_priority",
    "most_frequent",
    "min",
    "max",
    "sum",
    "average",
    "any",
    "all",
    "list",
    "sql",
]


class ProfileField(Model):
    """A value that several sources may state, and which of them counts. See ``docs/profiles.md``.

    :param sources: where it may come from (``from`` in YAML), as ``source.stream.column``.
    :param empty: ``ignore``: nulls and empty texts are no statements; ``keep``: they are, so a newer one
        empties the field.
    :param limit: how many different values a ``list`` keeps, the most recently stated ones.
    :param sql: for ``keep: sql``: a ``select`` of ``profile_id`` and ``value``; `type` says what that is.
    """

    sources: tuple[
        Annotated[FieldFrom, BeforeValidator(_field_from, json_schema_input_type=str | FieldFrom)], ...
    ] = Field(default=(), alias="from")
    keep: Keep = "most_recent"
    empty: Literal["ignore", "keep"] = "ignore"
    limit: Whole = Field(default=100, ge=1, le=1000)
    sql: str | None = None
    type: ColumnType | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse keys that do not go with what is kept."""
        if self.keep == "sql":
            if self.sql is None or self.type is None:
                msg = "a field with 'keep: sql' needs the keys 'sql' and 'type'"
                raise ValueError(msg)
            if self.sources:
                msg = "a field with 'keep: sql' names its streams in its statement; leave 'from' out"
                raise ValueError(msg)
        elif self.sql is not None or self.type is not None:
            msg = "'sql' and 'type' go with 'keep: sql' only"
            raise ValueError(msg)
        elif not self.sources:
            msg = "a field needs 'from', a list of columns such as crm.customers.email"
            raise ValueError(msg)
        if self.empty == "keep" and self.keep not in ("most_recent", "first", "source_priority"):
            msg = f"'empty: keep' has no meaning for 'keep: {self.keep}'"
            raise ValueError(msg)


#: Type of a trait -> keys that it needs, and keys that it may have, besides `type` and `default`.
_OF_ROWS = frozenset({"event", "where", "within_last", "between"})
_OF_COLUMN = (frozenset({"stream", "column"}), _OF_ROWS | {"nulls"})
TRAIT_KEYS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    **dict.fromkeys(
        ("count", "exists", "days_since_last", "days_since_first"), (frozenset({"stream"}), _OF_ROWS)
    ),
    **dict.fromkeys(
        ("sum", "min", "max", "average", "distinct_count", "first", "last", "most_frequent"), _OF_COLUMN
    ),
    "list": (_OF_COLUMN[0], _OF_COLUMN[1] | {"limit"}),
    "quantile": (frozenset({"of"}), frozenset({"buckets", "order"})),
    "rfm": (frozenset({"recency", "frequency", "monetary"}), frozenset({"buckets"})),
    "ratio": (frozenset({"of", "over"}), frozenset()),
    "formula": (frozenset({"formula"}), frozenset({"as"})),
    "sql": (frozenset({"sql", "as"}), frozenset()),
}


class Trait(Model):
    """A value computed from a profile's rows in one stream, or from its other values.

    ``docs/profiles.md`` describes every type and key; :data:`TRAIT_KEYS` says which go together.

    :param event: only rows with this event count.
    :param where: only rows that fulfil it count.
    :param nulls: ``ignore`` rows without a value, take them for ``zero``, or ``keep`` them as values.
    :param default: the value of a profile that would have none.
    :param limit: how many different values a ``list`` keeps, the most recent ones.
    :param of: field or trait; `over`, `recency`, `frequency` and `monetary` likewise.
    :param buckets: how many quantiles; the largest number is the best one.
    :param order: ``ascending``: larger values get larger numbers.
    :param as_: column type of what a formula or statement gives (``as`` in YAML); ``number`` of a formula.
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
        "most_frequent",
        "list",
        "exists",
        "days_since_last",
        "days_since_first",
        "quantile",
        "rfm",
        "ratio",
        "formula",
        "sql",
    ]
    stream: str | None = None
    column: ColumnName | None = None
    event: str | None = None
    where: Filter = Field(default_factory=dict)
    within_last: Duration | None = None
    between: tuple[Moment, Moment] | None = None
    nulls: Literal["ignore", "zero", "keep"] = "ignore"
    default: Scalar | None = None
    limit: Whole = Field(default=100, ge=1, le=1000)
    of: Name | None = None
    over: Name | None = None
    recency: Name | None = None
    frequency: Name | None = None
    monetary: Name | None = None
    buckets: Whole = Field(default=5, ge=2, le=100)
    order: Literal["ascending", "descending"] = "ascending"
    formula: str | None = None
    sql: str | None = None
    as_: ColumnType | None = Field(default=None, alias="as")

    def model_post_init(self, context: Any, /) -> None:
        """Refuse keys that do not go with the type, and the lack of one that does."""
        needed, allowed = TRAIT_KEYS[self.type]
        fields = type(self).model_fields
        given = {
            fields[name].alias or name for name in self.model_fields_set if getattr(self, name) is not None
        }
        if missing := sorted(needed - given):
            msg = f"a trait of type {self.type} needs {' and '.join(missing)}"
            raise ValueError(msg)
        if odd := sorted(given - needed - allowed - {"type", "default"}):
            msg = f"a trait of type {self.type} does not take {' and '.join(odd)}; leave it out"
            raise ValueError(msg)
        if self.nulls == "zero" and self.type not in ("sum", "min", "max", "average"):
            msg = (
                f"'nulls: zero' is for sum, min, max and average; {self.type} counts nulls with 'nulls: keep'"
            )
            raise ValueError(msg)
        if self.nulls == "keep" and self.type in ("sum", "min", "max", "average"):
            msg = f"a {self.type} of nulls is nothing; write 'nulls: zero' or leave it out"
            raise ValueError(msg)

    def needs(self) -> tuple[str, ...]:
        """Fields and traits that it is computed from, as far as its keys name them."""
        return tuple(
            name for name in (self.of, self.over, self.recency, self.frequency, self.monetary) if name
        )


class AccountTrait(Model):
    """A value computed from a field or trait of all profiles of an account; missing ones count for nothing.

    :param type: ``count`` of profiles needs no `of`.
    """

    type: Literal["count", "sum", "min", "max", "average", "distinct_count", "any", "all"]
    of: Name | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse the lack of a value to compute from."""
        if (self.type == "count") != (self.of is None):
            msg = f"an account's {self.type} {'counts profiles; leave of out' if self.of else 'needs of'}"
            raise ValueError(msg)


class Accounts(Model):
    """Accounts that profiles belong to.

    :param key: the field or trait that names a profile's account; a profile without one has none.
    """

    key: Name
    traits: dict[Name, AccountTrait] = Field(default_factory=dict)


class Profiles(Model):
    """Everything a profile holds besides its id. Fields and traits share one set of names.

    :param timezone: in which dates of conditions and windows are days.
    :param history: fields and traits whose past values are kept.
    """

    timezone: str = "UTC"
    fields: dict[Name, ProfileField] = Field(default_factory=dict)
    traits: dict[Name, Trait] = Field(default_factory=dict)
    accounts: Accounts | None = None
    history: tuple[Name, ...] = ()
