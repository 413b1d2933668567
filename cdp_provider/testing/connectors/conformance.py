# SPDX-License-Identifier: Apache-2.0
"""What every connector has to do right, as a class of tests to subclass.

The tests fill a real source, land it into a real warehouse and compare the stream's view with the truth. What
a kind of source makes impossible is named, with the reason, in ``inapplicable``, and reported as skipped.
"""
# ruff: noqa: S101, S608, PT017 - a class of tests asserts; names of tables are the warehouse's own

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from unittest import SkipTest

import duckdb

from cdp_provider.core.exceptions import AccessError, ConfigurationError, DataError, NotFoundError
from cdp_provider.core.ingest.base import Connector
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.warehouse import DuckDBWarehouse
from cdp_provider.testing.connectors.stage import Stage, moment, newest, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cdp_provider.core.warehouse import Warehouse
    from cdp_provider.testing.connectors.source import SourceUnderTest

_TEXTS = (
    "Zoë Müller-Lüdenscheidt",
    "𝒜𝓁𝒾𝒸ℯ 👩‍👩‍👧‍👦",
    "مرحبا \u202eabc",
    "\ufeffbom",
    "line\nbreak\r\nand\ttab",
    "quote \" comma , semicolon ; backslash \\ apostrophe '",
    "null",
    "NULL",
    "\\N",
    " spaces around ",
    "e\u0301 is not \u00e9",
    "\\u0000 is six characters",
)


class ConnectorConformance:
    """Subclass it as ``TestSomething``, in a file that pytest collects.

    :cvar kind: the connector's class.
    :cvar bounded: what decides that a record belongs to a later window: its own time (``record``), the time
        at which it arrived (``arrival``), or nothing: whatever is there is landed.
    :cvar columns: of the stream: those four, typed so; only where their values stand may differ.
    :cvar absent: options, added to the source's own, that name something which is not there.
    :cvar huge: bytes of a record that is large and still fine.
    :cvar inapplicable: name of a test, without ``test_`` -> why it makes no sense for this kind.
    """

    kind: ClassVar[type[Connector]]
    bounded: ClassVar[Literal["record", "arrival", "nothing"]] = "record"
    columns: ClassVar[Mapping[str, Any]] = {
        "id": "string",
        "name": "string",
        "amount": "decimal",
        "updated_at": "timestamp",
    }
    absent: ClassVar[Mapping[str, Any]] = {}
    huge: ClassVar[int] = 10_000_000
    inapplicable: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, reason in cls.inapplicable.items():
            if not hasattr(cls, f"test_{name}"):
                msg = f"{cls.__name__}.inapplicable names {name!r}, which is no test of the suite"
                raise TypeError(msg)
            setattr(cls, f"test_{name}", _skipping(reason))

    # What a subclass says of its source

    def source(self, folder: Path) -> AbstractContextManager[SourceUnderTest]:
        """A new source that holds nothing.

        :param folder: empty, and the source's own.
        """
        raise NotImplementedError

    def warehouse(self, folder: Path, *, shared: bool) -> Warehouse:
        """Where to land: an empty warehouse; a DuckDB unless a subclass says otherwise.

        :param shared: other processes use it, too; without that, it may lie in memory.
        """
        if shared:
            path = str(folder / "conformance.duckdb")
            return DuckDBWarehouse(lambda: duckdb.connect(path))
        return DuckDBWarehouse(duckdb.connect(":memory:").cursor)

    # What tests are made of

    @contextmanager
    def stage(self, tmp_path: Path, *, shared: bool = False) -> Iterator[Stage]:
        """The source, empty, and a stream from it into an empty warehouse.

        :param shared: with other processes.
        """
        folder = tmp_path / "source"
        folder.mkdir()
        with self.source(folder) as source:
            yield Stage(source, self.stream(source), self.warehouse(tmp_path, shared=shared))

    def stream(self, source: SourceUnderTest) -> Stream:
        """The stream of all tests; nothing but its options depends on the kind."""
        return Stream(
            source="conformance",
            name="records",
            primary_key=("id",),
            time="updated_at",
            columns=dict(self.columns),
            quarantine={"max_share": 1.0},
            options=self.kind.options.model_validate(dict(source.options)),
        )

    # The tests: what there is

    def test_an_empty_source_gives_no_rows(self, tmp_path: Path) -> None:
        with self.stage(tmp_path) as stage:
            report = stage.land(1)
            assert (report.rows_in, report.rows_out, report.rows_refused) == (0, 0, 0)
            assert stage.shown() == {}
            records = [record(1, 2.5)]
            stage.put(*records, day=2.5)
            stage.land(2)
            assert stage.shown() == newest(records)

    def test_one_page_is_read(self, tmp_path: Path) -> None:
        records = [record(n, 1.2) for n in range(3)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            report = stage.land(1)
            assert (report.rows_in, report.rows_out, report.rows_refused) == (3, 3, 0)
            assert report.bytes is not None
            assert report.bytes > 0
            assert json.loads(json.dumps(report.detail)) == report.detail
            assert stage.shown() == newest(records)

    def test_many_pages_are_read(self, tmp_path: Path) -> None:
        records = [record(n, 1 + n / 100) for n in range(45)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            assert stage.land(1).rows_out == 45
            assert stage.shown() == newest(records)

    def test_records_of_one_moment_are_all_read(self, tmp_path: Path) -> None:
        """A cursor that does not move from page to page, nor from window to window."""
        records = [record(n, 1.5) for n in range(25)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            stage.land(1)
            stage.land(2)
            stage.land(3)
            assert stage.shown() == newest(records)

    def test_texts_arrive_as_they_are(self, tmp_path: Path) -> None:
        records = [record(n, 1.5, name=text) for n, text in enumerate(_TEXTS)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            stage.land(1)
            assert stage.shown() == newest(records)

    def test_a_nul_character_is_quarantined(self, tmp_path: Path) -> None:
        records = [record(1, 1.5), record(2, 1.5, name="a\x00b"), record(3, 1.5)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            report = stage.land(1)
            assert (report.rows_in, report.rows_out, report.rows_refused) == (3, 2, 1)
            assert stage.shown() == newest([records[0], records[2]])

    def test_null_missing_and_empty(self, tmp_path: Path) -> None:
        missing = record(3, 1.5)
        del missing["name"]
        records = [record(1, 1.5, name=None), record(2, 1.5, name=""), missing]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            stage.land(1)
            assert {key: row[0] for key, row in stage.shown().items()} == {
                "r00001": None,
                "r00002": "",
                "r00003": None,
            }

    def test_a_huge_record_is_read(self, tmp_path: Path) -> None:
        records = [record(1, 1.5), record(2, 1.5, name="ä" * (self.huge // 2)), record(3, 1.5)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            stage.land(1)
            assert stage.shown() == newest(records)

    def test_of_one_key_the_newest_record_counts(self, tmp_path: Path) -> None:
        """Within a page, across pages, across batches."""
        first = [record(1, 1.1), *(record(n, 1.2) for n in range(2, 24)), record(1, 1.3, name="newer")]
        twice = [record(30, 1.4), record(30, 1.5, name="at once")]
        later = [record(2, 2.1, name="second"), record(2, 2.2, name="third")]
        with self.stage(tmp_path) as stage:
            stage.put(*first, *twice, day=1.5)
            stage.land(1)
            assert stage.shown() == newest([*first, *twice])
            stage.put(*later, day=2.5)
            stage.land(2)
            assert stage.shown() == newest([*first, *twice, *later])

    # The tests: time

    def test_the_next_window_adds_what_is_new(self, tmp_path: Path) -> None:
        records = [record(n, 1.2) for n in range(3)]
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.5)
            stage.land(1)
            stage.land(2)  # nothing new
            assert stage.shown() == newest(records)
            more = [record(1, 3.2, name="changed"), record(9, 3.3)]
            stage.put(*more, day=3.5)
            stage.land(3)
            assert stage.shown() == newest([*records, *more])

    def test_what_comes_late_is_not_lost(self, tmp_path: Path) -> None:
        """A record that appears after younger ones were read: half an hour late."""
        records, late = [record(n, 1.6) for n in range(3)], record(9, 1.6 - 0.5 / 24)
        with self.stage(tmp_path) as stage:
            stage.put(*records, day=1.7)
            stage.land(1)
            stage.put(late, day=2.5)
            stage.land(2)
            assert stage.shown() == newest([*records, late])

    def test_a_record_of_the_future_waits_for_its_window(self, tmp_path: Path) -> None:
        """The source's clock, or somebody's in front of it, is fast."""
        now, skewed = record(1, 1.5), record(2, 3.5)
        with self.stage(tmp_path) as stage:
            stage.put(now, skewed, day=1.5)
            stage.land(1)
            assert stage.shown() == newest([now] if self.bounded == "record" else [now, skewed])
            more = record(3, 2.5)
            stage.put(more, day=2.5)
            stage.land(2)
            stage.land(3)
            assert stage.shown() == newest([now, skewed, more])

    def test_what_arrives_after_a_window_is_left_for_the_next(self, tmp_path: Path) -> None:
        before, after = record(1, 1.5), record(2, 2.5)
        with self.stage(tmp_path) as stage:
            stage.put(before, day=1.5)
            stage.put(after, day=2.5)
            stage.land(1)
            assert stage.shown() == newest([before] if self.bounded != "nothing" else [before, after])
            stage.land(2)
            assert stage.shown() == newest([before, after])

    # The tests: once and for all

    def test_landing_a_window_again_changes_nothing(self, tmp_path: Path) -> None:
        with self.stage(tmp_path) as stage:
            for day in (1, 2):
                stage.put(*(record(10 * day + n, day + 0.5) for n in range(5)), day=day + 0.5)
                stage.land(day)
            before, shown = stage.everything(), stage.shown()
            for day in (2, 1, 2):
                stage.land(day)
                assert stage.everything() == before
                assert stage.shown() == shown

    def test_landing_a_window_again_ends_where_it_ended(self, tmp_path: Path) -> None:
        """Although the source has more by then."""
        first, second = record(1, 1.5), record(2, 2.5)
        with self.stage(tmp_path) as stage:
            stage.put(first, day=1.5)
            stage.land(1)
            before = stage.everything()
            stage.put(second, day=2.5)
            stage.land(1)
            assert stage.everything() == before
            stage.land(2)
            assert stage.shown() == newest([first, second])

    def test_rows_of_a_failed_batch_come_with_the_next(self, tmp_path: Path) -> None:
        first, second = [record(n, 1.5) for n in range(3)], [record(n, 2.5) for n in range(10, 13)]
        with self.stage(tmp_path) as stage:
            stage.put(*first, day=1.5)
            try:
                stage.with_contract(min_rows=4).land(1)
            except DataError:
                assert stage.shown() == {}
            else:
                msg = "the batch of three rows passed although four are demanded"
                raise AssertionError(msg)
            stage.put(*second, day=2.5)
            stage.land(2)
            if not self.kind.rereadable:
                # They can't come again, and wait where they were landed until somebody lets them pass.
                assert stage.shown() == newest(second)
                check(stage.warehouse, stage.stream, stage.run(1))
            assert stage.shown() == newest([*first, *second])

    def test_killed_after_the_fetch_nothing_is_lost(self, tmp_path: Path) -> None:
        first, second = [record(n, 1.5) for n in range(12)], [record(n, 2.5) for n in range(20, 32)]
        with self.stage(tmp_path, shared=True) as stage:
            for day, records in ((1, first), (2, second)):
                stage.put(*records, day=day + 0.5)
                assert stage.killed(day, "fetch") == -signal.SIGKILL
                assert stage.land(day).rows_out >= 12
            assert stage.shown() == newest([*first, *second])
            assert len(stage.everything()["loads"]) == 2

    def test_killed_before_the_source_was_told_nothing_is_doubled(self, tmp_path: Path) -> None:
        if self.kind.confirm is Connector.confirm:
            msg = "the connector has nothing to confirm"
            raise SkipTest(msg)
        first, second = [record(n, 1.5) for n in range(3)], [record(n, 2.5) for n in range(10, 13)]
        with self.stage(tmp_path, shared=True) as stage:
            stage.put(*first, day=1.5)
            assert stage.killed(1, "confirm") == -signal.SIGKILL
            stage.land(1)
            assert stage.shown() == newest(first)
            rows = len(stage.everything()[stage.stream.raw_table])
            stage.put(*second, day=2.5)
            assert stage.killed(2, "confirm") == -signal.SIGKILL
            stage.put(record(20, 3.5), day=3.5)
            stage.land(2)
            stage.land(3)
            assert stage.shown() == newest([*first, *second, record(20, 3.5)])
            assert len(stage.everything()[stage.stream.raw_table]) == rows + 4

    def test_confirming_twice_is_the_same_as_once(self, tmp_path: Path) -> None:
        with self.stage(tmp_path) as stage:
            stage.put(record(1, 1.5), day=1.5)
            stage.land(1)
            with stage.warehouse.session() as session:
                text = session.scalar(f"select cursor_after from {stage.warehouse.table('loads')}")
            if text is None:
                msg = "the connector has no cursor that could be confirmed"
                raise SkipTest(msg)
            for _ in range(2):
                stage.source.connector().confirm(stage.stream, json.loads(text))
            stage.put(record(2, 2.5), day=2.5)
            stage.land(2)
            assert stage.shown() == newest([record(1, 1.5), record(2, 2.5)])

    # The tests: what goes wrong

    def test_what_is_not_there_is_said(self, tmp_path: Path) -> None:
        with self.stage(tmp_path) as stage:
            stage.put(record(1, 1.5), day=1.5)
            self.fails_clearly(
                stage.with_options({**stage.source.options, **self.absent}),
                (NotFoundError, ConfigurationError),
            )

    def test_a_source_that_refuses_us_is_said(self, tmp_path: Path) -> None:
        with self.stage(tmp_path) as stage:
            stage.put(record(1, 1.5), day=1.5)
            self.fails_clearly(stage, AccessError, stage.source.locked_out())

    def fails_clearly(
        self,
        stage: Stage,
        expected: type[Exception] | tuple[type[Exception], ...],
        connector: Connector | None = None,
    ) -> Exception:
        """A landing fails with such an error, which quotes no record, and leaves the tables as they were."""
        before = stage.everything()
        try:
            land(stage.warehouse, stage.stream, connector or stage.source.connector(), stage.run(1))
        except expected as error:
            assert stage.everything() == before
            assert not any(f"name {n}" in str(error) for n in range(100)), "the error quotes a record"
            assert len(str(error)) > 20, "the error says nothing"
            return error
        msg = "nothing was raised"
        raise AssertionError(msg)


def _skipping(reason: str) -> Callable[..., None]:
    def skipped(self: ConnectorConformance, tmp_path: Path) -> None:
        raise SkipTest(reason)

    return skipped


__all__ = ["ConnectorConformance", "moment", "newest", "record"]
