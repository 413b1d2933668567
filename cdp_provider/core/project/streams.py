# SPDX-License-Identifier: Apache-2.0
"""Sources and their streams: where rows come from, what they must look like, whom they speak of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from cdp_provider.core.project.base import ColumnName, Duration, Model, Name, Options

ColumnType = Literal["string", "integer", "number", "decimal", "boolean", "date", "timestamp", "json"]


class Column(Model):
    """One typed column of a stream.

    :param path: where the value stands in a nested record, dotted (``context.page.path``); the column's own
        name when left out.
    :param required: a row without it is quarantined.
    """

    type: ColumnType = "string"
    path: str | None = None
    required: bool = False


def _column(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class Quarantine(Model):
    """How many bad rows a batch may hold before its check fails.

    :param max_share: of the rows read, between 0 and 1.
    """

    max_share: float = Field(default=0.05, ge=0, le=1)
    max_rows: int | None = Field(default=None, ge=0)


class Contract(Model):
    """What a batch as a whole must fulfil before anything downstream reads it.

    :param min_rows: fewer landed rows fail the check.
    :param freshness: the newest row may be at most this much older than the end of the window.
    """

    min_rows: int = Field(default=0, ge=0)
    freshness: Duration | None = None


class Stream(Model):
    """Rows of one kind from one source.

    :param source: name of the source; with `name` it makes the reference ``source.name``.
    :param primary_key: columns that tell two rows apart; of rows with the same key the newest counts.
    :param time: column that says when the row happened or changed; orders rows, bounds windows.
    :param event: column that holds an event's name; given for streams of events.
    :param identifiers: identifier type -> column that carries it.
    :param optional: when its batch fails, the rest of the road goes on without it.
    :param options: how to read it; belongs to the kind of source.
    """

    source: Name
    name: Name
    primary_key: tuple[ColumnName, ...] = Field(min_length=1)
    time: ColumnName | None = None
    event: ColumnName | None = None
    columns: dict[ColumnName, Annotated[Column, BeforeValidator(_column)]] = Field(min_length=1)
    identifiers: dict[Name, ColumnName] = Field(default_factory=dict)
    optional: bool = False
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

    @model_validator(mode="after")
    def _columns_exist(self) -> Stream:
        for role, names in (
            ("primary_key", self.primary_key),
            ("time", (self.time,)),
            ("event", (self.event,)),
            *((f"identifiers.{kind}", (column,)) for kind, column in self.identifiers.items()),
        ):
            for name in names:
                if name is not None and name not in self.columns:
                    msg = f"{role} names the column {name!r}, which is not among the stream's columns"
                    raise ValueError(msg)
        if self.time is not None and self.columns[self.time].type != "timestamp":
            msg = f"time names the column {self.time!r} of type {self.columns[self.time].type}; it must be a timestamp"
            raise ValueError(msg)
        return self


class Source(Model):
    """A system that rows come from.

    :param type: the kind of connector: ``http``, ``files``.
    :param connection: id of an Airflow connection; kinds that need none may leave it out.
    """

    name: Name
    type: str
    connection: str | None = None
    streams: dict[Name, Stream] = Field(min_length=1)
