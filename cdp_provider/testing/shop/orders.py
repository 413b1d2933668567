# SPDX-License-Identifier: Apache-2.0
"""The invented shop's catalogue and orders: 18 months of CSV files."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from cdp_provider.testing.shop.people import TEST_ADDRESS, People, Person, iso, open_moment, spelled_email
from cdp_provider.testing.shop.truth import BrokenLine, OrdersTruth

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

MONTHS = 18
COLUMNS = ("order_id", "customer_id", "email", "phone", "status", "total", "currency", "items", "ordered_at")
_STATUS_SHARES = {"paid": 92, "refunded": 4, "cancelled": 4}
_CATEGORIES = ("books", "garden", "kitchen", "music", "outdoor", "toys")


class Product(NamedTuple):
    """Something the shop sells; the price is in hundredths."""

    product_id: str
    category: str
    cents: int


@dataclass(slots=True)
class Order:
    """A sound order.

    :param person: who ordered; None for the shop's own tests.
    :param customer_id: the account; None for orders without one.
    :param email: address in lower case, before anybody mistypes it.
    """

    person: Person | None
    customer_id: str | None
    email: str
    ordered_at: datetime
    basket: list[Product]
    status: str
    order_id: str = ""

    @property
    def cents(self) -> int:
        """The total in hundredths."""
        return sum(product.cents for product in self.basket)

    @property
    def currency(self) -> str:
        """What the customer pays in."""
        return "CHF" if self.person and self.person.country == "CH" else "EUR"


class _Lines(list[str]):
    """A file of lines in memory."""

    write = list.append


def make_catalogue(rng: Random) -> list[Product]:
    """Return 120 products: most of them cheap, a few dear."""
    return [
        Product(
            f"P{number:03}",
            rng.choice(_CATEGORIES),
            max(round(rng.lognormvariate(2.9, 1.1) * 100) // 10 * 10, 190),
        )
        for number in range(1, 121)
    ]


def make_orders(
    rng: Random, anchor: datetime, count: int, people: list[Person], makes: People, catalogue: list[Product]
) -> tuple[list[Order], list[Person]]:
    """Return sound orders by time, and the guests among their buyers. Few people buy often, most seldom."""
    first = _months(anchor)[0]
    buyers = rng.choices(people, [person.weight for person in people], k=count)
    guests: list[Person] = []
    orders = []
    for buyer in buyers:
        roll = rng.random()
        person: Person | None = buyer
        if roll < 0.01:
            person = None
        elif roll < 0.08:
            if not guests or rng.random() < 0.75:
                guests.append(makes.person())
            person = rng.choice(guests[-200:])
        ordered_at = open_moment(rng, max(person.created_at, first) if person else first, anchor)
        has_account = person is not None and person.customer_ids and roll >= 0.15
        customer_id = rng.choice(buyer.customer_ids) if has_account else None
        basket = [rng.choice(catalogue) for _ in range(min(int(rng.paretovariate(1.3)), 6))]
        (status,) = rng.choices(list(_STATUS_SHARES), list(_STATUS_SHARES.values()))
        email = person.email_at(ordered_at, customer_id) if person else TEST_ADDRESS
        orders.append(Order(person, customer_id, email, ordered_at, basket, status))
    orders.sort(key=lambda order: order.ordered_at)
    for number, order in enumerate(orders, 1):
        order.order_id = f"O{number:06}"
    named = {id(order.person) for order in orders}
    return orders, [guest for guest in guests if id(guest) in named]


def write_orders(rng: Random, anchor: datetime, orders: list[Order]) -> tuple[dict[str, str], OrdersTruth]:
    """Return the text of each month's file by its path, broken rows among the sound ones, and the truth."""
    months = _months(anchor)
    lines: dict[str, list[str]] = {f"orders/orders-{month:%Y-%m}.csv": [] for month in months}
    for order in orders:
        lines[f"orders/orders-{order.ordered_at:%Y-%m}.csv"].append(_csv(_row(rng, order)))
    broken = _break(rng, orders, lines)
    truth = OrdersTruth(
        rows=sum(map(len, lines.values())),
        orders=len(orders),
        guest_orders=sum(order.customer_id is None for order in orders),
        test_address=sum(order.person is None for order in orders),
        old_email=sum(
            order.person is not None and order.email == order.person.email_before for order in orders
        ),
        by_status=dict(Counter(order.status for order in orders)),
        paid_cents={
            currency: sum(
                order.cents for order in orders if order.status == "paid" and order.currency == currency
            )
            for currency in ("CHF", "EUR")
        },
        broken=broken,
    )
    return {path: _csv(COLUMNS) + "".join(rows) for path, rows in lines.items()}, truth


def weave(rng: Random, lines: dict[str, list[str]], broken: Sequence[tuple[str, str]]) -> None:
    """Insert each (line, kind) at a random place of a random file."""
    paths = list(lines)
    for line, _ in broken:
        rows = lines[rng.choice(paths)]
        rows.insert(rng.randrange(len(rows) + 1), line)


def find(lines: dict[str, list[str]], broken: Sequence[tuple[str, str]], *, first: int) -> list[BrokenLine]:
    """Return where the broken lines came to stand; ``first`` is the number of a file's first row."""
    kinds = dict(broken)
    return [
        BrokenLine(path, number, kinds[line])
        for path, rows in lines.items()
        for number, line in enumerate(rows, first)
        if line in kinds
    ]


def _months(anchor: datetime) -> list[datetime]:
    last = anchor.year * 12 + anchor.month - 1 - (anchor.day == 1)
    return [
        datetime(month // 12, month % 12 + 1, 1, tzinfo=anchor.tzinfo)
        for month in range(last - MONTHS + 1, last + 1)
    ]


def _row(rng: Random, order: Order) -> list[str]:
    phone = ""
    if order.person and rng.random() < 0.7:
        phone = order.person.phone.spelled(rng, nationally=order.person.country == "DE")
    return [
        order.order_id,
        order.customer_id or "",
        spelled_email(rng, order.email),
        phone,
        order.status,
        f"{order.cents // 100}.{order.cents % 100:02}",
        order.currency,
        str(len(order.basket)),
        iso(order.ordered_at),
    ]


def _csv(row: Sequence[str]) -> str:
    lines = _Lines()
    csv.writer(lines, lineterminator="\n").writerow(row)
    return lines[0]


def _break(rng: Random, orders: list[Order], lines: dict[str, list[str]]) -> list[BrokenLine]:
    """Add broken rows, each like an order of its own, and return where they stand."""
    makers = ("too many columns", "too few columns", "total is no number", "impossible date")
    amount = max(len(makers), round(len(orders) * 0.003) - 3)
    broken = []
    for number in range(1, amount + 1):
        row = [f"X{number:06}", *_row(rng, rng.choice(orders))[1:]]
        kind = makers[number % len(makers)]
        if kind == "too many columns":
            row.append("gift")
        elif kind == "too few columns":
            del row[rng.randrange(2, 8) :]
        elif kind == "total is no number":
            row[5] = rng.choice(["12,5O", "1 234.00 EUR", "-", ""])
        else:
            row[8] = rng.choice(["2026-02-30T10:00:00Z", "2025-13-01T10:00:00Z", "yesterday"])
        broken.append((_csv(row), kind))
    weave(rng, lines, broken)
    # A quote that never ends swallows all rows after it, so it stands at the end of its file.
    for number, path in enumerate(rng.sample(sorted(lines), 3), amount + 1):
        row = [f"X{number:06}", *_row(rng, rng.choice(orders))[1:]]
        line = ",".join([*row[:2], f'"{row[2]}', *row[3:]]) + "\n"
        lines[path].append(line)
        broken.append((line, "unterminated quote"))
    return find(lines, broken, first=2)
