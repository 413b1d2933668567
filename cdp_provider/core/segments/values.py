# SPDX-License-Identifier: Apache-2.0
"""Conditions on what profiles and their accounts have: fields, traits, consent, places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.profiles.build import ACCOUNTS
from cdp_provider.core.profiles.filters import compile_comparison
from cdp_provider.core.project.conditions import AccountIs, ConsentIs, Near, TraitIs
from cdp_provider.core.project.typing import NUMERIC, account_kinds
from cdp_provider.core.segments.columns import Columns, Expr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.project.activation import Consent
    from cdp_provider.core.project.profiles import Accounts, Profiles

#: Kilometres from the centre of the earth to its surface, on average.
_RADIUS = 6371.0088

#: Sines of larger numbers, and of what is no number, are errors in some engines.
_LARGEST = "1e300"


class Values:
    """Columns of the profiles, and conditions on them.

    :param types: column type of every field and trait.
    """

    def __init__(
        self,
        profiles: Profiles,
        consent: Consent,
        types: Mapping[str, str],
        params: Params,
        columns: Columns,
    ) -> None:
        self._consent = consent
        self._types = types
        self._profiles = profiles
        self._params = params
        self._columns = columns
        self._quote = params.warehouse.quote
        self._joined = False

    def trait(self, name: str) -> Expr:
        """The column of a field or trait.

        :raises ConfigurationError: the profile has none of that name.
        """
        if name not in self._types:
            known = ", ".join(self._types) or "none"
            msg = f"a condition names the trait {name!r}; the profile has {known}"
            raise ConfigurationError(msg)
        return self._columns.read(f"p.{self._quote(name)}", self._quote(name))

    def order(self, name: str) -> str:
        """SQL to order by a field or trait; texts by code point."""
        column = self.trait(name).sql
        return self._params.warehouse.byte_order(column) if self._types[name] == "string" else column

    def account_key(self) -> Expr:
        """The column that names a profile's account.

        :raises ConfigurationError: the project has no accounts.
        """
        return self.trait(self._accounts().key)

    def joins(self) -> str:
        """The left join of the accounts, if a condition asks for them."""
        if not self._joined:
            return ""
        table, key = self._params.warehouse.table(ACCOUNTS), self._quote(self._accounts().key)
        return f' left join {table} "_account" on "_account".account = p.{key}'

    def condition(self, condition: TraitIs | AccountIs | ConsentIs | Near) -> Expr:
        """SQL that is true or false for every profile.

        :raises ConfigurationError: it names what is not there or does not suit it.
        """
        match condition:
            case TraitIs():
                return self._trait_is(condition)
            case AccountIs():
                return self._account_is(condition)
            case ConsentIs():
                return self._consent_is(condition)
        return self._near(condition)

    def _trait_is(self, condition: TraitIs) -> Expr:
        """A field or trait held against constants."""
        name = condition.trait
        column = self.trait(name).sql
        return Expr(compile_comparison(column, self._types[name], condition, self._params, f"trait {name}"))

    def _consent_is(self, condition: ConsentIs) -> Expr:
        """Whether the person agreed to a purpose; only true is a yes."""
        name = self._consent.purposes.get(condition.consent)
        if name is None or self._types.get(name) != "boolean":
            msg = (
                f"a condition asks for consent to {condition.consent}; map that purpose to a boolean field or"
                " trait under `consent`"
            )
            raise ConfigurationError(msg)
        agreed = f"coalesce({self.trait(name).sql}, false)"
        return Expr(agreed if condition.given else f"not {agreed}")

    def _near(self, condition: Near) -> Expr:
        """The haversine formula."""
        latitude, longitude = (self._degrees(name) for name in (condition.latitude, condition.longitude))
        there = [self._params.bind(float(degrees), "number") for degrees in condition.near]
        farthest = self._params.bind(float(condition.kilometres), "number")
        half = (
            f"power(sin(radians({latitude} - {there[0]}) / 2), 2) + cos(radians({there[0]}))"
            f" * cos(radians({latitude})) * power(sin(radians({longitude} - {there[1]}) / 2), 2)"
        )
        # Rounding may take it beyond 1, where there is no arcsine.
        distance = f"{2 * _RADIUS} * asin(sqrt(least({half}, 1.0)))"
        known = " and ".join(f"{angle} between -{_LARGEST} and {_LARGEST}" for angle in (latitude, longitude))
        return Expr(f"case when {known} then {distance} <= {farthest} else false end")

    def _account_is(self, condition: AccountIs) -> Expr:
        """A trait of the profile's account held against constants; false without an account."""
        kinds = account_kinds(self._profiles, self._types)
        name = condition.account
        if name not in kinds:
            msg = f"a condition names the trait {name!r} of accounts; they have {', '.join(kinds) or 'none'}"
            raise ConfigurationError(msg)
        self._joined = True
        key = self.account_key().sql
        column = self._columns.read(f'"_account".{self._quote(name)}').sql
        compared = compile_comparison(column, kinds[name], condition, self._params, f"account trait {name}")
        return Expr(f"({key} is not null and {compared})")

    def _accounts(self) -> Accounts:
        if self._profiles.accounts is None:
            msg = (
                "a condition asks for accounts, and the project has none; declare `accounts` under `profiles`"
            )
            raise ConfigurationError(msg)
        return self._profiles.accounts

    def _degrees(self, name: str) -> str:
        column = self.trait(name).sql
        if self._types[name] not in NUMERIC:
            msg = f"a condition takes {name} for a place in degrees, and it is {self._types[name]}, no number"
            raise ConfigurationError(msg)
        return f"cast({column} as {self._params.warehouse.types['number']})"
