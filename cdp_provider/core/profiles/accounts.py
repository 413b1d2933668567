# SPDX-License-Identifier: Apache-2.0
"""Accounts: profiles that share the value of one field or trait, and what they have together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.parts import MILLIONTHS, exact
from cdp_provider.core.project.problems import did_you_mean
from cdp_provider.core.project.typing import ACCOUNT_VALUES, account_kinds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.project.profiles import AccountTrait, Profiles

TABLE = "accounts"
#: Columns of every account.
KEY, SIZE = "account", "profiles"


def accounts_sql(profiles: Profiles, kinds: Mapping[str, str], params: Params, relation: str) -> str:
    """A select with a row per account: ``account``, ``profiles`` (their number) and the declared traits.

    Profiles without an account are in none; values that are missing count for nothing, and a trait of no
    values is missing, but for ``count`` and ``distinct_count``.

    :param kinds: column type of every field and trait.
    :param relation: all profiles: a column for every field and trait.
    :raises ConfigurationError: the project has no accounts, or they are made of what is not there or of a
        type that does not suit.
    """
    warehouse = params.warehouse
    if profiles.accounts is None:
        msg = "the project declares no accounts; say by which field or trait in profiles.accounts"
        raise ConfigurationError(msg)
    _known("profiles.accounts.key", profiles.accounts.key, kinds)
    types = account_kinds(profiles, kinds)
    key = warehouse.quote(profiles.accounts.key)
    chosen = [f"{key} as {warehouse.quote(KEY)}", f"count(*) as {warehouse.quote(SIZE)}"]
    for name, trait in profiles.accounts.traits.items():
        if name in (KEY, SIZE):
            msg = f"a trait of accounts is called {name!r}, as a column of every account is; rename it"
            raise ConfigurationError(msg)
        value = _aggregate(name, trait, kinds, params)
        chosen.append(f"cast({value} as {warehouse.column_type(types[name])}) as {warehouse.quote(name)}")
    return f"select {', '.join(chosen)} from {relation} where {key} is not null group by {key}"


def _known(name: str, of: str, kinds: Mapping[str, str]) -> str:
    if of not in kinds:
        hint = did_you_mean(of, kinds)
        msg = f"{name} names {of!r}, and there is no such field or trait" + (f"; {hint}" if hint else "")
        raise ConfigurationError(msg)
    return kinds[of]


def _aggregate(name: str, trait: AccountTrait, kinds: Mapping[str, str], params: Params) -> str:
    if trait.of is None:
        return "count(*)"
    kind = _known(f"the trait {name} of accounts", trait.of, kinds)
    allowed, wanted = ACCOUNT_VALUES[trait.type]
    if kind not in allowed:
        given = f"the {trait.type} of {trait.of!r}, which is {kind}"
        msg = f"the trait {name} of accounts is {given}; it takes {wanted}"
        raise ConfigurationError(msg)
    warehouse = params.warehouse
    value = warehouse.quote(trait.of)
    match trait.type:
        case "sum" | "average":
            return _added(trait.type, exact(value, kind), kind, warehouse.types["number"])
        case "any" | "all":
            return f"bool_{'or' if trait.type == 'any' else 'and'}({value})"
        case "distinct_count":
            return f"count(distinct {value})"
    return f"{trait.type}({warehouse.byte_order(value) if kind == 'string' else value})"


def _added(function: str, value: str, kind: str, number: str) -> str:
    total = f"sum({value})"
    if kind == "number":
        total = f"cast({total} as {number}) / {MILLIONTHS}"
    return total if function == "sum" else f"cast({total} as {number}) / count({value})"
