# SPDX-License-Identifier: Apache-2.0
"""Lists inside rows are a stream whose view is always what the newest rows hold."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from cdp_provider.core.exceptions import ConfigurationError, DataError, NotFoundError
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.files import FileOptions, FilesConnector
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.ingest.nested import NestedConnector, NestedOptions
from cdp_provider.core.ingest.sql import Database, SqlConnector, SqlOptions
from cdp_provider.core.project.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

DEPTH = int(os.environ.get("CDP_TEST_DEPTH", "1"))

ORDERS = Stream(
    source="shop",
    name="orders",
    primary_key=("order_id",),
    time="updated_at",
    columns={
        "order_id": "string",
        "total": "decimal",
        "updated_at": "timestamp",
        "items": "json",
        "buyer": "json",
    },
    options=FileOptions(path="*.ndjson", format="ndjson"),
)


def items(columns: dict[str, Any] | None = None, **parts: Any) -> Stream:
    given: dict[str, Any] = {
        "source": "shop_items",
        "name": "items",
        "primary_key": ("order_id", "sku"),
        "columns": {
            "order_id": {"path": "_parent.order_id"},
            "sku": "string",
            "qty": "integer",
            "position": {"path": "_index", "type": "integer"},
            **(columns or {}),
        },
        "options": {"of": "shop.orders", "list": "items"},
    } | parts
    return Stream(**given | {"options": NestedOptions(**given["options"]).beside({ORDERS.ref: ORDERS})})


class Shop:
    """Lands orders and then their items, a file a day."""

    def __init__(self, warehouse: Warehouse, folder: Path, run: Callable[..., Run]) -> None:
        self.warehouse, self.folder, self.run = warehouse, folder, run

    def orders(self, day: int, *records: dict[str, Any]) -> Report:
        if records:
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (self.folder / f"{day:03d}.ndjson").write_text(lines)
        report = land(self.warehouse, ORDERS, FilesConnector(self.folder), self.run(day))
        check(self.warehouse, ORDERS, self.run(day))
        return report

    def items(self, day: int, stream: Stream | None = None) -> Report:
        stream = stream or items()
        report = land(self.warehouse, stream, NestedConnector(self.warehouse), self.run(day))
        check(self.warehouse, stream, self.run(day))
        return report

    def day(self, day: int, *records: dict[str, Any]) -> Report:
        self.orders(day, *records)
        return self.items(day)

    def view(self, columns: str = "order_id, sku, qty, position") -> list[tuple[Any, ...]]:
        with self.warehouse.session() as session:
            return session.fetch(
                f"select {columns} from {self.warehouse.table('shop_items__items')} order by 1, 2"
            )


@pytest.fixture
def shop(warehouse: Warehouse, tmp_path: Path, run: Callable[..., Run]) -> Shop:
    return Shop(warehouse, tmp_path, run)


def order(name: str, hour: int, *listed: Any, **more: Any) -> dict[str, Any]:
    return {"order_id": name, "updated_at": f"2026-06-01T{hour:02d}:00:00Z", "items": list(listed), **more}


def test_a_line_per_element(shop: Shop) -> None:
    report = shop.day(
        1,
        order("1", 1, {"sku": "a", "qty": 2}, {"sku": "b", "qty": 1, "gift": True}),
        order("2", 1),
        order("3", 1, {"sku": "a", "qty": 5}),
        {"order_id": "4"},
    )
    assert report.detail | {"parents": 4, "elements": 3, "removed": 0} == report.detail
    assert shop.view() == [("1", "a", 2, 0), ("1", "b", 1, 1), ("3", "a", 5, 0)]


def test_what_an_element_may_be(shop: Shop) -> None:
    """A lone value is a list of one; what is no object has the key "value"."""
    digits = "12345678901234567890.123456"
    whole = order("1", 1, total=9.5, buyer={"tier": {"name": "gold"}})
    text = json.dumps({**whole, "items": [{"sku": "x"}, "y", None, ["z"], 7]})
    (shop.folder / "a.ndjson").write_text(text.replace('"x"', f'"x", "price": {digits}') + "\n")
    shop.orders(1, order("2", 1) | {"items": {"sku": "lone"}}, order("3", 1) | {"items": "lone"})
    wanted = items(
        {
            "value": "json",
            "price": "string",
            "tier": {"path": "_parent.buyer.tier.name"},
            "total": {"path": "_parent.total", "type": "decimal"},
            "changed": {"path": "_parent.updated_at", "type": "timestamp"},
        },
        primary_key=("order_id", "position"),
    )
    shop.items(1, wanted)
    found = shop.view("order_id, position, sku, value, tier, price")
    values = [json.loads(v) if isinstance(v, str) and shop.warehouse.engine == "duckdb" else v
              for _, _, _, v, *_ in found]  # fmt: skip
    assert [row[:3] for row in found] == [
        *(("1", place, "x" if place == 0 else None) for place in range(5)),
        ("2", 0, "lone"),
        ("3", 0, None),
    ]
    assert values == [None, "y", None, ["z"], 7, None, "lone"]
    assert {row[4] for row in found[:5]} == {"gold"}
    assert found[0][5] == digits
    total, changed = shop.view("total, changed, order_id")[0][:2]
    assert (float(total), changed.isoformat()[:16]) == (9.5, "2026-06-01T01:00")


def test_elements_that_are_gone(shop: Shop) -> None:
    shop.day(1, order("1", 1, {"sku": "a"}, {"sku": "b"}, {"sku": "c"}), order("2", 1, {"sku": "a"}))
    second = shop.day(2, order("1", 2, {"sku": "c", "qty": 3}))
    assert second.detail["removed"] == 2
    assert shop.view() == [("1", "c", 3, 0), ("2", "a", None, 0)]
    third = shop.day(3, order("1", 3, {"sku": "c", "qty": 3}, {"sku": "a"}))
    assert [row[1] for row in shop.view()[:2]] == ["a", "c"]
    assert third.detail["removed"] == 1, "b, which the first version had"
    shop.day(4, order("1", 4))
    assert shop.view() == [("2", "a", None, 0)]
    shop.day(5)
    assert shop.view() == [("2", "a", None, 0)]


def test_a_version_that_comes_late_changes_nothing(shop: Shop) -> None:
    shop.day(1, order("1", 5, {"sku": "new"}))
    late = shop.day(2, order("1", 1, {"sku": "old"}))
    assert (late.detail["elements"], late.detail["removed"]) == (0, 0)
    assert [row[1] for row in shop.view()] == ["new"]
    shop.day(3, order("1", 6, {"sku": "newer"}))
    assert [row[1] for row in shop.view()] == ["newer"]


def test_of_versions_in_one_batch_the_newest_counts(shop: Shop) -> None:
    shop.day(1, order("1", 2, {"sku": "new"}), order("1", 1, {"sku": "old"}))
    assert [row[1] for row in shop.view()] == ["new"]


def test_a_key_made_of_places_and_of_the_parents_other_columns(shop: Shop) -> None:
    wanted = items(
        {"tier": {"path": "_parent.total", "type": "decimal"}}, primary_key=("order_id", "position", "tier")
    )
    shop.orders(1, order("1", 1, {"sku": "a"}, {"sku": "b"}, total=1))
    shop.items(1, wanted)
    shop.orders(2, order("1", 2, {"sku": "a"}, {"sku": "b"}, total=2))
    shop.items(2, wanted)
    assert [int(row[0]) for row in shop.view("tier, sku")] == [2, 2]
    shop.orders(3, order("1", 3, {"sku": "a"}, total=2))
    shop.items(3, wanted)
    assert [(row[1], int(row[0])) for row in shop.view("tier, sku")] == [("a", 2)]


def test_batches_of_before_are_taken_in(shop: Shop) -> None:
    """A stream that is declared later begins with what has landed; what failed comes with the next batch."""
    shop.orders(1, order("1", 1, {"sku": "a"}))
    shop.orders(2, order("2", 1, {"sku": "a"}), order("1", 2, {"sku": "b"}))
    assert shop.items(2).detail["parents"] == 2
    assert [row[:2] for row in shop.view()] == [("1", "b"), ("2", "a")]
    strict = items({"qty": {"type": "integer", "required": True}})
    shop.orders(3, order("3", 1, {"sku": "a"}))
    with pytest.raises(DataError):
        shop.items(3, strict)
    shop.orders(4, order("4", 1, {"sku": "a"}))
    assert shop.items(4).detail["parents"] == 2
    assert [row[0] for row in shop.view()] == ["1", "2", "3", "4"]
    assert shop.items(4).detail["parents"] == 2, "the same batch once more"
    assert shop.items(5).detail["parents"] == 0


def test_only_rows_that_passed_count(shop: Shop) -> None:
    shop.orders(1, order("1", 1, {"sku": "a"}))
    (shop.folder / "002.ndjson").write_text(json.dumps(order("2", 1, {"sku": "a"})) + "\nbroken\n")
    land(shop.warehouse, ORDERS, FilesConnector(shop.folder), shop.run(2))
    assert shop.items(2).rows_in == 1
    with pytest.raises(DataError):
        check(shop.warehouse, ORDERS, shop.run(2))
    assert shop.items(3).rows_in == 0


def test_elements_of_a_row_that_is_gone(shop: Shop, tmp_path: Path) -> None:
    place = str(tmp_path / "source.duckdb")
    parent = Stream(
        source="shop",
        name="orders",
        primary_key=("order_id",),
        columns={"order_id": "string", "items": "json"},
        options=SqlOptions(table="orders", complete=True),
    )
    connector = SqlConnector(Database("duckdb", lambda: duckdb.connect(place)))

    def day(day: int, *statements: str) -> None:
        with duckdb.connect(place) as source:
            for statement in statements:
                source.execute(statement)
        land(shop.warehouse, parent, connector, shop.run(day))
        check(shop.warehouse, parent, shop.run(day))
        shop.items(day)

    day(
        1,
        "create table orders (order_id varchar, items json)",
        """insert into orders values ('1', '[{"sku": "a"}, {"sku": "b"}]'), ('2', '[{"sku": "a"}]')""",
    )
    assert [row[:2] for row in shop.view()] == [("1", "a"), ("1", "b"), ("2", "a")]
    day(2, "delete from orders where order_id = '1'")
    assert [row[:2] for row in shop.view()] == [("2", "a")]
    day(3, """insert into orders values ('1', '[{"sku": "b"}]')""")
    assert [row[:2] for row in shop.view()] == [("1", "b"), ("2", "a")]


def test_random_orders_are_told_in_full(shop: Shop) -> None:
    """Whatever the order of changes, the items are those of the newest rows."""
    rng = random.Random(7 * DEPTH)
    newest: dict[str, tuple[int, list[dict[str, Any]]]] = {}
    hours = list(range(24))
    for day in range(1, 5 + DEPTH):
        records = []
        rng.shuffle(hours)
        for hour in hours[:6]:
            name = str(rng.randrange(4))
            listed = [{"sku": sku, "qty": rng.randrange(9)} for sku in rng.sample("abcdef", rng.randrange(5))]
            moment = hour * 100 + day  # no two versions are of one time
            records.append(
                order(name, hour, *listed) | {"updated_at": f"2026-06-01T{hour:02d}:{day:02d}:00Z"}
            )
            if name not in newest or moment > newest[name][0]:
                newest[name] = (moment, listed)
        shop.day(day, *records)
        wanted = [(name, e["sku"], e["qty"]) for name, (_, listed) in newest.items() for e in listed]
        assert [row[:3] for row in shop.view()] == sorted(wanted), day


def test_what_is_not_there(shop: Shop) -> None:
    with pytest.raises(NotFoundError, match="no landed column 'items'"):
        shop.items(1)
    keyless = items(primary_key=("sku",), options={"of": "shop.others", "list": "items"})
    with pytest.raises(ConfigurationError, match="parent_key"):
        shop.items(1, keyless)
