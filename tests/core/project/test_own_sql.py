# SPDX-License-Identifier: Apache-2.0
"""Statements of one's own are read like the warehouse reads them, and stay one select."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdp_provider.core.project.own_sql import filled, places, sql_fault
from cdp_provider.core.warehouse.base import bind_names

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse


@pytest.mark.parametrize(
    "sql",
    [
        "select profile_id from {profiles}",
        "  SELECT 1;  ",
        "(select 1) union (select 2)",
        "with a as (select 1) select * from a",
        "-- a comment; with (\nselect 1 /* ) ; */",
        "select ';', '(', ':x', '{y}', '--', \"a;b\", 'it''s', \"a\"\"b\"",
        "select total::text, x[1: 2], {'a': 1} from {till.orders} where at < :now",
        "select inserted, updated_at, into_x from {web.events}",
    ],
)
def test_one_select_is_taken(sql: str):
    assert sql_fault(sql) is None


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("", "is empty"),
        ("-- nothing", "is empty"),
        ("delete from x", "begins with 'delete'"),
        ("selection", "begins with 'selection'"),
        ("explain select 1", "begins with 'explain'"),
        ("select 1; select 2", "several statements"),
        ("select 1;;", "several statements"),
        ("select (1", "not closed"),
        ("select 1)", "was not opened"),
        ("select ')('), (", "was not opened"),
        ("select 'it", "a single quote is not closed"),
        ('select "it', "a double quote is not closed"),
        ("select 1 /* it", "a comment is not closed"),
        ("select 1 /* a /* b */ */", "holds another one"),
        ("select :yesterday", "no parameter :yesterday"),
        ("select x[1:n]", "after any other colon put a space"),
        (r"select E'it\'s'", "E'...' are not taken"),
        ("select $$it's$$", "dollar sign"),
        ("select $1", "dollar sign"),
        ("with a as (values (1)) table a", "nothing is selected"),
        ("with a as (delete from x returning 1) select * from a", "'delete' would change"),
        ("select 1 into x", "'into' would change"),
    ],
)
def test_what_is_no_single_select_is_refused(sql: str, words: str):
    assert words in (sql_fault(sql) or "")


def test_places_are_found_outside_of_texts_and_comments_only():
    sql = "select '{a}' -- {b}\n, \"{c}\" /* {d} */ from {profiles} p, { web.events } w, {profiles}"
    assert places(sql) == ["profiles", "web.events"]


def test_filled_statements_stand_within_others(warehouse: Warehouse):
    sql = "select id, ':now' -- the end\nfrom {web.events} where id < :now;"
    text = filled(sql, lambda name: f"(select 1 as id, '{name}' as t) x", "cast(:p as integer)")
    assert bind_names(text, lambda name: f"<{name}>")[1] == {"p"}
    with warehouse.session() as session:
        assert session.fetch(f"select * from ({text}) own", {"p": 2}) == [(1, ":now")]
