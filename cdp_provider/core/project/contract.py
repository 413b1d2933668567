# SPDX-License-Identifier: Apache-2.0
"""What a stream's columns, rows and batches must fulfil, and what happens when they do not."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag

from cdp_provider.core.project.base import ColumnName, Duration, Model, Whole
from cdp_provider.core.project.conditions import Moment, Number, Scalar
from cdp_provider.core.project.problems import Problem, Problems

#: What becomes of what breaks a rule: the row is set aside, the batch fails, or the result is only recorded.
Severity = Literal["quarantine", "fail", "warn"]
#: Of a rule on a whole batch, which can set no single row aside.
BatchSeverity = Literal["fail", "warn"]

#: Longer than a name elsewhere: a contract may come from a file that is not the project's own.
RULE_PATTERN = r"^[A-Za-z][A-Za-z0-9_.-]*$"
RuleName = Annotated[str, StringConstraints(pattern=RULE_PATTERN, max_length=120)]
REFERENCE_PATTERN = r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*\.[A-Za-z][A-Za-z0-9_]*$"
Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]

#: Conditions that a row fulfils or breaks by itself, and those that only the whole batch can tell.
OF_A_ROW = ("pattern", "min", "max", "min_length", "max_length", "values")
OF_A_BATCH = ("unique", "references")


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Conditions(Model):
    """What the value of a column must fulfil. A missing value breaks ``required`` only.

    :param required: a row without it is quarantined.
    :param unique: no two rows with different primary keys have the same value; of a column that is the whole
        primary key, no two rows of a batch.
    :param pattern: regular expression of RE2 that describes the whole text.
    :param min: the smallest value there may be; a number, a date or a moment, as the column is.
    :param max: the largest.
    :param min_length: in characters; of text only.
    :param values: all values that there may be.
    :param references: ``source.stream.column``: the value is found there.
    """

    required: bool = False
    unique: bool = False
    pattern: str | None = None
    min: Number | Moment | None = None
    max: Number | Moment | None = None
    min_length: Whole | None = Field(default=None, ge=0)
    max_length: Whole | None = Field(default=None, ge=0)
    values: tuple[Scalar, ...] | None = Field(default=None, min_length=1)
    references: Reference | None = None

    def given(self) -> dict[str, Any]:
        """The conditions that are set, by name, in a fixed order."""
        found = {name: getattr(self, name) for name in ("required", *OF_A_ROW, *OF_A_BATCH)}
        return {name: value for name, value in found.items() if value is not None and value is not False}


class Tolerance(Model):
    """How many rows may break a rule before it counts as broken: as many as both allow.

    :param max_rows: none, unless said otherwise or unless there is a `max_share`.
    :param max_share: of the rows looked at, between 0 and 1.
    """

    max_rows: Whole | None = Field(default=None, ge=0)
    max_share: float | None = Field(default=None, ge=0, le=1)


class SqlRule(Tolerance):
    """A condition of one's own that every row must fulfil. One that is null is not broken.

    :param sql: an expression over the stream's columns; with severity ``quarantine`` in DuckDB's SQL,
        otherwise in that of the warehouse.
    """

    name: RuleName
    sql: str = Field(min_length=1)
    severity: Severity = "quarantine"


class QueryRule(Model):
    """A number that a query over the whole batch must come to: 0, or what `min` and `max` say.

    :param query: one ``select`` of one number in the warehouse's SQL; ``{rows}`` are the batch's rows,
        ``{source.stream}`` is another stream, ``:now`` the end of the window.
    """

    name: RuleName
    query: str = Field(min_length=1)
    min: Number | None = None
    max: Number | None = None
    severity: BatchSeverity = "fail"


class ColumnRule(Conditions, Tolerance):
    """One condition on one column, with a name, a severity and limits of its own."""

    name: RuleName | None = None
    column: ColumnName
    severity: Severity | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a rule of no condition, or of several: nobody could tell which of them is broken."""
        if len(found := list(self.given())) != 1:
            names = ", ".join(("required", *OF_A_ROW, *OF_A_BATCH))
            what = f"has the conditions {', '.join(found)}" if found else "has no condition"
            raise Problems([Problem((), f"this rule {what}; it takes exactly one", f"one of {names}")])


class UniqueRule(Tolerance):
    """Columns that are unique together, as :attr:`Conditions.unique` of a single one."""

    name: RuleName | None = None
    unique: Annotated[
        tuple[ColumnName, ...],
        BeforeValidator(_listed, json_schema_input_type=ColumnName | tuple[ColumnName, ...]),
    ] = Field(min_length=1)
    severity: BatchSeverity = "fail"


class Span(Model):
    """From the smallest number to the largest, both included."""

    min: Whole | None = Field(default=None, ge=0)
    max: Whole | None = Field(default=None, ge=0)


class RowsRule(Model):
    """How many rows a batch has."""

    name: RuleName
    rows: Span
    severity: BatchSeverity = "fail"


RULES: dict[str, type[Model]] = {
    "sql": SqlRule,
    "query": QueryRule,
    "column": ColumnRule,
    "unique": UniqueRule,
    "rows": RowsRule,
}
RULE_KEYS = f"a rule holds exactly one of the keys {', '.join(RULES)}"


def rule_key(value: Any) -> str | None:
    """Which rule a mapping is; None when it has no key that tells, or several.

    ``unique: true`` is a condition of the column that the mapping names.
    """
    if isinstance(value, Model):
        return next((key for key, rule in RULES.items() if type(value) is rule), None)
    found = [key for key in RULES if key in value] if isinstance(value, dict) else []
    if "column" in found and "unique" in found:
        found.remove("unique")
    return found[0] if len(found) == 1 else None


Rule = Annotated[
    Annotated[SqlRule, Tag("sql")]
    | Annotated[QueryRule, Tag("query")]
    | Annotated[ColumnRule, Tag("column")]
    | Annotated[UniqueRule, Tag("unique")]
    | Annotated[RowsRule, Tag("rows")],
    Discriminator(rule_key, custom_error_type="rule", custom_error_message=RULE_KEYS),
]


class Change(Model):
    """How far the number of landed rows may be from the mean of earlier batches.

    :param share: of that mean: 0.5 allows half of it up to one and a half.
    :param windows: of so many batches that passed; while there are fewer, nothing is compared.
    """

    share: float = Field(gt=0)
    windows: Whole = Field(default=7, ge=1, le=1000)
    severity: BatchSeverity = "fail"


def _change(value: Any) -> Any:
    return {"share": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class Contract(Model):
    """What a batch as a whole must fulfil before anything downstream reads it.

    :param owner: who answers for the stream's data; shown, and written with the results.
    :param min_rows: fewer landed rows fail the check.
    :param max_rows: more landed rows fail the check.
    :param max_change: against the mean of earlier batches; a share, or a mapping.
    :param freshness: the newest row may be at most this much older than the end of the window.
    :param freshness_severity: ``warn`` lets the batch pass all the same.
    :param drift: what becomes of values that no column takes: ``keep`` puts them into ``_extra``, ``evolve``
        gives each key a column of text, ``freeze`` fails the batch.
    :param rules: further conditions, each with a severity and limits of its own.
    :param file: an ODCS file, relative to the project file, that says all or part of this.
    :param schema_name: the schema object of that file (``schema`` in YAML); may be left out if there is one.
    """

    owner: str | None = Field(default=None, min_length=1, max_length=200)
    min_rows: Whole = Field(default=0, ge=0)
    max_rows: Whole | None = Field(default=None, ge=0)
    max_change: Annotated[Change, BeforeValidator(_change, json_schema_input_type=float | Change)] | None = (
        None
    )
    freshness: Duration | None = None
    freshness_severity: BatchSeverity = "fail"
    drift: Literal["keep", "evolve", "freeze"] = "keep"
    rules: tuple[Rule, ...] = ()
    file: str | None = Field(default=None, min_length=1)
    schema_name: str | None = Field(default=None, alias="schema", min_length=1)
