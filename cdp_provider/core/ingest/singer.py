# SPDX-License-Identifier: Apache-2.0
"""Singer taps: programs that print records, each run in an environment of its own."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field

from cdp_provider.core.exceptions import ConfigurationError, DataError, NotFoundError
from cdp_provider.core.ingest.base import Connector, Cursor, Fetched, FileKey, RawFile
from cdp_provider.core.ingest.program import Program, ProgramOptions, Settings, private_folder, write_private
from cdp_provider.core.ingest.singer_catalog import chosen, names_of
from cdp_provider.core.ingest.singer_messages import Messages
from cdp_provider.core.project.problems import Problem, Problems

if TYPE_CHECKING:
    from collections.abc import Collection

    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Window


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class SingerOptions(ProgramOptions):
    """How a stream is read from a tap.

    :param command: the tap, with arguments of its own if it needs some.
    :param stream: as the tap calls it; the stream's name when left out.
    :param config: the tap's, without what is secret; the connection's extra is added to it.
    :param catalog: file with the tap's catalog, handed over as it is.
    :param select: ``stream``: only this one, of the catalog that the tap discovers; ``all``: what the tap
        gives without a catalog.
    :param catalog_flag: how the tap wants to be told the catalog; old ones know ``--properties``.
    :param replication_method: how the tap is to find what is new; as it prefers when left out.
    :param replication_key: the field by which an incremental tap does.
    :param deletions: a record with ``_sdc_deleted_at`` says that its row is gone.
    :param complete: each run of the tap gives all rows there are, so those that are missing are gone.
    """

    command: Annotated[
        tuple[str, ...],
        BeforeValidator(_one_or_more, json_schema_input_type=str | tuple[str, ...]),
        Field(min_length=1),
    ]
    stream: str | None = None
    config: dict[str, Any] = {}
    catalog: str | None = None
    select: Literal["stream", "all"] = "stream"
    catalog_flag: Literal["--catalog", "--properties"] = "--catalog"
    replication_method: Literal["FULL_TABLE", "INCREMENTAL", "LOG_BASED"] | None = None
    replication_key: str | None = None
    deletions: bool = False
    complete: bool = False

    def model_post_init(self, context: Any, /) -> None:
        """Refuse keys that contradict each other."""
        problems = []
        whole = self.catalog is not None or self.select == "all"
        if self.catalog is not None and self.select == "all":
            hint = "remove one of them"
            problems.append(Problem(("select",), "with a `catalog`, its marks say what is selected", hint))
        if whole and (self.replication_method or self.replication_key):
            message = "the replication is written into the catalog that the tap discovers"
            problems.append(Problem(("replication_method",), message, "write it into `catalog` yourself"))
        if self.complete and self.replication_method not in (None, "FULL_TABLE"):
            message = f"{self.replication_method} gives changes, in which nobody sees what is gone"
            problems.append(Problem(("complete",), message, "remove `complete`"))
        if problems:
            raise Problems(problems)

    def by_arrival(self) -> bool:
        # A deletion names no time that the rows of others could be compared with.
        return self.deletions or self.complete


class SingerConnector(Connector):
    """Runs a tap from the state that it told last.

    What a state means only the tap knows: a batch that is landed again starts from the same state as before,
    and ends wherever the tap then ends.
    """

    options: ClassVar[type[Options]] = SingerOptions
    reaches = "settings"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,
        window: Window,  # a tap does not ask for one
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # records are no files
        until: Cursor | None = None,
    ) -> Fetched:
        options = cast("SingerOptions", stream.options)
        tap = _Tap(stream, options, self._settings)
        name = options.stream or stream.name
        path = spool / "records.ndjson"
        before = cursor.get("state") if cursor else None
        catalog = tap.catalog(name)
        names = names_of(catalog, name)
        with path.open("wb") as file:
            messages = Messages(names, file, deletions=options.deletions, what=tap.what)
            tap.sync(messages, catalog, before)
        if before is None and messages.streams and not names & messages.streams and not messages.records:
            listed = ", ".join(sorted(messages.streams)[:30])
            msg = f"{tap.what} gave no stream {name!r}; as `stream`, name one of {listed}"
            raise NotFoundError(msg)
        after = before if messages.state is None else messages.state
        counts = {"records": messages.records, "other_streams": messages.skipped, "refused": messages.refused}
        return Fetched(
            [RawFile(path, f"{Path(options.command[0]).name} {name}", "ndjson")],
            cursor=None if after is None else {"state": after},
            complete=options.complete,
            bytes=messages.bytes,
            detail={name: count for name, count in counts.items() if count or name == "records"},
        )


class _Tap:
    """A tap with its configuration."""

    def __init__(self, stream: Stream, options: SingerOptions, settings: Settings) -> None:
        self._options, self._settings = options, settings
        self._config = settings.given(options.config, options.credentials)
        self.what = f"the tap of {stream.ref}"

    def sync(self, messages: Messages, catalog: Any, state: dict[str, Any] | None) -> None:
        """Run it once."""
        with private_folder() as folder:
            arguments = []
            if catalog is not None:
                place = write_private(folder / "catalog.json", catalog)
                arguments += [self._options.catalog_flag, str(place)]
            if state is not None:
                arguments += ["--state", str(write_private(folder / "state.json", state))]
            with closing(self._program(folder, arguments).output()) as pieces:
                for piece in pieces:
                    messages.feed(piece)
            messages.end()

    def catalog(self, name: str) -> Any:
        """What it is to be told of its streams; None: nothing."""
        options = self._options
        if options.catalog is not None:
            try:
                return json.loads(self._settings.path(options.catalog).read_bytes())
            except ValueError as error:
                msg = f"the catalog {options.catalog!r} is no JSON: {type(error).__name__}; correct the file"
                raise ConfigurationError(msg) from error
        if options.select == "all":
            return None
        with private_folder() as folder, closing(self._program(folder, ["--discover"]).output()) as pieces:
            text = b"".join(pieces)
        try:
            catalog = json.loads(text)
        except ValueError as error:
            msg = (
                f"{self.what} prints no JSON with --discover; give its `catalog` as a file, or `select: all`"
                " if it knows no catalogs"
            )
            raise DataError(msg) from error
        method, key = options.replication_method, options.replication_key
        return chosen(catalog, name, method=method, key=key, what=self.what)

    def _program(self, folder: Path, arguments: list[str]) -> Program:
        config = write_private(folder / "config.json", self._config)
        return Program(
            [*self._options.command, "--config", str(config), *arguments],
            what=self.what,
            private=folder,
            home=self._settings.folder or folder,
            secrets=self._settings.secrets(),
            max_wait=self._options.max_wait,
            max_time=self._options.max_time,
        )
