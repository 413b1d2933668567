# SPDX-License-Identifier: Apache-2.0
"""Sources and their streams: where rows come from, what they must look like, whom they speak of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny

from cdp_provider.core.project.base import ColumnName, Duration, Model, Name, Options, Whole
from cdp_provider.core.project.contract import Conditions, Contract, Severity, Tolerance
from cdp_provider.core.project.problems import Path, Problem, Problems, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

ColumnType = Literal["string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json"]


class Column(Conditions, Tolerance):
    """One typed column of a stream, and what its values must fulfil.

    :param path: where the value stands in a nested record, dotted (``context.page.path``); the column's own
        name when left out.
    :param format: of timestamps that are numbers: seconds or milliseconds since 1970.
    :param severity: of all of its conditions but `required`, which always sets a row aside; left out,
        ``quarantine``, and ``fail`` for those that only the whole batch can tell.
    """

    type: ColumnType = "string"
    path: str | None = None
    format: Literal["unix", "unix_ms"] | None = None
    severity: Severity | None = None


def _column(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


def _column_names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Quarantine(Model):
    """How many bad rows a batch may hold before its check fails.

    :param max_share: of the rows read, between 0 and 1.
    """

    max_share: float = Field(default=0.05, ge=0, le=1)
    max_rows: Whole | None = Field(default=None, ge=0)


class Stream(Model):
    """Rows of one kind from one source.

    :param source: name of the source; with `name` it makes the reference ``source.name``.
    :param primary_key: columns that tell two rows apart; of rows with the same key the newest counts.
    :param time: column that says when the row happened or changed; orders rows, bounds windows.
    :param event: column that holds an event's name; given for streams of events.
    :param identifiers: identifier type -> columns that carry it; one alone may be written as such.
    :param optional: when its batch fails, the rest of the road goes on without it.
    :param retention: how long raw rows that no view shows any more, and quarantined ones, are kept.
    :param options: how to read it; belongs to the kind of source.
    """

    source: Name
    name: Name
    primary_key: Annotated[
        tuple[ColumnName, ...],
        BeforeValidator(_column_names, json_schema_input_type=ColumnName | tuple[ColumnName, ...]),
    ] = Field(min_length=1)
    time: ColumnName | None = None
    event: ColumnName | None = None
    columns: dict[
        ColumnName, Annotated[Column, BeforeValidator(_column, json_schema_input_type=ColumnType | Column)]
    ] = Field(min_length=1)
    identifiers: dict[
        Name,
        Annotated[
            tuple[ColumnName, ...],
            Field(min_length=1),
            BeforeValidator(_column_names, json_schema_input_type=ColumnName | tuple[ColumnName, ...]),
        ],
    ] = Field(default_factory=dict)
    optional: bool = False
    retention: Duration | None = None
    quarantine: Quarantine = Quarantine()
    contract: Contract = Contract()
    options: SerializeAsAny[Options]

    @property
    def ref(self) -> str:
        """How the rest of the project names the stream: ``crm.customers``."""
        return f"{self.source}.{self.name}"

    @property
    def raw_table(self) -> str:
        """Every row ever landed, with its batch and position."""
        return f"raw_{self.source}__{self.name}"

    @property
    def view(self) -> str:
        """The newest row per primary key, of batches that passed their check."""
        return f"{self.source}__{self.name}"

    def model_post_init(self, context: Any, /) -> None:
        """Refuse roles of columns that do not exist or are of the wrong type."""
        problems = [
            *self._column_problems(("primary_key",), self.primary_key, but_not=("json",)),
            *self._column_problems(("time",), (self.time,), only=("timestamp",)),
            *self._column_problems(("event",), (self.event,), only=("string",)),
        ]
        for kind, columns in self.identifiers.items():
            problems += self._column_problems(("identifiers", kind), columns, only=("string", "integer"))
        if problems:
            raise Problems(problems)

    def _column_problems(
        self,
        path: Path,
        names: tuple[str | None, ...],
        only: tuple[str, ...] = (),
        but_not: tuple[str, ...] = (),
    ) -> Iterator[Problem]:
        for name in names:
            if name is None:
                continue
            if name not in self.columns:
                yield Problem(
                    path,
                    f"{name!r} is not among the columns of {self.ref}",
                    did_you_mean(name, self.columns),
                )
                continue
            kind = self.columns[name].type
            if kind in but_not or (only and kind not in only):
                wanted = f"is {' or '.join(only)}" if only else f"is not {' or '.join(but_not)}"
                yield Problem(path, f"the column {name!r} is {kind}; {path[0]} takes a column that {wanted}")


class Source(Model):
    """A system that rows come from.

    :param type: the kind of connector: ``http``, ``files``.
    :param connection: id of an Airflow connection; kinds that need none may leave it out.
    :param preset: a vendor whose streams are known beforehand; keys of the streams here win.
    """

    name: Name
    type: str
    preset: Name | None = None
    connection: str | None = None
    streams: dict[Name, Stream] = Field(min_length=1)
