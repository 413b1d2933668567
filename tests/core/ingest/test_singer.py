# SPDX-License-Identifier: Apache-2.0
"""Taps as programs: one of singer-sdk's, one written by hand that behaves badly, and one that is fast."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import psutil
import pytest
from pydantic import ValidationError

from cdp_provider.core.exceptions import (
    ConfigurationError,
    DataError,
    NotFoundError,
    UnavailableError,
)
from cdp_provider.core.ingest import program
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.program import Settings
from cdp_provider.core.ingest.singer import SingerConnector, SingerOptions
from cdp_provider.core.ingest.singer_catalog import chosen
from cdp_provider.core.project.streams import Stream
from cdp_provider.testing.connectors import ConnectorConformance, SourceUnderTest
from tests.core.ingest.conftest import window
from tests.core.ingest.environments import python_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.ingest.base import Cursor, Fetched

HERE = Path(__file__).parent
HAND = (sys.executable, str(HERE / "hand_tap.py"))
SECRET = "hush+/hush hush"
DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))


def stream_of(*steps: dict[str, Any], **options: Any) -> Stream:
    columns = {"id": "integer", "text": "string", "price": "decimal", "at": "timestamp"}
    given = {"command": HAND, "select": "all", "config": {"steps": steps}} | options
    return Stream(
        source="forms",
        name="answers",
        primary_key=("id",),
        columns=given.pop("columns", columns),
        quarantine={"max_share": 0.5},
        options=SingerOptions(**given),
    )


@pytest.fixture
def fetch(tmp_path) -> Callable[..., tuple[Fetched, list[str]]]:
    """A function that runs the tap once, and gives what it brought and its lines."""

    def once(
        stream: Stream, cursor: Cursor | None = None, settings: Settings | None = None
    ) -> tuple[Fetched, list[str]]:
        spool = tmp_path / f"spool_{len(list(tmp_path.iterdir()))}"
        spool.mkdir()
        fetched = SingerConnector(settings or Settings()).fetch(stream, cursor, window(), spool)
        return fetched, fetched.files[0].path.read_text().splitlines()

    return once


@pytest.fixture
def told(tmp_path) -> Iterator[Callable[[], dict[str, Any]]]:
    """A function that gives what the tap was started with; in the end nothing is left of it."""
    path = tmp_path / "told.json"
    yield lambda: json.loads(path.read_text())
    if path.exists():
        facts = json.loads(path.read_text())
        assert not Path(facts["folder"]).exists()
        assert not lives(facts["pid"])


def lives(pid: int) -> bool:
    """Nobody may be there to bury the dead of the dead."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def rows(warehouse: Any, columns: str = "id") -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(f"select {columns} from {warehouse.table('forms__answers')} order by id")


def test_every_window_goes_on_where_the_tap_said(warehouse, run):
    connector = SingerConnector(Settings())
    report = land(warehouse, stream_of({"count": 3}), connector, run(1))
    check(warehouse, stream_of({"count": 3}), run(1))
    assert (report.rows_out, report.detail["records"]) == (3, 3)
    report = land(warehouse, stream_of({"count": 5}), connector, run(2))
    check(warehouse, stream_of({"count": 5}), run(2))
    assert report.rows_out == 2
    assert rows(warehouse) == [(n,) for n in range(5)]
    # The first window again: from its own beginning, with whatever the tap gives today.
    assert land(warehouse, stream_of({"count": 5}), connector, run(1)).rows_out == 5
    check(warehouse, stream_of({"count": 5}), run(1))
    assert rows(warehouse) == [(n,) for n in range(5)]


def test_the_last_state_counts_and_is_opaque(fetch):
    value = {"bookmarks": {"answers": {"n": 12345678901234567890123, "at": None}}}
    fetched, _ = fetch(stream_of({"state": {"n": 1}}, {"record": {"id": 1}}, {"state": value}))
    assert fetched.cursor == {"state": value}


def test_without_a_state_the_one_before_stays(fetch, tmp_path, told):
    steps = ({"tell": str(tmp_path / "told.json")}, {"record": {"id": 1}})
    fetched, _ = fetch(stream_of(*steps), {"state": {"n": 1}})
    assert fetched.cursor == {"state": {"n": 1}}
    assert told()["state"] == {"n": 1}
    assert fetch(stream_of({"record": {"id": 1}}))[0].cursor is None


def test_records_come_as_they_were_written(fetch):
    record = '{"id": 1, "price": 1.10, "long": 12345678901234567890.123456789, "a": {"b": [1, "}}"]}}'
    own = [
        f'{{"type": "RECORD", "stream": "answers", "record": {record}}}',
        f'{{"type":"RECORD","stream":"answers","record":{record},"time_extracted":"2026-07-01T00:00:00Z"}}',
        f'{{"type": "RECORD", "stream": "answers", "record": {record}, "version": 1, "time_extracted": ""}} ',
        f'{{"type": "RECORD", "stream": "answers", "record": {record}, "version": null}}',
    ]
    fetched, lines = fetch(stream_of(*({"line": line} for line in own)))
    assert lines == [record] * 4
    assert fetched.detail == {"records": 4}


@pytest.mark.parametrize(
    "line",
    [
        '{"record": {"id": 1, "a": {}}, "stream": "answers", "type": "RECORD"}',
        '{"type": "RECORD", "stream": "answers", "record": {"id": 1, "a": {}}, "more": {"b": {}}}',
        '{"type": "RECORD", "stream": "answers", "record": {"id": 1, "a": {}}, "more": 1, "version": 2}',
        '  {"type":"RECORD", "stream":"answers", "record":{"id":1,"a":{}}}\t\r',
        '{"type": "record", "stream": "answers", "record": {"id": 1, "a": {}}}',
    ],
)
def test_records_in_an_unusual_spelling_are_records_too(fetch, line):
    fetched, (found,) = fetch(stream_of({"line": line}))
    assert json.loads(found) == {"id": 1, "a": {}}
    assert fetched.detail == {"records": 1}


def test_text_may_look_like_the_end_of_a_message(fetch):
    texts = ['}, "version": 1}', ', "time_extracted": "x"}', '"}}', "}}"]
    _, lines = fetch(stream_of(*({"record": {"id": 1, "text": text}} for text in texts)))
    assert [json.loads(line)["text"] for line in lines] == texts


def test_what_is_no_message_is_quarantined(warehouse, run):
    stream = stream_of(
        {"line": "Starting to sync..."},
        {"line": '{"type": "RECORD", "stream": "answers", "record": {"id": 1, "price": NaN}}'},
        {"line": '{"type": "RECORD", "stream": "answers", "record": {"id": 2}'},
        {"line": '{"type": "RECORD", "stream": "answers", "record": [1]}'},
        {"record": {"id": 3}},
        {"line": ""},
        {"line": '{"type": "METRIC", "value": 1}'},
        {"line": '{"type": "ACTIVATE_VERSION", "stream": "answers", "version": 1}'},
    )
    report = land(warehouse, stream, SingerConnector(Settings()), run())
    assert (report.rows_out, report.rows_refused, report.detail["refused"]) == (1, 4, 4)
    with warehouse.session() as session:
        raw = [
            r for (r,) in session.fetch(f"select raw from {warehouse.table('quarantine')} order by position")
        ]
    assert [json.loads(r)[1]["line"] for r in raw] == [1, 2, 3, 4]
    assert json.loads(raw[0])[2] == "Starting to sync..."


def test_other_streams_are_left_out(fetch):
    other = '{"type": "RECORD", "stream": "forms", "record": {"id": 1}}'
    fetched, lines = fetch(stream_of({"line": other}, {"record": {"id": 2}}))
    assert (lines, fetched.detail) == (['{"id": 2}'], {"records": 1, "other_streams": 1})
    with pytest.raises(NotFoundError, match="gave no stream 'answers'; as `stream`, name one of forms"):
        fetch(stream_of({"line": other}))


def test_deletions(warehouse, run):
    columns = {"id": "integer", "text": "string"}
    first = ({"record": {"id": 1, "text": "a"}}, {"record": {"id": 2, "text": "b"}})
    then = ({"record": {"_sdc_deleted_at": "2026-07-01T00:00:00Z", "id": 1}},)
    more = ({"record": {"id": 2, "text": "c", "_sdc_deleted_at": None}},)
    for day, steps in enumerate((first, then + more), 1):
        stream = stream_of(*steps, deletions=True, columns=columns)
        land(warehouse, stream, SingerConnector(Settings()), run(day))
        check(warehouse, stream, run(day))
    assert rows(warehouse, "id, text") == [(2, "c")]


def test_what_a_complete_tap_no_longer_gives_is_gone(warehouse, run):
    for day, ids in enumerate(((1, 2), (2, 3)), 1):
        stream = stream_of(*({"record": {"id": n}} for n in ids), complete=True)
        land(warehouse, stream, SingerConnector(Settings()), run(day))
        check(warehouse, stream, run(day))
    assert rows(warehouse) == [(2,), (3,)]


def test_a_tap_that_dies_changes_nothing(warehouse, run):
    connector = SingerConnector(Settings())
    land(warehouse, stream_of({"count": 2}), connector, run(1))
    check(warehouse, stream_of({"count": 2}), run(1))
    dying = stream_of({"count": 4}, {"stderr": "out of tea"}, {"exit": 3})
    with pytest.raises(UnavailableError, match="with the exit code 3; .*stands in the task's log$"):
        land(warehouse, dying, connector, run(2))
    assert rows(warehouse) == [(0,), (1,)]
    assert land(warehouse, stream_of({"count": 4}), connector, run(2)).rows_out == 2
    with pytest.raises(UnavailableError, match="by the signal 9; .*nothing on stderr"):
        land(warehouse, stream_of({"kill": 9}), connector, run(3))


def test_secrets_are_seen_nowhere(fetch, tmp_path, told, caplog, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "never")
    monkeypatch.setenv("PYTHONPATH", "/never")
    lines = [
        SECRET,
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        json.dumps("my\nkey ä"),
    ]
    steps = [{"tell": str(tmp_path / "told.json")}, *({"stderr": f"token {line}."} for line in lines)]
    settings = Settings(
        {"password": SECRET, "host": "forms.test"}, {"deep": [{"key": "my\nkey ä"}]}, folder=tmp_path
    )
    stream = stream_of(*steps, {"exit": 1}, credentials={"token": "password", "url": "host"})
    with caplog.at_level(logging.INFO), pytest.raises(UnavailableError) as error:
        fetch(stream, None, settings)
    text = str(error.value) + caplog.text
    assert text.count("token ***.") == 3
    assert text.count('token "***".') == 1
    assert not any(secret in text for secret in (SECRET, "hush", "key ä"))
    facts = told()
    assert {**facts["config"], "steps": 0} == {
        "steps": 0,
        "deep": [{"key": "my\nkey ä"}],
        "token": SECRET,
        "url": "forms.test",
    }
    assert facts["modes"] == ["0o600"]
    assert not [name for name in facts["environment"] if name.startswith(("AIRFLOW", "PYTHON"))]


def test_a_credential_that_is_not_there(fetch):
    with pytest.raises(ConfigurationError, match="token is to be the password of the source's connection"):
        fetch(stream_of({"count": 1}, credentials={"token": "password"}))


def test_a_talkative_tap_does_not_fill_the_log(fetch, caplog, monkeypatch):
    monkeypatch.setattr(program, "_LINES", 3)
    with caplog.at_level(logging.INFO):
        fetch(stream_of(*({"stderr": f"line {n} " + "x" * 1000} for n in range(10))))
    assert len(caplog.messages) == 4
    assert caplog.messages[-1].endswith("7 more lines")
    assert max(map(len, caplog.messages)) < 600


@pytest.mark.parametrize("key", ["max_wait", "max_time"])
def test_a_tap_that_hangs_is_ended_with_all_its_children(fetch, tmp_path, told, monkeypatch, key):
    monkeypatch.setattr(program, "_GRACE", 0.2)
    child = tmp_path / "child"
    steps = ({"deaf": 1}, {"child": str(child)}, {"tell": str(tmp_path / "told.json")}, {"record": {"id": 1}})
    with pytest.raises(UnavailableError, match=f"`{key}`"):
        fetch(stream_of(*steps, {"sleep": 600}, **{key: "1 second"}))
    assert told()
    assert not lives(int(child.read_text()))


def test_children_that_a_tap_leaves_behind_hold_nobody_up(fetch, tmp_path):
    child = tmp_path / "child"
    _, lines = fetch(stream_of({"child": str(child)}, {"record": {"id": 1}}))
    assert len(lines) == 1
    assert not lives(int(child.read_text()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_worker_is_killed(tmp_path, told, number):
    path = tmp_path / "told.json"
    config = {"steps": [{"tell": str(path)}, {"line": "x" * 10}, {"sleep": 600}]}
    code = (
        "import sys; from pathlib import Path; from tests.core.ingest.test_singer import *\n"
        f"stream = stream_of(config={config!r})\n"
        f"SingerConnector(Settings()).fetch(stream, None, window(), Path({str(tmp_path)!r}))"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=HERE.parents[2], start_new_session=True)
    until(lambda: path.exists() and path.read_text().endswith("}"))
    os.killpg(worker.pid, number)
    worker.wait()
    facts = told()
    until(lambda: not lives(facts["pid"]) and not Path(facts["folder"]).exists())


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_huge_record(warehouse, run):
    stream = stream_of({"huge": 2_000_000}, {"record": {"id": 2}})
    assert land(warehouse, stream, SingerConnector(Settings()), run()).rows_out == 2


def test_an_endless_line(fetch, monkeypatch):
    monkeypatch.setattr("cdp_provider.core.ingest.singer_messages._LONGEST", 1_000_000)
    with pytest.raises(DataError, match="line of more than 1 MB"):
        fetch(stream_of({"huge": 2_000_000}))


@pytest.mark.parametrize(
    ("line", "error", "match"),
    [
        ('{"type": "BATCH", "stream": "answers"}', ConfigurationError, "batch_config"),
        ('{"type": "STATE", "value": 3}', DataError, "state that is no JSON object, in line 1"),
    ],
)
def test_messages_that_nobody_understands(fetch, line, error, match):
    with pytest.raises(error, match=match):
        fetch(stream_of({"line": line}))


def test_a_tap_that_is_not_there(fetch):
    with pytest.raises(NotFoundError, match="'tap-nothing', and there is no such program"):
        fetch(stream_of(command="tap-nothing"))


CATALOG = {
    "streams": [
        {
            "tap_stream_id": "public-answers",
            "stream": "answers",
            "schema": {"properties": {"id": {}, "text": {}, "blob": {}}},
            "metadata": [
                {"breadcrumb": [], "metadata": {"table-key-properties": ["id"]}},
                {"breadcrumb": ["properties", "blob"], "metadata": {"inclusion": "unsupported"}},
            ],
        },
        {"tap_stream_id": "public-forms", "stream": "forms", "schema": {}},
        {"tap_stream_id": "old-forms", "stream": "forms", "schema": {}},
    ]
}


def test_the_stream_is_chosen_in_the_catalog(fetch, tmp_path, told):
    config = {"discovers": CATALOG, "steps": [{"tell": str(tmp_path / "told.json")}]}
    options = {"replication_method": "INCREMENTAL", "replication_key": "at"}
    fetch(stream_of(select="stream", config=config, **options))
    first, *others = told()["catalog"]["streams"]
    assert [entry["selected"] for entry in (first, *others)] == [True, False, False]
    marks = {tuple(item["breadcrumb"]): item["metadata"] for item in first["metadata"]}
    assert marks == {
        (): {
            "table-key-properties": ["id"],
            "selected": True,
            "replication-method": "INCREMENTAL",
            "replication-key": "at",
        },
        ("properties", "blob"): {"inclusion": "unsupported"},
        ("properties", "id"): {"selected": True},
        ("properties", "text"): {"selected": True},
    }


@pytest.mark.parametrize("named", ["answers", "public-answers"])
@pytest.mark.parametrize("said", ["answers", "public-answers"])
def test_records_may_name_the_stream_or_its_id(fetch, named, said):
    line = f'{{"type": "RECORD", "stream": "{said}", "record": {{"id": 1}}}}'
    config = {"discovers": CATALOG, "steps": [{"line": line}]}
    assert fetch(stream_of(select="stream", stream=named, config=config))[1] == ['{"id": 1}']


def test_a_stream_that_the_catalog_has_not_once():
    with pytest.raises(NotFoundError, match="no stream 'anwsers'; as `stream`, name one of answers, forms"):
        chosen(CATALOG, "anwsers", what="the tap")
    with pytest.raises(
        NotFoundError, match="several streams 'forms'; .* old-forms, public-answers, public-f"
    ):
        chosen(CATALOG, "forms", what="the tap")
    assert chosen(CATALOG, "old-forms", what="the tap")["streams"][2]["selected"]


def test_a_catalog_of_ones_own(fetch, tmp_path, told):
    (tmp_path / "catalog.json").write_text(json.dumps(CATALOG))
    (tmp_path / "wrong.json").write_text("{")
    settings = Settings(folder=tmp_path)
    steps = ({"tell": "told.json"},)
    fetch(stream_of(*steps, select="stream", catalog="catalog.json"), None, settings)
    assert told()["catalog"] == CATALOG
    with pytest.raises(ConfigurationError, match=r"'wrong\.json' is no JSON"):
        fetch(stream_of(*steps, select="stream", catalog="wrong.json"), None, settings)
    with pytest.raises(NotFoundError, match=r"no 'none\.json'"):
        fetch(stream_of(*steps, select="stream", catalog="none.json"), None, settings)


@pytest.mark.parametrize("found", [[], {"streams": 1}, {"streams": ["answers"]}])
def test_what_is_no_catalog(fetch, found):
    with pytest.raises(DataError, match="discovers no catalog"):
        fetch(stream_of(select="stream", config={"discovers": found, "steps": []}))


@pytest.mark.parametrize(
    "options",
    [
        {"catalog": "catalog.json"},
        {"replication_method": "LOG_BASED"},
        {"select": "stream", "complete": True, "replication_method": "INCREMENTAL"},
    ],
)
def test_options_that_contradict_each_other(options):
    with pytest.raises(ValidationError):
        stream_of(**options)


def test_many_records_are_fast(fetch, tmp_path):
    count = 100_000 * DEPTH
    record = json.dumps({"id": 1234567, "email": "a@b.test", "address": {"city": "Bonn"}, "notes": "x" * 250})
    line = f'{{"type": "RECORD", "stream": "answers", "record": {record}, "time_extracted": "2026-07-01"}}\n'
    path = tmp_path / "lines"
    path.write_text(line * count)
    stream = stream_of(command=("sh", "-c", f"cat {path}"))
    began = time.process_time()
    fetched, _ = fetch(stream)
    assert fetched.detail == {"records": count}
    assert time.process_time() - began < 1.5 * DEPTH  # 0.3 s per 100,000 on a quiet machine


@pytest.fixture(scope="module")
def sdk() -> Path:
    return python_with("singer-sdk>=0.54")


def test_a_tap_of_singer_sdk(warehouse, run, sdk, tmp_path):
    path = tmp_path / "rows.json"
    columns = {"id": "integer", "name": "string", "price": "decimal", "updated_at": "timestamp"}
    options = {
        "command": (str(sdk), str(HERE / "sdk_tap.py")),
        "select": "stream",
        "config": {"path": "rows.json"},
        "credentials": {"token": "password"},
    }
    stream = stream_of(columns=columns, **options)
    connector = SingerConnector(Settings({"password": SECRET}, {}, tmp_path))
    days = [
        [{"id": 1, "name": "Ann", "price": 1.5, "updated_at": "2026-07-01T08:00:00Z"}],
        [
            {"id": 1, "name": "Ann", "price": 1.5, "updated_at": "2026-07-01T08:00:00Z"},
            {"id": 2, "name": "Zoë", "price": None, "updated_at": "2026-07-02T08:00:00Z"},
            {"id": 1, "name": "Anna", "price": 2, "updated_at": "2026-07-02T09:00:00Z"},
        ],
    ]
    for day, records in enumerate(days, 1):
        path.write_text(json.dumps(records))
        report = land(warehouse, stream, connector, run(day))
        check(warehouse, stream, run(day))
    assert rows(warehouse, "id, name, cast(price as integer)") == [(1, "Anna", 2), (2, "Zoë", None)]
    # A tap's bookmark takes the newest row again; of "others", which it has too, there is none.
    assert report.detail["records"] == 3
    assert "other_streams" not in report.detail


class Lines(SourceUnderTest):
    """A file that a tap reads, from where its state says."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "records.ndjson"
        self.path.touch()

    @property
    def options(self):
        steps = [{"file": str(self.path)}]
        return {"command": HAND, "select": "all", "stream": "records", "config": {"steps": steps}}

    def put(self, records, at):
        with self.path.open("ab") as file:
            file.writelines(json.dumps(record).encode() + b"\n" for record in records)

    def connector(self):
        return SingerConnector(Settings())


class TestSinger(ConnectorConformance):
    kind = SingerConnector
    bounded = "nothing"
    absent: ClassVar[dict[str, Any]] = {"command": "tap-nowhere"}
    huge = 2_000_000
    inapplicable: ClassVar[dict[str, str]] = {
        "landing_a_window_again_ends_where_it_ended": "a tap ends where it ends",
        "landing_a_window_again_changes_nothing": "it adds what came since then",
        "a_source_that_refuses_us_is_said": "a tap tells that it failed, and not why",
    }

    @contextmanager
    def source(self, folder):
        yield Lines(folder)
