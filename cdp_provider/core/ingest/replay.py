# SPDX-License-Identifier: Apache-2.0
"""Quarantined rows, read once more under the contract as it is now: those that fulfil it are released."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cdp_provider.core import tables
from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.ingest import drift, raw
from cdp_provider.core.ingest.base import Fetched, RawFile
from cdp_provider.core.ingest.batches import Start
from cdp_provider.core.ingest.landing import Batch
from cdp_provider.core.runs import Report, reported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session, Warehouse

#: Their text is not what the source holds, so it is the source that has to be mended.
_UNREADABLE = ("not UTF-8 text", "holds a NUL character")

#: A row in quarantine: its batch, and its place there.
Waiting = tuple[int, int]


def replay(warehouse: Warehouse, stream: Stream, run: Run, *, load_ids: Sequence[int] = ()) -> Report:
    """Land what fulfils the contract by now, as a batch of its own; the rest stays in quarantine.

    A row that is released says so in ``quarantine.released``. The batch counts as passed: what its rows have
    to fulfil is seen row by row.

    :param load_ids: only rows of these batches; all unless given.
    :returns: rows in: looked at; out: released; refused: still bad.
    :raises NotFoundError: no row of the stream is in quarantine.
    """
    with reported(warehouse, run, "replay", stream.ref) as report:
        with warehouse.session() as session:
            tables.ensure(session)
            raw.check(session, stream)
            known = drift.evolved(session, stream)
            rows = _rows(session, stream, run, load_ids)
        with tempfile.TemporaryDirectory(prefix="cdp_") as folder:
            files = _Files(rows, Path(folder))
            batch = _Replayed(stream, run, Fetched(files.raw), Start(), Path(folder), known)
            batch.waiting = files
            batch.land(warehouse, report)
    return report


def batch_of(stream: Stream, run: Run) -> str:
    """Name of the batch that a replay lands."""
    return run.batch_id(f"{stream.ref}/replay")


def _rows(
    session: Session, stream: Stream, run: Run, load_ids: Sequence[int]
) -> list[tuple[int, int, str, str | None]]:
    """What waits, and what an earlier try of this run has released: it is released again."""
    quarantine, loads = session.warehouse.table("quarantine"), session.warehouse.table("loads")
    unreadable = {f"reason_{i}": f"{reason}%" for i, reason in enumerate(_UNREADABLE)}
    spared = " and ".join(f"reason not like :{name}" for name in unreadable)
    only = f" and load_id in ({', '.join(str(int(i)) for i in load_ids)})" if load_ids else ""
    rows = session.fetch(
        f"select load_id, position, raw, format from {quarantine} where stream = :stream and {spared}{only}"
        f" and (released is null or released in (select load_id from {loads} where batch_id = :batch_id))"
        " order by coalesce(format, ''), load_id, position",
        {"stream": stream.ref, "batch_id": batch_of(stream, run), **unreadable},
    )
    if not rows:
        where = "these batches" if load_ids else "any batch"
        msg = f"no row of {where} of {stream.ref} waits in quarantine, so there is nothing to replay"
        raise NotFoundError(msg)
    return [(row[0], row[1], row[2], row[3]) for row in rows]


class _Files:
    """Quarantined rows as raw files, one per format, and which row stands at which line."""

    def __init__(self, rows: Sequence[tuple[int, int, str, str | None]], folder: Path) -> None:
        self.raw: list[RawFile] = []
        self._folder = folder
        self._lines: dict[str, tuple[list[int], list[Waiting]]] = {}
        for form in dict.fromkeys(row[3] for row in rows):
            self._write(form, [row[:3] for row in rows if row[3] == form])

    def at(self, source: str, line: int) -> Waiting:
        """The row that stands at a line of a file."""
        lines, rows = self._lines[source]
        return rows[bisect_right(lines, line) - 1]

    def all(self) -> list[Waiting]:
        """Every row."""
        return [row for _, rows in self._lines.values() for row in rows]

    def _write(self, form: str | None, rows: Sequence[tuple[int, int, str]]) -> None:
        name = f"replay/{len(self.raw)}"
        path = self._folder / f"replay_{len(self.raw)}"
        given = json.loads(form) if form else None
        head = _header(given["fields"], given["delimiter"]) if given else ""
        number, lines = 1 + head.count("\n"), []
        with path.open("w", newline="") as file:
            file.write(head)
            for _, _, text in rows:
                lines.append(number)
                file.write(text + "\n")
                number += text.count("\n") + 1
        self._lines[name] = lines, [(load_id, position) for load_id, position, _ in rows]
        if given:
            more = {"delimiter": given["delimiter"], "null": given["null"]}
            self.raw.append(RawFile(path, name, "csv", **more))
        else:
            self.raw.append(RawFile(path, name, "ndjson"))


def _header(fields: Sequence[str], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(fields)
    return text.getvalue()


class _Replayed(Batch):
    """A batch whose bad rows are in quarantine already."""

    waiting: _Files
    state = "passed"

    @property
    def batch_id(self) -> str:
        return batch_of(self.stream, self.run)

    def _write_quarantine(self, session: Session, load_id: int) -> None:
        """Say which rows are released; the others stay as they are."""
        bad = self.parsing.bad().read_all()
        still = {
            self.waiting.at(source, line)
            for source, line in zip(bad["source"].to_pylist(), bad["line"].to_pylist(), strict=True)
        }
        every = self.waiting.all()
        looked_at = pa.table(
            {
                "load_id": pa.array([row[0] for row in every], pa.int64()),
                "position": pa.array([row[1] for row in every], pa.int64()),
                "released": pa.array([None if row in still else load_id for row in every], pa.int64()),
            }
        )
        new = session.temp("cdp_replayed", looked_at)
        session.execute(
            f"update {session.warehouse.table('quarantine')} as q set released = n.released from {new} n"
            " where q.load_id = n.load_id and q.position = n.position"
        )
