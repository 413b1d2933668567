# SPDX-License-Identifier: Apache-2.0
"""The language of segments and filters: a tree of conditions, in YAML and as Python objects."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from cdp_provider.core.project.base import ColumnName, Duration, Model, Name, Whole

Scalar = bool | int | Decimal | float | datetime | date | str


def parse_moment(value: Any) -> date | datetime:
    """A date or a moment, also as ISO 8601 text; a moment without a zone is UTC."""
    if isinstance(value, str):
        value = _from_iso(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return value
    msg = f"{value!r} is no date; write 2026-01-31 or 2026-01-31T10:00:00Z"
    raise ValueError(msg)


def _from_iso(text: str) -> Any:
    """A date if the text is no longer than one, else a moment; the text itself if it is neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return moment.date() if len(text) <= len("2026-01-31") else moment


Moment = Annotated[
    datetime | date,
    BeforeValidator(parse_moment, json_schema_input_type=str),
]

#: YAML key -> attribute, for every comparison.
OPERATORS: dict[str, str] = {
    "is": "is_",
    "is_not": "is_not",
    "any_of": "any_of",
    "none_of": "none_of",
    "at_least": "at_least",
    "at_most": "at_most",
    "more_than": "more_than",
    "less_than": "less_than",
    "between": "between",
    "contains": "contains",
    "starts_with": "starts_with",
    "ends_with": "ends_with",
    "exists": "exists",
    "before": "before",
    "after": "after",
    "within_last": "within_last",
}


class Comparison(Model):
    """One value held against constants; every given operator must hold.

    A missing (null) value fulfils ``is_not``, ``none_of`` and ``exists: false``, and nothing else.
    ``between`` includes both ends, ``before`` excludes its moment, ``after`` includes it, ``within_last``
    reaches from now minus the duration (included) to now (excluded); a day is 24 hours, dates are UTC.
    ``contains``, ``starts_with`` and ``ends_with`` ignore case, the others do not.
    """

    is_: Scalar | None = Field(default=None, alias="is")
    is_not: Scalar | None = None
    any_of: tuple[Scalar, ...] | None = None
    none_of: tuple[Scalar, ...] | None = None
    at_least: Scalar | None = None
    at_most: Scalar | None = None
    more_than: Scalar | None = None
    less_than: Scalar | None = None
    between: tuple[Scalar, Scalar] | None = None
    contains: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    exists: bool | None = None
    before: Moment | None = None
    after: Moment | None = None
    within_last: Duration | None = None

    def operators(self) -> dict[str, Any]:
        """The operators that were given, by their YAML key."""
        return {key: value for key, name in OPERATORS.items() if (value := getattr(self, name)) is not None}

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a comparison with nothing."""
        if not self.operators():
            msg = (
                f"a comparison needs an operator: one of {', '.join(OPERATORS)};"
                " for a missing value write 'exists: false'"
            )
            raise ValueError(msg)


def _comparison(value: Any) -> Any:
    """``status: paid`` is short for ``status: {is: paid}``."""
    return value if isinstance(value, dict | Comparison) else {"is": value}


Filter = dict[
    ColumnName,
    Annotated[Comparison, BeforeValidator(_comparison, json_schema_input_type=Comparison | Scalar)],
]


class TraitIs(Comparison):
    """A field or trait of the profile: ``{trait: lifetime_value, at_least: 500}``."""

    trait: Name


class EventCount(Model):
    """How often something happened: ``{event: Product Added, stream: web.events, within_last: 7 days}``.

    Without ``at_least``, ``at_most`` or ``exactly`` it means at least once; ``exactly: 0`` never.

    :param stream: ``source.name`` of the stream to count in.
    :param event: name of the event; left out, every row of the stream counts.
    :param where: further conditions on columns of the stream.
    :param within_last: counts from now minus the duration (included) to now (excluded).
    """

    stream: str
    event: str | None = None
    where: Filter = Field(default_factory=dict)
    within_last: Duration | None = None
    at_least: Whole | None = Field(default=None, ge=1)
    at_most: Whole | None = Field(default=None, ge=0)
    exactly: Whole | None = Field(default=None, ge=0)


class InSegment(Model):
    """Members of another segment: ``{segment: vip}``."""

    segment: Name


class AllOf(Model):
    """Every condition holds."""

    all: tuple[Condition, ...] = Field(min_length=1)


class AnyOf(Model):
    """At least one condition holds."""

    any: tuple[Condition, ...] = Field(min_length=1)


class NoneOf(Model):
    """No condition holds."""

    none: tuple[Condition, ...] = Field(min_length=1)


_KINDS: dict[str, type[Model]] = {
    "all": AllOf,
    "any": AnyOf,
    "none": NoneOf,
    "trait": TraitIs,
    "segment": InSegment,
    "stream": EventCount,
}


def _kind(value: Any) -> str | None:
    """Which condition a mapping is: the one whose own key it holds."""
    if isinstance(value, Model):
        return next((key for key, kind in _KINDS.items() if isinstance(value, kind)), None)
    if isinstance(value, dict):
        return next((key for key in _KINDS if key in value), "stream" if "event" in value else None)
    return None


Condition = Annotated[
    Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[NoneOf, Tag("none")]
    | Annotated[TraitIs, Tag("trait")]
    | Annotated[InSegment, Tag("segment")]
    | Annotated[EventCount, Tag("stream")],
    Discriminator(
        _kind,
        custom_error_type="condition",
        custom_error_message="a condition holds one of the keys all, any, none, trait, segment or stream",
    ),
]

for _model in (AllOf, AnyOf, NoneOf):
    _model.model_rebuild()
