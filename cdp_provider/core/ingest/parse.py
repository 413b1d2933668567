# SPDX-License-Identifier: Apache-2.0
"""Raw files into typed rows and bad rows, in an in-memory DuckDB, whatever the warehouse is.

Every record of the input becomes one or the other: a value that is there and does not convert makes its row
bad with the reason, and is never turned to null. Work is set-based; Python looks at single rows only where
they are bad or suspicious.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from cdp_provider.core.ingest.conversion import ARROW, quote_long_numbers, strict
from cdp_provider.core.ingest.delimited import csv_blocks
from cdp_provider.core.ingest.lines import BadRow, Block, Origins, json_blocks
from cdp_provider.core.ingest.validate import CsvPlan, JsonPlan, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdp_provider.core.ingest.base import RawFile
    from cdp_provider.core.project.streams import Stream

BAD_SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "line": pa.int64(),
        "position": pa.int64(),
        "reason": pa.string(),
        "raw": pa.string(),
    }
)
#: Rows per Arrow batch: the unit that DuckDB's threads share out.
_BATCH = 20_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z_.-]{0,39}")
#: Names of unknown keys that a report mentions.
_KEYS = 20


@dataclass
class Parsed:
    """A batch, typed.

    :param rows: the stream's columns, ``_position`` (1-based place in the batch, with gaps where rows were
        bad) and ``_extra`` (JSON text of what the contract does not name; null when nothing is left).
    :param bad: ``source``, ``line`` there, ``position`` in the batch, ``reason``, ``raw``.
    :param read: records that the files held; equals good and bad together.
    :param duplicates: good rows whose primary key another good row of the batch has too.
    :param unknown: some of the keys in ``_extra``, sorted.
    """

    rows: pa.Table
    bad: pa.Table
    read: int
    duplicates: int
    unknown: list[str] = field(default_factory=list)


def schema(stream: Stream) -> pa.Schema:
    """Columns of :attr:`Parsed.rows`."""
    declared = [(name, ARROW[column.type]) for name, column in stream.columns.items()]
    return pa.schema([*declared, ("_position", pa.int64()), ("_extra", pa.string())])


def parse(stream: Stream, files: Sequence[RawFile]) -> Parsed:
    """Type and check the records of `files`, in order.

    :raises DataError: a file cannot be read as a whole: no gzip, no header, one without a required column.
    """
    good, bad, read, origins = [schema(stream).empty_table()], [BAD_SCHEMA.empty_table()], 0, Origins()
    with duckdb.connect(":memory:") as engine:
        engine.execute("set TimeZone = 'UTC'")
        for block in _blocks(files, origins):
            rows, faults = _parse_block(engine, _plan(stream, block), block)
            good.append(rows.cast(schema(stream)))
            bad.append(_bad_table(origins, faults))
            read += block.records
        rows, quarantined = pa.concat_tables(good), pa.concat_tables(bad)
        if rows.num_rows + quarantined.num_rows != read:
            msg = (
                f"{stream.ref}: {read} records, but {rows.num_rows} good and {quarantined.num_rows} bad ones"
            )
            raise RuntimeError(msg)
        return Parsed(
            rows, quarantined, read, _duplicates(engine, stream.primary_key, rows), _unknown(engine, rows)
        )


def _blocks(files: Sequence[RawFile], origins: Origins) -> Iterator[Block]:
    """All files of a batch are of one format: their stream's."""
    return (csv_blocks if files and files[0].format == "csv" else json_blocks)(files, origins)


def _plan(stream: Stream, block: Block) -> Plan:
    return CsvPlan(stream, block.source, block.header) if block.header else JsonPlan(stream)


def _parse_block(
    engine: duckdb.DuckDBPyConnection, plan: Plan, block: Block
) -> tuple[pa.Table, list[BadRow]]:
    """The typed rows and the bad ones of a block, each in the order of the file."""
    batches = block.table.to_batches(max_chunksize=_BATCH)
    engine.register("block", pa.Table.from_batches(batches, block.table.schema))
    engine.execute(
        f"create or replace temp table checked as select *, {plan.record_fault()} as fault from block"
    )
    _look_closer(engine, plan)
    engine.execute(f"create or replace temp table typed as {plan.typed()}", plan.params or None)
    found = engine.execute("select position, fault from checked where fault is not null").fetchall()
    found += engine.execute(plan.bad(), plan.params or None).fetchall()
    good = engine.sql("select * exclude (bad) from typed where not bad").to_arrow_table()
    engine.unregister("block")
    faults = [*block.bad, *(BadRow(position, reason, block.raw(position)) for position, reason in found)]
    return good, sorted(faults)


def _look_closer(engine: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Judge in Python the records whose JSON looks unusual; numbers that are too long become text."""
    query = plan.suspects()
    suspects = engine.execute(query).fetchall() if query else []
    if not suspects:
        return
    engine.register(
        "judged",
        pa.table(
            {
                "position": pa.array([position for position, _ in suspects], pa.int64()),
                "fault": pa.array([strict(text) for _, text in suspects], pa.string()),
                "line": pa.array(
                    [quote_long_numbers(text.encode()).decode() for _, text in suspects], pa.string()
                ),
            }
        ),
    )
    engine.execute(
        f"update checked set {plan.judgement()} from judged where judged.position = checked.position"
        " and (judged.fault is not null or judged.line is not null)"
    )
    engine.unregister("judged")


def _bad_table(origins: Origins, rows: list[BadRow]) -> pa.Table:
    places = [origins.of(row.position) for row in rows]
    columns = zip(*((*place, *row) for place, row in zip(places, rows, strict=True)), strict=True)
    return pa.table(list(columns), schema=BAD_SCHEMA) if rows else BAD_SCHEMA.empty_table()


def _duplicates(engine: duckdb.DuckDBPyConnection, key: Sequence[str], rows: pa.Table) -> int:
    engine.register("keys", rows.select(list(key)))
    distinct = engine.execute("select count(*) from (select distinct * from keys)").fetchall()[0][0]
    engine.unregister("keys")
    return int(rows.num_rows) - int(distinct)


def _unknown(engine: duckdb.DuckDBPyConnection, rows: pa.Table) -> list[str]:
    """Names that look like names: keys that are data, such as addresses, reach no report."""
    engine.register("extras", rows.select(["_extra"]))
    found = engine.execute(
        "select distinct unnest(json_keys(_extra)) as key from extras where _extra is not null"
    ).fetchall()
    engine.unregister("extras")
    return sorted(key for (key,) in found if _NAME.fullmatch(key))[:_KEYS]
