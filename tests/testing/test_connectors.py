# SPDX-License-Identifier: Apache-2.0
"""Our own connectors pass the suite, and the suite finds what is wrong with others."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import psycopg
import pytest
import yaml

from cdp_provider.core.exceptions import AccessError
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.dlt import DltConnector
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.http import HttpConnector, Patience
from cdp_provider.core.ingest.inbox import InboxConnector, append
from cdp_provider.core.ingest.kafka import KafkaConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.nested import NestedConnector
from cdp_provider.core.ingest.postgres_cdc import PostgresCdcConnector
from cdp_provider.core.ingest.program import Settings
from cdp_provider.core.ingest.sql import Database, SqlConnector
from cdp_provider.core.plugins import installed
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.registry import load_project
from cdp_provider.core.run import Run, Window
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from cdp_provider.hooks.source import SourceHook
from cdp_provider.testing.connectors import (
    ConnectorConformance,
    HttpConformance,
    SourceUnderTest,
)
from cdp_provider.testing.connectors.stage import FIRST_DAY
from tests.core.ingest.environments import python_with

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-connector.md").read_text()
DEEP = int(os.environ.get("CDP_TEST_DEPTH", "1")) > 1
LATER = "with CDP_TEST_DEPTH above 1 only: {}"
#: Tests of what a connector does by itself; the others ask more of the landing behind all of them.
CORE = (
    "many_pages_are_read",
    "texts_arrive_as_they_are",
    "a_nul_character_is_quarantined",
    "null_missing_and_empty",
    "what_comes_late_is_not_lost",
    "what_arrives_after_a_window_is_left_for_the_next",
    "landing_a_window_again_ends_where_it_ended",
    "rows_of_a_failed_batch_come_with_the_next",
    "killed_before_the_source_was_told_nothing_is_doubled",
    "what_is_not_there_is_said",
    "a_source_that_refuses_us_is_said",
)
SINCE = {"column": "updated_at", "parameter": "since", "overlap": "1 hour"}


class Ours(ConnectorConformance):
    """Lands into copies of an empty warehouse, which takes less than making one."""

    huge = 10_000_000 if DEEP else 2_000_000
    inapplicable: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _empty(self, empty_duckdb):
        self.empty = empty_duckdb

    def warehouse(self, folder, *, shared):
        path = shutil.copy(self.empty, folder / "conformance.duckdb")
        # Whoever holds it open keeps other processes out.
        self.held = None if shared else duckdb.connect(str(path))
        return DuckDBWarehouse(lambda: duckdb.connect(str(path)))


def all_but(*names: str) -> dict[str, str]:
    """Tests beside those named; an API and files pass all of them every time."""
    if DEEP:
        return {}
    reason = LATER.format("HTTP and files pass it every time")
    tests = [test.removeprefix("test_") for test in dir(ConnectorConformance) if test.startswith("test_")]
    assert set(names) <= set(tests)
    return {test: reason for test in tests if test not in names}


class OverHttp(Ours, HttpConformance):
    kind = HttpConnector
    huge = 10_000_000

    def connect(self, endpoint):
        return HttpConnector(endpoint, patience=Patience(base=0.01))


class TestHttpCursor(OverHttp):
    options: ClassVar[dict[str, Any]] = {
        "path": "/items",
        "records": "data",
        "paging": {"type": "cursor", "next": "meta.next", "parameter": "after"},
        "page_size": {"parameter": "limit", "value": 10},
        "cursor": SINCE,
    }


@pytest.mark.skipif(not DEEP, reason=LATER.format("a list without pages is one of the pagings below"))
class TestHttpNone(OverHttp):
    options: ClassVar[dict[str, Any]] = {"path": "/items", "cursor": SINCE}


MORE = {"more": "meta.more"}
NO_MATTER_OF_PAGES = (
    "the_next_window_adds_what_is_new",
    "what_comes_late_is_not_lost",
    "500_in_the_middle_passes",
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"paging": {"type": "page", "parameter": "page"}},
        {
            "paging": {"type": "page", "parameter": "p", "start": 0},
            "page_size": {"parameter": "n", "value": 7},
        },
        {"paging": {"type": "offset", "parameter": "offset"}},
        {"paging": {"type": "offset", "parameter": "from", "start": 1}},
        {"paging": {"type": "last_record", "field": "id", "parameter": "starting_after", **MORE}},
        {"paging": {"type": "link"}},
        {"paging": {"type": "next_url", "next": "links.next"}},
        {"paging": {"type": "cursor", "next": "meta.next", "parameter": "after", "done": "meta.done"}},
        {
            "paging": {"type": "cursor", "next": "next", "parameter": "after"},
            "cursor": {"column": "updated_at", "stop": True, "overlap": "1 hour"},
        },
    ],
    ids=["none", "page", "page_0", "offset", "offset_1", "last_record", "link", "next_url", "done", "stop"],
)
@pytest.mark.parametrize(
    "test",
    [
        "many_pages_are_read",
        "the_next_window_adds_what_is_new",
        "what_comes_late_is_not_lost",
        "one_endless_page_is_noticed",
        "a_next_page_that_is_no_other_is_noticed",
        "500_in_the_middle_passes",
    ],
)
def test_every_paging(test, options, tmp_path, empty_duckdb):
    if not DEEP and test in NO_MATTER_OF_PAGES and "stop" not in options.get("cursor", {}):
        pytest.skip(LATER.format("how pages follow each other does not matter here"))
    suite = TestHttpCursor()
    suite.empty = empty_duckdb
    suite.options = {"path": "/items", "records": "data", "cursor": SINCE, **options}
    getattr(suite, f"test_{test}")(tmp_path)


class Files(SourceUnderTest):
    """A folder that gets a new file every time something is put."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.form, self.number = folder, form, 0

    @property
    def options(self):
        return {"path": f"*.{self.form}", "format": self.form}

    def put(self, records, at):
        self.number += 1
        write = {"csv": as_csv, "ndjson": as_ndjson}[self.form]
        (self.folder / f"{self.number:03}.{self.form}").write_bytes(write(records))

    def connector(self):
        return FilesConnector(self.folder)


def as_ndjson(records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_csv(records) -> bytes:
    names = ("id", "name", "amount", "updated_at")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(names)
    for record in records:
        # Only quoted is an empty field a text; csv.writer knows no difference.
        cells = [record.get(name) for name in names]
        quoted = ['"' + str(c).replace('"', '""') + '"' if isinstance(c, str) else c for c in cells]
        buffer.write(",".join("" if cell is None else str(cell) for cell in quoted) + "\r\n")
    return buffer.getvalue().encode()


class OfFiles(Ours):
    kind = FilesConnector
    bounded = "nothing"
    absent: ClassVar[dict[str, Any]] = {"path": "nowhere.csv"}
    form: ClassVar[str]
    inapplicable: ClassVar[dict[str, str]] = {
        "landing_a_window_again_ends_where_it_ended": "a file that came meanwhile belongs to the batch",
        "a_source_that_refuses_us_is_said": "root may read every file, and tests may be root",
    }

    @contextmanager
    def source(self, folder):
        yield Files(folder, self.form)


class TestCsvFiles(OfFiles):
    form = "csv"


@pytest.mark.skipif(not DEEP, reason=LATER.format("NDJSON is what most connectors give"))
class TestNdjsonFiles(OfFiles):
    form = "ndjson"


class OnPostgres:
    """A connection to the tests' PostgreSQL, and a name there that is nobody else's."""

    @pytest.fixture(autouse=True)
    def _postgres(self, postgres_url):
        self.url = postgres_url
        self.name = f"conformance_{os.getpid()}_{next(_numbers)}"
        yield
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"drop schema if exists {self.name} cascade")
            connection.execute(f"drop role if exists {self.name}")

    def connect(self, **more):
        # Elsewhere the tests' server says that it has written before it has; who reads its log would notice.
        return psycopg.connect(self.url, options="-c synchronous_commit=on", **more)


_numbers = itertools.count(1)
_quiet = logging.getLogger("tests.conformance")


class TestFilesIntoPostgres(OnPostgres, OfFiles):
    form = "ndjson"
    inapplicable: ClassVar[dict[str, str]] = all_but(
        "texts_arrive_as_they_are",
        "a_nul_character_is_quarantined",
        "a_huge_record_is_read",
        "of_one_key_the_newest_record_counts",
        "killed_after_the_fetch_nothing_is_lost",
    )

    def warehouse(self, folder, *, shared):
        return PostgresWarehouse(lambda: psycopg.connect(self.url), schema=self.name)


class Table(SourceUnderTest):
    """A table with a primary key; what is put again is changed."""

    def __init__(self, dialect: str, connect: Any, name: str, stranger: Any = None) -> None:
        self.dialect, self.connect, self.name, self.stranger = dialect, connect, name, stranger
        kind = "text" if dialect == "sqlite" else "timestamptz"
        self.run(
            f"create table {name} (id text primary key, name text, amount decimal(20, 6), updated_at {kind})"
        )

    def run(self, statement: str, rows: Any = ()) -> None:
        connection = self.connect()
        cursor = connection.cursor()
        if rows:
            cursor.executemany(statement, rows)
        else:
            cursor.execute(statement)
        connection.commit()
        connection.close()

    @property
    def options(self):
        return {"table": self.name, "cursor": {"column": "updated_at", "overlap": "1 hour"}}

    def put(self, records, at):
        names = ("id", "name", "amount", "updated_at")
        places = ", ".join(["%s" if self.dialect == "postgresql" else "?"] * 4)
        changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        self.run(
            f"insert into {self.name} values ({places}) on conflict (id) do update set {changes}",
            [tuple(record.get(name) for name in names) for record in records],
        )

    def connector(self):
        return SqlConnector(Database(self.dialect, self.connect))

    def locked_out(self):
        return SqlConnector(Database(self.dialect, self.stranger))


class OfTables(Ours):
    kind = SqlConnector
    absent: ClassVar[dict[str, Any]] = {"table": "nowhere"}
    inapplicable: ClassVar[dict[str, str]] = all_but(*CORE)


class TestSqlite(OfTables):
    inapplicable: ClassVar[dict[str, str]] = {"a_source_that_refuses_us_is_said": "SQLite knows no users"}

    @contextmanager
    def source(self, folder):
        yield Table("sqlite", lambda: sqlite3.connect(folder / "source.db"), "records")


class OfPostgres(OnPostgres, OfTables):
    made: ClassVar[type[Table]] = Table
    inapplicable: ClassVar[dict[str, str]] = {
        "a_nul_character_is_quarantined": "no text of PostgreSQL holds one"
    }

    @contextmanager
    def source(self, folder):
        with self.connect() as connection:
            connection.execute(f"create schema {self.name}")
            connection.execute(f"create role {self.name} login")
        yield self.made("postgresql", self.connect, f"{self.name}.records", self.stranger)

    def stranger(self):
        """A connection of somebody who may read nothing."""
        return self.connect(user=self.name)


class TestSqlPostgres(OfPostgres):
    inapplicable: ClassVar[dict[str, str]] = all_but(
        "texts_arrive_as_they_are",
        "null_missing_and_empty",
        "what_comes_late_is_not_lost",
        "what_is_not_there_is_said",
        "a_source_that_refuses_us_is_said",
    )


class Changes(Table):
    """The same, read by its log."""

    @property
    def options(self):
        slot = self.name.partition(".")[0]
        return {"table": self.name, "slot": slot, "publication": slot}

    def connector(self):
        return PostgresCdcConnector(Database(self.dialect, self.connect))

    def locked_out(self):
        return PostgresCdcConnector(Database(self.dialect, self.stranger))


class TestPostgresCdc(OfPostgres):
    kind = PostgresCdcConnector
    made = Changes
    bounded = "nothing"
    absent: ClassVar[dict[str, Any]] = {"table": "public.nowhere"}

    @contextmanager
    def source(self, folder):
        with super().source(folder) as source:
            yield source
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"drop publication if exists {self.name}")
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
                (self.name,),
            )


class Inbox(SourceUnderTest):
    """Messages in a warehouse of its own."""

    options: ClassVar[dict[str, Any]] = {"channel": "conformance"}

    def __init__(self, path: str) -> None:
        self.holds = DuckDBWarehouse(lambda: duckdb.connect(path))

    def put(self, records, at):
        with self.holds.session() as session:
            append(session, "conformance", [json.dumps(record) for record in records], received_at=at)

    def connector(self):
        return InboxConnector(self.holds)


class TestInbox(Ours):
    kind = InboxConnector
    bounded = "arrival"
    inapplicable: ClassVar[dict[str, str]] = {
        **all_but(*CORE),
        "what_is_not_there_is_said": "a channel is there when its first message is",
        "a_source_that_refuses_us_is_said": "it is the warehouse itself",
    }

    @contextmanager
    def source(self, folder):
        yield Inbox(shutil.copy(self.empty, folder / "inbox.duckdb"))


class Lists(SourceUnderTest):
    """Rows that have landed in a warehouse of their own, with what is put in lists of ten inside them."""

    options: ClassVar[dict[str, Any]] = {"of": "lists.parents", "list": "inside", "parent_key": ["number"]}
    parents = Stream(
        source="lists",
        name="parents",
        primary_key=("number",),
        columns={"number": "integer", "inside": "json"},
        quarantine={"max_share": 1.0},
        options=FileOptions(path="*.ndjson", format="ndjson"),
    )

    def __init__(self, folder: Path, path: str) -> None:
        self.folder, self.number = folder, 0
        self.holds = DuckDBWarehouse(lambda: duckdb.connect(path))
        self._land(FIRST_DAY)

    def put(self, records, at):
        rows = []
        for first in range(0, len(records), 10):
            self.number += 1
            rows.append({"number": self.number, "inside": records[first : first + 10]})
        (self.folder / f"{self.number:03}.ndjson").write_bytes(as_ndjson(rows))
        self._land(at)

    def _land(self, at: datetime) -> None:
        # What arrives at the same time is another batch nevertheless.
        run = Run("lists", f"run_{self.number}", Window(at, at + timedelta(seconds=self.number)))
        land(self.holds, self.parents, FilesConnector(self.folder), run)
        check(self.holds, self.parents, run)

    def connector(self):
        return NestedConnector(self.holds)


class TestNested(Ours):
    kind = NestedConnector
    bounded = "arrival"
    absent: ClassVar[dict[str, Any]] = {"list": "nowhere"}
    inapplicable: ClassVar[dict[str, str]] = {
        **all_but(*CORE),
        "a_nul_character_is_quarantined": "the row with the list is, when it lands",
        "a_source_that_refuses_us_is_said": "it is the warehouse itself",
    }

    @contextmanager
    def source(self, folder):
        yield Lists(folder, shutil.copy(self.empty, folder / "lists.duckdb"))


class Resource(SourceUnderTest):
    """A file that a resource of dlt reads, from where its state says."""

    MODULE = """
import json

import dlt


@dlt.resource
def records(path):
    state = dlt.current.resource_state()
    with open(path, "rb") as file:
        file.seek(state.get("after", 0))
        yield [json.loads(line) for line in file]
        state["after"] = file.tell()
"""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder, self.python, self.path = folder, python, folder / "records.ndjson"
        self.path.touch()
        (folder / "conformance_lines.py").write_text(self.MODULE)

    @property
    def options(self):
        return {
            "python": self.python,
            "resource": "conformance_lines:records",
            "folder": str(self.folder),
            "arguments": {"path": str(self.path)},
        }

    def put(self, records, at):
        with self.path.open("ab") as file:
            file.write(as_ndjson(records))

    def connector(self):
        return DltConnector(Settings())


class TestDlt(Ours):
    kind = DltConnector
    bounded = "nothing"
    absent: ClassVar[dict[str, Any]] = {"resource": "conformance_lines:nowhere"}
    inapplicable: ClassVar[dict[str, str]] = {
        # A run of dlt takes a second or two.
        **all_but("texts_arrive_as_they_are", "what_is_not_there_is_said"),
        "landing_a_window_again_ends_where_it_ended": "a resource ends where it ends",
        "landing_a_window_again_changes_nothing": "it adds what came since then",
        "a_source_that_refuses_us_is_said": "only what the resource raises says so; test_dlt.py has it",
    }

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _python(cls):
        cls.python = str(python_with("dlt[parquet]>=1.31"))

    @contextmanager
    def source(self, folder):
        yield Resource(folder, self.python)


class Topic(SourceUnderTest):
    """One partition of a topic."""

    def __init__(self, broker: str, name: str) -> None:
        from confluent_kafka import Producer

        self.broker, self.name = broker, name
        self.producer = Producer({"bootstrap.servers": broker}, logger=_quiet)
        self.producer.list_topics(name, timeout=20)  # which makes it

    @property
    def options(self):
        return {"topics": self.name, "max_wait": "20 seconds"}

    def put(self, records, at):
        for record in records:
            self.producer.produce(
                self.name,
                json.dumps(record, ensure_ascii=False).encode(),
                record["id"].encode(),
                0,
                timestamp=int(at.timestamp() * 1000),
            )
        assert self.producer.flush(30) == 0

    def connector(self):
        return KafkaConnector({"bootstrap.servers": self.broker, "group.id": self.name})


@pytest.fixture(scope="module")
def broker():
    """Address of the broker that librdkafka carries for tests; it speaks the real protocol on loopback."""
    kafka = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
    home = kafka.Producer({"bootstrap.servers": "nowhere:1", "test.mock.num.brokers": 1}, logger=_quiet)
    (found,) = home.list_topics(timeout=10).brokers.values()
    yield f"{found.host}:{found.port}"
    del home


class TestKafka(Ours):
    kind = KafkaConnector
    bounded = "arrival"
    absent: ClassVar[dict[str, Any]] = {"topics": "not.a.topic"}
    huge = 900_000  # brokers take a megabyte
    inapplicable: ClassVar[dict[str, str]] = {
        **all_but(*CORE),
        "a_source_that_refuses_us_is_said": "librdkafka's own broker lets everybody in",
    }

    @pytest.fixture(autouse=True)
    def _broker(self, broker):
        self.broker = broker

    @contextmanager
    def source(self, folder):
        yield Topic(self.broker, f"conformance.{os.getpid()}.{next(_numbers)}")


class Sloppy(HttpConnector):
    """Does all of it, and one thing wrong."""


class Forgets(Sloppy):
    """Reads everything each time, whatever it has read, and says that it has no cursor."""

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        fetched = super().fetch(stream, None, window, spool)
        lines = fetched.files[0].path.read_bytes().splitlines(keepends=True)
        fetched.files[0].path.write_bytes(b"".join(lines[:-1]))
        return fetched


class Runs(Sloppy):
    """Looks beyond the end of its window."""

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        later = dataclasses.replace(window, end=window.end + timedelta(days=30))
        return super().fetch(stream, cursor, later, spool)


class Skips(Sloppy):
    """Goes on after the newest record, and not a moment earlier."""

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        options = stream.options.model_copy(
            update={"cursor": stream.options.cursor.model_copy(update={"overlap": timedelta(0)})}
        )
        return super().fetch(
            stream.model_copy(update={"options": options}), cursor, window, spool, taken=taken, until=until
        )


class Repairs(Sloppy):
    """Turns what it does not like into something else."""

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        fetched = super().fetch(stream, cursor, window, spool)
        path = fetched.files[0].path
        path.write_bytes(path.read_bytes().replace(b"\\u0000", b"").replace(b'"name":null', b'"name":""'))
        return fetched


class Talks(Sloppy):
    """Quotes records in its errors."""

    def fetch(self, stream, cursor, window, spool, *, taken=(), until=None):
        try:
            return super().fetch(stream, cursor, window, spool)
        except AccessError as error:
            msg = f"{error}; the last record was that of name 1"
            raise AccessError(msg) from error


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Forgets, "one_page_is_read"),
        (Runs, "a_record_of_the_future_waits_for_its_window"),
        (Runs, "landing_a_window_again_ends_where_it_ended"),
        (Skips, "what_comes_late_is_not_lost"),
        (Repairs, "a_nul_character_is_quarantined"),
        (Repairs, "null_missing_and_empty"),
        (Talks, "a_source_that_refuses_us_is_said"),
    ],
)
def test_it_finds_a_connector_that(kind, test, tmp_path, empty_duckdb):
    suite = TestHttpCursor()
    suite.empty = empty_duckdb
    suite.connect = lambda endpoint: kind(endpoint, patience=Patience(base=0.01))
    with pytest.raises(AssertionError):
        getattr(suite, f"test_{test}")(tmp_path)


def test_what_does_not_apply_must_be_a_test():
    with pytest.raises(TypeError, match="names 'nonsense', which is no test"):
        type("Wrong", (ConnectorConformance,), {"inapplicable": {"nonsense": "none"}})


def test_every_kind_is_tested():
    from tests.core.ingest.test_singer import TestSinger

    tested = {kind.kind for kind in _subclasses(ConnectorConformance) if "kind" in vars(kind)}
    ours = {kind for kind in CONNECTORS.values() if kind.__module__.startswith("cdp_provider.")}
    assert TestSinger.kind in tested  # in the file with its tap
    assert ours <= tested


def _subclasses(of: type) -> set[type]:
    return {of}.union(*map(_subclasses, of.__subclasses__()))


@pytest.fixture
def page(tmp_path):
    """The files of the page about a connector of one's own."""
    for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    return tmp_path, tomllib.loads(toml)["project"]


def test_the_connector_of_the_page_passes_the_suite(page):
    folder, _ = page
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null"]
    if not DEEP:
        command += ["-k", "many_pages or 401 or late or nul or window_again_ends"]
    ended = subprocess.run(
        [*command, "--rootdir", ".", "test_journal.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stdout
    passed, skipped = (re.search(rf"(\d+) {how}", ended.stdout) for how in ("passed", "skipped"))
    assert int(passed[1]) > (30 if DEEP else 4)
    assert (int(skipped[1]) if skipped else 0) == (5 if DEEP else 0), ended.stdout
    lines = (folder / "journal.py").read_text() + (folder / "test_journal.py").read_text()
    assert len(lines.splitlines()) < 100


def test_an_installed_connector_is_a_type_of_projects(page, tmp_path, monkeypatch):
    folder, project = page
    info = folder / "journal_connector-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: journal-connector\nVersion: 1.0\n")
    points = project["entry-points"]["cdp_provider.connectors"].items()
    text = "\n".join(f"{name} = {value}" for name, value in points)
    (info / "entry_points.txt").write_text(f"[cdp_provider.connectors]\n{text}\n")
    monkeypatch.syspath_prepend(folder)
    installed.cache_clear()
    readme = re.search(r"```yaml\n(project: newsletter\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    given = yaml.safe_load(readme[1])
    people = given["sources"]["signups"]["streams"]["people"]
    del people["format"]
    given["sources"]["signups"] |= {"type": "journal", "connection": "club"}
    path = tmp_path / "cdp.yaml"
    try:
        path.write_text(yaml.safe_dump(given))
        (stream,) = load_project(path).streams()
        assert type(stream.options).__name__ == "JournalOptions"
        monkeypatch.setenv("AIRFLOW_CONN_CLUB", '{"conn_type": "http", "host": "http://127.0.0.1:9"}')
        assert type(SourceHook("club").connector(stream)).__name__ == "Journal"
        people["format"] = "csv"
        path.write_text(yaml.safe_dump(given))
        with pytest.raises(ProjectError, match="format"):
            load_project(path)
    finally:
        monkeypatch.undo()
        installed.cache_clear()
        sys.modules.pop("journal", None)
