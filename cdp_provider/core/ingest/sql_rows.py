# SPDX-License-Identifier: Apache-2.0
"""Any DB-API connection into NDJSON, a chunk at a time; values keep every digit."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from cdp_provider.core.ingest.conversion import quote_long_numbers
from cdp_provider.core.ingest.sql_progress import SqlProgress, key_of
from cdp_provider.core.ingest.sql_reading import ROW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from cdp_provider.core.ingest.base import Cursor
    from cdp_provider.core.ingest.sql_reading import Changes, Reading

_CHUNK = 5_000
#: orjson writes them as they are; floats and whole numbers only within bounds. Not times: orjson 3.13 writes
#: 10,000 microseconds as ``.10000``.
_AS_THEY_ARE = {type(None), str, bool, int, float, date, datetime, UUID}
_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS

#: What makes a session's times UTC. Of other dialects a day more is asked for, and told apart here.
_UTC = {
    "duckdb": "set TimeZone = 'UTC'",
    "mysql": "set time_zone = '+00:00'",
    "mariadb": "set time_zone = '+00:00'",
    "sqlite": "",
}
_QUOTES = dict.fromkeys(("mysql", "mariadb", "bigquery", "hive", "databricks"), "`")
#: PEP 249's ways to mark a value in a statement.
_MARKS = {"qmark": "?", "numeric": ":{}", "named": ":{}", "format": "%s", "pyformat": "%s"}


def write_rows(
    dialect: str, connect: Callable[[], Any], reading: Reading, path: Path
) -> tuple[Cursor | None, dict[str, int]]:
    """Write what is to be read to `path`, a JSON object per line.

    :returns: where the next batch goes on, and counts.
    :raises Exception: whatever the driver raises.
    """
    changes = reading.changes
    progress = SqlProgress(changes) if changes else None
    with closing(connect()) as connection, closing(_streaming(connection)) as cursor:
        if _UTC.get(dialect):
            cursor.execute(_UTC[dialect])
        statement, values = _select(dialect, _paramstyle(connection), reading)
        cursor.execute(statement, values) if values else cursor.execute(statement)
        names = [column[0] for column in cursor.description]
        reading.check(names)
        with path.open("wb", buffering=1 << 20) as file:
            while rows := cursor.fetchmany(_CHUNK):
                lines = written(names, rows, reading.documents)
                if changes and progress:
                    place = names.index(changes.column)
                    file.writelines(progress.news((row[place] for row in rows), lines))
                else:
                    file.writelines(lines)
    if progress is None:
        return None, {}
    return progress.cursor(), progress.counts()


def written(names: Sequence[str], rows: Sequence[Sequence[Any]], documents: Iterable[str]) -> list[bytes]:
    """A line of JSON per row; only columns that hold anything unusual are looked at value by value.

    :param documents: columns whose texts are JSON already.
    """
    columns = [
        _documents(values) if name in documents else _plainly(values)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    ]
    try:
        return _lines(names, columns)
    except TypeError:  # whole numbers beyond 64 bits, time zones of a rare make, texts that are no Unicode
        return _lines(names, [list(map(_plain, values)) for values in columns])


def _lines(names: Sequence[str], columns: Iterable[Iterable[Any]]) -> list[bytes]:
    return [
        orjson.dumps(dict(zip(names, row, strict=True)), option=_OPTIONS | orjson.OPT_APPEND_NEWLINE)
        for row in zip(*columns, strict=True)
    ]


def _plainly(values: Sequence[Any]) -> Sequence[Any]:
    kinds = set(map(type, values))
    if kinds <= _AS_THEY_ARE and (
        float not in kinds or all(map(math.isfinite, filter(lambda v: type(v) is float, values)))
    ):
        return values
    return list(map(_plain, values))


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, without a loss."""
    if value is None or isinstance(value, bool | orjson.Fragment | UUID):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, date | time | timedelta):
        return _moment_text(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=str)
    return str(value).encode(errors="backslashreplace").decode()


def _number(value: float) -> Any:
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    # JSON has no NaN, and null would be a loss: as a text it is quarantined.
    return float(value) if math.isfinite(value) else str(value)


def _moment_text(value: date | time | timedelta) -> str:
    if isinstance(value, timedelta):
        return f"PT{Decimal(value // timedelta(microseconds=1)) / 1_000_000:f}S"
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value.isoformat()


def _key(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else str(plain)


def _documents(values: Iterable[Any]) -> list[Any]:
    return [document(value) if isinstance(value, str) else _plain(value) for value in values]


def document(text: str) -> Any:
    """JSON text as a part of a line; what is no JSON stays a text."""
    raw = quote_long_numbers(text.encode(errors="backslashreplace"))
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _plain(text)
    # Between the tokens line breaks are mere white space, and inside a string none can be.
    return orjson.Fragment(raw.replace(b"\n", b" ").replace(b"\r", b" "))


def _select(dialect: str, paramstyle: str, reading: Reading) -> tuple[str, list[Any]]:
    """The statement, and the values that it binds."""
    mark = _QUOTES.get(dialect, '"')

    def quote(name: str) -> str:
        return mark + name.replace(mark, 2 * mark) + mark

    relation = reading.relation(quote)
    if reading.changes is None:
        return f"select * from {relation}", []
    column = f"{ROW}.{quote(reading.changes.column)}"
    bounds = list(_bounds(dialect, reading.changes))
    if not bounds:
        return f"select * from {relation}", []
    marks = _MARKS[paramstyle]
    told, given = column, "{}"
    if dialect == "sqlite" and reading.changes.kind != "integer":
        # Times are texts there, of any style.
        function = "datetime" if reading.changes.kind == "timestamp" else "date"
        told, given = f"{function}({column})", f"{function}({{}})"
    conditions = " and ".join(
        f"{told} {operator} {given.format(marks.format(number))}"
        for number, (operator, _) in enumerate(bounds, 1)
    )
    if "%" in marks:
        relation = relation.replace("%", "%%")
    # One without a value may be new at any time.
    return f"select * from {relation} where ({conditions} or {told} is null)", [value for _, value in bounds]


def _bounds(dialect: str, changes: Changes) -> Iterator[tuple[str, Any]]:
    """What the database need not send; what it sends is judged by the row."""
    if changes.kind == "integer":
        if changes.last is not None:
            yield ">=", int(changes.last)
        if changes.until is not None:
            yield "<=", changes.until
        return
    margin = timedelta(0) if dialect in _UTC else timedelta(days=1)
    if changes.last is not None:
        yield ">=", _bound(dialect, changes, _moment(changes) - changes.overlap - margin)
    yield "<=", _bound(dialect, changes, changes.end + margin)


def _bound(dialect: str, changes: Changes, moment: datetime) -> Any:
    value = moment.date() if changes.kind == "date" else moment.astimezone(UTC).replace(tzinfo=None)
    return value.isoformat() if dialect == "sqlite" else value


def _moment(changes: Changes) -> datetime:
    last: date = key_of(changes.kind, changes.last)
    return last if isinstance(last, datetime) else datetime(last.year, last.month, last.day, tzinfo=UTC)


def _streaming(connection: Any) -> Any:
    """A cursor that does not take in the whole result before it hands out the first row."""
    driver = type(connection).__module__.partition(".")[0]
    if driver in ("MySQLdb", "pymysql"):
        return connection.cursor(importlib.import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()


def _paramstyle(connection: Any) -> str:
    driver = type(connection).__module__.partition(".")[0]
    return str(getattr(sys.modules.get(driver.lstrip("_")), "paramstyle", "format"))
