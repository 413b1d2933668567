# SPDX-License-Identifier: Apache-2.0
"""Accounts: what profiles of one company have together, against plain Python."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.accounts import accounts_sql
from cdp_provider.core.profiles.params import Params
from cdp_provider.core.project.profiles import Accounts, AccountTrait, Profiles
from cdp_provider.core.project.typing import account_kinds
from cdp_provider.core.warehouse import DuckDBWarehouse

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
KINDS = {
    "company": "string",
    "seat": "integer",
    "n": "number",
    "d": "decimal",
    "s": "string",
    "b": "boolean",
    "day": "date",
    "tags": "list of string",
}
ARROW = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(28, 6),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "list of string": pa.string(),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "company": st.sampled_from(["Acme", "acme", "'; --", "ä"]),
    "seat": st.integers(-2, 2) | st.just(2**40),
    "n": st.sampled_from([0.1, 0.2, 0.3, -0.0, 1.0, 1e12, 5e11, 1e-7]),
    "d": st.sampled_from([Decimal("0.1"), Decimal("-2.5"), Decimal(10) ** 9]),
    "s": st.sampled_from(["", "a", "B", "ä", "z"]),
    "b": st.booleans(),
    "day": st.sampled_from([date(2026, 1, 1), date(2024, 2, 29)]),
    "tags": st.just("[]"),
}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | of for name, of in VALUES.items()}), min_size=1, max_size=20
)
NUMERIC, ORDERED = ("seat", "n", "d"), ("seat", "n", "d", "s", "day")
TAKES = {
    **dict.fromkeys(("sum", "average"), NUMERIC),
    **dict.fromkeys(("min", "max"), ORDERED),
    "distinct_count": (*ORDERED, "b"),
    **dict.fromkeys(("any", "all"), ("b",)),
}
TRAITS = {"members": AccountTrait(type="count")} | {
    f"{kind}_{of}": AccountTrait(type=kind, of=of) for kind, columns in TAKES.items() for of in columns
}


def added(values: list[Any]) -> int | Decimal | float | None:
    """Their exact sum. Numbers of double precision have 6 decimals then, and 12 digits before the point."""
    if isinstance(values[0], float):
        return sum(math.floor(value * 1e6 + 0.5) for value in values) / 1e6
    return sum(values)


def expected(trait: AccountTrait, rows: list[dict[str, Any]]) -> Any:
    if trait.of is None:
        return len(rows)
    values = [row[trait.of] for row in rows if row[trait.of] is not None]
    match trait.type:
        case "distinct_count":
            return len(set(values))
        case "sum" | "average":
            values = [value for value in values if not isinstance(value, float) or abs(value) < 1e12]
            if not values:
                return None
            return added(values) if trait.type == "sum" else float(added(values)) / len(values)
    if not values:
        return None
    return {"min": min, "max": max, "any": any, "all": all}[trait.type](values)


def computed(
    warehouse: Warehouse, profiles: Profiles, rows: list[dict[str, Any]]
) -> dict[Any, dict[str, Any]]:
    params = Params(warehouse, NOW)
    arrow = pa.table(
        {name: pa.array([row[name] for row in rows], ARROW[kind]) for name, kind in KINDS.items()}
    )
    with warehouse.session() as session:
        query = params.query(accounts_sql(profiles, KINDS, params, session.temp("given", arrow)))
        with session.transaction():
            session.replace_table("accounts", query.sql, query.params)
        names = list(session.columns("accounts"))
        found = session.fetch(f"select * from {warehouse.table('accounts')}")
    accounts = {row[0]: dict(zip(names, row, strict=True)) for row in found}
    assert len(accounts) == len(found)
    return accounts


@settings(max_examples=12 * DEPTH, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, key=st.sampled_from(["company", "seat", "day"]))
def test_accounts(warehouse: Warehouse, rows: list[dict[str, Any]], key: str):
    profiles = Profiles(accounts=Accounts(key=key, traits=TRAITS))
    members = defaultdict(list)
    for row in rows:
        if row[key] is not None:
            members[row[key]].append(row)
    found = computed(warehouse, profiles, rows)
    assert found == {
        account: {"account": account, "profiles": len(of)}
        | {name: expected(trait, of) for name, trait in TRAITS.items()}
        for account, of in members.items()
    }
    assert found == computed(warehouse, profiles, rows[::-1])


def test_columns_have_the_declared_types(warehouse: Warehouse):
    profiles = Profiles(accounts=Accounts(key="company", traits=TRAITS))
    computed(warehouse, profiles, [dict.fromkeys(KINDS)])
    with warehouse.session() as session:
        columns = session.columns("accounts")
    kinds = {"account": "string", "profiles": "integer"} | account_kinds(profiles, KINDS)
    with warehouse.session() as session:
        wanted = ", ".join(f"{warehouse.quote(n)} {warehouse.types[k]}" for n, k in kinds.items())
        session.execute(f"create table {warehouse.table('wanted')} ({wanted})")
        assert columns == session.columns("wanted")


PARAMS = Params(DuckDBWarehouse(lambda: None), NOW)


@pytest.mark.parametrize(
    ("accounts", "message"),
    [
        (None, "the project declares no accounts"),
        (
            Accounts(key="compny"),
            "names 'compny', and there is no such field or trait; did you mean 'company'?",
        ),
        (
            Accounts(key="company", traits={"x": AccountTrait(type="sum", of="dd")}),
            "x of accounts names 'dd'",
        ),
        (
            Accounts(key="company", traits={"x": AccountTrait(type="sum", of="s")}),
            "the sum of 's', which is string; it takes numbers",
        ),
        (Accounts(key="company", traits={"x": AccountTrait(type="any", of="n")}), "it takes booleans"),
        (
            Accounts(key="company", traits={"x": AccountTrait(type="max", of="tags")}),
            "which is list of string",
        ),
        (
            Accounts(key="company", traits={"profiles": AccountTrait(type="count")}),
            "is called 'profiles', as a column of every account is",
        ),
    ],
)
def test_what_is_refused(accounts: Accounts | None, message: str):
    with pytest.raises(ConfigurationError) as error:
        accounts_sql(Profiles(accounts=accounts), KINDS, PARAMS, "profiles")
    assert message in str(error.value)
