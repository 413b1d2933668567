# SPDX-License-Identifier: Apache-2.0
"""The contract every warehouse engine fulfils.

Domain code writes plain SQL in the subset that all engines share, with ``:name`` for values and
:meth:`Warehouse.table` or :meth:`Warehouse.quote` for identifiers. What differs between engines is a method
here, implemented in the engine's own file.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

_ARROW_TYPES: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_integer, "integer"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "decimal"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "timestamp"),
)

_TOKENS = re.compile(
    r"""(?P<text>'(?:[^']|'')*')        # literal
      | (?P<name>"(?:[^"]|"")*")        # quoted identifier
      | (?P<note>--[^\n]*|/\*.*?\*/)    # comment
      | (?P<cast>::)
      | :(?P<param>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<percent>%)""",
    re.VERBOSE | re.DOTALL,
)


def bind_names(sql: str, param: Callable[[str], str], percent: str = "%") -> tuple[str, set[str]]:
    """Rewrite ``:name`` placeholders for a driver; literals, quoted names and comments are left alone.

    :param param: maps a parameter's name to the driver's placeholder.
    :param percent: what the driver wants for a per cent sign, wherever it stands.
    :returns: the driver's SQL and the names it uses.
    """
    used: set[str] = set()

    def replace(match: re.Match[str]) -> str:
        if name := match.group("param"):
            used.add(name)
            return param(name)
        return match.group(0).replace("%", percent)

    return _TOKENS.sub(replace, sql), used


def without_empty_chunks(rows: pa.Table) -> pa.Table:
    """The same rows. Arrow's CSV writer (26.0) writes garbage for a table that begins with an empty chunk."""
    return pa.Table.from_batches([batch for batch in rows.to_batches() if batch.num_rows], rows.schema)


class Session(ABC):
    """One open connection, for one short piece of work.

    Outside :meth:`transaction` every statement commits by itself.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse

    @abstractmethod
    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> int:
        """Run one statement; returns the number of rows it changed, or -1 where the engine can't tell."""

    @abstractmethod
    def fetch(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a small result."""

    @abstractmethod
    def arrow(self, sql: str, params: Mapping[str, Any] | None = None) -> pa.Table:
        """The whole result as one Arrow table."""

    @abstractmethod
    def load(self, table: str, rows: pa.Table) -> int:
        """Append `rows` by column name to `table` (as :meth:`Warehouse.table` or :meth:`temp` gave it)."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """All statements inside commit together, or not at all. Not nestable."""

    @abstractmethod
    def lock(self, name: str) -> AbstractContextManager[None]:
        """Hold the warehouse-wide lock `name`; waits for it up to the warehouse's ``lock_timeout``.

        :raises WarehouseBusyError: somebody else kept it for that long.
        """

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Column names of an unquoted table of the warehouse's schema, with the engine's types, in order.

        Empty when the table does not exist.
        """

    @abstractmethod
    def analyze(self, table: str) -> None:
        """Tell the planner what `table` holds now, where it would not notice by itself before the next query.

        :param table: as :meth:`Warehouse.table` or :meth:`temp` gave it.
        """

    def bounded(self, memory: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """Meanwhile, an engine that works inside this process takes about `memory` bytes at most, and puts
        the rest on disk. Others go on as they are set up."""
        return nullcontext()

    def index(self, table: str, column: str, *, text: bool = False) -> None:  # noqa: B027 - most need none
        """Have an index on a column of an unquoted table, where the engine profits from one.

        Call it after large loads rather than before: built at once it costs a fraction.

        :param text: the column holds text of any length, and is asked for by :meth:`Warehouse.same_text`.
        """

    def one(self, sql: str, params: Mapping[str, Any] | None = None) -> tuple[Any, ...] | None:
        """The first row, or None."""
        rows = self.fetch(sql, params)
        return rows[0] if rows else None

    def scalar(self, sql: str, params: Mapping[str, Any] | None = None) -> Any:
        """The first value of the first row, or None."""
        row = self.one(sql, params)
        return row[0] if row else None

    def temp(self, name: str, rows: pa.Table) -> str:
        """Put `rows` into a session-local table; returns its quoted name. Replaces an earlier one."""
        types = {field.name: self.warehouse.arrow_type(field.type) for field in rows.schema}
        quoted = self.create_temp(name, types)
        self.load(quoted, rows)
        self.analyze(quoted)
        return quoted

    def create_temp(self, name: str, columns: Mapping[str, str]) -> str:
        """An empty session-local table of engine types, instead of an earlier one; returns its name."""
        quoted = self.warehouse.quote(name)
        spec = ", ".join(f"{self.warehouse.quote(c)} {t}" for c, t in columns.items())
        self.execute(f"drop table if exists {quoted}")
        self.execute(f"create temporary table {quoted} ({spec})")
        return quoted

    def replace_table(self, name: str, select: str, params: Mapping[str, Any] | None = None) -> None:
        """Make `name` hold exactly the result of `select`. Call it inside a transaction: readers see the old
        table until it commits."""
        new, old = self.warehouse.table(f"{name}__new"), self.warehouse.table(name)
        self.execute(f"drop table if exists {new}")
        self.execute(f"create table {new} as {select}", params)
        self.execute(f"drop table if exists {old}")
        self.execute(f"alter table {new} rename to {self.warehouse.quote(name)}")
        self.analyze(old)

    def exists(self, table: str) -> bool:
        """Whether an unquoted table or view of the warehouse's schema exists."""
        return bool(self.columns(table))


class Warehouse(ABC):
    """Where the data lives. Cheap to make; connects only inside :meth:`session`.

    :param connect: opens a driver connection; called once per session.
    :param schema: the schema that holds everything of the product.
    :param lock_timeout: seconds to wait for another process before :class:`WarehouseBusyError`.
    """

    #: As in ``conn_type`` of an Airflow connection.
    engine: ClassVar[str]
    #: Engine type for each column type that a project can name.
    types: ClassVar[Mapping[str, str]]
    #: True where only one process at a time may have the database open.
    single_process: ClassVar[bool] = False

    def __init__(
        self, connect: Callable[[], Any], *, schema: str = "cdp", lock_timeout: float = 120.0
    ) -> None:
        self.connect = connect
        self.schema = schema
        self.lock_timeout = lock_timeout

    @abstractmethod
    def session(self) -> AbstractContextManager[Session]:
        """Open late, close early; never hold one across a network call."""

    def arrow_type(self, arrow: pa.DataType) -> str:
        """The engine's type for a column of that Arrow type."""
        if pa.types.is_dictionary(arrow):
            return self.arrow_type(arrow.value_type)
        return self.types[next((name for test, name in _ARROW_TYPES if test(arrow)), "string")]

    def quote(self, name: str) -> str:
        """An identifier, quoted."""
        if "\x00" in name:
            msg = f"identifier {name!r} holds a NUL character; no engine allows that"
            raise ValueError(msg)
        return '"' + name.replace('"', '""') + '"'

    def table(self, name: str) -> str:
        """A table of the product, qualified and quoted."""
        return f"{self.quote(self.schema)}.{self.quote(name)}"

    def pick(self, value: str, order: str, where: str, *, largest: bool = False) -> str:
        """SQL aggregate: `value` of the row with the smallest (or largest) `order` among rows of the group
        that fulfil `where`; NULL when none does. Let `where` keep out null values and null orders: engines
        differ in what they do with them.
        """
        return f"(array_agg({value} order by {order}{' desc' * largest}) filter (where {where}))[1]"

    def same_text(self, one: str, other: str) -> str:
        """SQL condition: two texts are equal, written so that an index on `other` is used if there is one."""
        return f"{one} = {other}"

    def byte_order(self, text: str) -> str:
        """SQL to order a text expression by its bytes in UTF-8, whatever the database's language is."""
        return text

    def hash_text(self, text: str) -> str:
        """SQL for a stable 32-digit hexadecimal hash of a text expression."""
        return f"md5({text})"

    @abstractmethod
    def hash_row(self, values: Sequence[str], seed: str) -> str:
        """SQL for a 64-bit hash, as text, of expressions in their order; null is a value of its own.

        Several times cheaper than :meth:`hash_text` of them all. Another version of the engine, or another
        type of a value, may give another hash: only for what then may be done once more.

        :param seed: SQL for an integer; another one gives other hashes.
        """
