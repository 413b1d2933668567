# SPDX-License-Identifier: Apache-2.0
"""The generated shop: the same bytes each time, and as troubled as its truth says."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import phonenumbers
import pytest

from cdp_provider.testing.shop import ANCHOR, Truth, generate
from cdp_provider.testing.shop.__main__ import main
from cdp_provider.testing.vendor import VendorServer

if TYPE_CHECKING:
    from pathlib import Path

SMALL: dict[str, Any] = {"customers": 300, "events": 3000, "orders": 500}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def truth(folder: Path) -> Truth:
    """The shop at the size of the example project."""
    return generate(folder)


@pytest.fixture(scope="module")
def customers(folder: Path, truth: Truth) -> list[dict[str, Any]]:
    return read_ndjson(folder / "crm" / "customers.ndjson")


@pytest.fixture(scope="module")
def people(folder: Path, truth: Truth) -> list[dict[str, Any]]:
    return read_ndjson(folder / "people.ndjson")


@pytest.fixture(scope="module")
def web(folder: Path, truth: Truth) -> list[tuple[str, dict[str, Any]]]:
    """The sound lines of web events with their files' days, copies included."""
    broken = {(line.file, line.line) for line in truth.web.broken}
    return [
        (path.stem, json.loads(line))
        for path in sorted(folder.glob("web/*.ndjson"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (f"web/{path.name}", number) not in broken
    ]


@pytest.fixture(scope="module")
def orders(folder: Path, truth: Truth) -> list[tuple[str, dict[str, str]]]:
    """The sound orders with their files' months."""
    broken = {(line.file, line.line) for line in truth.orders.broken}
    found = []
    for path in sorted(folder.glob("orders/*.csv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        sound = [
            line for number, line in enumerate(lines, 1) if (f"orders/{path.name}", number) not in broken
        ]
        found += [(path.stem.removeprefix("orders-"), row) for row in csv.DictReader(sound)]
    return found


def read_ndjson(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }


def number_of(phone: str | None, region: str) -> str | None:
    try:
        parsed = phonenumbers.parse(phone or "", region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


class TestRepeatable:
    def test_the_same_bytes_in_every_process(self, tmp_path: Path) -> None:
        generate(tmp_path / "here", **SMALL)
        sizes = [f"--{name}={amount}" for name, amount in SMALL.items()]
        command = [sys.executable, "-m", "cdp_provider.testing.shop", str(tmp_path / "there"), *sizes]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True)
        assert digests(tmp_path / "here") == digests(tmp_path / "there")

    def test_another_seed_is_another_shop(self, tmp_path: Path) -> None:
        first, second = (generate(tmp_path / str(seed), **SMALL, seed=seed) for seed in (1, 2))
        assert first.orders.paid_cents != second.orders.paid_cents

    def test_files_that_are_right_are_not_touched(self, tmp_path: Path) -> None:
        generate(tmp_path, **SMALL)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        (tmp_path / "web" / "2026-06-30.ndjson").write_text("spoilt")
        generate(tmp_path, **SMALL)
        after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert [path.name for path in before if before[path] != after[path]] == ["2026-06-30.ndjson"]

    def test_another_anchor_leaves_nothing_of_the_first(self, tmp_path: Path) -> None:
        (tmp_path / "web").mkdir()
        (tmp_path / "web" / "notes.ndjson").write_text("not ours")
        generate(tmp_path, **SMALL)
        generate(tmp_path, **SMALL, anchor=datetime(2025, 3, 15, tzinfo=UTC))
        days = sorted(path.stem for path in tmp_path.glob("web/2*.ndjson"))
        assert (len(days), days[0], days[-1]) == (60, "2025-01-14", "2025-03-14")
        months = sorted(path.stem for path in tmp_path.glob("orders/*.csv"))
        assert (len(months), months[0], months[-1]) == (18, "orders-2023-10", "orders-2025-03")
        assert (tmp_path / "web" / "notes.ndjson").exists()

    def test_truth_can_be_read_again(self, folder: Path, truth: Truth) -> None:
        assert Truth.read(folder) == truth


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"customers": 3}, "3 customers are too few"),
        ({"anchor": datetime(2026, 7, 1)}, "no midnight in UTC"),  # noqa: DTZ001 - naive on purpose
        ({"anchor": datetime(2026, 7, 1, 5, tzinfo=UTC)}, "no midnight in UTC"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generate(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--orders", "1"]) == 2
    assert "1 orders are too few" in capsys.readouterr().err


def test_the_shop_sleeps_from_midnight_to_five(
    customers: list[dict[str, Any]],
    web: list[tuple[str, dict[str, Any]]],
    orders: list[tuple[str, dict[str, str]]],
) -> None:
    moments = [row[name] for row in customers for name in ("created_at", "updated_at")]
    moments += [event[name] for _, event in web for name in ("timestamp", "receivedAt")]
    moments += [order["ordered_at"] for _, order in orders]
    assert min(moment[11:] for moment in moments) >= "05:00"
    assert max(moments) < ANCHOR.isoformat()


class TestCustomers:
    def test_counts(self, customers: list[dict[str, Any]], truth: Truth) -> None:
        emails = Counter((row["email"] or "").strip().lower() for row in customers)
        assert len(customers) == truth.crm.rows == 10_000
        assert emails["test@example.com"] == truth.crm.test_address
        assert emails[""] == truth.crm.without_email
        assert sum("@" not in email for email in emails if email) == truth.crm.broken_email
        assert sum(email.endswith("@bounce.invalid") for email in emails) == truth.crm.bouncing_email > 10
        assert sum(row["phone"] is None for row in customers) == truth.crm.without_phone
        assert 250 < truth.crm.test_address + truth.orders.test_address < 350

    def test_phones_are_real_numbers_differently_written(
        self, customers: list[dict[str, Any]], people: list[dict[str, Any]], truth: Truth
    ) -> None:
        phones = {ident: person["phones"][0] for person in people for ident in person["customer_ids"]}
        nonsense = 0
        for row in customers:
            number = number_of(row["phone"], row["country"])
            nonsense += number is None and row["phone"] is not None
            assert number in (None, phones[row["customer_id"]])
        assert nonsense == truth.crm.nonsense_phone
        shapes = Counter(
            "".join("9" if sign.isdigit() else sign for sign in row["phone"] or "") for row in customers
        )
        assert len(shapes) > 30

    def test_doubled_customers_share_an_address_or_a_number(
        self, customers: list[dict[str, Any]], people: list[dict[str, Any]], truth: Truth
    ) -> None:
        rows = {row["customer_id"]: row for row in customers}
        assert len(truth.crm.same_person) == 100
        assert len(customers) - len(truth.crm.same_person) == truth.persons
        for first, second in truth.crm.same_person:
            same_email = rows[first]["email"].strip().lower() == rows[second]["email"].strip().lower()
            numbers = {number_of(rows[ident]["phone"], rows[ident]["country"]) for ident in (first, second)}
            assert same_email or (len(numbers) == 1 and None not in numbers)

    def test_people_share_nothing(self, people: list[dict[str, Any]], truth: Truth) -> None:
        assert len(people) == truth.persons + truth.guests
        for name in ("customer_ids", "emails", "phones", "anonymous_ids"):
            values = [value for person in people for value in person[name]]
            assert len(values) == len(set(values))

    def test_many_rows_share_one_update_time(self, customers: list[dict[str, Any]]) -> None:
        (_, most), *_ = Counter(row["updated_at"] for row in customers).most_common(1)
        assert most > 300


class TestWebEvents:
    def test_counts(self, folder: Path, web: list[tuple[str, dict[str, Any]]], truth: Truth) -> None:
        ids = Counter(event["messageId"] for _, event in web)
        assert len(ids) == truth.web.events == 100_000
        assert len(web) - len(ids) == truth.web.duplicates == 1000
        assert len(web) + len(truth.web.broken) == truth.web.lines
        assert len({event["anonymousId"] for _, event in web}) == truth.web.anonymous_ids
        assert len(list(folder.glob("web/*.ndjson"))) == 60

    def test_late_events_and_copies(self, web: list[tuple[str, dict[str, Any]]], truth: Truth) -> None:
        days: dict[str, list[str]] = {}
        happened = {}
        for day, event in web:
            assert event["receivedAt"][:10] == day
            assert event["timestamp"] <= event["receivedAt"]
            days.setdefault(event["messageId"], []).append(day)
            happened[event["messageId"]] = event["timestamp"][:10]
        assert sum(min(files) > happened[ident] for ident, files in days.items()) == truth.web.late
        assert 0.015 < truth.web.late / truth.web.events < 0.025
        pairs = [files for files in days.values() if len(files) > 1]
        assert sum(first == second for first, second in pairs) == truth.web.duplicates_in_same_file
        assert 300 < truth.web.duplicates_in_same_file < 700

    def test_broken_lines_are_broken_as_told(self, folder: Path, truth: Truth) -> None:
        assert len(truth.web.broken) == 40
        for line in truth.web.broken:
            text = (folder / line.file).read_text(encoding="utf-8").splitlines()[line.line - 1]
            assert broken_kind(text) == line.kind

    def test_laptops_are_shared(self, web: list[tuple[str, dict[str, Any]]], truth: Truth) -> None:
        logins: dict[str, set[str]] = {}
        for _, event in web:
            if event["userId"]:
                logins.setdefault(event["anonymousId"], set()).add(event["userId"])
        assert len(truth.web.shared_laptops) > 30
        for laptop, users in truth.web.shared_laptops.items():
            assert len(users) in (2, 3)
            assert logins[laptop] == set(users)

    def test_purchases_are_orders(
        self, web: list[tuple[str, dict[str, Any]]], orders: list[tuple[str, dict[str, str]]]
    ) -> None:
        known = {order["order_id"]: order for _, order in orders}
        bought = [event for _, event in web if event["event"] == "Order Completed"]
        assert len(bought) > 1000
        for event in bought:
            order = known[event["properties"]["order_id"]]
            assert event["timestamp"][:19] == order["ordered_at"][:19]
            assert (event["userId"] or "") == order["customer_id"]
            assert f"{event['properties']['total']:.2f}" == order["total"]


class TestOrders:
    def test_counts(self, orders: list[tuple[str, dict[str, str]]], truth: Truth) -> None:
        assert len({order["order_id"] for _, order in orders}) == len(orders) == truth.orders.orders == 15_000
        assert truth.orders.rows - len(orders) == len(truth.orders.broken) == 45
        assert sum(not order["customer_id"] for _, order in orders) == truth.orders.guest_orders
        emails = Counter(order["email"].strip().lower() for _, order in orders)
        assert emails["test@example.com"] == truth.orders.test_address
        assert Counter(order["status"] for _, order in orders) == truth.orders.by_status
        for currency, cents in truth.orders.paid_cents.items():
            paid = [o["total"] for _, o in orders if o["status"] == "paid" and o["currency"] == currency]
            assert sum(round(float(total) * 100) for total in paid) == cents

    def test_files_are_months_in_order(self, orders: list[tuple[str, dict[str, str]]]) -> None:
        assert all(order["ordered_at"].startswith(month) for month, order in orders)
        assert all(one[1]["ordered_at"] <= other[1]["ordered_at"] for one, other in pairwise(orders))

    def test_phones_are_their_buyers(
        self, orders: list[tuple[str, dict[str, str]]], people: list[dict[str, Any]]
    ) -> None:
        owners = {email: person for person in people for email in person["emails"]}
        for _, order in orders:
            if order["phone"]:
                owner = owners[order["email"].strip().lower()]
                assert number_of(order["phone"], "DE") == owner["phones"][0]
                assert order["customer_id"] in ["", *owner["customer_ids"]]

    def test_few_buy_often(self, orders: list[tuple[str, dict[str, str]]]) -> None:
        buyers = Counter(order["customer_id"] for _, order in orders if order["customer_id"])
        amounts = sorted(buyers.values(), reverse=True)
        assert sum(amounts[: len(amounts) // 20]) > 0.25 * sum(amounts)
        assert amounts[len(amounts) // 2] == 1

    def test_old_addresses_live_on(self, orders: list[tuple[str, dict[str, str]]], truth: Truth) -> None:
        old = set(truth.crm.changed_email.values())
        assert len(old) > 100
        assert (
            sum(order["email"].strip().lower() in old for _, order in orders) == truth.orders.old_email > 50
        )

    def test_broken_rows_are_broken_as_told(self, folder: Path, truth: Truth) -> None:
        unterminated = 0
        for line in truth.orders.broken:
            lines = (folder / line.file).read_text(encoding="utf-8").splitlines()
            text = lines[line.line - 1]
            if line.kind == "unterminated quote":
                unterminated += 1
                assert text.count('"') == 1
                assert line.line == len(lines)
                continue
            (row,) = csv.reader([text])
            expected = {"too many columns": len(row) > 9, "too few columns": len(row) < 9}
            assert expected.get(line.kind, len(row) == 9)
        assert unterminated == 3


def broken_kind(text: str) -> str:
    try:
        event = json.loads(text)
    except ValueError:
        return "truncated"
    if not isinstance(event, dict):
        return "no object"
    if "messageId" not in event:
        return "no messageId"
    return "no timestamp" if event["timestamp"] == "soon" else "sound"


def test_the_vendor_serves_these_customers(folder: Path, customers: list[dict[str, Any]]) -> None:
    with VendorServer(data=folder, throttle_every=None, fail_every=None) as vendor:
        headers = {"Authorization": "Bearer shop-crm-token"}
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = httpx.get(
                f"{vendor.url}/crm/customers", params={"limit": 500, "cursor": cursor}, headers=headers
            ).json()
            found += page["data"]
            cursor = page["next_cursor"]
    assert sorted(found, key=lambda row: row["customer_id"]) == customers
    assert [row["updated_at"] for row in found] == sorted(row["updated_at"] for row in customers)
