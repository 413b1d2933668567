# SPDX-License-Identifier: Apache-2.0
"""Windows asked stretch by stretch, sources that give the newest first, coarse and numeric cursors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError, DataError
from cdp_provider.core.ingest import moments, progress
from tests.core.ingest.conftest import START
from tests.core.ingest.fetching import Ledger, fetch, stream_of
from tests.core.ingest.service import Answer, Asked, Service

UNIX = {"updated_at": {"type": "timestamp", "format": "unix"}}
DAY = 86_400
FIRST = int(START.timestamp())  # 1 July 2026


def ledger(**window: Any) -> Any:
    return stream_of(
        UNIX,
        paging={"type": "last_record", "field": "id", "parameter": "after", "more": "more"},
        cursor={"column": "updated_at"},
        window={"start": "created[gte]", "end": "created[lt]", "step": "1 day", "format": "unix", **window},
    )


def asked_for(service: Service) -> list[tuple[int, int]]:
    """Days of July from and to which the source was asked, each once."""
    spans = [(asked.query["created[gte]"], asked.query["created[lt]"]) for asked in service.asked]
    return [
        ((int(low) - FIRST) / DAY + 1, (int(high) - FIRST) / DAY + 1) for low, high in dict.fromkeys(spans)
    ]


def test_stretch_by_stretch_from_the_declared_start_then_from_the_cursor():
    source = Ledger(*(FIRST - 3 * DAY + n * DAY // 4 for n in range(12)))  # three days before July
    with Service(source) as service:
        first = fetch(service, ledger(**{"from": "2026-06-28"}), day=0)
        assert asked_for(service) == [(-2, -1), (-1, 0), (0, 1)]
        assert sorted(first.ids) == list(range(12))
        assert first.detail == {"requests": 6, "stretches": 3, "left_for_later": 0, "already_landed": 0}
        assert first.cursor["value"] == FIRST - DAY // 4
        service.asked.clear()
        source.rows += [{"id": 12, "updated_at": FIRST + 5}, {"id": 13, "updated_at": FIRST + DAY}]
        second = fetch(service, ledger(), first.cursor)
        assert asked_for(service) == [(0.75, 1.75), (1.75, 2)]
        assert second.ids == [12]
        assert second.detail == {"requests": 2, "stretches": 2, "left_for_later": 0, "already_landed": 1}


def test_from_is_not_asked_again_and_a_missing_start_is_told():
    with Service(Ledger()) as service:
        fetch(service, ledger(), day=3)  # the run's window
        assert asked_for(service) == [(3, 4)]
        service.asked.clear()
        fetch(
            service,
            ledger(step="12 hours"),
            {"column": "updated_at", "value": FIRST + DAY},
            whole=False,
            day=2,
        )
        assert asked_for(service) == [(2, 2.5), (2.5, 3)]
        with pytest.raises(
            ConfigurationError, match="crm.customers is asked stretch by stretch.*give `from`"
        ):
            fetch(service, ledger(), whole=False)


def test_a_backfill_asks_for_its_own_window_and_leaves_the_cursor_where_it_is():
    source = Ledger(FIRST + 10, FIRST + 5 * DAY)
    with Service(source) as service:
        newest = fetch(service, ledger(), day=6)
        assert (newest.ids, asked_for(service)) == ([1], [(6, 7)])
        service.asked.clear()
        filled = fetch(service, ledger(), newest.cursor, day=1)
        assert (filled.ids, asked_for(service)) == ([0], [(1, 2)])
        assert filled.cursor == newest.cursor
        assert fetch(service, ledger(), newest.cursor, day=1, whole=False).ids == []  # nothing says from when


def test_stretches_overlap_the_last_batch_as_much_as_the_cursor_says():
    source = Ledger(FIRST + 100, FIRST + 200)
    stream = ledger()
    options = stream.options.model_copy(
        update={"cursor": stream.options.cursor.model_copy(update={"overlap": timedelta(seconds=100)})}
    )
    stream = stream.model_copy(update={"options": options})
    with Service(source) as service:
        first = fetch(service, stream)
        source.rows.append({"id": 2, "updated_at": FIRST + 150})  # late
        again = fetch(service, stream, first.cursor)
    assert (first.ids, again.ids) == ([1, 0], [2])
    assert again.detail["already_landed"] == 2


def test_places_of_a_stretch_may_be_texts_and_days_are_never_cut():
    stream = stream_of(
        parameters={"q": "from {since} to {until}"},
        cursor={"column": "updated_at"},
        window={"step": "6 hours", "format": "date", "from": "2026-06-30T15:00:00Z"},
    )
    with Service(lambda _: Answer(body={"data": []})) as service:
        fetch(service, stream)
    assert [asked.query["q"] for asked in service.asked] == [
        "from 2026-06-30 to 2026-07-01",
        "from 2026-07-01 to 2026-07-02",
    ]


def test_a_source_that_ignores_the_window_is_refused():
    rows = [{"id": n, "updated_at": FIRST + n * DAY} for n in range(-3, 4)]
    with Service(lambda _: Answer(body={"data": rows})) as service:
        with pytest.raises(DataError, match="GET /customers was asked for 2026-07-01.*ignores the places"):
            fetch(service, ledger())
        assert len(service.asked) == 1


class Feed:
    """Newest first, three to a page, with no way to filter."""

    def __init__(self, count: int) -> None:
        self.rows = [{"id": n, "updated_at": stamp(n)} for n in range(count)]

    def __call__(self, asked: Asked) -> Answer:
        start = int(asked.query["offset"])
        rows = sorted(self.rows, key=lambda row: row["updated_at"], reverse=True)
        return Answer(body={"data": rows[start : start + 3]})


def stamp(minutes: int) -> str:
    return (START + timedelta(minutes=minutes)).isoformat()


def test_the_newest_first_until_what_is_known():
    source = Feed(20)
    stream = stream_of(
        paging={"type": "offset"}, cursor={"column": "updated_at", "stop": True, "overlap": "2 minutes"}
    )
    with Service(source) as service:
        first = fetch(service, stream)
        assert (first.ids, len(service.asked)) == (list(range(19, -1, -1)), 8)
        source.rows += [{"id": n, "updated_at": stamp(n)} for n in (20, 21)]
        source.rows += [
            {"id": "late", "updated_at": stamp(18)},
            {"id": "too late", "updated_at": stamp(16)},
            {"id": "ahead", "updated_at": stamp(3 * 1440)},
        ]
        service.asked.clear()
        second = fetch(service, stream, first.cursor)
        # ahead 21 20, 19 18 late, 17 16 ...: the third page reaches below minute 17.
        assert len(service.asked) == 3
        assert second.ids == [21, 20, "late"]
        assert second.detail == {"requests": 3, "left_for_later": 1, "already_landed": 5}
        assert second.cursor["value"] == stamp(21)
        service.asked.clear()
        third = fetch(service, stream, second.cursor)
        assert (third.ids, len(service.asked)) == ([], 2)
        # A failed batch is read again, from where it began.
        assert fetch(service, stream, first.cursor, until=second.cursor).ids == second.ids


def test_the_newest_first_down_to_a_start():
    stream = stream_of(
        paging={"type": "offset"},
        cursor={"column": "updated_at", "stop": True, "start": (START + timedelta(minutes=10)).isoformat()},
    )
    with Service(Feed(20)) as service:
        # The last page is landed whole.
        assert fetch(service, stream).ids == list(range(19, 7, -1))


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("kind", [int, str, float])
def test_cursors_that_are_numbers(scale, kind):
    """As sources write them: whole, as a text, with a fraction."""
    form = {1: "unix", 1000: "unix_ms"}[scale]
    stream = stream_of(
        {"updated_at": {"type": "timestamp", "format": form}},
        cursor={"column": "updated_at", "parameter": "since"},
    )
    end = FIRST + DAY
    rows = [
        {"id": name, "updated_at": kind(moment * scale)}
        for name, moment in (("b", end - 1), ("a", FIRST), ("ahead", end), ("far", 10**13))
    ]
    rows += [{"id": "none"}, {"id": "odd", "updated_at": "2026-07-01"}, {"id": "true", "updated_at": True}]
    with Service(lambda _: Answer(body={"data": rows})) as service:
        got = fetch(service, stream)
        # What is no moment is for parsing to judge: "far" lies beyond the calendar.
        assert got.ids == ["b", "a", "far", "none", "odd", "true"]
        assert kind(got.cursor["value"]) == kind((end - 1) * scale)
        assert got.detail["left_for_later"] == 1
        again = fetch(service, stream, got.cursor)
        assert service.asked[1].query == {"since": str(kind((end - 1) * scale))}
        assert again.ids == ["a", "far", "none", "odd", "true"]


def test_a_coarse_cursor_brings_a_whole_day_again_and_lands_it_once():
    rows = [{"id": n, "updated_at": stamp(60 * n)} for n in range(10)]
    stream = stream_of(cursor={"column": "updated_at", "parameter": "since", "format": "date"})
    with Service(lambda _: Answer(body={"data": rows})) as service:
        first = fetch(service, stream)
        rows.append({"id": "late", "updated_at": stamp(30)})
        second = fetch(service, stream, first.cursor)
    assert first.ids == list(range(10))
    assert (second.ids, second.detail["already_landed"]) == (["late"], 10)
    assert service.asked[1].query == {"since": "2026-07-01"}


def test_too_many_to_remember_are_the_newest_remembered():
    count = progress._MOST_SEEN + 3_000
    rows = [{"id": n, "updated_at": (START + timedelta(seconds=n)).isoformat()} for n in range(count)]
    stream = stream_of(cursor={"column": "updated_at", "parameter": "since", "overlap": "1 day"})
    for order in (rows, rows[::-1], rows[::2] + rows[1::2]):
        with Service(lambda _, order=order: Answer(body={"data": order})) as service:
            first = fetch(service, stream)
            assert len(first.cursor["seen"]) == progress._MOST_SEEN
            second = fetch(service, stream, first.cursor)
        assert sorted(second.ids) == list(range(3_000))
        assert second.cursor == first.cursor


def test_records_without_time_go_no_further_than_before():
    """An integer is no moment: only where the batch ended before tells what belongs to it."""
    rows = [{"id": n, "updated_at": n} for n in range(1, 6)]
    stream = stream_of({"updated_at": "integer"}, cursor={"column": "updated_at", "parameter": "above"})
    with Service(lambda _: Answer(body={"data": rows})) as service:
        first = fetch(service, stream)
        rows += [{"id": 6, "updated_at": 6}]
        again = fetch(service, stream, until=first.cursor)
        following = fetch(service, stream, first.cursor)
    assert (again.ids, again.cursor, again.detail["left_for_later"]) == ([1, 2, 3, 4, 5], first.cursor, 1)
    assert following.ids == [1, 2, 3, 4, 6]
    assert first.cursor["value"] == 5


def test_moments_are_written_and_read_alike():
    moment = datetime(2026, 7, 1, 10, 30, 59, 999_999, tzinfo=UTC)
    for form in ("iso", "unix", "unix_ms", "date"):
        low, high = moments.floor(moment, form), moments.ceil(moment, form)
        assert low <= moment <= high
        assert moments.write(low, form) == moments.write(moment, form)
        assert moments.floor(high, form) == high == moments.ceil(high, form)
        read = moments.reader(form if form.startswith("unix") else None)
        assert read(moments.write(moment, form)) == low
    assert moments.write(datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC), "unix") == -1
