# SPDX-License-Identifier: Apache-2.0
"""Resources of dlt, run in an environment of their own."""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import pyarrow.parquet as pq
from pydantic import BeforeValidator, StringConstraints

from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.dlt_faults import told
from cdp_provider.core.ingest.program import Program, ProgramOptions, Settings, private_folder, write_private
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window

_RUNNER = Path(__file__).with_name("dlt_runner.py")
#: A state of more characters is packed.
_LONG = 8_000
#: What dlt writes into every row for itself.
_OWN = "_dlt_"


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class DltOptions(ProgramOptions):
    """How a stream is read from a resource of dlt.

    :param python: of the environment that has dlt and the resource.
    :param resource: ``module:name`` of a resource, of a source, or of a function that makes one.
    :param select: which resource of a source; the stream's name when left out.
    :param table: a table that the resource fills besides its own, spelt as dlt does: ``orders__items``.
    :param root_key: fields of the resource's own rows that those of a nested table get, as ``_root_<name>``.
    :param arguments: of the resource; the connection's extra is added to them.
    :param folder: where the module is, and dlt's folder ``.dlt``; the project's own when left out.
    :param complete: each run gives all rows there are, so those that are missing are gone.
    """

    python: str
    resource: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    select: str | None = None
    table: Annotated[str, StringConstraints(pattern=r"^\w+$")] | None = None
    root_key: Annotated[
        tuple[str, ...], BeforeValidator(_one_or_more, json_schema_input_type=str | tuple[str, ...])
    ] = ()
    arguments: dict[str, Any] = {}
    folder: str = "."
    complete: bool = False

    def by_arrival(self) -> bool:
        # What is missing names no time that the rows of others could be compared with.
        return self.complete

    def stream_problems(self, stream: Any) -> Iterator[Problem]:
        for name, column in stream.columns.items():
            if "." in (column.path or ""):
                message = f"dlt puts the parts of the field {column.path!r} into columns of their own"
                hint = f"write {column.path.replace('.', '__')!r}"
                yield Problem(("columns", name, "path"), message, hint)
        if self.root_key and self.table is None:
            message = "the resource's own rows have these fields already"
            yield Problem(("root_key",), message, "remove `root_key`, or name a nested `table`")


class DltConnector(Connector):
    """Runs a resource from the state that it had after its last run, into an empty folder.

    What a state means only the resource knows: a batch that is landed again starts from the same state as
    before, and ends wherever the resource then ends.
    """

    options: ClassVar[type[Options]] = DltOptions
    reaches = "settings"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,  # a resource does not ask for one
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # rows are no files
        until: Cursor | None = None,
    ) -> Fetched:
        options = cast("DltOptions", stream.options)
        out = spool / "out"
        result = _run(stream, options, self._settings, unpacked(cursor), out)
        table, found = result["table"], set(result["tables"])
        written = sorted((out / "data" / table).glob("*.parquet")) if table in found else []
        files, rows = [], 0
        for number, path in enumerate(written):
            plain = spool / f"{number:06d}.parquet"
            rows += _without_own(path, plain, stream)
            files.append(RawFile(plain, f"{options.resource} {table}", "parquet"))
        others = sorted(name for name in found - {table} if not name.startswith("_dlt"))
        return Fetched(
            files,
            cursor=packed(result["state"]),
            complete=options.complete,
            bytes=sum(path.stat().st_size for path in written),
            detail={"records": rows, **({"other_tables": others[:20]} if others else {})},
        )


def packed(state: dict[str, Any]) -> Cursor:
    """A cursor that holds dlt's state: ``state``, or in ``zlib`` where it is long."""
    text = json.dumps(state, sort_keys=True)
    if len(text) <= _LONG:
        return {"state": state}
    return {"zlib": base64.b64encode(zlib.compress(text.encode())).decode()}


def unpacked(cursor: Cursor | None) -> dict[str, Any] | None:
    """The state in a cursor."""
    if cursor is None:
        return None
    if "zlib" in cursor:
        return cast("dict[str, Any]", json.loads(zlib.decompress(base64.b64decode(cursor["zlib"]))))
    return cast("dict[str, Any]", cursor["state"])


def _run(
    stream: Stream, options: DltOptions, settings: Settings, state: dict[str, Any] | None, out: Path
) -> dict[str, Any]:
    given = settings.given(options.arguments, options.credentials)
    folder, result = settings.path(options.folder), out.with_name("result.json")
    what = f"the dlt resource of {stream.ref}"
    with private_folder() as private:
        job = {
            "resource": options.resource,
            "stream": stream.name,
            "select": options.select,
            "table": options.table,
            "root_key": list(options.root_key),
            "columns": _hints(stream),
            # What has a dot in its name, is a place in dlt's own configuration.
            "arguments": {name: value for name, value in given.items() if "." not in name},
            "secrets": {name: value for name, value in given.items() if "." in name},
            "state": state,
            "folder": str(folder.resolve()),
            "work": str(private / "work"),
            "out": str(out.resolve()),
            "result": str(result.resolve()),
        }
        program = Program(
            [options.python, "-I", str(_RUNNER), str(write_private(private / "job.json", job))],
            what=what,
            private=private,
            home=folder,
            secrets=settings.secrets(),
            max_wait=options.max_wait,
            max_time=options.max_time,
        )
        with closing(program.output()) as pieces:
            for _ in pieces:  # what a resource prints is no part of its rows
                pass
    found: dict[str, Any] = json.loads(result.read_bytes())
    if "fault" in found:
        raise told(found, what, options.resource, options.python)
    return found


def _hints(stream: Stream) -> dict[str, str]:
    """All values as text, in which the project's types are then looked for, and what is JSON as it stands."""
    return {
        column.path or name: "json" if column.type == "json" else "text"
        for name, column in stream.columns.items()
        if not (column.path or name).startswith(("_dlt_", "_root_"))
    }


def _without_own(path: Path, plain: Path, stream: Stream) -> int:
    """Copy a Parquet file without what dlt wrote for itself, as far as no column takes it.

    :returns: rows.
    """
    wanted = {column.path or name for name, column in stream.columns.items()}
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        kept = [name for name in names if name in wanted or not name.startswith(_OWN)]
        schema = file.schema_arrow
        for name in set(names) - set(kept):
            schema = schema.remove(schema.get_field_index(name))
        with pq.ParquetWriter(plain, schema, compression="none") as writer:
            for batch in file.iter_batches(columns=kept):
                writer.write_batch(batch.select(schema.names))
        return int(file.metadata.num_rows)
