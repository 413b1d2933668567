# SPDX-License-Identifier: Apache-2.0
"""Conditions one by one: what they hold for, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from pydantic import TypeAdapter

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.activation import Consent
from cdp_provider.core.project.conditions import Condition
from cdp_provider.core.project.model import Segment, Segmentation
from cdp_provider.core.segments.compile import segments_query
from cdp_provider.core.segments.tree import children, compared, ordered, referred, traits_of, walk
from tests.core.segments.ground import DAY, HOUR, NOW, PROFILES, TICK, Ground, facts

CONDITION = TypeAdapter(Condition)
CONSENT = Consent(purposes={"newsletter": "flag"})
BERLIN, POTSDAM, SYDNEY = (52.52, Decimal("13.405")), (52.39, Decimal("13.064")), (-33.87, Decimal("151.209"))

PEOPLE = {
    1: {"text": "Ann", "whole": 5, "flag": True, "company": "acme", "listed": ["a", "b"]},
    2: {"text": "bob", "whole": 7, "flag": False, "company": "acme", "listed": []},
    3: {"text": "", "whole": -1, "company": "solo", "number": 0.5},
    4: {"day": date(2026, 3, 1), "moment": NOW},
}
PEOPLE = {
    number: {**values, "latitude": place[0], "longitude": place[1]}
    for (number, values), place in zip(PEOPLE.items(), (BERLIN, POTSDAM, SYDNEY, (None, 1)), strict=True)
}
ROWS = {
    "web.events": [
        {"who": 1, "at": NOW - DAY, "name": "view", "product": "x", "amount": 3, "price": Decimal("1.5")},
        {"who": 1, "at": NOW - 2 * DAY, "name": "view", "product": "y", "amount": 4, "rate": 0.5},
        {"who": 1, "at": NOW - DAY - TICK, "name": "add", "product": "x", "due": NOW + DAY},
        {"who": 2, "at": NOW - 9 * DAY, "name": "view", "product": "x", "price": Decimal("2.25")},
        {"who": 3, "name": "view", "product": "x", "amount": 10},
        {"who": None, "at": NOW - DAY, "name": "view", "product": "x"},
        {"who": 4, "at": NOW, "name": "view", "product": "future"},
    ],
    "till.orders": [{"who": 2, "order_id": 1, "at": NOW - DAY, "status": "paid"}],
}
ACCOUNTS = {"acme": {"seats": 2, "most": 7}, "solo": {"seats": 1}}

CASES = [
    ({"all": [{"trait": "whole", "at_least": 5}, {"trait": "flag", "is": True}]}, {1}),
    ({"any": [{"trait": "whole", "at_least": 6}, {"trait": "flag", "is": True}]}, {1, 2}),
    ({"none": [{"trait": "whole", "at_least": 6}, {"trait": "flag", "is": True}]}, {3, 4}),
    ({"none": [{"none": [{"trait": "flag", "is": True}]}]}, {1}),
    ({"trait": "text", "exists": True}, {1, 2, 3}),
    ({"trait": "text", "is_not": "Ann"}, {2, 3, 4}),
    ({"trait": "listed", "contains": "b"}, {1}),
    ({"trait": "listed", "contains_any": ["x", "a"]}, {1}),
    ({"trait": "moment", "is": "2026-03-01"}, {4}),
    ({"trait": "day", "today": True}, {4}),
    # events
    ({"stream": "web.events"}, {1, 2, 3}),
    ({"stream": "web.events", "event": "add"}, {1}),
    ({"stream": "web.events", "exactly": 0}, {4}),
    ({"stream": "web.events", "exactly": 3}, {1}),
    ({"stream": "web.events", "at_most": 1}, {2, 3, 4}),
    ({"stream": "web.events", "more_than": 1}, {1}),
    ({"stream": "web.events", "less_than": 1}, {4}),
    ({"stream": "web.events", "at_least": 1, "at_most": 2}, {2, 3}),
    ({"stream": "web.events", "within_last": "1 day"}, {1}),
    ({"stream": "web.events", "within_last": "1 day", "exactly": 1}, {1}),
    ({"stream": "web.events", "within_last": "2 days", "exactly": 3}, {1}),
    ({"stream": "web.events", "between": ["2026-02-20", "2026-02-20"]}, {2}),
    ({"stream": "web.events", "between": ["2026-02-27", "2026-02-28"], "exactly": 3}, {1}),
    ({"stream": "web.events", "between": ["2026-02-28T12:00:00Z", "2026-03-01T12:00:00Z"]}, {1}),
    ({"stream": "web.events", "where": {"product": {"any_of": ["y"]}}}, {1}),
    ({"stream": "web.events", "where": {"due": {"within_next": "2 days"}}}, {1}),
    ({"stream": "web.events", "where": {"due": {"today": True}}}, set()),
    ({"stream": "web.events", "sum": "amount", "at_least": 8}, {3}),
    ({"stream": "web.events", "sum": "amount", "exactly": 7}, {1}),
    ({"stream": "web.events", "sum": "amount", "less_than": 100}, {1, 3}),
    ({"stream": "web.events", "sum": "price", "more_than": Decimal("1.4")}, {1, 2}),
    ({"stream": "web.events", "average": "amount", "exactly": 3.5}, {1}),
    ({"stream": "web.events", "min": "amount", "exactly": 3}, {1}),
    ({"stream": "web.events", "max": "amount", "at_least": 4}, {1, 3}),
    ({"stream": "web.events", "max": "rate", "at_most": 0.5}, {1}),
    ({"stream": "web.events", "distinct_count": "product", "at_least": 2}, {1}),
    ({"stream": "web.events", "distinct_count": "product", "exactly": 0}, {4}),
    (
        {"stream": "web.events", "within_last": "1 day", "distinct_count": "product", "less_than": 1},
        {2, 3, 4},
    ),
    # accounts
    ({"account": "seats", "at_least": 2}, {1, 2}),
    ({"account": "most", "exists": False}, {3}),
    ({"account": "most", "is_not": 5}, {1, 2, 3}),
    ({"members": "any", "where": {"trait": "flag", "is": True}}, {1, 2}),
    ({"members": "all", "where": {"trait": "whole", "at_least": 5}}, {1, 2}),
    ({"members": "all", "where": {"trait": "flag", "is": True}}, set()),
    ({"members": "none", "where": {"trait": "flag", "is": True}}, {3}),
    ({"members": "any", "where": {"members": "all", "where": {"trait": "whole", "at_least": 5}}}, {1, 2}),
    ({"members": "any", "where": {"stream": "till.orders"}}, {1, 2}),
    # consent
    ({"consent": "newsletter"}, {1}),
    ({"consent": "newsletter", "given": False}, {2, 3, 4}),
    # places
    ({"near": [52.52, 13.405], "latitude": "latitude", "longitude": "longitude", "kilometres": 0}, {1}),
    ({"near": [52.52, 13.405], "latitude": "latitude", "longitude": "longitude", "kilometres": 27.2}, {1}),
    ({"near": [52.52, 13.405], "latitude": "latitude", "longitude": "longitude", "kilometres": 27.3}, {1, 2}),
    (
        {"near": [52.52, 13.405], "latitude": "latitude", "longitude": "longitude", "kilometres": 16089},
        {1, 2},
    ),
    (
        {"near": [52.52, 13.405], "latitude": "latitude", "longitude": "longitude", "kilometres": 16105},
        {1, 2, 3},
    ),
    (
        {"near": [33.87, -28.791], "latitude": "latitude", "longitude": "longitude", "kilometres": 20015.2},
        {1, 2, 3},
    ),
    # own SQL
    ({"sql": "select profile_id from {web.events} where name = 'add'"}, {1}),
    ({"sql": "select e.profile_id, count(*) from {web.events} e group by 1 having count(*) > 2;"}, {1}),
    (
        {"sql": "with f as (select * from {profiles}) select profile_id from f where text like '%nn' -- :x"},
        {1},
    ),
    ({"sql": "select profile_id from {web.events} where \"at\" >= :now - interval '25 hours'"}, {1}),
    (
        {"sql": "select profile_id from {till.orders} union select profile_id from {web.events} where 1 = 0"},
        {2},
    ),
    ({"sql": "select 1"}, {1}),
    ({"segment": "busy"}, {1}),
]


def condition(given):
    return CONDITION.validate_python(given)


def segmentation(*segments, **given):
    return Segmentation(segments=segments, consent=CONSENT, **given)


BUSY = Segment(name="busy", where={"stream": "web.events", "more_than": 1})


def test_every_condition(warehouse):
    ground = Ground(PEOPLE, ROWS, ACCOUNTS)
    ground.put(warehouse)
    found = ground.holding(warehouse, [condition(given) for given, _ in CASES], segmentation(BUSY))
    assert [
        (given, held) for (given, expected), held in zip(CASES, found, strict=True) if held != expected
    ] == []


def test_each_condition_as_a_segment_of_its_own(warehouse):
    ground = Ground(PEOPLE, ROWS, ACCOUNTS)
    ground.put(warehouse)
    segments = [Segment(name=f"s{n}", where=given) for n, (given, _) in enumerate(CASES)]
    found = ground.members(warehouse, segmentation(BUSY, *segments))
    assert found.pop("busy") == {1}
    assert list(found.values()) == [expected for _, expected in CASES]


def test_dates_are_days_of_the_zone(warehouse):
    # The day of 2026-03-29 has 23 hours in Berlin: from 23:00 the day before to 22:00, UTC.
    first, last = datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 3, 29, 22, tzinfo=UTC) - TICK
    moments = [first - TICK, first, last, last + TICK]
    rows = [{"who": n, "at": at, "name": "x", "due": at} for n, at in enumerate(moments, 1)]
    ground = Ground({n: {"moment": at} for n, at in enumerate(moments, 1)}, {"web.events": rows})
    ground.put(warehouse)
    asked = [
        {"trait": "moment", "is": "2026-03-29"},
        {"stream": "web.events", "between": ["2026-03-29", "2026-03-29"]},
        {"stream": "web.events", "where": {"due": {"is": date(2026, 3, 29)}}},
        {"trait": "moment", "today": True},
        {
            "funnel": [{"stream": "web.events"}, {"stream": "till.orders", "absent": True}],
            "between": ["2026-03-29"] * 2,
        },
    ]
    found = ground.holding(
        warehouse, [condition(given) for given in asked], Segmentation(), first + 23 * HOUR, "Europe/Berlin"
    )
    assert found[:3] == [{2, 3}] * 3
    assert found[3] == {4}
    assert found[4] == {2, 3}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trait": "unknown", "is": 1}, "names the trait 'unknown'; the profile has known, text"),
        ({"segment": "unknown"}, "refers to unknown, which is no segment here"),
        ({"split": "spring", "group": "a"}, "the group a of the split spring"),
        ({"stream": "web.nothing"}, "no stream 'web.nothing'"),
        ({"stream": "till.orders", "event": "x"}, "declares no `event:` column"),
        ({"stream": "web.events", "where": {"nope": 1}}, "'nope', which the stream web.events does not have"),
        ({"stream": "till.items", "within_last": "1 day"}, "declare its time column"),
        ({"stream": "web.events", "sum": "amount"}, "holds it against nothing; add a bound"),
        ({"stream": "web.events", "sum": "nope", "at_least": 1}, "no column 'nope'"),
        ({"account": "nope", "is": 1}, "the trait 'nope' of accounts; they have seats, most"),
        ({"consent": "nope"}, "consent to nope; map that purpose"),
        (
            {"near": [1, 2], "latitude": "text", "longitude": "number", "kilometres": 1},
            "takes text for a place",
        ),
        ({"sql": "delete from x"}, "begins with 'delete'"),
        ({"sql": "select 1; select 2"}, "several statements"),
        ({"sql": "select 1) or (true"}, "a parenthesis is closed"),
        (
            {"sql": "select profile_id from {web.nope}"},
            r"the place \{web.nope\}; there may be profiles, web.events",
        ),
        ({"sql": "select :p0"}, "no parameter :p0"),
        ({"funnel": [{"stream": "web.events", "absent": True}, {"stream": "web.events"}]}, "first step"),
        (
            {
                "funnel": [
                    {"stream": "web.events"},
                    {"stream": "web.events", "absent": True, "within": "1 day"},
                    {"stream": "web.events"},
                ]
            },
            "in the middle of a funnel has `within`",
        ),
    ],
)
def test_what_is_refused(make_warehouse, given, message):
    warehouse = make_warehouse("duckdb")
    segment = Segment(name="one", where=given)
    with pytest.raises(ConfigurationError, match=message):
        segments_query(warehouse, segmentation(segment), PROFILES, facts(warehouse))


def test_conditions_are_walked_whatever_they_consist_of():
    tree = condition(
        {
            "any": [
                {"none": [{"segment": "a"}, {"trait": "x", "is": 1}]},
                {"members": "any", "where": {"all": [{"segment": "b"}, {"trait": "y", "is": 1}]}},
                {"near": [1, 2], "latitude": "lat", "longitude": "lon", "kilometres": 1},
                {
                    "related": "till.orders",
                    "on": {"customer": "key"},
                    "having": [{"related": "till.items", "on": {"order_id": "order_id"}}],
                },
            ]
        }
    )
    assert list(referred(tree)) == ["a", "b"]
    assert list(traits_of(tree)) == ["x", "y", "lat", "lon", "key"]
    assert len(list(walk(tree))) == 10
    assert children(condition({"trait": "x", "is": 1})) == ()


def test_all_that_segments_need_of_profiles_is_told():
    segments = segmentation(
        Segment(
            name="a", where={"consent": "newsletter"}, limit={"count": 1, "by": "whole", "per": "country"}
        ),
        Segment(name="b", where={"members": "any", "where": {"trait": "text", "is": "x"}}),
        splits=({"name": "s", "groups": {"one": 0.5}, "stratify": ["day"]},),
    )
    assert compared(segments, PROFILES) == {"flag", "whole", "country", "text", "company", "day"}


@pytest.mark.parametrize(
    ("one", "other", "more"),
    [
        ({"where": {"segment": "b"}}, {"where": {"segment": "a"}}, {}),
        ({"where": {"members": "any", "where": {"segment": "b"}}}, {"where": {"segment": "a"}}, {}),
        ({"except": ["b"]}, {"where": {"segment": "a"}}, {}),
        ({"except": ["b"]}, {"except": ["a"]}, {}),
        ({"where": {"segment": "b"}}, {}, {"exclusive": {"e": ["a", "b"]}}),
        ({"where": {"segment": "b"}}, {}, {"suppression": ["a"]}),
        (
            {"where": {"split": "s", "group": "x"}},
            {"except": ["a"]},
            {"splits": ({"name": "s", "segment": "b", "groups": {"x": 0.5}},)},
        ),
    ],
)
def test_circles_are_refused_with_the_path(one, other, more):
    plain = {"where": {"trait": "flag", "is": True}}
    segments = [Segment(name="a", **{**plain, **one}), Segment(name="b", **{**plain, **other})]
    with pytest.raises(ConfigurationError, match=r"circle: (a -> b -> a|b -> a -> b); take one"):
        ordered(segmentation(*segments, **more))


def test_equal_questions_are_asked_once(make_warehouse):
    warehouse = make_warehouse("duckdb")
    where = {"stream": "web.events", "within_last": "7 days", "at_least": 2}
    one = segments_query(warehouse, segmentation(Segment(name="a", where=where)), PROFILES, facts(warehouse))
    both = segments_query(
        warehouse,
        segmentation(Segment(name="a", where=where), Segment(name="b", where={**where, "at_least": 3})),
        PROFILES,
        facts(warehouse),
    )
    assert both.sql.count("count(*)") == one.sql.count("count(*)")


def test_long_chains_of_segments_are_no_trouble(make_warehouse):
    warehouse = make_warehouse("duckdb")
    ground = Ground(PEOPLE)
    ground.put(warehouse)
    segments = [Segment(name="s0", where={"trait": "flag", "is": True})]
    segments += [Segment(name=f"s{n}", where={"none": [{"segment": f"s{n - 1}"}]}) for n in range(1, 60)]
    found = ground.members(warehouse, segmentation(*reversed(segments)))
    assert [found["s0"], found["s58"], found["s59"]] == [{1}, {1}, {2, 3, 4}]
