# SPDX-License-Identifier: Apache-2.0
"""The boundaries that the docstring of a comparison names, one by one, and what is refused."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.filters import compile_comparison, compile_filter
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.project.conditions import Comparison
from tests.core.profiles.world import EVENTS, NOW

DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
MIDNIGHT = datetime(2026, 2, 28, tzinfo=UTC)
TODAY, HALF = datetime(2026, 3, 1, tzinfo=UTC), timedelta(hours=12)

#: column type, value, comparison, whether it holds
CASES = [
    # A missing value fulfils is_not, none_of and exists: false, and nothing else.
    *(
        ("string", None, given, held)
        for given, held in (
            ({"is_": "a"}, False),
            ({"is_not": "a"}, True),
            ({"any_of": ("a",)}, False),
            ({"none_of": ("a",)}, True),
            ({"any_of": ()}, False),
            ({"none_of": ()}, True),
            ({"at_least": "a"}, False),
            ({"at_most": "a"}, False),
            ({"more_than": ""}, False),
            ({"less_than": "z"}, False),
            ({"between": ("", "z")}, False),
            ({"contains": ""}, False),
            ({"starts_with": ""}, False),
            ({"ends_with": ""}, False),
            ({"exists": True}, False),
            ({"exists": False}, True),
            ({"exists": False, "is_": "a"}, False),
        )
    ),
    *(("timestamp", None, {name: NOW}, False) for name in ("before", "after", "at_least")),
    ("timestamp", None, {"within_last": DAY}, False),
    ("boolean", None, {"is_": False}, False),
    ("boolean", None, {"is_not": True}, True),
    # between includes both ends; a turned-around one holds nothing
    ("integer", 1, {"between": (1, 2)}, True),
    ("integer", 2, {"between": (1, 2)}, True),
    ("integer", 2, {"between": (2, 1)}, False),
    ("timestamp", MIDNIGHT, {"between": (MIDNIGHT, NOW)}, True),
    ("timestamp", NOW, {"between": (MIDNIGHT, NOW)}, True),
    ("timestamp", NOW + TICK, {"between": (MIDNIGHT, NOW)}, False),
    # before excludes its moment, after includes it
    ("timestamp", NOW, {"before": NOW}, False),
    ("timestamp", NOW - TICK, {"before": NOW}, True),
    ("timestamp", NOW, {"after": NOW}, True),
    ("timestamp", NOW - TICK, {"after": NOW}, False),
    # within_last: from now minus the duration (included) to now (excluded); a day is 24 hours
    ("timestamp", NOW - DAY, {"within_last": DAY}, True),
    ("timestamp", NOW - DAY - TICK, {"within_last": DAY}, False),
    ("timestamp", NOW - TICK, {"within_last": DAY}, True),
    ("timestamp", NOW, {"within_last": DAY}, False),
    ("timestamp", MIDNIGHT, {"within_last": timedelta(days=999_999_999)}, True),
    # a date is the whole day
    ("timestamp", MIDNIGHT, {"is_": date(2026, 2, 28)}, True),
    ("timestamp", MIDNIGHT + DAY - TICK, {"is_": date(2026, 2, 28)}, True),
    ("timestamp", MIDNIGHT + DAY, {"is_": date(2026, 2, 28)}, False),
    ("timestamp", MIDNIGHT - TICK, {"is_": date(2026, 2, 28)}, False),
    ("timestamp", MIDNIGHT + DAY - TICK, {"is_not": date(2026, 2, 28)}, False),
    ("timestamp", MIDNIGHT + DAY, {"is_not": date(2026, 2, 28)}, True),
    ("timestamp", NOW, {"any_of": (date(2026, 2, 28), NOW)}, True),
    ("timestamp", MIDNIGHT + DAY - TICK, {"any_of": (date(2026, 2, 28), NOW)}, True),
    ("timestamp", MIDNIGHT + DAY, {"any_of": (date(2026, 2, 28), NOW)}, False),
    ("timestamp", MIDNIGHT, {"none_of": (date(2026, 2, 28), NOW)}, False),
    ("timestamp", MIDNIGHT + DAY, {"none_of": (date(2026, 2, 28), NOW)}, True),
    ("timestamp", None, {"none_of": (date(2026, 2, 28),)}, True),
    *(
        ("timestamp", moment, {name: date(2026, 2, 28)}, held)
        for names, moment, held in (
            (("before", "less_than"), MIDNIGHT - TICK, True),
            (("before", "less_than"), MIDNIGHT, False),
            (("after", "at_least"), MIDNIGHT, True),
            (("after", "at_least"), MIDNIGHT - TICK, False),
            (("at_most",), MIDNIGHT + DAY - TICK, True),
            (("at_most",), MIDNIGHT + DAY, False),
            (("more_than",), MIDNIGHT + DAY, True),
            (("more_than",), MIDNIGHT + DAY - TICK, False),
        )
        for name in names
    ),
    ("timestamp", MIDNIGHT, {"between": (date(2026, 2, 28), date(2026, 2, 28))}, True),
    ("timestamp", MIDNIGHT + DAY - TICK, {"between": (date(2026, 2, 28), date(2026, 2, 28))}, True),
    ("timestamp", MIDNIGHT + DAY, {"between": (date(2026, 2, 28), date(2026, 2, 28))}, False),
    ("timestamp", datetime(9999, 12, 31, 12, tzinfo=UTC), {"is_": date.max}, True),
    ("timestamp", datetime(9999, 12, 31, 12, tzinfo=UTC), {"more_than": date.max}, False),
    ("timestamp", None, {"at_most": date.max}, False),
    ("timestamp", datetime(2024, 2, 29, 23, tzinfo=UTC), {"is_": date(2024, 2, 29)}, True),
    ("timestamp", datetime(2024, 3, 1, tzinfo=UTC), {"at_most": date(2024, 2, 29)}, False),
    # a moment without a zone is UTC
    ("timestamp", MIDNIGHT, {"is_": datetime(2026, 2, 28)}, True),  # noqa: DTZ001 - as YAML may give it
    ("timestamp", MIDNIGHT, {"is_": datetime.fromisoformat("2026-02-28T01:00:00+01:00")}, True),
    ("timestamp", MIDNIGHT, {"at_most": MIDNIGHT}, True),
    ("timestamp", MIDNIGHT, {"more_than": MIDNIGHT}, False),
    ("timestamp", MIDNIGHT, {"less_than": MIDNIGHT}, False),
    ("timestamp", MIDNIGHT, {"at_least": MIDNIGHT}, True),
    # a date is compared with dates
    ("date", date(2026, 2, 28), {"is_": date(2026, 2, 28)}, True),
    ("date", date(2026, 2, 28), {"after": date(2026, 2, 28)}, True),
    ("date", date(2026, 2, 28), {"before": date(2026, 2, 28)}, False),
    ("date", date(2026, 2, 28), {"more_than": date(2026, 2, 28)}, False),
    ("date", date(2026, 2, 28), {"at_most": date(2026, 2, 28)}, True),
    ("date", date(2024, 2, 29), {"between": (date(2024, 2, 28), date(2024, 2, 29))}, True),
    ("date", date(2024, 2, 29), {"any_of": (date(2024, 2, 28), date(2024, 2, 29))}, True),
    # today is the calendar day of now, also what lies ahead
    ("timestamp", TODAY, {"today": True}, True),
    ("timestamp", TODAY - TICK, {"today": True}, False),
    ("timestamp", TODAY + DAY - TICK, {"today": True}, True),
    ("timestamp", TODAY + DAY, {"today": True}, False),
    ("timestamp", TODAY, {"today": False}, False),
    ("timestamp", TODAY + DAY, {"today": False}, True),
    ("timestamp", None, {"today": True}, False),
    ("timestamp", None, {"today": False}, True),
    ("date", date(2026, 3, 1), {"today": True}, True),
    ("date", date(2026, 2, 28), {"today": True}, False),
    ("date", None, {"today": False}, True),
    # before_last: before now minus the duration (excluded)
    ("timestamp", NOW - DAY, {"before_last": DAY}, False),
    ("timestamp", NOW - DAY - TICK, {"before_last": DAY}, True),
    ("timestamp", None, {"before_last": DAY}, False),
    # between_ago: both ends included
    *(
        ("timestamp", moment, {"between_ago": (3 * DAY, DAY)}, held)
        for moment, held in (
            (NOW - 3 * DAY - TICK, False),
            (NOW - 3 * DAY, True),
            (NOW - DAY, True),
            (NOW - DAY + TICK, False),
            (None, False),
        )
    ),
    # within_next: from now (included) to now plus the duration (excluded); after_next the rest
    *(
        ("timestamp", moment, given, held)
        for moment, given, held in (
            (NOW - TICK, {"within_next": DAY}, False),
            (NOW, {"within_next": DAY}, True),
            (NOW + DAY - TICK, {"within_next": DAY}, True),
            (NOW + DAY, {"within_next": DAY}, False),
            (NOW + DAY - TICK, {"after_next": DAY}, False),
            (NOW + DAY, {"after_next": DAY}, True),
            (None, {"within_next": DAY}, False),
            (None, {"after_next": DAY}, False),
        )
    ),
    # what counts from now takes a date as the first moment of its day; now is the noon of March 1
    ("date", date(2026, 3, 1), {"within_last": DAY}, True),
    ("date", date(2026, 2, 28), {"within_last": DAY}, False),  # began 36 hours before now
    ("date", date(2026, 2, 28), {"within_last": DAY + HALF}, True),
    ("date", date(2026, 3, 1), {"within_last": HALF - TICK}, False),
    ("date", date(2026, 2, 28), {"before_last": DAY}, True),
    ("date", date(2026, 2, 28), {"before_last": DAY + HALF}, False),
    ("date", date(2026, 2, 28), {"between_ago": (2 * DAY, DAY + HALF)}, True),
    ("date", date(2026, 2, 28), {"between_ago": (2 * DAY, DAY + HALF + TICK)}, False),
    ("date", date(2026, 2, 28), {"between_ago": (DAY + HALF, DAY)}, True),
    ("date", date(2026, 2, 28), {"between_ago": (DAY + HALF - TICK, DAY)}, False),
    ("date", date(2026, 3, 1), {"within_next": DAY}, False),
    ("date", date(2026, 3, 2), {"within_next": DAY}, True),
    ("date", date(2026, 3, 2), {"within_next": HALF}, False),
    ("date", date(2026, 3, 2), {"after_next": HALF}, True),
    ("date", date(2026, 3, 2), {"after_next": HALF + TICK}, False),
    ("date", None, {"within_last": DAY}, False),
    # contains, starts_with and ends_with ignore case, the others do not
    ("string", "aBc", {"contains": "Bc"}, True),
    ("string", "abc", {"contains": "BC"}, True),
    ("string", "ABC", {"starts_with": "ab"}, True),
    ("string", "abc", {"ends_with": "BC"}, True),
    ("string", "abc", {"ends_with": "xabc"}, False),
    ("string", "abc", {"ends_with": ""}, True),
    ("string", "a", {"is_": "A"}, False),
    ("string", "a", {"any_of": ("A",)}, False),
    ("string", "a", {"more_than": "B"}, True),
    ("string", "a_c", {"contains": "%"}, False),
    ("string", "abc", {"contains": "a_c"}, False),
    # ignore_case says otherwise
    ("string", "abc", {"contains": "BC", "ignore_case": False}, False),
    ("string", "ABC", {"starts_with": "ab", "ignore_case": False}, False),
    ("string", "abc", {"ends_with": "BC", "ignore_case": False}, False),
    ("string", "a", {"is_": "A", "ignore_case": True}, True),
    ("string", "a", {"is_not": "A", "ignore_case": True}, False),
    ("string", "a", {"any_of": ("x", "A"), "ignore_case": True}, True),
    ("string", "a", {"none_of": ("x", "A"), "ignore_case": True}, False),
    ("string", "a", {"more_than": "B", "ignore_case": True}, False),
    ("string", "a", {"between": ("A", "A"), "ignore_case": True}, True),
    ("string", "Gold 1", {"like": "gold*", "ignore_case": True}, True),
    ("string", "AB1", {"matches": "[a-z]{2}[0-9]", "ignore_case": True}, True),
    # contains_any wants one of several
    ("string", "abc", {"contains_any": ("x", "C")}, True),
    ("string", "abc", {"contains_any": ("x", "C"), "ignore_case": False}, False),
    ("string", "abc", {"contains_any": ("x", "y")}, False),
    ("string", "abc", {"contains_any": ()}, False),
    ("string", None, {"contains_any": ("",)}, False),
    # like is about the whole text; only * and ? are more than themselves
    ("string", "gold 1", {"like": "gold*"}, True),
    ("string", "gold", {"like": "gold*"}, True),
    ("string", "a gold", {"like": "gold*"}, False),
    ("string", "Gold", {"like": "gold*"}, False),
    ("string", "a\nb", {"like": "a*b"}, True),
    ("string", "é", {"like": "?"}, True),
    ("string", "", {"like": "?"}, False),
    ("string", "", {"like": ""}, True),
    ("string", "abc", {"like": "a_c"}, False),
    ("string", "a_c", {"like": "a_c"}, True),
    ("string", "abc", {"like": "a%"}, False),
    ("string", "a\\c", {"like": "a\\c"}, True),
    ("string", "a\\%", {"like": "a\\?"}, True),
    ("string", None, {"like": "*"}, False),
    # of a list, contains is about members
    *(
        (kind, value, given, held)
        for kind, value, given, held in (
            ("list of string", ["a", "B c"], {"contains": "a"}, True),
            ("list of string", ["a", "B c"], {"contains": "A"}, False),
            ("list of string", ["a", "B c"], {"contains": "B"}, False),
            ("list of string", ["a", "B c"], {"contains": "b C", "ignore_case": True}, True),
            ("list of string", ["a", "B c"], {"contains_any": ("x", "B c")}, True),
            ("list of string", ["a", "B c"], {"contains_any": ("x", "y")}, False),
            ("list of string", ["a"], {"contains_any": ()}, False),
            ("list of string", ['"', "é\\"], {"contains": '"'}, True),
            ("list of string", ['"', "é\\"], {"contains": "é\\"}, True),
            ("list of string", [], {"contains": ""}, False),
            ("list of string", [], {"exists": True}, True),
            ("list of string", [None], {"contains": "a"}, False),
            ("list of string", [None, "a"], {"contains": "a"}, True),
            ("list of string", None, {"contains": "a"}, False),
            ("list of string", None, {"contains": "a", "ignore_case": True}, False),
            ("list of string", None, {"exists": False}, True),
            ("list of integer", [1, 2**53 + 1], {"contains": 2**53 + 1}, True),
            ("list of integer", [1, 2**53 + 1], {"contains": 2**53}, False),
            ("list of integer", [1], {"contains_any": (0.5, 1.0)}, True),
            ("list of integer", [1], {"contains": 0.5}, False),
            ("list of boolean", [True], {"contains": False}, False),
            ("list of boolean", [True], {"contains": True}, True),
            ("list of date", ["2026-02-28"], {"contains": date(2026, 2, 28)}, True),
        )
    ),
    # an empty text is a value
    ("string", "", {"exists": True}, True),
    # numbers are compared exactly
    ("integer", 2**53 + 1, {"is_": 2**53}, False),
    ("integer", 1, {"more_than": 0.5}, True),
    ("integer", 1, {"is_": 1.5}, False),
    ("integer", 1, {"any_of": (1, 1.5)}, True),
    ("decimal", Decimal("0.100000"), {"is_": 0.1}, True),
    ("decimal", Decimal("0.000001"), {"more_than": 0}, True),
    ("number", 0.5, {"is_": Decimal("0.5")}, True),
    # every operator must hold
    ("integer", 3, {"at_least": 1, "is_not": 3}, False),
    ("integer", 3, {"at_least": 1, "less_than": 4}, True),
    ("json", None, {"exists": False}, True),
]


def held(warehouse, params, cases):
    """Whether each comparison holds, as the warehouse sees it."""
    chosen = []
    for kind, value, comparison in cases:
        if value is None:
            column = f"cast(null as {warehouse.column_type(kind)})"
        elif isinstance(value, list):
            column = params.bind(json.dumps(value), "json")
        else:
            column = params.bind(value, kind)
        chosen.append(f"select {len(chosen)}, {compile_comparison(column, kind, comparison, params, 'it')}")
    query = params.query(" union all ".join(chosen))
    with warehouse.session() as session:
        return [found for _, found in sorted(session.fetch(query.sql, query.params))]


def wrong(warehouse, params, cases):
    """The cases in which the warehouse says otherwise."""
    asked = [(kind, value, Comparison(**given)) for kind, value, given, _ in cases]
    found = held(warehouse, params, asked)
    return [case for case, said in zip(cases, found, strict=True) if said is not case[3]]


def test_every_boundary(warehouse):
    assert wrong(warehouse, Params(warehouse, NOW), CASES) == []


#: zone, day, its first moment, the first moment of the next day
DAYS = [
    ("Europe/Berlin", date(2026, 3, 28), "2026-03-27T23:00", "2026-03-28T23:00"),
    ("Europe/Berlin", date(2026, 3, 29), "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
    ("Europe/Berlin", date(2026, 10, 25), "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
    ("Europe/Berlin", date(2024, 2, 29), "2024-02-28T23:00", "2024-02-29T23:00"),
    ("Asia/Beirut", date(2026, 3, 29), "2026-03-28T22:00", "2026-03-29T21:00"),  # begins at 1:00
    ("America/Asuncion", date(2023, 10, 1), "2023-10-01T04:00", "2023-10-02T03:00"),  # begins at 1:00
    (
        "America/Asuncion",
        date(2023, 3, 26),
        "2023-03-26T04:00",
        "2023-03-27T04:00",
    ),  # its midnight comes back
    ("America/Toronto", date(1919, 3, 31), "1919-03-31T04:30", "1919-04-01T04:00"),  # begins at 0:30
    ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00", "2026-11-02T05:00"),  # midnight comes twice
    ("Pacific/Apia", date(2011, 12, 31), "2011-12-30T10:00", "2011-12-31T10:00"),  # the day after none
]


@pytest.mark.parametrize(("zone", "day", "begins", "ends"), DAYS)
def test_a_date_is_the_whole_day_of_the_zone(warehouse, zone, day, begins, ends):
    first, after = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (begins, ends))
    last = after - TICK
    cases = [
        ("timestamp", moment, {name: day}, held)
        for name, holding in {
            "is_": (first, last),
            "is_not": (first - TICK, after),
            "before": (first - TICK,),
            "less_than": (first - TICK,),
            "after": (first, last, after),
            "at_least": (first, last, after),
            "at_most": (first - TICK, first, last),
            "more_than": (after,),
        }.items()
        for moment in (first - TICK, first, last, after)
        for held in [moment in holding]
    ]
    cases += [
        ("timestamp", moment, {"between": (day, day)}, first <= moment <= last)
        for moment in (first - TICK, first, last, after)
    ]
    for now in (first, first + HALF, last):
        today = [
            ("timestamp", moment, {"today": True}, first <= moment <= last)
            for moment in (first - TICK, first, last, after)
        ]
        today += [("date", day, {"today": True}, True), ("date", day + DAY, {"today": True}, False)]
        # The date begins when its day does.
        today += [
            ("date", day, {"within_last": now - first + TICK}, now > first),
            ("date", day, {"before_last": DAY * 30}, False),
            ("date", day, {"after_next": TICK}, False),
            ("date", day, {"within_next": TICK}, now == first),
        ]
        if now > first:
            today.append(("date", day, {"within_last": now - first}, True))
            today.append(("date", day, {"between_ago": (now - first, now - first)}, True))
            today.append(("date", day, {"within_last": now - first - TICK}, False))
        cases_now = [*cases, *today]
        assert wrong(warehouse, Params(warehouse, now, zone), cases_now) == []


def test_a_day_that_the_calendar_skips_holds_nothing(warehouse):
    skipped, moment = date(2011, 12, 30), datetime(2011, 12, 30, 10, tzinfo=UTC)
    cases = [
        ("timestamp", moment - TICK, {"is_": skipped}, False),
        ("timestamp", moment, {"is_": skipped}, False),
        ("timestamp", moment, {"more_than": skipped}, True),
        ("timestamp", moment - TICK, {"at_most": skipped}, True),
    ]
    assert wrong(warehouse, Params(warehouse, moment, "Pacific/Apia"), cases) == []


TEXTS = [
    "",
    "a",
    "A1",
    "a\nb",
    "12",
    "x-y",
    "[]",
    "é",
    "_",
    "a.b",
    "\\",
    "ab ab",
    "{2}",
    "]",
    "^",
    "a\tb",
    "٣",
    "a{",
    "a{,3}",
]
PATTERNS = [
    "",
    ".",
    ".*",
    "a|[A-Z]1",
    "a|",
    "^a$",
    "(a|b|\\s)*",
    "(?:ab ?){2}",
    "\\d+",
    "\\D+",
    "\\w*",
    "\\W",
    "[\\w.]+",
    "[^\\d]+",
    "[\\sab]*?",
    "[a-z]-[a-z]",
    "[-x]+y|x[y-]y?",
    "[]\\[]+",
    "[^]]*",
    "[\\]]",
    "[\\^]",
    "\\[\\]",
    "\\{2\\}",
    "a{,3}|a{|\\{2}",
    "a{1,2}",
    "\\\\",
    "a\\.b",
    "a.b",
    "\\Qa.b\\E",
    "\\x41\\x{31}",
    "\\0610?2?|1\\062",
    "[[:alpha:]_]+",
    "(?P<name>a)(?:\\nb)?",
    "\\Aa\\z",
    "^*a",
    "é",
    "[à-ü]",
]


def test_regular_expressions_are_those_of_re2(warehouse):
    cases = [
        (
            "string",
            text,
            {"matches": pattern},
            pc.match_substring_regex(pa.scalar(text), f"^(?s:{pattern})$").as_py(),
        )
        for pattern in PATTERNS
        for text in TEXTS
    ]
    assert wrong(warehouse, Params(warehouse, NOW), cases) == []


@pytest.mark.parametrize(
    "pattern",
    [
        "\\ba",
        "\\pL",
        "[\\D]",
        "[\\W]",
        "(?=a)",
        "(?!a)",
        "(?i)a",
        "(?<=a)b",
        "a{256}",
        "[[:^alpha:]]",
        "\\C",
        "\\x00",
    ],
)
def test_regular_expressions_that_engines_take_differently_are_refused(make_warehouse, pattern):
    params = Params(make_warehouse("duckdb"), NOW)
    with pytest.raises(ConfigurationError, match="regular expression"):
        compile_comparison("x", "string", Comparison(matches=pattern), params, "it")


def test_what_depends_on_now_is_told(make_warehouse):
    params = Params(make_warehouse("duckdb"), NOW)
    for kind, given, relative in (
        ("timestamp", {"within_last": DAY}, True),
        ("date", {"within_last": DAY}, True),
        ("timestamp", {"today": False}, True),
        ("date", {"today": True}, True),
        ("timestamp", {"before": date(2026, 2, 28)}, False),
        ("timestamp", {"is_": NOW - DAY}, False),
    ):
        with params.watched() as outer, params.watched() as seen:
            compile_comparison("x", kind, Comparison(**given), params, "it")
        assert (seen.relative, outer.relative) == (relative, relative)
    with params.watched() as later:
        params.bind(1, "integer")
    assert not later.relative


def test_names_mean_the_same_from_run_to_run(make_warehouse):
    warehouse = make_warehouse("duckdb")
    meant = []
    for now in (NOW, NOW + DAY):
        params = Params(warehouse, now)
        comparison = Comparison(within_last=DAY, before=NOW, today=True)
        sql = compile_comparison("x", "timestamp", comparison, params, "it")
        meant.append([params.meaning(name) for name in re.findall(r":(p\d+)", sql)])
    assert meant[0] == meant[1]
    assert len(set(meant[0])) == 5


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("string", {"is_": 1}, "it is compared with 1; it wants a text; put it in quotes"),
        ("string", {"is_": True}, "wants a text"),
        ("string", {"is_": "\x00"}, "NUL"),
        (
            "string",
            {"within_last": DAY},
            "it is of type string and cannot be compared by within_last; use one of",
        ),
        ("integer", {"is_": "1"}, "finite number, without quotes"),
        ("integer", {"is_": True}, "finite number"),
        ("integer", {"contains": "1"}, "cannot be compared by contains"),
        ("decimal", {"is_": Decimal("0.0000001")}, "6 behind the point"),
        ("decimal", {"at_most": Decimal(10) ** 30}, "at most 22 digits"),
        ("number", {"is_": float("nan")}, "finite number"),
        ("number", {"is_": 10**400}, "finite number"),
        ("boolean", {"is_": 1}, "true or false"),
        ("boolean", {"at_least": True}, "cannot be compared by at_least"),
        ("timestamp", {"is_": "yesterday"}, "a date or a moment"),
        ("timestamp", {"is_": 5}, "a date or a moment"),
        ("date", {"after": NOW}, "a date, such as"),
        ("date", {"is_": "2026-02-28T10:00:00"}, "a date, such as"),
        ("list of string", {"contains": 1}, "wants a text"),
        ("list of string", {"is_": "a"}, "of type list of string and cannot be compared by is; use one of"),
        ("string", {"contains": 5}, "wants a text"),
        ("string", {"today": True}, "cannot be compared by today"),
        ("json", {"is_": "{}"}, "use one of exists"),
    ],
)
def test_what_does_not_suit_the_type_is_refused(make_warehouse, kind, given, message):
    params = Params(make_warehouse("duckdb"), NOW)
    with pytest.raises(ConfigurationError, match=message):
        compile_comparison("x", kind, Comparison(**given), params, "it")


def test_a_filter_on_an_unknown_column_is_refused(make_warehouse):
    params = Params(make_warehouse("duckdb"), NOW)
    with pytest.raises(ConfigurationError, match=r"'nam', which the stream web\.events does not have"):
        compile_filter({"nam": Comparison(is_="x")}, EVENTS, params)


def test_equal_values_share_a_parameter(make_warehouse):
    params = Params(make_warehouse("duckdb"), NOW)
    assert params.bind("a", "string") == params.bind("a", "string")
    assert params.bind(1, "integer") != params.bind(1, "number")
    assert params.bind(1, "integer") != params.bind(True, "boolean")
    assert params.bind(NOW, "timestamp") != params.moment()
    assert params.query("").params == {"p0": "a", "p1": 1, "p2": 1, "p3": True, "p4": NOW, "p5": NOW}
