# SPDX-License-Identifier: Apache-2.0
"""Pairs that look like one person: proposed on real profiles, decided, landed for identity resolution."""

from __future__ import annotations

import json
import random
import re
import sys
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.identity import fuzzy, scoring
from cdp_provider.core.project.fuzzy import Fuzzy
from cdp_provider.core.project.identity import Identifier, Identity
from cdp_provider.core.project.identity_checks import fuzzy_problems
from cdp_provider.core.project.world import World
from cdp_provider.core.registry import load_project
from tests.core.identity.landed import History, run_of, stream_of
from tests.world import PROJECT

if TYPE_CHECKING:
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

FIRST = "anna bert clara dieter elif fatma georg hanna ivan jonas katrin lukas maria nina oskar".split()
STEMS = "ber fisch gra hof kel lind mer wag zim sta".split()
LAST = [stem + end for stem in STEMS for end in ("ger", "er", "mann", "ke", "stein", "bach", "ner", "hoff")]
CITIES = ("aachen", "berlin", "celle", "dresden", "essen", "fulda", "gotha", "hamm")
FUZZY = Fuzzy(
    compare={"first_name": "name", "last_name": "name", "birthday": "date", "city": "exact"},
    block_on=(("last_name",), ("birthday",), ("first_name", "city")),
)
IDENTITY = Identity(
    identifiers={
        "user_id": Identifier(priority=1, limit=5),
        "email": Identifier(priority=2, normalize="email"),
    }
)


def people(count: int = 240, doubles: int = 60) -> list[dict[str, Any]]:
    """Persons 1 to `count`, then the first `doubles` of them once more, each with one slip."""
    luck = random.Random(11)  # noqa: S311 - no secret
    born = [
        {
            "first_name": luck.choice(FIRST),
            "last_name": luck.choice(LAST),
            "birthday": date(luck.randint(1940, 2005), luck.randint(1, 12), luck.randint(1, 28)),
            "city": luck.choice(CITIES),
        }
        for _ in range(count)
    ]
    again = []
    for person in born[:doubles]:
        field = luck.choice(("first_name", "last_name", "birthday"))
        if field == "birthday":
            slip: Any = person["birthday"].replace(day=1 + person["birthday"].day % 28)
        else:
            slip = person[field][:-2] + person[field][-1]
        again.append({**person, field: slip})
    rows = [*born, *again]
    return [{"profile_id": number, **row} for number, row in enumerate(rows, start=1)]


@dataclass
class Place:
    """A warehouse whose profiles and identifiers are written by hand: one ``user_id`` each."""

    warehouse: Warehouse

    def write_profiles(self, rows: pa.Table) -> None:
        with self.warehouse.session() as session, session.transaction():
            session.replace_table("profiles", f"select * from {session.temp('cdp_people', rows)}")

    def fill(self, rows: list[dict[str, Any]], identity: Identity = IDENTITY) -> None:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        ids = columns["profile_id"]
        self.write_profiles(pa.table(columns))
        with self.warehouse.session() as session:
            session.load(
                self.warehouse.table("identifiers"),
                pa.table(
                    {
                        "node_id": ids,
                        "type": [next(iter(identity.identifiers))] * len(ids),
                        "value": [f"u{number}" for number in ids],
                        "profile_id": ids,
                        "resolved_seq": [1] * len(ids),
                    }
                ),
            )

    def propose(self, day: int = 1, declared: Fuzzy | None = FUZZY) -> Report:
        identity = IDENTITY.model_copy(update={"fuzzy": declared})
        return fuzzy.propose(self.warehouse, identity, run_of(day))

    def decide(self, day: int = 1, *, approved: bool | None, by: str = "jo") -> Report:
        return fuzzy.decide(self.warehouse, IDENTITY, run_of(day), approved=approved, by=by)

    def links(self, columns: str = "pair, state") -> list[tuple[Any, ...]]:
        return self.read(f"select {columns} from {self.warehouse.table('fuzzy_links')} order by pair")

    def pairs(self, *states: str) -> set[tuple[int, int]]:
        rows = self.links("left_node, right_node, state")
        return {(left, right) for left, right, state in rows if not states or state in states}

    def landed(self) -> list[tuple[Any, ...]]:
        """Rows of the internal stream in batches that passed their check."""
        return self.read(
            "select pair, left_user_id, right_user_id, left_email, right_email"
            f" from {self.warehouse.table('cdp__fuzzy_links')} order by pair"
        )

    def read(self, sql: str) -> list[tuple[Any, ...]]:
        with self.warehouse.session() as session:
            return session.fetch(sql)

    def write(self, sql: str) -> None:
        with self.warehouse.session() as session:
            session.execute(sql)


@pytest.fixture
def place(warehouse: Warehouse) -> Place:
    return Place(warehouse)


_scored: dict[tuple[str, str], tuple[pa.Table, list[str]]] = {}


def score_once(profiles: pa.Table, declared: Fuzzy) -> tuple[pa.Table, list[str]]:
    """Scores, computed once for all tests that ask for the same: splink learns for seconds."""
    asked = repr(sorted(profiles.to_pylist(), key=lambda row: row["profile_id"])), repr(declared)
    if asked not in _scored:
        _scored[asked] = scoring.score(profiles, declared)
    return _scored[asked]


@pytest.fixture
def filled(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(fuzzy, "score", score_once)
    place.fill(people())
    return place


DOUBLES = {(number, 240 + number) for number in range(1, 61)}


def test_doubles_are_found_and_hardly_anybody_else(filled: Place) -> None:
    report = filled.propose()
    found = filled.pairs()
    assert len(found & DOUBLES) >= 50
    assert len(found - DOUBLES) <= 3
    assert (report.stage, report.rows_in, report.rows_out) == ("propose", 300, len(found))
    assert report.detail == {"accepted": 0, "to_review": len(found), "untrained": []}


def test_scores_are_the_same_on_every_engine_and_every_time(make_warehouse: Any) -> None:
    found = []
    for engine in ("duckdb", "postgres", "duckdb"):
        place = Place(make_warehouse(engine))
        place.fill(people())
        place.propose()
        found.append(place.links("pair, score, evidence"))
    assert found[0] == found[1] == found[2] != []


def test_a_link_says_how_fields_compare_and_not_what_they_hold(filled: Place) -> None:
    filled.propose()
    evidence = dict(filled.links("pair, evidence"))
    assert sorted(evidence["1-241"].replace("equal", "similar").split(", ")) == [
        "birthday similar",
        "city similar",
        "first_name similar",
        "last_name similar",
    ]
    text = fuzzy.review(filled.warehouse, run_of(1)) + json.dumps(filled.propose().summary())
    assert re.search(r"\| \d+ and \d+ \| [01]\.\d{4} \| .*birthday (equal|similar)", text)
    assert [word for word in (*FIRST, *LAST, *CITIES, "u1") if word in text] == []


def test_a_review_of_many_pairs_lists_the_best_and_the_worst(filled: Place) -> None:
    filled.propose()
    count = len(filled.links())
    assert count > 50
    text = fuzzy.review(filled.warehouse, run_of(1))
    assert f"The 25 best and the 25 worst of {count} are shown." in text
    assert text.count(" and ") == 50 + 1
    bands = [line.split("|") for line in text.splitlines() if line.startswith("| from")]
    assert sum(int(cells[2]) for cells in bands) == count


def test_without_proposals_there_is_nothing_to_review(place: Place) -> None:
    place.fill(people(count=20, doubles=0))
    assert place.propose().rows_out == 0
    assert fuzzy.review(place.warehouse, run_of(1)) == ""


def test_the_same_window_again_changes_nothing(filled: Place) -> None:
    filled.propose()
    before = filled.links("*")
    filled.propose()
    assert filled.links("*") == before


def test_an_older_window_leaves_a_newer_one_alone(filled: Place) -> None:
    filled.propose(day=3)
    before = filled.links("*")
    assert filled.propose(day=2).state == "superseded"
    assert filled.links("*") == before
    assert fuzzy.review(filled.warehouse, run_of(2)) == ""


def test_unanswered_proposals_go_over_to_the_newest_run(filled: Place) -> None:
    filled.propose(day=1)
    pairs = filled.pairs("proposed")
    filled.propose(day=2)
    assert filled.pairs("proposed") == pairs
    assert filled.decide(day=1, approved=True).rows_in == 0
    assert filled.decide(day=2, approved=True).rows_out == len(pairs)


@pytest.mark.parametrize("approved", [True, False])
def test_what_is_decided_is_not_proposed_again(filled: Place, approved: bool) -> None:
    proposed = filled.propose(day=1).rows_out
    filled.decide(day=1, approved=approved)
    assert filled.propose(day=2).rows_out == 0
    state = "accepted" if approved else "rejected"
    assert {row for row in filled.links("state, decided_run, decided_by")} == {
        (state, "run_1", "review by jo")
    }
    assert len(filled.links()) == proposed


def test_a_decided_pair_is_known_by_whatever_its_profiles_are_called(filled: Place) -> None:
    filled.propose(day=1)
    filled.decide(day=1, approved=False)
    decided = filled.pairs()
    # 241 turns out to be 240 too: the profile is called 240 now, and 1 and 240 are the pair that looks alike
    table = filled.warehouse.table
    filled.write(f"update {table('identifiers')} set profile_id = 240 where node_id = 241")
    filled.write(f"delete from {table('profiles')} where profile_id = 240")
    filled.write(f"update {table('profiles')} set profile_id = 240 where profile_id = 241")
    assert (1, 241) in decided
    assert filled.propose(day=2).rows_out == 0


def test_the_side_of_a_pair_is_the_oldest_identifier_that_can_link(filled: Place) -> None:
    table = filled.warehouse.table
    for number, kind in ((1001, "email"), (1002, "session_id"), (1003, "email")):
        filled.write(
            f"insert into {table('identifiers')} (node_id, type, value, profile_id, resolved_seq)"
            f" values ({number}, '{kind}', 'v{number}', 241, 1)"
        )
    filled.write(f"update {table('identifiers')} set evicted_seq = 2 where node_id = 241")
    filled.propose(day=1)
    assert (1, 1001) in filled.pairs()
    filled.write(
        f"insert into {table('barred_identifiers')} (resolved_seq, run_id, type, value, reason, rule)"
        " values (2, 'r', 'email', 'v1001', 'hub', 'hub 1')"
    )
    filled.propose(day=2)
    assert (1, 1003) in filled.pairs()
    assert filled.pairs().isdisjoint({(1, 1001), (1, 1002), (1, 241)})
    filled.decide(day=2, approved=True)
    assert ("1-1003", "u1", None, None, "v1003") in filled.landed()


def test_accepted_pairs_are_landed_as_one_batch_that_has_passed(filled: Place) -> None:
    filled.propose()
    report = filled.decide(approved=True)
    assert (report.stage, report.rows_in, report.rows_refused) == ("decide", report.rows_out, 0)
    pairs = filled.pairs("accepted")
    assert filled.landed() == [
        (f"{left}-{right}", f"u{left}", f"u{right}", None, None)
        for left, right in sorted(pairs, key=_as_text)
    ]
    loads = filled.warehouse.table("loads")
    columns = "stream, state, rows_landed, rows_quarantined, load_seq, resolved_seq"
    before = filled.read(f"select {columns} from {loads}")
    assert before == [("cdp.fuzzy_links", "passed", len(pairs), 0, 1, None)]
    filled.decide(approved=True)
    assert filled.read(f"select {columns} from {loads}") == before


def _as_text(pair: tuple[int, int]) -> str:
    return f"{pair[0]}-{pair[1]}"


def test_the_review_may_be_answered_anew(filled: Place) -> None:
    declared = FUZZY.model_copy(update={"accept_from": 0.999})
    filled.propose(declared=declared)
    sure, unsure = filled.pairs("accepted"), filled.pairs("proposed")
    assert sure
    assert unsure
    filled.decide(approved=True)
    assert len(filled.landed()) == len(sure) + len(unsure)
    report = filled.decide(approved=False)
    assert (report.rows_out, report.rows_refused) == (len(sure), len(unsure))
    assert len(filled.landed()) == len(sure)
    assert filled.pairs("rejected") == unsure


def test_sure_pairs_are_taken_in_without_a_review(filled: Place) -> None:
    report = filled.propose(declared=FUZZY.model_copy(update={"accept_from": 0.9}))
    assert report.detail["to_review"] == 0
    assert fuzzy.review(filled.warehouse, run_of(1)) == ""
    assert filled.decide(approved=None).rows_out == report.rows_out == len(filled.landed())
    assert {row for row in filled.links("decided_run, decided_by")} == {("run_1", "score")}


def test_nothing_is_decided_by_the_lack_of_an_answer(filled: Place) -> None:
    filled.propose()
    assert filled.decide(approved=None).rows_out == 0
    assert filled.landed() == []
    assert filled.pairs("proposed") == filled.pairs()


def test_values_of_any_shape_arrive_unchanged(filled: Place) -> None:
    odd = 'O\'Hara "x" \\ ü \u2028,; \n\ttab'
    table = filled.warehouse.table("identifiers")
    with filled.warehouse.session() as session:
        session.execute(f"update {table} set value = :odd where node_id = 1", {"odd": odd})
    filled.propose()
    filled.decide(approved=True)
    assert ("1-241", odd, "u241", None, None) in filled.landed()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 12, 40])
def test_few_profiles(place: Place, count: int) -> None:
    place.fill(people(count=max(count, 1), doubles=0))
    if not count:
        place.write(f"delete from {place.warehouse.table('profiles')}")
    report = place.propose()
    assert (report.state, report.rows_in, report.rows_out) == ("ok", count, 0)


def test_fields_without_any_value(place: Place) -> None:
    place.fill([{**row, "city": "  "} for row in people()])
    report = place.propose()
    assert report.detail["untrained"] == ["first_name, city"]
    assert len(place.pairs() & DOUBLES) >= 40
    assert len(place.pairs() - DOUBLES) <= 5


def test_fields_that_are_called_like_words_of_sql() -> None:
    names = {"first_name": "order", "last_name": "group", "birthday": "date", "city": "left"}
    rows = people()
    table = pa.table({names.get(name, name): [row[name] for row in rows] for name in rows[0]})
    declared = Fuzzy(
        compare={"order": "name", "group": "text", "date": "date", "left": "code"},
        block_on=(("group",), ("date",), ("order", "left")),
    )
    pairs, _ = scoring.score(table, declared)
    assert len(pairs) >= 40


def test_not_built_yet(place: Place) -> None:
    with pytest.raises(NotFoundError, match=r"profiles.* does not exist.* build the profiles first"):
        place.propose()
    assert place.read(f"select stage, state from {place.warehouse.table('runs')}") == [("propose", "failed")]


def test_fields_that_are_not_there_or_no_date(filled: Place) -> None:
    more = FUZZY.model_copy(update={"compare": {**FUZZY.compare, "shoe_size": "exact"}})
    with pytest.raises(ConfigurationError, match=r"names shoe_size, which the table .* does not have"):
        filled.propose(declared=more)
    wrong = FUZZY.model_copy(update={"compare": {**FUZZY.compare, "city": "date"}})
    with pytest.raises(ConfigurationError, match="compares city as date, and it is"):
        filled.propose(declared=wrong)


@pytest.mark.parametrize("limit", [1, 2])
def test_accepted_pairs_link_within_the_limits(
    place: Place, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzy, "score", score_once)
    identity = Identity(identifiers={"user_id": Identifier(limit=limit)}, fuzzy=FUZZY)
    rows = people()
    history = History(place.warehouse, identity, (stream_of("web", ("user_id",)),))
    history.land(*({"user_id": f"u{row['profile_id']}"} for row in rows))
    history.resolve()
    ids = history.partition()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    columns["profile_id"] = [ids[f"user_id:u{number}"] for number in columns["profile_id"]]
    place.write_profiles(pa.table(columns))
    fuzzy.propose(place.warehouse, identity, run_of(1))
    accepted = fuzzy.decide(place.warehouse, identity, run_of(1), approved=True).rows_out
    assert accepted > 40
    history.resolve()
    table = place.warehouse.table
    refused = place.read(
        f"select distinct position from {table('refused_links')} where stream = 'cdp.fuzzy_links'"
    )
    merged = place.read(f"select evidence from {table('merges')} where stream = 'cdp.fuzzy_links'")
    assert (len(merged), len(refused)) == ((0, accepted) if limit == 1 else (accepted, 0))
    assert len(set(history.partition().values())) == len(rows) - len(merged)
    fuzzy.decide(place.warehouse, identity, run_of(1), approved=False)
    history.resolve()
    assert history.partition() == ids


def test_nothing_declared(filled: Place) -> None:
    with pytest.raises(ConfigurationError, match=r"identity.fuzzy is not declared"):
        filled.propose(declared=None)


def test_without_splink(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fill(people())
    monkeypatch.setitem(sys.modules, "splink", None)
    with pytest.raises(ConfigurationError, match=r"splink is not installed; install .*\[fuzzy\]"):
        place.propose()


def test_the_stream_of_accepted_pairs() -> None:
    declared = fuzzy.stream(IDENTITY)
    assert (declared.ref, declared.primary_key) == ("cdp.fuzzy_links", ("pair",))
    assert declared.identifiers == {
        "user_id": ("left_user_id", "right_user_id"),
        "email": ("left_email", "right_email"),
    }


def test_declarations_that_cannot_be_meant() -> None:
    compare = {"first_name": "name", "birthday": "date"}
    with pytest.raises(ValidationError, match=r"0.5 is below the threshold 0.8"):
        Fuzzy(compare=compare, block_on=["birthday", "first_name"], threshold=0.8, accept_from=0.5)
    with pytest.raises(ValidationError, match="'birthday' is in every list of block_on"):
        Fuzzy(compare=compare, block_on=["birthday", ["birthday", "first_name"]])
    assert Fuzzy(compare=compare, block_on=["birthday", "first_name"]).block_on == (
        ("birthday",),
        ("first_name",),
    )


def test_declarations_that_the_project_contradicts() -> None:
    world = World(load_project(PROJECT), frozenset())
    fine = Fuzzy(compare={"first_name": "name", "email": "email"}, block_on=["last_name", "first_name"])
    assert list(fuzzy_problems(world, fine)) == []
    declared = Fuzzy(compare={"first_name": "date", "emial": "email"}, block_on=["first_name", "nothing"])
    found = list(fuzzy_problems(world, declared))
    assert [problem.path for problem in found] == [
        ("identity", "fuzzy", "compare", "first_name"),
        ("identity", "fuzzy", "compare", "emial"),
        ("identity", "fuzzy", "block_on", 1),
    ]
    assert "takes a field that is date" in found[0].message
    assert found[1].hint == "did you mean 'email'?"
    assert all("there is no field" in problem.message for problem in found[1:])
