# SPDX-License-Identifier: Apache-2.0
"""What the order of event times would decide differently."""

from __future__ import annotations

from datetime import timedelta

from cdp_provider.core.identity.reorder import Member, by_event_time
from tests.core.identity.landed import DAY

U1, U2, JO = Member("user_id", "u1"), Member("user_id", "u2"), Member("email", "jo@example.com")


def row(hour: int, **identifiers: str) -> dict:
    return {"at": DAY + timedelta(hours=hour), **identifiers}


def test_a_late_row_would_have_got_the_address_first(history):
    history.land(row(2, user_id="u2", email=JO.value))
    history.resolve()
    history.land(row(1, user_id="u1", email=JO.value))
    history.resolve()
    before = history.state()
    [difference] = by_event_time(history.warehouse, history.identity, history.streams).differences
    assert difference.recorded == {1: (U2, JO), 3: (U1,)}
    assert {frozenset(part) for part in difference.by_event_time} == {frozenset({U1, JO}), frozenset({U2})}
    assert list(difference.sentences())[0] == "profile 1 holds user_id=u2, email=jo@example.com"
    assert history.state() == before


def test_orders_that_agree_differ_in_nothing(history):
    assert by_event_time(history.warehouse, history.identity, history.streams).differences == ()
    history.land(row(2, user_id="u2", email=JO.value), row(1, user_id="u1"))
    history.resolve()
    history.land(row(0, user_id="u2", anonymous_id="a"))
    history.resolve()
    assert by_event_time(history.warehouse, history.identity, history.streams).differences == ()


def test_rows_that_no_run_took_in_yet_count_too(history):
    history.land(row(2, user_id="u2", email=JO.value))
    history.land(row(1, user_id="u1", email=JO.value), stream=1)
    [difference] = by_event_time(history.warehouse, history.identity, history.streams).differences
    assert {member for part in difference.by_event_time for member in part} == {U1, U2, JO}
