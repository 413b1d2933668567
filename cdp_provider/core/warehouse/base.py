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
    def load(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Append `rows` by column name to `table` (as :meth:`Warehouse.table` or :meth:`temp` gave it).

        Those of a reader are taken in as they are read. What it raises is raised here.
        """

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

    def index(  # noqa: B027 - most need none
        self, table: str, column: str, *, text: bool = False, clustered: bool = False
    ) -> None:
        """Have an index on a column of an unquoted table, where the engine profits from one.

        Call it after large loads rather than before: built at once it costs a fraction.

        :param text: the column holds text of any length, and is asked for by :meth:`Warehouse.same_text`.
        :param clustered: rows with like values lie together, because they were appended so.
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
    #: Digits of an :meth:`order_key` and of a :meth:`ranked_key`, where they are texts.
    order_width: ClassVar[int] = 0
    ranked_width: ClassVar[int] = 0
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

    def column_type(self, kind: str) -> str:
        """The engine's type for a kind of value: a column type of a project, or a list of one."""
        return self.types["json" if kind.startswith("list of ") else kind]

    @abstractmethod
    def order_key(self, time: str, load_seq: str, offset: str, position: str) -> str:
        """SQL of a value that orders rows of a stream by all of these, the first first, and fits
        :meth:`latest`.

        :param time: SQL of a timestamp; null comes before all others.
        :param load_seq: SQL of a whole number below 2^24; `offset` below 2^14, `position` below 2^30.
        """

    @abstractmethod
    def ranked_key(self, order: str, source: int) -> str:
        """SQL of a key by which orders of several streams compare: by time and load_seq, then sources that
        come earlier (below 10,000) are larger, then the rest of the order."""

    @abstractmethod
    def counted_key(self, times: str, order: str, width: int) -> tuple[str, int]:
        """SQL of a key that compares by a number of times first, and its width.

        :param order: SQL of an :meth:`order_key` or :meth:`ranked_key`, and its `width`.
        """

    @abstractmethod
    def latest(
        self, value: str, kind: str, order: str, where: str, *, oldest: bool = False, width: int | None = None
    ) -> str:
        """SQL aggregate: `value` (perhaps null) of the row with the largest order among those of the group
        that fulfil `where`; NULL when none does.

        :param kind: column type of the value.
        :param order: SQL of a key; `width` is that of one that is no :meth:`order_key`.
        :param oldest: the smallest order instead.
        """

    @abstractmethod
    def order_head(self, order: str) -> str:
        """SQL of what orders of different streams have in common: time and load_seq."""

    @abstractmethod
    def json_list(self, value: str, order: str, limit: int) -> str:
        """SQL aggregate: the first of the group's values as a JSON array, in the order of `order`."""

    @abstractmethod
    def key_hash(self, values: Sequence[str]) -> str:
        """SQL of a 64-bit hash of expressions that are not null, in any type that can be grouped by."""

    def same_text(self, one: str, other: str) -> str:
        """SQL condition: two texts are equal, written so that an index on `other` is used if there is one."""
        return f"{one} = {other}"

    def byte_order(self, text: str) -> str:
        """SQL to order a text expression by its bytes in UTF-8, whatever the database's language is."""
        return text

    def usual_order(self, text: str) -> str:
        """SQL of a text expression that has lost what :meth:`byte_order` gave it."""
        return text

    def pattern(self, pattern: str) -> str:
        """A regular expression of RE2 in the engine's own syntax, for :meth:`matches`."""
        return pattern

    @abstractmethod
    def matches(self, text: str, pattern: str, *, ignore_case: bool = False) -> str:
        """SQL condition: a pattern of :meth:`pattern` describes the whole text; ``.`` is any character."""

    @abstractmethod
    def members(self, value: str, kind: str) -> str:
        """SQL array of the members, of column type `kind`, of a JSON array; empty or NULL for no array."""

    @abstractmethod
    def has_member(self, value: str, member: str) -> str:
        """SQL condition: a JSON array of texts, whole numbers or booleans has a value among its members."""

    @abstractmethod
    def hash_number(self, text: str) -> str:
        """SQL for a whole number from 0 to 2^52 - 1 out of a text, the same in every engine."""

    @abstractmethod
    def in_range(self, number: str) -> str:
        """SQL of a double precision number: NULL from 1e150 on, on either side, and for NaN; what is much
        nearer to zero than 1e-130 is 0, and 0 has no sign.

        Products and quotients of such numbers are finite, and only 0 where one of them is: beyond that,
        engines differ. `number` stands in the text once.
        """

    @abstractmethod
    def quotient(self, one: str, other: str) -> str:
        """SQL of one number divided by another, both :meth:`in_range`; so is what comes out. NULL for
        division by 0."""

    @abstractmethod
    def rounded(self, number: str, places: int) -> str:
        """SQL of a number in range, rounded half away from zero to so many places, at most 15.

        The number is what is written for it: 1.005 becomes 1.01, though double precision holds a bit less.
        From 2^53 on it stays as it is.
        """

    @abstractmethod
    def as_decimal(self, number: str) -> str:
        """SQL of a number below 1e22, on either side, as a ``decimal``: :meth:`rounded` to 6 places."""

    @abstractmethod
    def json_text(self, value: str, key: str) -> str:
        """SQL text of what an object has under a key: of a text itself, of anything else its JSON; NULL for
        null."""

    @abstractmethod
    def json_without(self, value: str, keys: Sequence[str]) -> str:
        """SQL of an object without some of its keys, given as SQL; NULL when nothing is left."""

    @abstractmethod
    def json_value(self, value: str, *, moment: bool = False) -> str:
        """SQL of a value as JSON; NULL for NULL.

        :param moment: the value is a timestamp.
        """

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
