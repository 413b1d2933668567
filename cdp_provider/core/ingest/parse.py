# SPDX-License-Identifier: Apache-2.0
"""Raw files into typed rows and bad rows, in an in-memory DuckDB, whatever the warehouse is.

Every record of the input becomes one or the other: a value that is there and does not convert makes its row
bad with the reason, and is never turned to null. Rows stream: a block is typed while the one before it is
being written, and no more than two are held. Python looks at single rows only where they are bad or
suspicious.
"""

from __future__ import annotations

import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdp_provider.core.ingest.ahead import Ahead
from cdp_provider.core.ingest.columnar import parquet_blocks
from cdp_provider.core.ingest.conversion import ARROW, quote_long_numbers, strict
from cdp_provider.core.ingest.delimited import csv_blocks, format_of, header_of
from cdp_provider.core.ingest.lines import BadRow, Block, Origins, json_blocks
from cdp_provider.core.ingest.validate import DELETED, SUSPICIOUS, FieldsPlan, JsonPlan, Plan
from cdp_provider.core.ingest.whole import Broken, Plain, header_line, plain, raw_lines, read

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cdp_provider.core.ingest.base import RawFile
    from cdp_provider.core.project.streams import Stream

BAD_SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "line": pa.int64(),
        "position": pa.int64(),
        "reason": pa.string(),
        "raw": pa.string(),
        "format": pa.string(),
    }
)
#: Rows per Arrow batch: the unit that DuckDB's threads share out.
_BATCH = 20_000
#: Of the parser's own engine: for usual records, and for blocks that need more (one of 10 MB does).
_MEMORY, _MORE_MEMORY = "256MB", "4GB"
_NAME = re.compile(r"[A-Za-z_][A-Za-z_.-]{0,39}")
#: Names of unknown keys that a report mentions.
_KEYS = 20
#: So many keys are compared, at 8 bytes each.
_MOST_KEYS = 4_000_000
#: Of a source whose keys are data, not all are remembered.
_MOST_UNKNOWN = 10_000
#: So many bad rows of a file are held until its end.
_MOST_FAULTS = 50_000
_BLOCKS = {"csv": csv_blocks, "ndjson": json_blocks, "parquet": parquet_blocks}


class Parsing:
    """One pass over the raw files of a batch. The counts are right when :meth:`rows` is exhausted.

    :param files: in order; all of one format.
    :param spool: folder for bad rows until they are asked for.
    :param end: of the window, for the watermark.
    :param loose: columns of text that take any value, as it stands.
    :param exact: every file is read block by block; :class:`Broken` asks for it.
    :raises DataError: (while rows are read) a file cannot be read as a whole: no gzip, no header, one without
        a required column.
    :raises Broken: (while rows are read) start again with `exact`.
    """

    def __init__(
        self,
        stream: Stream,
        files: Sequence[RawFile],
        spool: Path,
        *,
        end: datetime | None = None,
        loose: Collection[str] = (),
        exact: bool = False,
    ) -> None:
        self.stream = stream
        self.exact = exact
        #: What ended the pass.
        self.failure: BaseException | None = None
        self.files = files
        self.end = end
        self.loose = loose
        #: Good rows.
        self.landed = 0
        #: Bad rows.
        self.quarantined = 0
        #: Rows that are gone at their source; they are among the good ones.
        self.deleted = 0
        #: The largest position of a good row.
        self.last_position = 0
        #: Time of the newest good row before `end`.
        self.watermark: datetime | None = None
        self._bad_path = spool / "bad.arrow"
        self._origins = Origins()
        self._unknown: set[str] = set()
        self._constants: dict[str, int] = {}
        self._keys: list[np.typing.NDArray[np.uint64]] = []
        self._digest = [0, 0]

    @property
    def read(self) -> int:
        """Records that the files held."""
        return self.landed + self.quarantined

    @property
    def unknown(self) -> list[str]:
        """Keys that no column takes and that look like names: those that are data reach no report."""
        return sorted(key for key in self._unknown if _NAME.fullmatch(key))[:_KEYS]

    @property
    def all_unknown(self) -> list[str]:
        """Keys that no column takes, ten thousand or a few more."""
        return sorted(self._unknown)

    @property
    def content_hash(self) -> str:
        """Of the good rows and their places; another version of DuckDB may give another one."""
        return f"{self.landed:x}-{self._digest[0]:016x}{self._digest[1]:016x}"

    def duplicates(self) -> int | None:
        """Good rows whose primary key another good row of the batch has too, but for one of each.

        None where there are so many rows that looking would take too much memory.
        """
        if self.landed > _MOST_KEYS:
            return None
        if not self._keys:
            return 0
        keys = np.concatenate(self._keys)
        keys.sort()
        return int(np.count_nonzero(keys[1:] == keys[:-1]))

    def schema(self) -> pa.Schema:
        """Of the rows: the stream's columns, ``_position`` (place in the batch, from 1, with gaps where rows
        were bad), ``_extra`` (JSON of what no column takes) and, where rows can be gone, ``_deleted``."""
        declared = [(name, ARROW[column.type]) for name, column in self.stream.columns.items()]
        own = [("_position", pa.int64()), ("_extra", pa.string())]
        gone = [(DELETED, pa.bool_())] if self.stream.options.by_arrival() else []
        return pa.schema([*declared, *own, *gone])

    def rows(self, constants: Mapping[str, int] | None = None) -> pa.RecordBatchReader:
        """The good rows, in order.

        :param constants: further columns of whole numbers that are the same in all rows.
        """
        self._constants = dict(constants or {})
        schema = self.schema()
        for name in self._constants:
            schema = schema.append(pa.field(name, pa.int64()))
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def bad(self) -> pa.RecordBatchReader:
        """The bad rows: ``source``, ``line`` there, ``position`` in the batch, ``reason``, ``raw``, and
        ``format``, how to read `raw` again (see :class:`Block`)."""
        if not self.quarantined:
            return pa.RecordBatchReader.from_batches(BAD_SCHEMA, [])
        return pa.ipc.open_stream(pa.OSFile(str(self._bad_path)))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with closing(Ahead(self._typed())) as tables, self._noted():
            for rows in tables:
                yield from rows.select(schema.names).cast(schema).to_batches(max_chunksize=_BATCH)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Whoever reads the rows may see no more of a failure than that there was one."""
        try:
            yield
        except Exception as error:
            self.failure = error
            raise

    def _typed(self) -> Generator[pa.Table, None, None]:
        """The good rows, some at a time."""
        if not self.files:
            return
        with (
            duckdb.connect(":memory:") as engine,
            pa.OSFile(str(self._bad_path), "wb") as file,
            pa.ipc.new_stream(file, BAD_SCHEMA) as bad,
        ):
            engine.execute(f"set TimeZone = 'UTC'; set memory_limit = '{_MEMORY}'; set threads = 2")
            sources = None if self.exact else [plain(file) for file in self.files]
            if sources and all(sources):
                yield from self._whole(engine, bad, [source for source in sources if source])
                return
            for block in _BLOCKS[self.files[0].format](self.files, self._origins):
                rows, faults = self._typed_block(engine, block)
                if rows.num_rows + len(faults) != block.records:
                    msg = (
                        f"{self.stream.ref}: {block.records} records, but {rows.num_rows} good and"
                        f" {len(faults)} bad ones"
                    )
                    raise RuntimeError(msg)
                self._set_aside(bad, faults, block.format)
                if rows.num_rows:
                    self._count(engine, rows)
                    yield rows

    def _whole(
        self, engine: duckdb.DuckDBPyConnection, bad: pa.ipc.RecordBatchStreamWriter, sources: Sequence[Plain]
    ) -> Iterator[pa.Table]:
        """The good rows of files that are plain as far as one can see."""
        taken = 0
        for source in sources:
            self._origins.begin(source.file.source, taken)
            header = header_of(source.file, header_line(source.file))
            if len(header) == 1:
                raise Broken
            plan = FieldsPlan(self.stream, source.file.source, header, self.loose, whole=True)
            at, faults = taken + 2, []  # behind the header
            for rows in read(engine.cursor(), plan, source, len(header), self._constants):
                places = pa.array(np.arange(at, at + rows.num_rows))
                at += rows.num_rows
                rows = rows.set_column(rows.schema.get_field_index("_position"), "_position", places)
                good, wrong = _parted(rows)
                faults += wrong
                if len(faults) > _MOST_FAULTS or any(SUSPICIOUS in reason for _, reason in wrong):
                    raise Broken
                if good.num_rows:
                    self._count(engine, good)
                    yield good
            # Of a value that runs over several lines nobody knows here at which it starts.
            if source.records not in (None, at - taken - 2) or (faults and at - taken - 2 != source.lines):
                raise Broken
            texts = raw_lines(source.file, [place - taken for place, _ in faults])
            told = [BadRow(*fault, text) for fault, text in zip(faults, texts, strict=True)]
            self._set_aside(bad, told, format_of(header, source.file))
            taken += max(source.lines, at - taken - 2) + 1

    def _set_aside(self, bad: pa.ipc.RecordBatchStreamWriter, faults: list[BadRow], form: str | None) -> None:
        if faults:
            places = [self._origins.of(fault.position) for fault in faults]
            rows = [(*place, *fault, form) for place, fault in zip(places, faults, strict=True)]
            bad.write(pa.table(list(zip(*rows, strict=True)), schema=BAD_SCHEMA))
            self.quarantined += len(faults)

    def _typed_block(self, engine: duckdb.DuckDBPyConnection, block: Block) -> tuple[pa.Table, list[BadRow]]:
        """The typed rows and the bad ones of a block, each in the order of the file."""
        try:
            try:
                rows = self._asked(engine, block)
            except duckdb.OutOfMemoryException:
                engine.execute(f"set memory_limit = '{_MORE_MEMORY}'")
                rows = self._asked(engine, block)
        except duckdb.Error as error:  # it may quote a record
            msg = f"{self.stream.ref}: the parser failed ({type(error).__name__}); please report it"
            raise RuntimeError(msg) from None
        engine.unregister("block")
        rows, found = _parted(rows)
        faults = [BadRow(position, reason, block.raw(position)) for position, reason in found]
        return rows, sorted([*block.bad, *faults])

    def _asked(self, engine: duckdb.DuckDBPyConnection, block: Block) -> pa.Table:
        plan = self._plan(engine, block)
        return engine.sql(plan.query(self._constants), params=plan.params or None).to_arrow_table()

    def _plan(self, engine: duckdb.DuckDBPyConnection, block: Block) -> Plan:
        batches = block.table.to_batches(max_chunksize=_BATCH)
        engine.register("block", pa.Table.from_batches(batches, block.table.schema))
        plan: Plan
        if block.header:
            plan = FieldsPlan(self.stream, block.source, block.header, self.loose, block.nested)
        else:
            plan = JsonPlan(self.stream, self.loose, clean=block.clean)
            plan.know(
                {
                    parent: [keys for (keys,) in engine.execute(query).fetchall()]
                    for parent, query in plan.shape_queries().items()
                }
            )
        _look_closer(engine, plan)
        return plan

    def _count(self, engine: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
        self.landed += rows.num_rows
        self.last_position = pc.max(rows["_position"]).as_py()
        self.deleted += pc.count(rows[DELETED]).as_py()
        hashes = rows["_hash"].to_numpy() * (2 * rows["_position"].to_numpy().astype(np.uint64) + 1)
        self._digest[0] ^= int(np.bitwise_xor.reduce(hashes))
        self._digest[1] = (self._digest[1] + int(np.add.reduce(hashes))) % 2**64
        if self.landed <= _MOST_KEYS:
            self._keys.append(rows["_key"].to_numpy())
        else:
            self._keys.clear()
        if self.stream.time is not None and self.end is not None:
            times = rows[self.stream.time]
            newest = pc.max(times.filter(pc.less(times, pa.scalar(self.end, times.type)))).as_py()
            self.watermark = max(filter(None, (self.watermark, newest)), default=None)
        if pc.count(rows["_extra"]).as_py() and len(self._unknown) < _MOST_UNKNOWN:
            engine.register("extras", rows.select(["_extra"]))
            found = engine.execute(
                "select distinct unnest(json_keys(_extra)) as key from extras where _extra is not null"
            ).fetchall()
            engine.unregister("extras")
            self._unknown |= {key for (key,) in found}


def _parted(rows: pa.Table) -> tuple[pa.Table, list[tuple[int, str]]]:
    """The good rows; position and reason of the others."""
    flags = rows["_bad"]
    if not pc.any(flags).as_py():
        return rows, []
    wrong = rows.filter(flags).select(["_position", "_reason"]).to_pydict()
    return rows.filter(pc.invert(flags)), list(zip(wrong["_position"], wrong["_reason"], strict=True))


def _look_closer(engine: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Judge in Python the records whose JSON looks unusual; numbers that are too long become text."""
    query = plan.suspects()
    suspects: list[tuple[int, str]] = engine.execute(query).fetchall() if query else []
    if not suspects:
        return
    judged: dict[str, list[Any]] = {"position": [], "fault": [], "line": []}
    for position, text in suspects:
        judged["position"].append(position)
        judged["fault"].append(strict(text))
        judged["line"].append(quote_long_numbers(text.encode()).decode())
    types = {"position": pa.int64(), "fault": pa.string(), "line": pa.string()}
    engine.register("judged", pa.table(judged, schema=pa.schema(types)))
    plan.judge()
