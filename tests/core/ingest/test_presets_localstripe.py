# SPDX-License-Identifier: Apache-2.0
"""The preset of Stripe against a program that behaves like Stripe and was written by others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cdp_provider.core.http import Endpoint
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.dotted import dig
from cdp_provider.core.ingest.http import HttpConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.run import Run, Window
from tests.core.ingest.localstripe import KEY, LocalStripe
from tests.core.ingest.test_presets import INTO, stream_of

if TYPE_CHECKING:
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

pytestmark = pytest.mark.parametrize("warehouse", INTO, indirect=True)
CARD = {
    "source[object]": "card",
    "source[number]": "4242424242424242",
    "source[exp_month]": 12,
    "source[exp_year]": 2040,
    "source[cvc]": 123,
}
#: It knows no `created[gte]` of charges, and no `created` at all of the other two.
KEYS: dict[str, dict[str, Any]] = {
    "customers": {},
    "charges": {"cursor": {"parameter": "created[gt]"}},
    "events": {},
    "subscriptions": {},
    "balance_transactions": {"cursor": None},
    "invoices": {"cursor": None},
}


@pytest.fixture(scope="module")
def stripe(tmp_path_factory):
    with LocalStripe(tmp_path_factory.mktemp("stripe")) as running:
        yield running


class Till:
    """A stream of the preset from localstripe into a warehouse; its records are of today."""

    def __init__(self, stripe: LocalStripe, stream: Stream, warehouse: Warehouse) -> None:
        self.stripe, self.stream, self.warehouse = stripe, stream, warehouse
        self._end = datetime.now(UTC) + timedelta(hours=1)
        self._runs = 0

    def land(self) -> Report:
        self._runs += 1
        start = self._end
        self._end += timedelta(hours=1)
        run = Run("till", f"run_{self._runs}", Window(start, self._end))
        endpoint = Endpoint(self.stripe.url, headers={"Authorization": f"Bearer {KEY}"})
        report = land(self.warehouse, self.stream, HttpConnector(endpoint), run)
        check(self.warehouse, self.stream, run)
        assert report.rows_refused == 0
        return report

    def shown(self, *columns: str) -> dict[str, tuple[Any, ...]]:
        names = ", ".join(map(self.warehouse.quote, ("id", *columns)))
        with self.warehouse.session() as session:
            rows = session.fetch(f"select {names} from {self.warehouse.table(self.stream.view)}")
        assert len({row[0] for row in rows}) == len(rows)
        return {row[0]: row[1:] for row in rows}

    def listed(self, *columns: str) -> dict[str, tuple[Any, ...]]:
        """What Stripe's own list says of the same."""
        return {
            record["id"]: tuple(self._of(record, c) for c in columns)
            for record in self.stripe.all(self._path)
        }

    def same(self, *columns: str) -> None:
        shown = self.shown(*columns)
        assert shown == self.listed(*columns)
        assert shown

    @property
    def _path(self) -> str:
        path: str = self.stream.options.path
        return path

    def _of(self, record: dict[str, Any], column: str) -> Any:
        declared = self.stream.columns[column]
        value = dig(record, declared.path or column)
        return datetime.fromtimestamp(value, UTC) if declared.format == "unix" and value else value


@pytest.fixture
def till(stripe, warehouse):
    return lambda name, size=10: Till(
        stripe, stream_of("stripe", name, page_size={"value": size}, **KEYS[name]), warehouse
    )


def pay(stripe: LocalStripe, customer: dict[str, Any], amount: int) -> dict[str, Any]:
    return stripe.post("/v1/charges", amount=amount, currency="eur", customer=customer["id"])


def people(stripe: LocalStripe, count: int) -> list[dict[str, Any]]:
    """New customers with a card each."""
    made = [stripe.post("/v1/customers", email=f"p{n}@example.com", name=f"P {n}") for n in range(count)]
    for customer in made:
        stripe.post(f"/v1/customers/{customer['id']}/sources", **CARD)
    return made


def test_customers_are_as_stripe_lists_them_after_each_change(stripe, till):
    seen = ("email", "name", "phone", "description", "delinquent", "created")
    made = people(stripe, 13)
    customers = till("customers")
    first = customers.land()
    customers.same(*seen)
    assert first.detail["requests"] == -(-first.rows_in // 10) >= 2

    stripe.post(f"/v1/customers/{made[0]['id']}", name="Ada Lovelace", phone="+4930123")
    stripe.post(f"/v1/customers/{made[12]['id']}", email="other@example.com")
    people(stripe, 2)
    assert customers.shown(*seen) != customers.listed(*seen)
    assert customers.land().rows_in == first.rows_in + 2
    customers.same(*seen)
    assert customers.shown("name", "phone")[made[0]["id"]] == ("Ada Lovelace", "+4930123")


def test_charges_that_are_paid_back_change_and_others_do_not_come_again(stripe, till):
    seen = ("customer", "amount", "amount_refunded", "currency", "status", "paid", "refunded", "created")
    (customer,) = people(stripe, 1)
    paid = [pay(stripe, customer, 100 + n) for n in range(12)]
    charges = till("charges")
    assert charges.land().rows_out >= 12
    charges.same(*seen)

    stripe.post("/v1/refunds", charge=paid[3]["id"])
    stripe.post("/v1/refunds", charge=paid[4]["id"], amount=7)
    pay(stripe, customer, 999)
    assert charges.land().rows_out == 3
    charges.same(*seen)
    assert charges.shown("amount_refunded", "refunded")[paid[3]["id"]] == (103, True)
    assert charges.land().rows_out == 0


def test_what_else_happens_at_a_till(stripe, till):
    (customer,) = people(stripe, 1)
    pay(stripe, customer, 1234)
    plan = f"gold_{customer['id']}"
    product = {"product[name]": "Gold"}
    stripe.post("/v1/plans", id=plan, amount=900, currency="eur", interval="month", **product)
    subscription = {"customer": customer["id"], "items[0][plan]": plan}
    stripe.post("/v1/subscriptions", **subscription)
    seen = {
        "events": ("type", "created"),
        "balance_transactions": ("type", "amount", "net", "source", "created"),
        "subscriptions": ("customer", "status", "cancel_at_period_end", "created"),
        "invoices": ("customer", "status", "total", "amount_due", "amount_paid", "number"),
    }
    streams = {name: till(name, 3) for name in seen}
    for name, columns in seen.items():
        streams[name].land()
        streams[name].same(*columns)
    pay(stripe, customer, 4321)
    stripe.post("/v1/subscriptions", **subscription)
    for name, columns in seen.items():
        streams[name].land()
        streams[name].same(*columns)
