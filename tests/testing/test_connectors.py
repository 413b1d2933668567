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
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import psycopg
import pytest
import yaml

from cdp_provider.core import tables
from cdp_provider.core.exceptions import AccessError
from cdp_provider.core.ingest import CONNECTORS
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.http import HttpConnector, Patience
from cdp_provider.core.ingest.inbox import InboxConnector, append
from cdp_provider.core.ingest.kafka import KafkaConnector
from cdp_provider.core.ingest.postgres_cdc import PostgresCdcConnector
from cdp_provider.core.ingest.sql import Database, SqlConnector
from cdp_provider.core.plugins import installed
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.registry import load_project
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from cdp_provider.hooks.source import SourceHook
from cdp_provider.testing.connectors import (
    ConnectorConformance,
    HttpConformance,
    SourceUnderTest,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-connector.md").read_text()
SINCE = {"column": "updated_at", "parameter": "since", "overlap": "1 hour"}


class OverHttp(HttpConformance):
    kind = HttpConnector

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


class TestHttpNone(OverHttp):
    options: ClassVar[dict[str, Any]] = {"path": "/items", "cursor": SINCE}


MORE = {"more": "meta.more"}


@pytest.mark.parametrize(
    "options",
    [
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
    ids=["page", "page_0", "offset", "offset_1", "last_record", "link", "next_url", "done", "stop"],
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
def test_every_paging(test, options, tmp_path):
    suite = TestHttpCursor()
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


class OfFiles(ConnectorConformance):
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


class OfTables(ConnectorConformance):
    kind = SqlConnector
    absent: ClassVar[dict[str, Any]] = {"table": "nowhere"}


class TestSqlite(OfTables):
    inapplicable: ClassVar[dict[str, str]] = {"a_source_that_refuses_us_is_said": "SQLite knows no users"}

    @contextmanager
    def source(self, folder):
        yield Table("sqlite", lambda: sqlite3.connect(folder / "source.db"), "records")


class TestSqlPostgres(OnPostgres, OfTables):
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


class TestPostgresCdc(TestSqlPostgres):
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

    def __init__(self, folder: Path) -> None:
        self.holds = DuckDBWarehouse(lambda: duckdb.connect(str(folder / "inbox.duckdb")))
        with self.holds.session() as session:
            tables.ensure(session)

    def put(self, records, at):
        with self.holds.session() as session:
            append(session, "conformance", [json.dumps(record) for record in records], received_at=at)

    def connector(self):
        return InboxConnector(self.holds)


class TestInbox(ConnectorConformance):
    kind = InboxConnector
    bounded = "arrival"
    inapplicable: ClassVar[dict[str, str]] = {
        "what_is_not_there_is_said": "a channel is there when its first message is",
        "a_source_that_refuses_us_is_said": "it is the warehouse itself",
    }

    @contextmanager
    def source(self, folder):
        yield Inbox(folder)


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


class TestKafka(ConnectorConformance):
    kind = KafkaConnector
    bounded = "arrival"
    absent: ClassVar[dict[str, Any]] = {"topics": "not.a.topic"}
    huge = 900_000  # brokers take a megabyte
    inapplicable: ClassVar[dict[str, str]] = {
        "a_source_that_refuses_us_is_said": "librdkafka's own broker lets everybody in"
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
def test_it_finds_a_connector_that(kind, test, tmp_path):
    suite = TestHttpCursor()
    suite.connect = lambda endpoint: kind(endpoint, patience=Patience(base=0.01))
    with pytest.raises(AssertionError):
        getattr(suite, f"test_{test}")(tmp_path)


def test_what_does_not_apply_must_be_a_test():
    with pytest.raises(TypeError, match="names 'nonsense', which is no test"):
        type("Wrong", (ConnectorConformance,), {"inapplicable": {"nonsense": "none"}})


def test_every_kind_is_tested_here():
    tested = {kind.kind for kind in _subclasses(ConnectorConformance) if "kind" in vars(kind)}
    ours = {kind for kind in CONNECTORS.values() if kind.__module__.startswith("cdp_provider.")}
    assert {kind.__name__ for kind in ours - tested} <= {"NestedConnector", "SingerConnector", "DltConnector"}


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
    ended = subprocess.run(
        [*command, "--rootdir", ".", "test_journal.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stdout
    passed, skipped = (int(n) for n in re.search(r"(\d+) passed, (\d+) skipped", ended.stdout).groups())
    assert passed > 30
    assert skipped == 5, ended.stdout
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
