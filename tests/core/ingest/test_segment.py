# SPDX-License-Identifier: Apache-2.0
"""Calls of Segment's spec: what becomes of each, and that none is lost or counted twice."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.ingest.base import Fetched, RawFile
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.segment import EventOptions, as_calls
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.registry import load_project

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.project.model import Project
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Warehouse

PAGE = Path(__file__).parents[3] / "docs" / "connectors" / "events.md"
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)

TRACK = {
    "type": "track",
    "messageId": "m1",
    "userId": "u1",
    "event": "Order Completed",
    "properties": {"total": 12.5},
    "timestamp": "2026-07-01T12:00:00Z",
}


def calls(tmp_path: Path, *records: Any, options: EventOptions | None = None) -> list[Any]:
    """What becomes of the lines: bytes are lines as they are."""
    path = tmp_path / "in.ndjson"
    path.write_bytes(
        b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)
    )
    fetched = as_calls(
        options or EventOptions(spec="segment"), Fetched([RawFile(path, "in", "ndjson")]), tmp_path
    )
    (file,) = fetched.files
    lines = file.path.read_bytes().splitlines()
    return [json.loads(line) if line.startswith((b'{"', b"[")) else line for line in lines]


def test_a_call_keeps_what_it_says(tmp_path):
    (call,) = calls(tmp_path, TRACK)
    assert call == TRACK | {"originalTimestamp": TRACK["timestamp"]}


def test_a_batch_shares_what_it_says_with_its_calls(tmp_path):
    envelope = {
        "batch": [
            TRACK | {"context": {"ip": "::1", "page": {"path": "/a"}}},
            {"type": "page", "messageId": "m2", "anonymousId": None, "name": "Home"},
        ],
        "context": {"library": {"name": "x"}, "ip": "::2"},
        "integrations": {"All": True},
        "anonymousId": "a1",
        "sentAt": "2026-07-01T12:00:05Z",
        "writeKey": "secret",
        "_offset": 7,
    }
    track, page = calls(tmp_path, envelope)
    assert track["context"] == {"library": {"name": "x"}, "ip": "::1", "page": {"path": "/a"}}
    assert (track["userId"], track["anonymousId"], track["_offset"]) == ("u1", "a1", 7)
    assert page["event"] == "page"
    assert (page["anonymousId"], page["sentAt"], page["context"]) == (
        "a1",
        envelope["sentAt"],
        envelope["context"],
    )
    assert "writeKey" not in track | page
    assert "batch" not in track | page


def test_no_call_of_a_batch_says_where_the_batch_came_from(tmp_path):
    (call,) = calls(tmp_path, {"batch": [TRACK | {"_offset": 99}], "_offset": 7})
    assert call["_offset"] == 7


@pytest.mark.parametrize(
    ("given", "timestamp"),
    [
        # An hour behind: made 5 s before it was sent, so 5 s before it arrived.
        (
            {
                "originalTimestamp": "2026-07-01T11:00:00Z",
                "sentAt": "2026-07-01T11:00:05Z",
                "receivedAt": "2026-07-01T12:00:05Z",
            },
            "2026-07-01T12:00:00Z",
        ),
        # An import: made a year before it was sent.
        (
            {
                "timestamp": "2025-07-01T12:00:00Z",
                "sentAt": "2026-07-01T12:00:00Z",
                "receivedAt": "2026-07-01T12:00:01Z",
            },
            "2025-07-01T12:00:01Z",
        ),
        # The product's own word for its arrival counts where the call has none.
        (
            {
                "timestamp": "2026-07-01T14:00:00.250+02:00",
                "sentAt": "2026-07-01T12:00:01Z",
                "_received_at": "2026-07-01T12:00:02Z",
            },
            "2026-07-01T12:00:01.250000Z",
        ),
        # Sent before it was made: a broken clock, and nothing arrives before it was made.
        (
            {
                "timestamp": "2026-07-01T12:00:00Z",
                "sentAt": "1970-01-01T00:00:00Z",
                "receivedAt": "2026-07-01T12:00:05Z",
            },
            "2026-07-01T12:00:05Z",
        ),
        # Something is missing, or is no moment: as it came.
        ({"timestamp": "2026-07-01T12:00:00Z", "receivedAt": "2026-07-01T13:00:00Z"}, "2026-07-01T12:00:00Z"),
        (
            {
                "timestamp": "2026-07-01T12:00:00Z",
                "sentAt": "soon",
                "receivedAt": "2026-07-01T13:00:00Z",
            },
            "2026-07-01T12:00:00Z",
        ),
        ({"receivedAt": "2026-07-01T12:00:05Z"}, "2026-07-01T12:00:05Z"),
        ({"sentAt": "2026-07-01T12:00:05Z"}, "2026-07-01T12:00:05Z"),
        ({"timestamp": "yesterday"}, "yesterday"),
    ],
)
def test_the_clock_of_the_client_is_corrected(tmp_path, given, timestamp):
    bare = {key: value for key, value in TRACK.items() if key != "timestamp"}
    (call,) = calls(tmp_path, bare | given)
    assert call["timestamp"] == timestamp


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (TRACK | {"type": "purchase"}, "of a type"),
        ({"messageId": "m1", "userId": "u1"}, "of a type"),
        (TRACK | {"type": ["track"]}, "of a type"),
        (TRACK | {"event": " "}, "a call of type track without event"),
        (TRACK | {"userId": None}, "a call of nobody"),
        (TRACK | {"userId": ""}, "a call of nobody"),
        (TRACK | {"type": "group"}, "a call of type group without groupId"),
        ({"type": "alias", "messageId": "m1", "anonymousId": "a"}, "alias without previousId and userId"),
        ({"batch": "x"}, "of a type"),
    ],
)
def test_what_nobody_could_use_is_refused_whole(tmp_path, call, reason):
    ((said, refused),) = calls(tmp_path, call)
    assert reason in said
    assert refused == call


def test_a_batch_with_something_else_in_it_loses_nothing(tmp_path):
    first, second = calls(tmp_path, {"batch": [TRACK, 5], "sentAt": "2026-07-01T12:00:00Z"})
    assert first["messageId"] == "m1"
    assert second == ["a batch holds something that is no call", 5]


def test_what_is_no_object_stays_as_it_came(tmp_path):
    assert calls(tmp_path, b"{x", b"", b'"text"', b"[1, 2]") == [b"{x", b"", b'"text"', [1, 2]]


def test_numbers_keep_their_digits(tmp_path):
    (call,) = calls(tmp_path, json.dumps(TRACK).replace("12.5", "12345678901234567890.125").encode())
    assert call["properties"]["total"] == "12345678901234567890.125"


@pytest.mark.parametrize("odd", ["1e999", "NaN", '"\\ud800"'])
def test_what_only_a_lenient_reader_takes_is_refused(tmp_path, odd):
    line = json.dumps(TRACK).replace("12.5", odd)
    assert calls(tmp_path, line.encode()) == [["holds a number or a character that no engine can", line]]


#: Long numbers are tested above: they change their look.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["type", "messageId", "userId", "anonymousId", "event", "groupId", "previousId", "context", "traits"]
NAMES += ["timestamp", "originalTimestamp", "sentAt", "receivedAt", "integrations", "_offset"]
#: What a batch adds to, or decides.
SHARED = ("context", "integrations", "_offset")
CALL = st.dictionaries(
    st.sampled_from(NAMES),
    JSON
    | st.sampled_from(["track", "page", "alias", "group", "2026-07-01T12:00:00Z", "0001-01-01T00:00:00Z"]),
)
BATCH = st.tuples(CALL, st.lists(CALL | JSON)).map(
    lambda both: {**{key: value for key, value in both[0].items() if key != "type"}, "batch": both[1]}
)


@settings(max_examples=60 * int(os.environ.get("CDP_TEST_DEPTH", "1")), deadline=None)
@given(st.lists(CALL | BATCH, max_size=5))
def test_whatever_comes_every_call_becomes_a_line(tmp_path_factory, records):
    """Each is a record that says who and what, or stands there whole behind a reason."""
    given_calls = [call for record in records for call in record.get("batch", [record])]
    lines = calls(tmp_path_factory.mktemp("any"), *records)
    assert len(lines) == len(given_calls)
    for call, line in zip(given_calls, lines, strict=True):
        if isinstance(line, dict):
            assert line["type"] == call["type"]
            assert line["event"]
            assert any(
                str(line.get(key) or "").strip() or line.get(key) == 0 for key in ("userId", "anonymousId")
            )
            continue
        reason, whole = line
        assert isinstance(reason, str)
        if isinstance(call, dict):
            call = {key: value for key, value in call.items() if value is not None and key not in SHARED}
            whole = {key: whole.get(key) for key in call}
        assert whole == call


def test_other_types_leave_their_line_blank(tmp_path):
    only = EventOptions(spec="segment", types=("page",))
    page = {"type": "page", "messageId": "m2", "userId": "u1"}
    first, second = calls(tmp_path, TRACK, page, options=only)
    assert first == b""
    assert second["messageId"] == "m2"


def test_the_account_of_a_group_is_told_apart_from_its_members(tmp_path):
    given = {"type": "group", "messageId": "m", "userId": "u", "groupId": "g", "traits": {"email": "info@x"}}
    (call,) = calls(tmp_path, given)
    assert (call["groupId"], call["groupTraits"], "traits" in call) == ("g", {"email": "info@x"}, False)


def test_an_alias_of_its_own_anonymous_id_names_it_once(tmp_path):
    given = {"type": "alias", "messageId": "m", "userId": "u", "previousId": "a"}
    told, said_twice = calls(tmp_path, given, given | {"anonymousId": "a"})
    assert told["previousId"] == "a"
    assert (said_twice["anonymousId"], "previousId" in said_twice) == ("a", False)


def test_compressed_files_and_damaged_ones(tmp_path):
    path = tmp_path / "in.gz"
    packed = gzip.compress(json.dumps(TRACK).encode() + b"\n")
    path.write_bytes(packed)
    whole = Fetched([RawFile(path, "in.gz", "ndjson", compression="gzip")])
    (file,) = as_calls(EventOptions(spec="segment"), whole, tmp_path).files
    assert file.compression == ""
    assert json.loads(file.path.read_bytes())["messageId"] == "m1"
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match=r"in.gz is not a whole gzip file"):
        as_calls(EventOptions(spec="segment"), whole, tmp_path)


def test_without_a_spec_nothing_happens(tmp_path):
    fetched = Fetched([RawFile(tmp_path / "x", "x", "csv")])
    assert as_calls(EventOptions(), fetched, tmp_path) is fetched


# --- the whole road


HEAD = """
    project: shop
    schedule: "@daily"
    warehouse: {connection: warehouse}
    sources:
      site:
        type: files
        preset: segment
        streams:
"""


def project(tmp_path: Path, streams: str, *more: str) -> Project:
    path = tmp_path / "cdp.yaml"
    text = textwrap.dedent(HEAD) + textwrap.indent(textwrap.dedent(streams), " " * 6)
    path.write_text(text + "".join(map(textwrap.dedent, more)))
    return load_project(path)


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Any]:
    """A project whose one stream `events` reads files below `site`, and a function that writes them."""
    folder = tmp_path / "site"
    folder.mkdir()
    numbers = iter(range(100))

    def put(*records: Any) -> None:
        lines = (json.dumps(record) if not isinstance(record, str) else record for record in records)
        (folder / f"{next(numbers):03d}.ndjson").write_text("".join(f"{line}\n" for line in lines))

    return put


def landed(warehouse: Warehouse, project: Project, root: Path, run: Run) -> None:
    for stream in project.streams():
        land(warehouse, stream, FilesConnector(root), run)
        check(warehouse, stream, run)


def rows(warehouse: Warehouse, sql: str) -> list[tuple[Any, ...]]:
    with warehouse.session() as session:
        return session.fetch(sql)


EVENTS = "events: {path: 'site/*.ndjson', format: ndjson, quarantine: {max_share: 1}}\n"


def test_messages_that_come_again_count_once(warehouse, tmp_path, run, site):
    """Within a batch, in a later one, out of order: of one messageId there is one event."""
    chance = random.Random(5)
    sent = [
        TRACK | {"messageId": f"m{n}", "timestamp": (NOON + timedelta(minutes=n)).isoformat()}
        for n in range(40)
    ]
    declared = project(tmp_path, EVENTS)
    for day in (1, 2, 3):
        again = chance.choices(sent[: 13 * day], k=30)
        fresh = sent[13 * (day - 1) : 13 * day]
        chance.shuffle(mixed := [*again, *fresh, *fresh[:5]])
        site({"batch": mixed[:20]}, *mixed[20:])
        landed(warehouse, declared, tmp_path, run(day))
    found = rows(warehouse, f"select message_id, count(*) from {warehouse.table('site__events')} group by 1")
    assert sorted(found) == sorted((f"m{n}", 1) for n in range(39))
    assert rows(warehouse, f"select count(*) from {warehouse.table('raw_site__events')}") == [(3 * 48 - 0,)]


def test_every_record_is_landed_or_quarantined(warehouse, tmp_path, run, site):
    nameless = {key: value for key, value in TRACK.items() if key != "messageId"}
    site({"batch": [TRACK, TRACK | {"messageId": "m2", "userId": None}]}, '{"type": "track"', nameless, "[]")
    landed(warehouse, project(tmp_path, EVENTS), tmp_path, run())
    assert rows(warehouse, f"select message_id from {warehouse.table('site__events')}") == [("m1",)]
    bad = rows(warehouse, f"select raw from {warehouse.table('quarantine')} order by position")
    assert len(bad) == 4
    assert "a call of nobody" in bad[0][0]
    assert bad[1] == ('{"type": "track"',)
    reasons = rows(warehouse, f"select reason from {warehouse.table('quarantine')} order by position")
    assert 'primary key column "message_id" is missing' in reasons[2][0]


def test_streams_per_type_share_the_files(make_warehouse, tmp_path, run, site):
    warehouse = make_warehouse("duckdb")
    streams = "".join(
        f"{name}: {{path: 'site/*.ndjson', format: ndjson}}\n"
        for name in ("identifies", "tracks", "pages", "screens", "groups", "aliases")
    )
    common = {"userId": "u", "timestamp": "2026-07-01T10:00:00Z"}
    site(
        TRACK,
        {"type": "identify", "messageId": "i", **common, "traits": {"email": "u@x.org"}},
        {"type": "page", "messageId": "p", **common},
        {"type": "screen", "messageId": "s", **common},
        {"type": "group", "messageId": "g", **common, "groupId": "G"},
        {"type": "alias", "messageId": "a", **common, "previousId": "old"},
    )
    landed(warehouse, project(tmp_path, streams), tmp_path, run())
    counts = {
        name: rows(warehouse, f"select message_id from {warehouse.table('site__' + name)}")
        for name in ("identifies", "tracks", "pages", "screens", "groups", "aliases")
    }
    assert counts == {
        "identifies": [("i",)],
        "tracks": [("m1",)],
        "pages": [("p",)],
        "screens": [("s",)],
        "groups": [("g",)],
        "aliases": [("a",)],
    }


def test_types_without_a_spec_are_a_fault(tmp_path):
    stream = "events: {path: 'x', format: ndjson, spec: null, types: [page]}\n"
    with pytest.raises(ProjectError, match="add 'spec: segment'"):
        project(tmp_path, stream)
    with pytest.raises(ProjectError, match="the format is csv"):
        project(tmp_path, "events: {path: 'x', format: csv}\n")


# --- the example of the docs


def test_the_example_of_the_docs(warehouse, tmp_path, run):
    """Three hours of a small site: who came, who they turned out to be, what they are worth."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "cdp.yaml").write_text(text)
    declared = load_project(tmp_path / "cdp.yaml")
    shown = [line.strip() for line in PAGE.read_text().splitlines() if line.startswith('    {"')]
    assert len(shown) == 3

    def call(kind: str, number: int, **more: Any) -> dict[str, Any]:
        at = NOON + timedelta(minutes=number)
        return {"type": kind, "messageId": f"c{number}", "timestamp": at.isoformat(), **more}

    order = {"event": "Order Completed", "properties": {"total": "7.25"}}
    days = [
        [
            *shown,
            call("page", 1, anonymousId="a1"),
            call("page", 2, anonymousId="a2"),
            call("track", 3, anonymousId="a2", **order),
        ],
        [
            *shown,
            call(
                "identify",
                10,
                anonymousId="a2",
                userId="u2",
                traits={"email": "Ann@example.com", "plan": "free"},
            ),
            call("group", 11, userId="u2", groupId="acme", traits={"email": "info@example.com"}),
            call("track", 12, userId="u3", **order),
            call("identify", 13, userId="u4", traits={"email": "info@example.com"}),
        ],
        [
            call("alias", 20, userId="u3", previousId="u2"),
            call("track", 3, anonymousId="a2", **order),
            call("group", 21, userId="u1", groupId="acme"),
            call("identify", 22, userId="u3", traits={"plan": "paid"}),
        ],
    ]
    (tmp_path / "site").mkdir()
    streams = list(declared.streams())
    for day, lines in enumerate(days, 1):
        text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        with gzip.open(tmp_path / "site" / f"{day}.ndjson.gz", "wt") as file:
            file.write(text)
        landed(warehouse, declared, tmp_path, run(day))
        resolve(warehouse, declared.identity, streams, run(day))
        build_profiles(warehouse, declared.profiles, streams, run(day))
    found = rows(
        warehouse,
        f"select email, plan, company, visits, orders, revenue from {warehouse.table('profiles')}"
        " order by revenue, email",
    )
    assert [(*row[:5], float(row[5])) for row in found] == [
        ("info@example.com", None, None, 0, 0, 0.0),
        ("jo@example.com", None, "acme", 2, 1, 12.5),
        ("Ann@example.com", "paid", "acme", 1, 2, 14.5),
    ]
    accounts = rows(warehouse, f"select account, people, revenue from {warehouse.table('accounts')}")
    assert [(name, people, float(revenue)) for name, people, revenue in accounts] == [("acme", 2, 27.0)]
