# SPDX-License-Identifier: Apache-2.0
"""Every explanation names rows that really say so; and there is one for every two identifiers."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.identity import fuzzy
from cdp_provider.core.identity.explain import explain
from cdp_provider.core.identity.glue import glue
from cdp_provider.core.identity.lineage import history_of
from cdp_provider.core.identity.policies import POLICIES
from cdp_provider.core.project.fuzzy import Fuzzy
from cdp_provider.core.project.identity import Allow, Deny, Exclude, ExcludedRow, Identifier, Identity
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.core.identity.landed import DAY, KINDS, SEGMENT, History, run_of, stream_of
from tests.core.identity.test_oracle import STREAMS, histories, identities, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.identity.explanation import Explanation
    from cdp_provider.core.warehouse import Warehouse


def asked(history: History, one: str, other: str) -> Explanation:
    """The identifiers are given as ``type:value``."""
    (kind, value), (other_kind, other_value) = (text.split(":", 1) for text in (one, other))
    return explain(
        history.warehouse, history.identity, history.streams, (kind, value), (other_kind, other_value)
    )


def with_rules(*rules: Any, **changes: Any) -> Identity:
    return SEGMENT.model_copy(update={"rules": rules, **changes})


def reasons(found: Explanation) -> list[tuple[str, str]]:
    return [
        (obstacle.reason, f"{obstacle.value.type}:{obstacle.value.value}") for obstacle in found.obstacles
    ]


# One profile


def test_a_path_names_each_row_and_where_it_came_from(warehouse: Warehouse) -> None:
    history = History(warehouse)
    history.land({"key": "C-1", "user_id": "u1", "email": "jo@example.com", "at": DAY})
    history.resolve()
    history.land({"key": "W-9", "user_id": "u1", "anonymous_id": "a1"}, stream=1)
    history.resolve()
    found = asked(history, "email: JO@example.com ", "anonymous_id:a1")
    assert found.together
    assert found.obstacles == ()
    first, second = found.steps
    assert (str(first.one), str(first.other), str(second.other)) == (
        "email=jo@example.com",
        "user_id=u1",
        "anonymous_id=a1",
    )
    assert second.one == first.other
    assert first.row is not None
    assert second.row is not None
    assert (first.row.stream, first.row.key, first.row.load_id, first.row.position) == (
        "app.web",
        ("C-1",),
        1,
        1,
    )
    assert (first.row.at, first.row.resolved_seq) == (DAY, 1)
    assert (first.row.pipeline, first.row.run_id, first.row.window_end) == ("dag", "r", DAY)
    assert (second.row.stream, second.row.at, second.row.resolved_seq) == ("app.crm", None, 2)
    lines = found.sentences()
    assert lines[0] == "email=jo@example.com and anonymous_id=a1 belong to profile 1:"
    assert lines[1] == (
        "1. email=jo@example.com and user_id=u1 are both in row C-1 of 2026-01-01 00:00:00+00:00 in app.web"
        " (batch 1, position 1, landed by dag r, identity run 1)."
    )
    told = json.loads(json.dumps(found.as_dict()))
    assert told["together"] is True
    assert told["steps"][0]["row"]["at"] == "2026-01-01T00:00:00+00:00"


def test_the_path_is_a_shortest_one(warehouse: Warehouse) -> None:
    history = History(warehouse, with_rules(over_limit="refuse"))
    chain = [{"email": f"e{n}@example.com", "anonymous_id": f"a{m}"} for n in range(4) for m in (n, n + 1)]
    history.land(*chain)
    history.resolve()
    assert len(asked(history, "email:e0@example.com", "anonymous_id:a4").steps) == 7
    history.land({"email": "e0@example.com", "anonymous_id": "a4"})
    history.resolve()
    (step,) = asked(history, "email:e0@example.com", "anonymous_id:a4").steps
    assert step.row is not None
    assert step.row.load_id == 2


def rows_of(history: History, one: str, other: str) -> list[tuple[int, int]]:
    """(batch, position) of each step."""
    found = asked(history, one, other)
    assert found.together
    return [(step.row.load_id, step.row.position) for step in found.steps if step.row is not None]


def test_a_row_that_was_refused_is_no_step(warehouse: Warehouse) -> None:
    history = History(warehouse)
    history.land({"user_id": "u1", "email": "e@example.com"})
    history.land({"user_id": "u2", "email": "e@example.com", "anonymous_id": "a9"})
    history.land({"user_id": "u2", "anonymous_id": "a9"})
    history.resolve()
    assert rows_of(history, "user_id:u2", "anonymous_id:a9") == [(3, 1)]


def test_a_row_after_a_value_became_a_hub_is_no_step(warehouse: Warehouse) -> None:
    kinds = {**SEGMENT.identifiers, "anonymous_id": Identifier(priority=3, hub=2)}
    history = History(warehouse, with_rules(identifiers=kinds))
    history.land({"user_id": "u1", "anonymous_id": "h"})
    history.resolve()
    history.land(*[{"email": f"e{n}@example.com", "anonymous_id": "h"} for n in range(3)])
    history.land({"user_id": "u1", "email": "e0@example.com"})
    history.resolve()
    assert rows_of(history, "anonymous_id:h", "email:e0@example.com") == [(1, 1), (3, 1)]


def test_a_row_excluded_by_hand_is_no_step(warehouse: Warehouse) -> None:
    rule = Exclude(exclude=ExcludedRow(stream="app.web", key=("bad",)))
    history = History(warehouse, with_rules(rule))
    history.land({"key": "bad", "user_id": "u1", "email": "e@example.com"})
    history.land({"user_id": "u1", "anonymous_id": "a"}, {"email": "e@example.com", "anonymous_id": "a"})
    history.resolve()
    assert rows_of(history, "user_id:u1", "email:e@example.com") == [(2, 1), (2, 2)]


def test_a_row_that_was_denied_until_something_broke_is_a_step(warehouse: Warehouse) -> None:
    rule = Deny(deny=({"user_id": "u1"}, {"anonymous_id": "a9"}))
    history = History(warehouse, with_rules(rule, over_limit="break"))
    history.land({"email": "e@example.com", "anonymous_id": "x"}, {"user_id": "u1", "anonymous_id": "x"})
    history.land({"email": "e@example.com", "anonymous_id": "a9"})
    history.land({"user_id": "u2", "anonymous_id": "x"})
    history.resolve()
    assert history.barred() == {"anonymous_id:x"}
    assert (2, 1, "anonymous_id:a9", "deny") in history.refused()
    assert rows_of(history, "email:e@example.com", "anonymous_id:a9") == [(2, 1)]


def test_a_rule_that_allows_is_a_step(warehouse: Warehouse) -> None:
    rule = Allow(allow=({"email": "Jo@example.com"}, {"user_id": "u2"}))
    history = History(warehouse, with_rules(rule))
    history.land({"user_id": "u1", "email": "jo@example.com"}, {"user_id": "u2", "anonymous_id": "a2"})
    history.resolve()
    found = asked(history, "user_id:u1", "anonymous_id:a2")
    assert [step.row is None for step in found.steps] == [False, True, False]
    assert "email=jo@example.com and user_id=u2 are allowed by a rule set by hand" in found.sentences()[2]


def test_an_accepted_fuzzy_link_tells_its_score(warehouse: Warehouse) -> None:
    compared = Fuzzy(compare={"name": "name", "city": "exact"}, block_on=("name", "city"), threshold=0.9)
    identity = with_rules(fuzzy=compared)
    history = History(warehouse, identity, streams=(stream_of("web"),))
    history.land(
        {"user_id": "u1", "email": "jo@example.com"}, {"anonymous_id": "a2", "email": "joe@example.com"}
    )
    history.resolve()
    run = run_of(1)
    with warehouse.session() as session:
        tables.ensure(session)
        session.execute(
            f"insert into {warehouse.table('fuzzy_links')} values ('1-3', 1, 'user_id', 'u1', 3, 'email',"
            " 'joe@example.com', 0.97, 'name: alike', 'accepted', :batch, 'run', 'run', 'review by ann')",
            {"batch": run.batch_id("cdp.fuzzy_links")},
        )
    fuzzy.take_in(warehouse, identity, run)
    history.resolve()
    found = asked(history, "email:jo@example.com", "anonymous_id:a2")
    link = found.steps[1]
    assert link.row is not None
    assert (link.row.stream, link.row.key, link.score) == ("cdp.fuzzy_links", ("1-3",), 0.97)
    assert "look alike (score 0.9700; name: alike), accepted by review by ann" in str(link)


def test_one_identifier_needs_no_path(warehouse: Warehouse) -> None:
    history = History(warehouse)
    history.land({"email": "jo@example.com"})
    history.resolve()
    found = asked(history, "email:jo@example.com", "email:JO@EXAMPLE.COM")
    assert found.together
    assert found.sentences() == ["email=jo@example.com is one identifier, of profile 1."]


# Two profiles


def test_nothing_in_common(warehouse: Warehouse) -> None:
    history = History(warehouse)
    history.land({"user_id": "u1"}, {"user_id": "u2"})
    history.resolve()
    assert asked(history, "user_id:u1", "user_id:u2").sentences() == [
        "user_id=u1 belongs to profile 1.",
        "user_id=u2 belongs to profile 2.",
        "No row that was taken in carries identifiers of both.",
    ]


@pytest.mark.parametrize("policy", ["demote", "refuse"])
def test_a_limit(warehouse: Warehouse, policy: str) -> None:
    history = History(warehouse, with_rules(over_limit=policy))
    history.land({"user_id": "u1", "email": "e@example.com"})
    history.land(*[{"key": key, "user_id": "u2", "email": "e@example.com"} for key in ("x", "y")])
    history.resolve()
    found = asked(history, "user_id:u1", "user_id:u2")
    assert not found.together
    (obstacle,) = found.obstacles
    assert (obstacle.reason, str(obstacle.value), obstacle.rule, obstacle.rows) == (
        "refused",
        "email=e@example.com",
        "limit user_id 1",
        2,
    )
    assert obstacle.row is not None
    assert (obstacle.row.key, obstacle.row.load_id, obstacle.row.position) == (("x",), 2, 1)
    assert "and 1 more" in found.sentences()[-1]


def test_a_row_of_a_third_profile(warehouse: Warehouse) -> None:
    history = History(warehouse, with_rules(over_limit="refuse"))
    history.land({"user_id": "u1", "email": "e@example.com"}, {"user_id": "u2", "anonymous_id": "a2"})
    history.land({"key": "third", "user_id": "u3", "email": "e@example.com", "anonymous_id": "a2"})
    history.resolve()
    found = asked(history, "email:e@example.com", "user_id:u2")
    assert reasons(found) == [("refused", "email:e@example.com"), ("refused", "anonymous_id:a2")]
    assert {obstacle.row and obstacle.row.key for obstacle in found.obstacles} == {("third",)}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_rule_that_denies(warehouse: Warehouse, policy: str) -> None:
    rule = Deny(deny=({"email": "e@example.com"}, {"user_id": "u2"}))
    history = History(warehouse, with_rules(rule, over_limit=policy))
    history.land({"email": "e@example.com", "anonymous_id": "a1"}, {"user_id": "u2", "anonymous_id": "a1"})
    history.resolve()
    found = asked(history, "anonymous_id:a1", "user_id:u2")
    assert reasons(found) == [("deny", "email:e@example.com"), ("refused", "anonymous_id:a1")]
    assert {obstacle.rule for obstacle in found.obstacles} == {"deny"}
    assert "email=e@example.com and user_id=u2 are denied by a rule set by hand." in found.sentences()


def test_a_row_excluded_by_hand(warehouse: Warehouse) -> None:
    rule = Exclude(exclude=ExcludedRow(stream="app.web", key=("bad",)))
    history = History(warehouse, with_rules(rule))
    history.land({"user_id": "u1"}, {"key": "bad", "user_id": "u1", "email": "e@example.com"})
    history.land({"email": "e@example.com"})
    history.resolve()
    found = asked(history, "user_id:u1", "email:e@example.com")
    assert reasons(found) == [("excluded row", "email:e@example.com")]
    assert found.obstacles[0].row is not None
    assert found.obstacles[0].row.key == ("bad",)


def test_a_hub(warehouse: Warehouse) -> None:
    kinds = {**SEGMENT.identifiers, "anonymous_id": Identifier(priority=3, limit=50, hub=2)}
    history = History(warehouse, with_rules(identifiers=kinds))
    history.land(*[{"user_id": f"u{n}", "anonymous_id": "a"} for n in range(4)])
    history.resolve()
    found = asked(history, "user_id:u0", "user_id:u1")
    assert reasons(found) == [("hub", "anonymous_id:a")]
    assert (found.obstacles[0].rule, found.obstacles[0].resolved_seq) == ("hub 2", 1)
    assert reasons(asked(history, "anonymous_id:a", "user_id:u1")) == [("hub", "anonymous_id:a")]


def test_a_broken_identifier(warehouse: Warehouse) -> None:
    history = History(warehouse, with_rules(over_limit="break"))
    history.land(
        {"user_id": "u1", "email": "e@example.com"}, {"key": "z", "user_id": "u2", "email": "e@example.com"}
    )
    history.resolve()
    for one, other in (("user_id:u1", "user_id:u2"), ("user_id:u1", "email:e@example.com")):
        found = asked(history, one, other)
        assert ("broken", "email:e@example.com") in reasons(found)
        (broken,) = [obstacle for obstacle in found.obstacles if obstacle.reason == "broken"]
        assert broken.row is not None
        assert (broken.row.key, broken.rule) == (("z",), "limit user_id 1")


def test_an_evicted_value(warehouse: Warehouse) -> None:
    history = History(warehouse, with_rules(over_limit="evict"))
    history.land({"user_id": "u1", "email": "e@example.com"})
    history.resolve()
    history.land({"user_id": "u2", "email": "e@example.com"})
    history.resolve()
    gone = asked(history, "user_id:u1", "user_id:u2")
    assert reasons(gone) == [("evicted", "user_id:u1")]
    assert gone.sentences()[0] == "user_id=u1 belongs to nobody."
    history.land({"user_id": "u1", "anonymous_id": "a1"})
    history.resolve()
    back = asked(history, "anonymous_id:a1", "email:e@example.com")
    assert reasons(back) == [("evicted", "user_id:u1")]
    assert (back.obstacles[0].profile_id, back.obstacles[0].resolved_seq) == (1, 2)


def test_a_path_through_a_value_that_has_left(warehouse: Warehouse) -> None:
    history = History(warehouse, with_rules(over_limit="evict"))
    history.land(
        {"user_id": "u1", "email": "e@example.com"},
        {"user_id": "u1", "anonymous_id": "a1"},
        {"user_id": "u2", "email": "e@example.com"},
    )
    history.resolve()
    assert [str(step.other) for step in asked(history, "email:e@example.com", "anonymous_id:a1").steps] == [
        "user_id=u1",
        "anonymous_id=a1",
    ]


def test_a_value_of_both_that_identifies_nobody(warehouse: Warehouse) -> None:
    kinds = {
        **SEGMENT.identifiers,
        "email": Identifier(priority=2, normalize="email", block=("Test@example.com",)),
    }
    rule = Exclude(exclude={"anonymous_id": "kiosk"})
    history = History(warehouse, with_rules(rule, identifiers=kinds))
    history.land(
        {"user_id": "u1", "email": "TEST@example.com", "anonymous_id": "kiosk"},
        {"user_id": "u2", "email": "test@example.com ", "anonymous_id": "kiosk"},
    )
    history.land(*[{"user_id": user, "email": "no address"} for user in ("u1", "u2")])
    history.resolve()
    found = asked(history, "user_id:u1", "user_id:u2")
    assert reasons(found) == [
        ("invalid", "email:no address"),
        ("blocked", "email:test@example.com"),
        ("excluded", "anonymous_id:kiosk"),
    ]


# Nobody


def test_what_identifies_nobody(warehouse: Warehouse) -> None:
    rule = Exclude(exclude={"anonymous_id": "kiosk"})
    history = History(warehouse, with_rules(rule))
    history.land({"user_id": "u1", "anonymous_id": "kiosk", "email": "null"})
    history.resolve()
    for one, reason in (
        ("anonymous_id:kiosk", "excluded"),
        ("email:null", "blocked"),
        ("email:jo", "invalid"),
        ("anonymous_id:never", "unknown"),
    ):
        found = asked(history, one, "user_id:u1")
        assert reasons(found) == [(reason, one)]
        assert found.one.profile_id is None
        assert found.other.profile_id == 1
        assert found.sentences()[0] == f"{one.replace(':', '=')} belongs to nobody."


def test_a_value_that_every_row_had_to_drop(warehouse: Warehouse) -> None:
    history = History(warehouse)
    history.land({"user_id": "u1", "email": "e@example.com"})
    history.land({"user_id": "u2", "email": "e@example.com", "anonymous_id": "a9"})
    history.resolve()
    found = asked(history, "anonymous_id:a9", "user_id:u2")
    assert reasons(found) == [("refused", "anonymous_id:a9")]
    assert found.obstacles[0].rule == "limit user_id 1"


# Wrong questions


def test_wrong_questions_say_what_to_do(warehouse: Warehouse) -> None:
    history = History(warehouse)
    history.land({"user_id": "u1"})
    history.resolve()
    with pytest.raises(ConfigurationError, match="no identifier type 'emial'; did you mean 'email'"):
        asked(history, "emial:jo@example.com", "user_id:u1")
    with pytest.raises(ConfigurationError, match="'email' without a value"):
        asked(history, "email: ", "user_id:u1")
    with pytest.raises(NotFoundError, match="no profile was ever called 7"):
        history_of(warehouse, 7)


def test_rules_or_rows_that_identity_resolution_has_not_seen(warehouse: Warehouse) -> None:
    history = History(warehouse)
    load = history.land({"user_id": "u1", "email": "e@example.com"})
    history.land({"user_id": "u1", "anonymous_id": "a"}, stream=1)
    history.resolve()
    resolved, history.identity = history.identity, with_rules(over_limit="refuse")
    with pytest.raises(ConfigurationError, match="the rules changed, and identity resolution has not run"):
        asked(history, "user_id:u1", "email:e@example.com")
    history.identity = resolved
    with pytest.raises(ConfigurationError, match=r"app\.crm, which is not among the streams given"):
        explain(warehouse, resolved, history.streams[:1], ("user_id", "u1"), ("email", "e@example.com"))
    history.land({"user_id": "u1", "email": "other@example.com"}, load_id=load, state="landed")
    with pytest.raises(ConfigurationError, match=r"batches of app\.web were landed again"):
        asked(history, "user_id:u1", "email:e@example.com")


def test_a_schema_in_which_nothing_was_resolved(tmp_path: Any) -> None:
    path = str(tmp_path / "empty.duckdb")
    empty = DuckDBWarehouse(lambda: duckdb.connect(path), schema="nothing")
    for ask in (
        lambda: explain(empty, SEGMENT, STREAMS, ("user_id", "u1"), ("user_id", "u2")),
        lambda: history_of(empty, 1),
    ):
        with pytest.raises(NotFoundError, match="'nothing' has no table identity_runs"):
            ask()


# Every history


#: So many pairs of one profile are asked for in each history.
_PAIRS = 10


def carried(history: History, landed: dict[int, list[dict[str, Any]]], row: Any) -> set[str]:
    """``type:value`` of everything in the row, as it was landed."""
    (stream,) = [stream for stream in history.streams if stream.ref == row.stream]
    values = landed[row.load_id][row.position - 1]
    columns = [(kind, column) for kind, names in stream.identifiers.items() for column in names]
    assert row.key == (values["key"],)
    return {f"{kind}:{values[column]}" for kind, column in columns if values[column]}


def validate(history: History, landed: dict[int, list[dict[str, Any]]], found: Explanation) -> None:
    """Each step starts where the last one ended; its row carries both, and linked both."""
    refused, at = set(history.refused()), found.one.value
    for step in found.steps:
        assert step.one == at
        at = step.other
        ends = {f"{value.type}:{value.value}" for value in (step.one, step.other)}
        if step.row is None:
            pairs = [rule.allow for rule in history.identity.rules if isinstance(rule, Allow)]
            assert ends in [{f"{k}:{v}" for side in pair for k, v in side.items()} for pair in pairs]
            continue
        assert ends <= carried(history, landed, step.row)
        keys = [rule.exclude for rule in history.identity.rules if isinstance(rule, Exclude)]
        assert ExcludedRow(stream=step.row.stream, key=step.row.key) not in keys
        place = (step.row.load_id, step.row.position)
        if history.identity.over_limit != "break":
            assert not [
                end for load, position, end, _ in refused if (load, position) == place and end in ends
            ]
        for kind, value, seq, reason, _ in history.state()["barred_identifiers"]:
            if f"{kind}:{value}" in ends:
                assert reason == "hub"
                assert step.row.resolved_seq < seq
    assert at == found.other.value


def play(history: History, steps: list[tuple[Any, ...]]) -> dict[int, list[dict[str, Any]]]:
    """Returns the rows of each batch."""
    history.clear()
    landed: dict[int, list[dict[str, Any]]] = {}
    sources: list[int] = []
    for kind, *what in [*steps, ("resolve",)]:
        if kind == "rules":
            (history.identity,) = what
        elif kind == "resolve":
            history.resolve()
        elif kind == "land":
            sources.append(what[0])
            landed[history.land(*what[1], stream=what[0])] = what[1]
        elif sources:
            number = what[0] % len(sources)
            state = "failed" if what[2] == "failed" else "passed"
            landed[history.land(*what[1], stream=sources[number], load_id=number + 1, state=state)] = what[1]
    return landed


def every_answer_is_right(history: History, steps: list[tuple[Any, ...]], pick: Callable[[Any], Any]) -> None:
    landed = play(history, steps)
    where = history.partition()
    pairs = list(itertools.combinations(where, 2))
    together = [pair for pair in pairs if where[pair[0]] == where[pair[1]]]
    for one, other in {*together[:_PAIRS], *(pick(some) for some in (pairs, together) if some)}:
        found = asked(history, one, other)
        assert found.together is bool(found.steps) is (where[one] == where[other])
        if found.together:
            validate(history, landed, found)
            assert found.obstacles == ()
        assert found.sentences()
        json.dumps(found.as_dict())
    for profile in set(where.values()):
        past = history_of(history.warehouse, profile)
        assert past.today == profile
        assert past.events[0].resolved_seq <= past.events[-1].resolved_seq


@pytest.fixture(scope="module")
def in_memory() -> History:
    root = duckdb.connect(":memory:")
    return History(DuckDBWarehouse(root.cursor), streams=STREAMS)


def _letter(kind: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, *(f"{kind[0]}{letter}" for letter in "abcd")])


#: Few values, so that much is refused, evicted and broken.
_crowd = st.lists(
    st.fixed_dictionaries(
        {
            **{kind: _letter(kind) for kind in KINDS},
            "work_email": st.one_of(st.none(), _letter("email")),
            "key": st.sampled_from("xyz"),
            "at": st.none(),
        }
    ),
    min_size=5,
    max_size=12,
)


def crowds(policy: str) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """One set of rules, a few batches, a run after each."""
    batches = st.lists(st.tuples(st.just("land"), st.integers(0, 1), _crowd), min_size=1, max_size=2)
    narrow = {
        "user_id": Identifier(priority=1, limit=1),
        "email": Identifier(priority=2, limit=3),
        "anonymous_id": Identifier(priority=3, limit=3),
    }
    return st.builds(
        lambda rules, landed: [("rules", rules), *(step for land in landed for step in (land, ("resolve",)))],
        st.one_of(st.just(Identity(identifiers=narrow, over_limit=policy)), identities(policy)),
        batches,
    )


@pytest.mark.parametrize("policy", POLICIES)
@settings_of(8)
@given(data=st.data())
def test_every_path_is_valid_and_there_is_one_for_every_two_of_a_profile(
    in_memory: History, policy: str, data: Any
) -> None:
    every_answer_is_right(in_memory, data.draw(crowds(policy)), lambda some: data.draw(st.sampled_from(some)))


@pytest.mark.parametrize("policy", POLICIES)
@settings_of(5)
@given(data=st.data())
def test_every_path_is_valid_where_rows_and_rules_change(in_memory: History, policy: str, data: Any) -> None:
    steps = data.draw(histories(policy, changing=True))
    every_answer_is_right(in_memory, steps, lambda some: data.draw(st.sampled_from(some)))


@pytest.mark.parametrize("policy", POLICIES)
@settings_of(1)
@given(data=st.data())
def test_every_path_is_valid_on_postgres(make_warehouse: Any, policy: str, data: Any) -> None:
    history = History(make_warehouse("postgres"), streams=STREAMS)
    every_answer_is_right(history, data.draw(crowds(policy)), lambda some: data.draw(st.sampled_from(some)))


# The past of a profile


def told(warehouse: Warehouse, profile: int) -> list[tuple[Any, ...]]:
    past = history_of(warehouse, profile)
    assert json.loads(json.dumps(past.as_dict()))["today"] == past.today
    assert len(past.sentences()) == 1 + len(past.events)
    return [(event.kind, event.resolved_seq, event.profile_id, event.other_id) for event in past.events]


def test_merges_are_followed_into_a_profile_and_out_of_it(warehouse: Warehouse) -> None:
    history = History(warehouse)
    history.land(*[{"anonymous_id": f"a{n}"} for n in range(4)])
    history.resolve()
    for ends in ((2, 3), (1, 2), (0, 1)):
        history.land(
            {"email": "e@example.com", "anonymous_id": f"a{ends[0]}"},
            {"email": "e@example.com", "anonymous_id": f"a{ends[1]}"},
        )
        history.resolve()
    into = [("merged", 2, 4, 3), ("merged", 3, 3, 2), ("merged", 4, 2, 1)]
    assert told(warehouse, 3) == [("published", 1, 3, None), *into]
    assert told(warehouse, 4) == [("published", 1, 4, None), *into]
    assert told(warehouse, 1) == [("published", 1, 1, None), *into]
    past = history_of(warehouse, 4)
    assert past.today == 1
    assert past.sentences()[0] == "Profile 4 is called 1 today."
    assert past.events[1].evidence == "email, anonymous_id"
    assert past.events[1].run_id == "run_2"


def test_splits_refusals_evictions_and_broken_identifiers(warehouse: Warehouse) -> None:
    history = History(warehouse, with_rules(over_limit="refuse"))
    history.land({"user_id": "u1", "email": "e@example.com"}, {"user_id": "u2", "email": "e@example.com"})
    history.resolve()
    (_, refused) = history_of(warehouse, 3).events
    assert (refused.kind, str(refused.value), refused.rule, refused.count) == (
        "refused",
        "email=e@example.com",
        "limit user_id 1",
        1,
    )
    history.identity = with_rules(over_limit="break")
    history.resolve()
    assert told(warehouse, 1) == [("published", 1, 1, None), ("split", 1, 1, 2)]
    assert told(warehouse, 2) == [
        ("published", 1, 2, None),
        ("split", 1, 1, 2),
        ("refused", 1, None, None),
        ("barred", 1, None, None),
    ]
    history.clear()
    history.identity = with_rules(over_limit="evict")
    history.land({"user_id": "u1", "email": "e@example.com"})
    history.resolve()
    history.land({"user_id": "u2", "email": "e@example.com"})
    history.resolve()
    assert told(warehouse, 1) == [("published", 1, 1, None), ("evicted", 2, 1, None)]


# Glue


def test_the_identifiers_that_glue_a_profile(warehouse: Warehouse) -> None:
    history = History(
        warehouse,
        with_rules(
            over_limit="refuse",
            identifiers={
                kind: Identifier(priority=rank, limit=100) for rank, kind in enumerate(SEGMENT.identifiers, 1)
            },
        ),
    )
    history.land(*[{"user_id": f"u{n}", "anonymous_id": "shared"} for n in range(9)])
    history.land({"user_id": "u0", "email": "e"}, {"user_id": "alone"}, {"user_id": "x", "email": "x"})
    history.resolve()
    where = history.partition()
    profiles = [where[name] for name in ("anonymous_id:shared", "user_id:alone", "user_id:x")]
    with warehouse.session() as session:
        found = glue(session, history.identity, history.streams, profiles)
    first, second, *rest = [(each.profile_id, each.type, each.linked_with) for each in found]
    assert first == (where["anonymous_id:shared"], "anonymous_id", 9)
    assert second == (where["user_id:u0"], "user_id", 2)
    assert rest[0][2] == 1
    assert [profile for profile, *_ in rest[1:]] == [where["user_id:x"]] * 2


def test_a_link_that_was_denied_glues_nothing(warehouse: Warehouse) -> None:
    rule = Deny(deny=({"user_id": "u1"}, {"anonymous_id": "a9"}))
    history = History(warehouse, with_rules(rule, over_limit="break"))
    history.land(
        {"user_id": "u1", "email": "e@example.com"}, {"email": "e@example.com", "anonymous_id": "a9"}
    )
    history.resolve()
    where = history.partition()
    with warehouse.session() as session:
        found = glue(session, history.identity, history.streams, sorted(set(where.values())))
    assert {each.profile_id for each in found} == {where["user_id:u1"]}
    assert {each.linked_with for each in found} == {1}
