# SPDX-License-Identifier: Apache-2.0
"""The language of segments and filters: a tree of conditions, in YAML and as Python objects."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Strict, Tag

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
    "contains_any": "contains_any",
    "starts_with": "starts_with",
    "ends_with": "ends_with",
    "like": "like",
    "matches": "matches",
    "exists": "exists",
    "before": "before",
    "after": "after",
    "today": "today",
    "within_last": "within_last",
    "before_last": "before_last",
    "between_ago": "between_ago",
    "within_next": "within_next",
    "after_next": "after_next",
}

#: Attribute -> its place in that order. A project has thousands of comparisons, with an operator or two each.
_PLACES = {name: place for place, name in enumerate(OPERATORS.values())}


class Comparison(Model):
    """One value held against constants; every given operator must hold.

    A missing (null) value fulfils ``is_not``, ``none_of``, ``exists: false`` and ``today: false``, nothing
    else. ``docs/segments.md`` says for each operator what it includes.

    :param contains: of a text, a part of it; of a list, one of its members. ``contains_any`` likewise.
    :param like: the whole text, with ``*`` for any characters and ``?`` for one.
    :param matches: a regular expression that describes the whole text.
    :param today: the calendar day that now lies in, in the profiles' time zone.
    :param within_last: from now minus the duration (included) to now (excluded).
    :param before_last: before now minus the duration.
    :param between_ago: from now minus the longer (included) to now minus the shorter duration (included).
    :param within_next: from now (included) to now plus the duration (excluded).
    :param after_next: at or after now plus the duration.
    :param ignore_case: whether upper and lower case are the same; left out, they are for ``contains``,
        ``contains_any``, ``starts_with`` and ``ends_with`` and are not for the other operators.
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
    contains: Scalar | None = None
    contains_any: tuple[Scalar, ...] | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    like: str | None = None
    matches: str | None = None
    exists: bool | None = None
    before: Moment | None = None
    after: Moment | None = None
    today: bool | None = None
    within_last: Duration | None = None
    before_last: Duration | None = None
    between_ago: tuple[Duration, Duration] | None = None
    within_next: Duration | None = None
    after_next: Duration | None = None
    ignore_case: bool | None = None

    def operators(self) -> dict[str, Any]:
        """The operators that were given, by their YAML key."""
        given = sorted(self.model_fields_set & _PLACES.keys(), key=_PLACES.__getitem__)
        values = ((name.rstrip("_"), getattr(self, name)) for name in given)
        return {key: value for key, value in values if value is not None}

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


class Window(Model):
    """When rows happened; without either key, at any time before now.

    :param within_last: from now minus the duration (included) to now (excluded).
    :param between: from the first (included) to the second (included); a date stands for its whole day in the
        profiles' time zone. Never after now.
    """

    within_last: Duration | None = None
    between: tuple[Moment, Moment] | None = None


Number = Annotated[int, Strict()] | Annotated[Decimal, Strict()] | Annotated[float, Strict()]

#: What :class:`EventCount` may measure of a column instead of counting rows.
MEASURES = ("sum", "average", "min", "max", "distinct_count")


class EventCount(Window):
    """How often something happened: ``{event: Product Added, stream: web.events, within_last: 7 days}``.

    Without a bound it means at least once; ``exactly: 0`` never. With one of :data:`MEASURES` the bounds are
    held against that measure of a column, and one has to be given; without a row all but the distinct count
    are missing, and fulfil nothing.

    :param stream: ``source.name`` of the stream to count in.
    :param event: name of the event; left out, every row of the stream counts.
    :param where: further conditions on columns of the stream.
    """

    stream: str
    event: str | None = None
    where: Filter = Field(default_factory=dict)
    sum: ColumnName | None = None
    average: ColumnName | None = None
    min: ColumnName | None = None
    max: ColumnName | None = None
    distinct_count: ColumnName | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    more_than: Number | None = None
    less_than: Number | None = None
    exactly: Number | None = None

    def measure(self) -> tuple[str, str] | None:
        """What is measured of which column; None where rows are counted."""
        found = [(kind, column) for kind in MEASURES if (column := getattr(self, kind)) is not None]
        return found[0] if found else None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse two measures at once."""
        given = [kind for kind in MEASURES if getattr(self, kind) is not None]
        if len(given) > 1:
            msg = f"{' and '.join(given)} are measured in one condition; write one condition for each"
            raise ValueError(msg)


class Step(Model):
    """One step of a funnel.

    :param absent: the step is that no such row comes between its neighbours.
    :param within: a row may come at most so much later than the step before (included). Of an absent last
        step: for so long nothing may come, and that time must be over.
    :param columns: what a column of ``same`` is called in this step's stream, where that differs.
    """

    stream: str
    event: str | None = None
    where: Filter = Field(default_factory=dict)
    absent: bool = False
    within: Duration | None = None
    columns: dict[ColumnName, ColumnName] = Field(default_factory=dict)


class Funnel(Window):
    """Rows that follow each other: ``{funnel: [{stream: web.events, event: Product Added}, ...]}``.

    It holds when there is a row for each step that is not absent, each later in time than the one before.

    :param same: columns in which all of these rows have the same value, and none is missing.
    """

    funnel: tuple[Step, ...] = Field(min_length=2, max_length=10)
    same: tuple[ColumnName, ...] = ()


class Related(Window):
    """Objects that belong to the profile, or to such an object: ``{related: till.orders, which: all, ...}``.

    :param related: the stream that holds them.
    :param on: its column -> what that equals: a column of the object around it or, outermost, a field or
        trait of the profile. Outermost it may be left out where the stream has identifiers.
    :param which: ``any`` one, ``all`` of them (and there is one), or ``none`` fulfils `where` and `having`.
        ``at_least``, ``at_most`` and ``exactly`` count them instead.
    :param having: what further objects an object must have.
    """

    related: str
    on: dict[ColumnName, ColumnName] = Field(default_factory=dict)
    which: Literal["any", "all", "none"] | None = None
    at_least: Whole | None = Field(default=None, ge=1)
    at_most: Whole | None = Field(default=None, ge=0)
    exactly: Whole | None = Field(default=None, ge=0)
    where: Filter = Field(default_factory=dict)
    having: tuple[Related, ...] = ()


class AccountIs(Comparison):
    """A trait of the profile's account: ``{account: seats, at_least: 10}``."""

    account: Name


class AccountMembers(Model):
    """Profiles of the same account, this one too: ``{members: none, where: {trait: admin, is: true}}``.

    A profile without an account fulfils none of them, not even ``none``.
    """

    members: Literal["any", "all", "none"]
    where: Condition


class InSplit(Model):
    """One group of a split: ``{split: spring_test, group: control}``."""

    split: Name
    group: Name


class ConsentIs(Model):
    """Whether a person agreed to a purpose: ``{consent: marketing, given: true}``; unknown is not given."""

    consent: Name
    given: bool = True


class Near(Model):
    """Fields or traits that hold a place, and how far it may be from another.

    :param near: latitude and longitude in degrees, as numbers.
    :param latitude: field or trait; `longitude` likewise. A missing one fulfils nothing.
    :param kilometres: on the surface of a sphere of 6,371.0088 km radius, by the haversine formula.
    """

    near: tuple[Number, Number]
    latitude: Name
    longitude: Name
    kilometres: Number


class Sql(Model):
    """A ``select`` whose first column is ``profile_id``; see ``docs/segments.md`` for its places."""

    sql: str


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


#: The key that only conditions of one kind hold, in the order in which a mapping is looked at.
KINDS: dict[str, type[Model]] = {
    "all": AllOf,
    "any": AnyOf,
    "none": NoneOf,
    "trait": TraitIs,
    "account": AccountIs,
    "members": AccountMembers,
    "segment": InSegment,
    "split": InSplit,
    "consent": ConsentIs,
    "near": Near,
    "funnel": Funnel,
    "related": Related,
    "sql": Sql,
    "stream": EventCount,
}


def _kind(value: Any) -> str | None:
    """Which condition a mapping is: the one whose own key it holds."""
    if isinstance(value, Model):
        return next((key for key, kind in KINDS.items() if isinstance(value, kind)), None)
    if isinstance(value, dict):
        return next((key for key in KINDS if key in value), "stream" if "event" in value else None)
    return None


Condition = Annotated[
    Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[NoneOf, Tag("none")]
    | Annotated[TraitIs, Tag("trait")]
    | Annotated[AccountIs, Tag("account")]
    | Annotated[AccountMembers, Tag("members")]
    | Annotated[InSegment, Tag("segment")]
    | Annotated[InSplit, Tag("split")]
    | Annotated[ConsentIs, Tag("consent")]
    | Annotated[Near, Tag("near")]
    | Annotated[Funnel, Tag("funnel")]
    | Annotated[Related, Tag("related")]
    | Annotated[Sql, Tag("sql")]
    | Annotated[EventCount, Tag("stream")],
    Discriminator(
        _kind,
        custom_error_type="condition",
        custom_error_message=f"a condition holds one of the keys {', '.join(KINDS)}",
    ),
]

for _model in (AllOf, AnyOf, NoneOf, AccountMembers, Related):
    _model.model_rebuild()
