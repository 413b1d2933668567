# SPDX-License-Identifier: Apache-2.0
"""Worked examples of others' documentation, and what ours says where theirs is silent."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cdp_provider.core.exceptions import ConfigurationError
from tests.core.identity.landed import DAY


def test_s1_no_match_creates_one_match_attaches_several_merge(history):
    history.land({"user_id": "u1"}, {"email": "a@x.de"})
    assert history.resolve().detail["new_profiles"] == 2
    history.land({"user_id": "u1", "anonymous_id": "d1"})
    report = history.resolve()
    assert (report.detail["new_profiles"], report.detail["merges"]) == (0, 0)
    assert history.partition() == {"user_id:u1": 1, "email:a@x.de": 2, "anonymous_id:d1": 1}
    history.land({"user_id": "u1", "email": "a@x.de"})
    report = history.resolve()
    assert (report.detail["profiles"], report.detail["merges"]) == (1, 1)
    assert set(history.partition().values()) == {1}
    assert history.state()["merges"] == [(3, 3, 1, 2, 1, "app.web", "user_id, email", "run_3")]


def test_s2_a_second_user_id_demotes_the_email_and_makes_a_new_profile(history):
    history.land({"user_id": "abc123", "email": "jane@example1.com"})
    history.resolve()
    history.land({"user_id": "abc456", "email": "jane@example1.com"})
    report = history.resolve()
    assert report.detail["refused_links"] == report.rows_refused == 1
    assert history.partition() == {"user_id:abc123": 1, "email:jane@example1.com": 1, "user_id:abc456": 3}
    state = history.state()
    assert state["refused_links"] == [
        (2, 2, 1, "email", "jane@example1.com", "app.web", "limit user_id 1", "run_2")
    ]
    assert state["row_links"][-1] == (2, 1, "app.web", 3)


def test_s2_a_dropped_value_that_was_never_accepted_becomes_no_node_until_a_row_carries_it_in(history):
    history.identity = history.identity.model_copy(
        update={
            "identifiers": {
                **history.identity.identifiers,
                "email": history.identity.identifiers["email"].model_copy(update={"limit": 1}),
            }
        }
    )
    history.land({"user_id": "u", "email": "a@x.de"}, {"user_id": "u", "email": "b@x.de"})
    history.resolve()
    assert list(history.partition()) == ["user_id:u", "email:a@x.de"]
    history.land({"email": "b@x.de"})
    history.resolve()
    assert history.partition()["email:b@x.de"] == 3


def test_s5_a_blocked_value_is_no_identifier_and_its_row_stays(history):
    values = ["0000-00", "-1", "null", "Anonymous", "  ", None]
    history.land(*({"user_id": value} for value in values), {"user_id": "NULL", "email": "a@x.de"})
    report = history.resolve()
    assert history.partition() == {"email:a@x.de": 1}
    assert (report.rows_in, report.rows_out, report.detail["rows_without_identifier"]) == (7, 1, 6)
    assert report.detail["blocked"] == {"user_id": 5}


def test_s8_every_id_ever_published_finds_the_merged_profile(history):
    for user in "abc":
        history.land({"anonymous_id": user})
        history.resolve()
    history.land({"anonymous_id": "c", "email": "e@x.de"}, {"anonymous_id": "b", "email": "e@x.de"})
    history.resolve()
    assert history.redirect() == {3: 2}
    history.land({"anonymous_id": "a", "email": "e@x.de"})
    history.resolve()
    assert history.redirect() == {2: 1, 3: 1}


def test_z1_the_first_created_id_is_master_however_late_the_link(history):
    history.land(*({"anonymous_id": f"d{n}"} for n in range(4)))
    history.resolve()
    history.land({"anonymous_id": "d3", "email": "e@x.de"}, {"anonymous_id": "d2", "email": "e@x.de"})
    history.resolve()
    assert history.partition()["anonymous_id:d3"] == 3


def test_a_late_row_is_processed_when_it_arrives_but_in_its_batch_by_its_time(history):
    history.land({"user_id": "late", "email": "e@x.de", "at": DAY + timedelta(hours=2)},
                 {"user_id": "early", "email": "e@x.de", "at": DAY + timedelta(hours=1)})  # fmt: skip
    history.resolve()
    history.land({"user_id": "older still", "email": "e@x.de", "at": DAY})
    history.resolve()
    assert history.partition() == {
        "user_id:early": 1,
        "email:e@x.de": 1,
        "user_id:late": 3,
        "user_id:older still": 4,
    }


def test_a_row_without_time_comes_first_and_then_the_order_of_streams_and_keys(history):
    history.land(
        {"user_id": "b", "email": "e@x.de", "key": "2"},
        {"user_id": "a", "email": "e@x.de", "key": "1"},
        stream=1,
    )
    history.land(
        {"user_id": "c", "email": "e@x.de", "at": DAY},
        {"user_id": "d", "email": "e@x.de", "key": "z"},
        stream=0,
    )
    with history.warehouse.session() as session:
        session.execute(f"update {history.warehouse.table('loads')} set load_seq = 1")
    history.resolve()
    assert history.partition() == {
        "user_id:d": 1,
        "email:e@x.de": 1,
        "user_id:a": 3,
        "user_id:b": 4,
        "user_id:c": 5,
    }


def test_nothing_new_changes_nothing(history):
    history.land({"user_id": "u1", "email": "a@x.de"})
    history.resolve()
    before = history.state()
    report = history.resolve()
    assert (report.rows_in, report.detail["loads"], report.detail["profiles"]) == (0, 0, 1)
    assert history.state() == before


def test_only_batches_that_passed_are_taken(history):
    history.land({"user_id": "u1"}, state="landed")
    history.land({"user_id": "u2"}, state="failed")
    assert history.resolve().rows_in == 0


def test_an_older_window_leaves_a_newer_result_alone(history):
    history.land({"user_id": "u1"})
    history.day = 9
    history.resolve()
    history.land({"user_id": "u2"})
    history.day = 3
    assert history.resolve().state == "superseded"
    assert history.partition() == {"user_id:u1": 1}


def test_a_batch_landed_again_with_other_content_is_replayed_in_its_old_place(history):
    first = history.land({"user_id": "u1", "email": "shared@x.de"})
    history.resolve()
    history.land({"user_id": "u2", "email": "mine@x.de"}, {"anonymous_id": "d", "email": "shared@x.de"})
    history.resolve()
    history.land({"user_id": "u1", "email": "other@x.de"}, load_id=first)
    report = history.resolve()
    assert report.detail["replayed"]
    assert history.partition() == {
        "user_id:u1": 1,
        "email:shared@x.de": 2,
        "user_id:u2": 3,
        "email:mine@x.de": 3,
        "anonymous_id:d": 2,
        "email:other@x.de": 6,
    } | {"email:other@x.de": 1}
    before = history.state()
    assert not history.resolve().detail["replayed"]
    assert history.state() == before


def test_a_profile_that_falls_apart_leaves_its_id_to_the_oldest_and_a_joined_one_redirects(history):
    wrong = history.land({"user_id": "u1", "email": "a@x.de"})
    history.resolve()
    history.land({"anonymous_id": "d2"})
    history.resolve()
    history.land({"user_id": "u1"}, {"anonymous_id": "d2", "email": "a@x.de"}, load_id=wrong)
    report = history.resolve()
    assert history.partition() == {"user_id:u1": 1, "email:a@x.de": 2, "anonymous_id:d2": 2}
    assert history.redirect() == {3: 2}
    assert (report.detail["new_profiles"], report.detail["merges"]) == (1, 1)


def test_an_identifier_that_no_row_carries_any_more_keeps_its_node_without_rows(history):
    batch = history.land({"user_id": "u1", "email": "a@x.de"})
    history.resolve()
    history.land({"user_id": "u1"}, load_id=batch)
    report = history.resolve()
    assert history.partition() == {"user_id:u1": 1, "email:a@x.de": 2}
    assert report.detail["new_profiles"] == 1
    history.land({"email": "a@x.de", "anonymous_id": "d"})
    history.resolve()
    assert history.partition()["anonymous_id:d"] == 2


def test_a_batch_that_fails_after_it_was_taken_in_loses_its_say_until_it_passes(history):
    batch = history.land({"user_id": "u1", "email": "a@x.de"})
    history.land({"user_id": "u1"}, {"email": "a@x.de"})
    history.resolve()
    history.land({"bad": 1}, load_id=batch, state="failed")
    history.resolve()
    assert history.partition() == {"user_id:u1": 1, "email:a@x.de": 2}
    assert history.state()["loads"][0] == (1, 1, None)
    history.land({"user_id": "u1", "email": "a@x.de"}, load_id=batch)
    history.resolve()
    assert history.partition() == {"user_id:u1": 1, "email:a@x.de": 1}
    assert history.rebuild().detail["merges"] == 0


def test_a_batch_that_waits_for_its_check_keeps_its_say_until_a_replay(history):
    batch = history.land({"user_id": "u1", "email": "a@x.de"})
    history.resolve()
    before = history.state()
    history.land({"user_id": "u1"}, load_id=batch, state="landed")
    history.resolve()
    assert {name: history.state()[name] for name in ("identifiers", "row_links")} == {
        name: before[name] for name in ("identifiers", "row_links")
    }
    history.rebuild()
    assert history.state()["row_links"] == []
    history.land({"user_id": "u1", "email": "a@x.de"}, load_id=batch)
    assert history.resolve().detail["replayed"]
    assert history.state()["identifiers"] == before["identifiers"]


def test_a_replay_does_not_lose_a_stream_in_silence(history):
    batch = history.land({"user_id": "u1"})
    history.land({"user_id": "u2"}, stream=1)
    history.resolve()
    history.land({"user_id": "u3"}, load_id=batch)
    every = history.streams
    history.streams = every[:1]
    with pytest.raises(ConfigurationError, match=r"app\.crm"):
        history.resolve()
    history.rebuild()
    assert [link[2] for link in history.state()["row_links"]] == ["app.web"]
    history.streams = every
    assert history.resolve().detail["replayed"]
    assert [link[2] for link in history.state()["row_links"]] == ["app.web", "app.crm"]


def test_rebuild_applies_todays_rules(history):
    history.land({"user_id": "u1", "email": "test@x.de"}, {"user_id": "u2", "email": "test@x.de"})
    history.resolve()
    assert history.partition() == {"user_id:u1": 1, "email:test@x.de": 1, "user_id:u2": 3}
    email = history.identity.identifiers["email"].model_copy(update={"block": ("Test@x.de",)})
    history.identity = history.identity.model_copy(
        update={"identifiers": {**history.identity.identifiers, "email": email}}
    )
    history.rebuild()
    assert history.partition() == {"user_id:u1": 1, "email:test@x.de": 2, "user_id:u2": 3}
    assert history.state()["refused_links"] == []
