# SPDX-License-Identifier: Apache-2.0
"""Worked examples: of others' documentation (with what differs here), and of ``docs/identity.md``.

Those that are told as a `case` are told to the engine on every warehouse, and to the oracle.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.identity import (
    Allow,
    Deny,
    Exclude,
    ExcludedRow,
    Identifier,
    Identity,
    Rule,
)
from tests.conftest import ENGINES
from tests.core.identity.landed import DAY, SEGMENT, History, stream_of
from tests.core.identity.oracle import Recomputed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.warehouse import Warehouse

    Case = History | Recomputed

ABC123 = {"user_id": "abc123", "email": "jane@example.com"}
ABC456 = {"user_id": "abc456", "email": "jane@example.com", "anonymous_id": "a9"}


@pytest.fixture(params=["oracle", *ENGINES])
def case(request: pytest.FixtureRequest, make_warehouse: Callable[[str], Warehouse]) -> Case:
    return Recomputed() if request.param == "oracle" else History(make_warehouse(request.param))


def ruled(policy: str, *rules: Rule, **kinds: Any) -> Identity:
    """Types in the order of their rank, each with its limit or all it is."""
    return Identity(
        identifiers={
            kind: Identifier(priority=rank, **(what if isinstance(what, dict) else {"limit": what}))
            for rank, (kind, what) in enumerate(kinds.items(), 1)
        },
        over_limit=policy,
        rules=rules,
    )


def tell(case: Case, *runs: list[dict[str, Any]]) -> None:
    """One batch and one run after the other."""
    for rows in runs:
        case.land(*rows)
        case.resolve()


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


def test_s2_every_identifier_that_is_weaker_than_the_conflict_is_dropped(case):
    tell(case, [ABC123], [ABC456])
    assert case.partition() == {"user_id:abc123": 1, "email:jane@example.com": 1, "user_id:abc456": 3}
    assert case.refused() == [
        (2, 1, "anonymous_id:a9", "limit user_id 1"),
        (2, 1, "email:jane@example.com", "limit user_id 1"),
    ]
    assert case.links() == {(1, 1): 1, (2, 1): 3}
    tell(case, [{"anonymous_id": "a9"}])
    assert case.partition()["anonymous_id:a9"] == 4


def test_s3_the_weakest_of_the_row_goes_first_and_a_new_type_finds_its_rank_by_name(history):
    kinds = ("user_id", "email", "anonymous_id", "ga_client_id")
    row = {"user_id": "u2", "email": "e@x.de", "anonymous_id": "a", "ga_client_id": "g", "android_id": "d"}
    history = History(history.warehouse, Identity(), (stream_of("s3", (*kinds, "android_id")),))
    history.land({"user_id": "u1", "email": "e@x.de"}, row)
    history.resolve()
    dropped = history.state()["refused_links"]
    assert {kind for *_, kind, _, _, _, _ in dropped} == {
        "email",
        "android_id",
        "anonymous_id",
        "ga_client_id",
    }
    history.land(
        {"android_id": "d", "email": "n@x.de"}, {"anonymous_id": "a", "android_id": "d", "ga_client_id": "g"}
    )
    history.resolve()
    (_, second) = sorted(link for link in history.state()["row_links"] if link[0] == 2)
    nodes = {node: kind for node, kind, *_ in history.state()["identifiers"]}
    assert nodes[second[3]] == "android_id"


def test_s4_one_user_id_ever_and_five_anonymous_ids_a_week(case):
    case.identity = ruled("demote", user_id=1, email=5, anonymous_id={"limit": 5, "within": "weekly"})
    days = [0, 1, 2, 3, 4, 6.9, 7.1]
    rows = [{"user_id": "u", "anonymous_id": f"a{n}", "at": DAY + timedelta(days=n)} for n in days]
    tell(case, rows)
    assert case.refused() == [(1, 6, "anonymous_id:a6.9", "limit anonymous_id 5")]
    assert case.partition()["anonymous_id:a7.1"] == 1


def test_s4_seven_days_are_not_within_a_week(case):
    case.identity = ruled("demote", user_id=1, anonymous_id={"limit": 1, "within": "weekly"})
    tell(case, [{"user_id": "u", "anonymous_id": f"a{n}", "at": DAY + timedelta(days=7 * n)} for n in (0, 1)])
    assert case.refused() == []


def test_a_value_without_a_time_counts_in_every_window_and_a_late_one_undoes_nothing(case):
    case.identity = ruled("refuse", user_id=1, anonymous_id={"limit": 2, "within": "weekly"})
    far = DAY + timedelta(days=99)
    tell(case, [{"user_id": "u", "anonymous_id": "timeless"}])
    tell(case, [{"user_id": "u", "anonymous_id": "b", "at": far}])
    tell(case, [{"user_id": "u", "anonymous_id": "late", "at": DAY}])
    tell(case, [{"user_id": "u", "anonymous_id": "d", "at": DAY + timedelta(days=1)}])
    assert case.refused() == [(4, 1, "anonymous_id:d", "limit anonymous_id 2")]


def test_s6_s7_a_row_whose_identifiers_are_dropped_still_belongs_to_somebody(case):
    tell(case, [{"user_id": "u", "anonymous_id": f"a{n}"} for n in range(7)])
    assert [refused[:3] for refused in case.refused()] == [
        (1, 6, "anonymous_id:a5"),
        (1, 7, "anonymous_id:a6"),
    ]
    assert set(case.links().values()) == {1}
    assert len(case.links()) == 7


def test_r1_an_address_of_three_users_is_cut_from_all_of_them(case):
    """RudderStack's audit has a line for each edge; here the one row that broke it is on record."""
    case.identity = ruled("break", user_id=1, email=5)
    tell(case, [{"user_id": f"user_{n}", "email": "shared@x.de"} for n in (1, 2, 3)])
    assert case.partition() == {
        "user_id:user_1": 1,
        "email:shared@x.de": 2,
        "user_id:user_2": 3,
        "user_id:user_3": 4,
    }
    assert case.barred() == {"email:shared@x.de"}
    assert case.refused() == [(1, 2, "email:shared@x.de", "limit user_id 1")]
    assert case.links() == {(1, 1): 1, (1, 2): 3, (1, 3): 4}


def test_r2_a_user_with_a_third_address_loses_all_and_stays_alone_until_the_rule_is_gone(case):
    """There removing the rule needs a full rebuild by hand; here the next run does it."""
    case.identity = ruled("break", user_id=1, email=2)
    tell(case, *([{"user_id": "user_1", "email": f"{n}@x.de"}] for n in (1, 2, 3)))
    assert case.partition() == {"user_id:user_1": 1, "email:1@x.de": 2, "email:2@x.de": 3, "email:3@x.de": 4}
    assert case.splits() == {(1, 2), (1, 3)}
    tell(case, [{"user_id": "user_1", "email": "1@x.de"}])
    assert (case.partition()["email:1@x.de"], case.splits()) == (2, set())
    case.identity = ruled("break", user_id=1, email=3)
    case.resolve()
    assert set(case.partition().values()) == {1}
    assert case.barred() == set()


def test_r3_what_a_filter_takes_away_does_not_count_towards_a_limit(case):
    case.identity = ruled(
        "break", Exclude(exclude={"email": "2@x.de"}), user_id=1, email={"limit": 2, "block": ("1@x.de",)}
    )
    tell(case, [{"user_id": "u", "email": f"{n}@x.de"} for n in range(1, 5)])
    assert case.partition() == {"user_id:u": 1, "email:3@x.de": 1, "email:4@x.de": 1}


@pytest.mark.parametrize("policy", ["demote", "refuse", "break", "evict"])
def test_r4_a_denied_pair_is_not_joined_by_way_of_a_third(case, policy):
    """RudderStack cuts the one edge, so that A-C-B still makes one cluster. Here the last of these links is
    not made."""
    deny = Deny(deny=({"email": "a@x.de"}, {"anonymous_id": "b"}))
    case.identity = ruled(policy, deny, user_id=5, email=5, anonymous_id=5)
    tell(
        case,
        [
            {"email": "a@x.de", "anonymous_id": "b"},
            {"user_id": "c", "email": "a@x.de"},
            {"user_id": "c", "anonymous_id": "b"},
        ],
    )
    partition = case.partition()
    assert partition["user_id:c"] == partition["email:a@x.de"] == 1
    assert partition.get("anonymous_id:b") != 1
    assert case.refused() == [(1, 1, "anonymous_id:b", "deny"), (1, 3, "anonymous_id:b", "deny")]


@pytest.mark.parametrize("policy", ["demote", "refuse", "break", "evict"])
def test_r5_a_bridge_excluded_later_splits_and_the_id_stays_with_the_oldest(case, policy):
    case.identity = ruled(policy, user_id=2, email=5)
    tell(case, [{"user_id": "u1", "email": "bridge@x.de"}, {"user_id": "u2", "email": "bridge@x.de"}])
    assert set(case.partition().values()) == {1}
    case.identity = ruled(policy, Exclude(exclude={"email": "bridge@x.de"}), user_id=2, email=5)
    case.resolve()
    assert case.partition() == {"user_id:u1": 1, "email:bridge@x.de": 2, "user_id:u2": 3}
    assert case.splits() == {(1, 2), (1, 3)}
    assert case.links() == {(1, 1): 1, (1, 2): 3}


def test_h1_the_value_that_would_cause_the_merge_is_dropped_and_a_profile_of_its_own_comes_out(case):
    """Hightouch takes a profile apart again that was put together; here it is never put together."""
    case.identity = ruled("refuse", user_id=1, email=5, anonymous_id=5)
    tell(case, [ABC123], [ABC456])
    assert case.partition()["user_id:abc456"] == case.partition()["anonymous_id:a9"] == 3


@pytest.mark.parametrize("policy", ["demote", "refuse"])
def test_h2_the_first_ten_user_ids_merge_and_later_ones_do_not(case, policy):
    case.identity = ruled(policy, user_id=10, email=5)
    tell(case, [{"user_id": f"u{n:02}", "email": "e@x.de"} for n in range(12)])
    ours = [name for name, profile in case.partition().items() if profile == 1]
    assert sorted(ours) == ["email:e@x.de", *(f"user_id:u{n:02}" for n in range(10))]


@pytest.mark.parametrize("policy", ["demote", "refuse", "break", "evict"])
def test_h3_ids_are_the_same_after_a_full_run(case, policy):
    """Hightouch keeps them in incremental runs only."""
    case.identity = ruled(policy, user_id=1, email=1, anonymous_id=5)
    tell(
        case, [{"anonymous_id": "a"}], [ABC123, ABC456], [{"anonymous_id": "a", "email": "jane@example.com"}]
    )
    before = (case.partition(), case.links(), case.refused(), case.barred(), case.redirect())
    case.rebuild()
    assert (case.partition(), case.links(), case.refused(), case.barred(), case.redirect()) == before
    assert case.splits() == set()


DEVICE = [{"user_id": "alice", "anonymous_id": "phone"}, {"user_id": "bob", "anonymous_id": "phone"}]


def test_w2_somebody_else_on_the_phone_is_no_merge(case):
    """Snowplow gives a later anonymous row of the shared phone an id of its own; here it is its first user's,
    or (under break) nobody's."""
    tell(case, DEVICE, [{"anonymous_id": "phone"}])
    assert case.partition() == {"user_id:alice": 1, "anonymous_id:phone": 1, "user_id:bob": 3}
    assert case.links() == {(1, 1): 1, (1, 2): 3, (2, 1): 1}
    case.identity = ruled("break", user_id=1, anonymous_id=5)
    case.resolve()
    assert case.partition() == {"user_id:alice": 1, "anonymous_id:phone": 2, "user_id:bob": 3}
    assert case.links() == {(1, 1): 1, (1, 2): 3}


def test_f1_up_to_a_hundred_values_the_oldest_leave_first(case):
    case.identity = ruled("evict", user_id=1, anonymous_id=100)
    tell(case, [{"user_id": "u", "anonymous_id": f"a{n:03}"} for n in range(103)])
    assert sorted(case.partition()) == [*(f"anonymous_id:a{n:03}" for n in range(3, 103)), "user_id:u"]
    assert case.refused() == []


def test_u1_t1_the_oldest_id_wins_along_a_chain_and_every_step_is_on_record(history):
    for n in range(4):
        history.land({"anonymous_id": f"d{n}"})
        history.resolve()
    history.land(*({"anonymous_id": f"d{n}", "email": f"e{max(n, 2)}@x.de"} for n in (3, 2)))
    history.land(*({"anonymous_id": f"d{n}", "email": "all@x.de"} for n in (3, 1, 2, 0)))
    history.resolve()
    assert set(history.partition().values()) == {1}
    assert [(loser, winner) for _, _, _, loser, winner, *_ in history.state()["merges"]] == [
        (4, 2),
        (3, 2),
        (2, 1),
    ]
    assert history.redirect() == {2: 1, 3: 1, 4: 1}


def test_z1_a_value_that_was_seen_with_101_others_is_barred_at_the_next(case):
    """Zeotap counts profiles; here it is other identifiers, so that the order of rows is no matter."""
    case.identity = ruled("demote", user_id=1, phone={"limit": 5, "hub": 101}, anonymous_id=5)
    case.streams = (stream_of("z1", ("user_id", "phone")),)
    if isinstance(case, History):
        case.__post_init__()
    tell(case, [{"user_id": f"u{n}", "phone": "1"} for n in range(101)])
    assert case.barred() == set()
    assert (case.partition()["phone:1"], len(case.refused())) == (1, 100)
    tell(case, [{"user_id": "u0", "phone": "1"}])
    assert case.barred() == set()
    tell(case, [{"user_id": "u101", "phone": "1"}, {"phone": "1"}])
    assert case.barred() == {"phone:1"}
    assert case.partition()["phone:1"] == 1
    assert len(case.refused()) == 100
    assert (3, 2) not in case.links()


def test_m1_the_strongest_identifier_that_is_known_decides(case):
    """mParticle may know two profiles with one address and takes the best fit; here an address has one."""
    kinds = ("customer_id", "email", "other", "idfv")
    case.identity = ruled("demote", **dict.fromkeys(kinds, 1))
    case.streams = (stream_of("m1", kinds),)
    if isinstance(case, History):
        case.__post_init__()
    tell(case, [{"email": "h.jekyll.md@example.com", "idfv": "1234", "other": "AAAA"}])
    tell(case, [{"email": "h.jekyll.md@example.com", "other": "AAAA", "idfv": "2345"}])
    assert case.links() == {(1, 1): 1, (2, 1): 1}
    assert case.refused() == [(2, 1, "idfv:2345", "limit idfv 1")]


def test_m3_taking_another_ones_address_changes_nobody(case):
    """mParticle orphans the other profile."""
    tell(case, [{"user_id": "a", "email": "a@x.de"}, {"user_id": "b", "email": "b@x.de"}])
    tell(case, [{"user_id": "a", "email": "b@x.de"}])
    assert case.partition() == {"user_id:a": 1, "email:a@x.de": 1, "user_id:b": 3, "email:b@x.de": 3}


def test_refuse_links_what_it_can_to_the_strongest(case):
    case.identity = ruled("refuse", user_id=1, email=5, anonymous_id=5)
    tell(case, [ABC123], [ABC456])
    assert case.partition() == {
        "user_id:abc123": 1,
        "email:jane@example.com": 1,
        "user_id:abc456": 3,
        "anonymous_id:a9": 3,
    }
    assert case.refused() == [(2, 1, "email:jane@example.com", "limit user_id 1")]
    assert case.links() == {(1, 1): 1, (2, 1): 3}


def test_refuse_makes_a_new_identifier_a_profile_of_its_own(case):
    case.identity = ruled("refuse", user_id=1, email=1)
    tell(case, [{"user_id": "u", "email": "a@x.de"}], [{"user_id": "u", "email": "b@x.de"}])
    assert case.partition() == {"user_id:u": 1, "email:a@x.de": 1, "email:b@x.de": 3}


def test_break_cuts_all_links_of_the_value_through_which_too_many_would_meet(case):
    case.identity = ruled("break", user_id=1, email=5, anonymous_id=5)
    tell(case, [ABC123], [ABC456])
    assert case.partition() == {
        "user_id:abc123": 1,
        "email:jane@example.com": 2,
        "user_id:abc456": 3,
        "anonymous_id:a9": 3,
    }
    assert case.barred() == {"email:jane@example.com"}
    assert case.refused() == [(2, 1, "email:jane@example.com", "limit user_id 1")]
    assert case.splits() == {(1, 2)}
    assert case.links() == {(1, 1): 1, (2, 1): 3}
    tell(case, [{"email": "jane@example.com", "anonymous_id": "a9"}])
    assert case.links()[3, 1] == 3
    assert case.partition()["email:jane@example.com"] == 2


def test_break_of_two_ends_that_are_not_of_the_limited_type_takes_the_weaker(case):
    case.identity = ruled("break", email=5, anonymous_id=5, user_id=1)
    tell(
        case,
        [{"email": "e@x.de", "user_id": "u1"}, {"anonymous_id": "a", "user_id": "u2"}],
        [{"email": "e@x.de", "anonymous_id": "a"}],
    )
    assert case.barred() == {"anonymous_id:a"}
    assert case.partition() == {"email:e@x.de": 1, "user_id:u1": 1, "anonymous_id:a": 3, "user_id:u2": 4}


def test_break_leaves_what_other_rows_hold_together(case):
    case.identity = ruled("break", user_id=1, email=5, anonymous_id=5)
    tell(
        case,
        [{"user_id": "u1", "email": "e@x.de", "anonymous_id": "a"}, {"email": "e@x.de", "anonymous_id": "b"}],
        [{"user_id": "u2", "email": "e@x.de"}],
    )
    assert case.partition() == {
        "user_id:u1": 1,
        "email:e@x.de": 2,
        "anonymous_id:a": 1,
        "anonymous_id:b": 4,
        "user_id:u2": 5,
    }
    assert case.splits() == {(1, 2), (1, 4)}
    assert case.links() == {(1, 1): 1, (1, 2): 4, (2, 1): 5}


def test_evict_lets_the_oldest_value_go_which_begins_anew_when_it_comes_again(case):
    case.identity = ruled("evict", user_id=1, email=5, anonymous_id=5)
    tell(case, [ABC123], [ABC456])
    assert case.partition() == {"user_id:abc456": 1, "email:jane@example.com": 1, "anonymous_id:a9": 1}
    assert case.links() == {(1, 1): 1, (2, 1): 1}
    assert case.refused() == []
    tell(case, [{"user_id": "abc123"}])
    assert case.partition()["user_id:abc123"] == 5
    assert case.links() == {(1, 1): 1, (2, 1): 1, (3, 1): 5}
    assert case.redirect() == {}


def test_evict_keeps_the_evicted_in_the_profile_that_takes_the_id(history):
    history.identity = ruled("evict", user_id=1, email=5)
    tell(history, [ABC123], [{"user_id": "abc456", "email": "jane@example.com"}])
    assert [row[:4] + row[6:] for row in history.state()["identifiers"]] == [
        (1, "user_id", "abc123", 1, 2),
        (2, "email", "jane@example.com", 1, None),
        (3, "user_id", "abc456", 1, None),
    ]


def test_evict_within_a_window_lets_go_only_what_crowds_it(case):
    case.identity = ruled("evict", user_id=1, email={"limit": 2, "within": "10 days"})
    days = [0, 5, 20, 24, 29]
    tell(case, [{"user_id": "u", "email": f"e{n}", "at": DAY + timedelta(days=n)} for n in days])
    assert sorted(case.partition()) == ["email:e24", "email:e29", "user_id:u"]


def glued(case: Case, *rules: Rule) -> None:
    """Profiles 1 and 3 were published, then a row glued them."""
    case.identity = ruled("demote", user_id=2, email=5)
    tell(case, [{"user_id": "u1", "email": "e@x.de"}, {"user_id": "u2"}])
    tell(case, [{"user_id": "u2", "email": "e@x.de", "key": "C-1004"}])
    assert set(case.partition().values()) == {1}
    assert case.redirect() == {3: 1}
    case.identity = ruled("demote", *rules, user_id=2, email=5)
    case.resolve()


def test_unmerge_by_row_revives_the_id(case):
    glued(case, Exclude(exclude=ExcludedRow(stream="app.web", key=("C-1004",))))
    assert case.partition() == {"user_id:u1": 1, "email:e@x.de": 1, "user_id:u2": 3}
    assert case.links() == {(1, 1): 1, (1, 2): 3, (2, 1): 3}
    assert (case.splits(), case.redirect(), case.refused()) == ({(1, 3)}, {}, [])


def test_unmerge_by_value_leaves_the_value_alone(case):
    glued(case, Exclude(exclude={"email": "e@x.de"}))
    assert case.partition() == {"user_id:u1": 1, "email:e@x.de": 2, "user_id:u2": 3}
    assert (case.splits(), case.redirect()) == ({(1, 2), (1, 3)}, {})


def test_unmerge_by_pair_is_on_record_and_may_be_taken_back(case):
    glued(case, Deny(deny=({"user_id": "u1"}, {"user_id": "u2"})))
    assert case.partition() == {"user_id:u1": 1, "email:e@x.de": 1, "user_id:u2": 3}
    assert (case.splits(), case.redirect()) == ({(1, 3)}, {})
    assert case.refused() == [(2, 1, "email:e@x.de", "deny")]
    case.identity = ruled("demote", user_id=2, email=5)
    case.resolve()
    assert (case.splits(), case.redirect()) == (set(), {3: 1})


@pytest.mark.parametrize("policy", ["demote", "refuse", "break", "evict"])
def test_an_allowed_pair_is_joined_above_the_limit_and_then_grows_no_more(case, policy):
    allow = Allow(allow=({"user_id": "u1"}, {"user_id": "u2"}))
    case.identity = ruled(policy, allow, user_id=1, email=5)
    tell(case, [{"user_id": "u1"}], [{"user_id": "u2", "email": "e@x.de"}])
    assert set(case.partition().values()) == {1}
    assert case.redirect() == {}
    tell(case, [{"email": "e@x.de", "user_id": "u3"}])
    assert case.partition()["user_id:u3"] == (1 if policy == "evict" else 4)


def test_an_allowed_pair_is_joined_by_a_replay_when_both_are_known_already(case):
    tell(case, [{"user_id": "u1"}], [{"user_id": "u2"}])
    allow = Allow(allow=({"user_id": "u1"}, {"user_id": "u2"}))
    case.identity = SEGMENT.model_copy(update={"rules": (allow,)})
    case.resolve()
    assert (case.partition(), case.redirect()) == ({"user_id:u1": 1, "user_id:u2": 1}, {2: 1})


def test_a_deny_is_stronger_than_an_allow(case):
    sides = [({"user_id": "u1"}, {"email": "a@x.de"}), ({"user_id": "u1"}, {"email": "b@x.de"})]
    case.identity = ruled("demote", Allow(allow=sides[0]), Deny(deny=sides[1]), user_id=1, email=5, phone=5)
    case.streams = (stream_of("deny", ("user_id", "email", "phone")),)
    if isinstance(case, History):
        case.__post_init__()
    tell(case, [{"email": "a@x.de", "phone": "1"}, {"email": "b@x.de", "phone": "1"}, {"user_id": "u1"}])
    assert case.partition() == {"email:a@x.de": 1, "phone:1": 1, "email:b@x.de": 1, "user_id:u1": 4}


def test_an_excluded_row_belongs_to_its_strongest_identifier_and_brings_no_other(case):
    rule = Exclude(exclude=ExcludedRow(stream="app.web", key=("x",)))
    case.identity = SEGMENT.model_copy(update={"rules": (rule,)})
    tell(case, [{"user_id": "u", "email": "a@x.de", "key": "x"}])
    assert (case.partition(), case.links()) == ({"user_id:u": 1}, {(1, 1): 1})


def test_a_type_may_have_several_columns_the_first_is_the_strongest(case):
    case.identity = ruled("demote", user_id=1, email=2)
    case.streams = (stream_of("several", ("user_id", "email"), email=("email", "work_email", "old_email")),)
    if isinstance(case, History):
        case.__post_init__()
    row = {"user_id": "u", "email": "b@x.de", "work_email": "b@x.de", "old_email": "a@x.de"}
    tell(case, [row, {**row, "old_email": "c@x.de", "work_email": "a@x.de"}])
    assert case.partition() == {"user_id:u": 1, "email:b@x.de": 1, "email:a@x.de": 1}
    assert case.refused() == [(1, 2, "email:c@x.de", "limit email 2")]
