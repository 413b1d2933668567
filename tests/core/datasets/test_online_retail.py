# SPDX-License-Identifier: Apache-2.0
"""Recency, frequency and worth of a real shop's customers, against pandas: with cancelled invoices, with
lines without a customer, and with a line per product of an invoice.

The file has no number of a line. Lines that are equal in all columns (975 of them, each time with the same
invoice, product, quantity and price) are one line here and in the oracle.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from tests.core.datasets.road import dataset, travel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.warehouse import Warehouse

NOW = datetime(2011, 3, 1, tzinfo=UTC)
FILE = "online_retail_2010-12_2011-02.csv.gz"
PROJECT = """
project: online_retail
warehouse: {connection: cdp_warehouse}
sources:
  shop:
    type: files
    streams:
      lines:
        path: online_retail_*.csv.gz
        format: csv
        primary_key: [InvoiceNo, StockCode, Quantity, UnitPrice]
        time: InvoiceDate
        columns:
          InvoiceNo: {type: string, required: true}
          StockCode: {type: string, required: true}
          Description: string
          Quantity: {type: integer, required: true}
          InvoiceDate: {type: timestamp, required: true}
          UnitPrice: {type: decimal, required: true}
          CustomerID: string
          Country: string
        identifiers: {customer: CustomerID}
identity:
  identifiers: {customer: {limit: 1}}
profiles:
  fields:
    customer: {from: [shop.lines.CustomerID]}
    countries: {from: [shop.lines.Country], keep: list}
  traits:
    lines: {type: count, stream: shop.lines}
    invoices:
      type: distinct_count
      stream: shop.lines
      column: InvoiceNo
      where: &bought {InvoiceNo: {matches: "[0-9]+"}}
    cancelled:
      type: distinct_count
      stream: shop.lines
      column: InvoiceNo
      where: &cancelled {InvoiceNo: {starts_with: C}}
    recency: {type: days_since_last, stream: shop.lines, where: *bought}
    known_for: {type: days_since_first, stream: shop.lines}
    units: {type: sum, stream: shop.lines, column: Quantity}
    dearest: {type: max, stream: shop.lines, column: UnitPrice}
    average_price: {type: average, stream: shop.lines, column: UnitPrice}
    products: {type: distinct_count, stream: shop.lines, column: StockCode}
    favourite: {type: most_frequent, stream: shop.lines, column: StockCode}
    country: {type: most_frequent, stream: shop.lines, column: Country}
    last_product: {type: last, stream: shop.lines, column: StockCode}
    last_products: {type: list, stream: shop.lines, column: StockCode, limit: 5}
    units_30d: {type: sum, stream: shop.lines, column: Quantity, within_last: 30 days, default: 0}
    lines_in_january: {type: count, stream: shop.lines, between: [2011-01-01, 2011-01-31]}
    value:
      type: sql
      as: decimal
      sql: select profile_id, sum("Quantity" * "UnitPrice") as value from {shop.lines} group by profile_id
    basket: {type: ratio, of: value, over: invoices}
    r: {type: quantile, of: recency, order: descending}
    f: {type: quantile, of: invoices}
    m: {type: quantile, of: value}
    rfm: {type: rfm, recency: recency, frequency: invoices, monetary: value}
    points_abroad: {type: formula, formula: 'floor(value / 10) if country != "United Kingdom" else 0'}
segments:
  champions: {where: {trait: rfm, is: "555"}}
  regulars:
    where: {stream: shop.lines, where: *bought, distinct_count: InvoiceNo, at_least: 3}
  best_abroad:
    where: {none: [{trait: country, is: United Kingdom}]}
    limit: {count: 3, by: value, per: country}
  never_cancelled:
    where: {stream: shop.lines, where: *cancelled, exactly: 0}
    except: [champions]
"""


def lines() -> pd.DataFrame:
    """Lines of known customers before now, oldest first; prices as whole pence, so that sums are exact."""
    file = dataset("commerce/online_retail") / FILE
    found = pd.read_csv(file, dtype=str, keep_default_na=False)
    # Of equal lines the product keeps the one that stands last.
    found = found.drop_duplicates(keep="last")
    assert not found.duplicated(["InvoiceNo", "StockCode", "Quantity", "UnitPrice"]).any()
    found = found[found["CustomerID"] != ""].copy()
    found["at"] = pd.to_datetime(found["InvoiceDate"], utc=True)
    found["units"] = found["Quantity"].astype(int)
    found["pence"] = found["UnitPrice"].map(lambda text: int(Decimal(text) * 100))
    found["bought"] = ~found["InvoiceNo"].str.startswith("C")
    return found.sort_values("at", kind="stable")


def most(values: list[str]) -> str:
    """The most frequent one; of several the one that comes last."""
    count = Counter(values)
    return next(value for value in reversed(values) if count[value] == max(count.values()))


def customer(rows: pd.DataFrame) -> dict[str, Any]:
    """What a profile should say, as far as its own rows tell."""
    bought = rows[rows["bought"]]
    recent = rows[rows["at"] >= NOW - timedelta(days=30)]
    days = rows["at"].dt.date
    value = Decimal(int((rows["units"] * rows["pence"]).sum())) / 100
    invoices, newest_first = bought["InvoiceNo"].nunique(), rows["StockCode"].tolist()[::-1]
    return {
        "lines": len(rows),
        "invoices": invoices,
        "cancelled": rows.loc[~rows["bought"], "InvoiceNo"].nunique(),
        "recency": (NOW - bought["at"].max()) // timedelta(days=1) if invoices else None,
        "known_for": (NOW - rows["at"].min()) // timedelta(days=1),
        "units": int(rows["units"].sum()),
        "dearest": Decimal(int(rows["pence"].max())) / 100,
        "average_price": float(Decimal(int(rows["pence"].sum())) / 100) / len(rows),
        "products": rows["StockCode"].nunique(),
        "favourite": most(newest_first[::-1]),
        "country": most(rows["Country"].tolist()),
        "last_product": newest_first[0],
        "last_products": list(dict.fromkeys(newest_first))[:5],
        "countries": list(dict.fromkeys(rows["Country"].tolist()[::-1])),
        "units_30d": int(recent["units"].sum()),
        "lines_in_january": int(((days >= date(2011, 1, 1)) & (days <= date(2011, 1, 31))).sum()),
        "value": value,
        "basket": float(value) / invoices if invoices else None,
    }


def fifths(customers: Mapping[str, Mapping[str, Any]], name: str, sign: int = 1) -> dict[str, int | None]:
    """The fifth in which each one's value lies, by the definition."""
    known = sorted(sign * row[name] for row in customers.values() if row[name] is not None)
    place = {value: known.index(value) for value in set(known)}
    return {
        key: None if row[name] is None else 1 + 5 * place[sign * row[name]] // len(known)
        for key, row in customers.items()
    }


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    """Every customer's profile."""
    found = {str(name): {"customer": name, **customer(rows)} for name, rows in lines().groupby("CustomerID")}
    scores = {"r": fifths(found, "recency", -1), "f": fifths(found, "invoices"), "m": fifths(found, "value")}
    for name, row in found.items():
        row |= {score: values[name] for score, values in scores.items()}
        digits = [row[score] for score in "rfm"]
        row["rfm"] = None if None in digits else "".join(map(str, digits))
        abroad = row["country"] != "United Kingdom"
        row["points_abroad"] = math.floor(float(row["value"]) / 10) if abroad else 0
    return found


def members(expected: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Who should be in which segment."""
    champions = {name for name, row in expected.items() if row["rfm"] == "555"}
    abroad = [name for name, row in expected.items() if row["country"] != "United Kingdom"]
    best = {
        name
        for name in abroad
        if sum(
            expected[other]["country"] == expected[name]["country"]
            and expected[other]["value"] > expected[name]["value"]
            for other in abroad
        )
        < 3
    }
    return {
        "champions": champions,
        "regulars": {name for name, row in expected.items() if row["invoices"] >= 3},
        "best_abroad": best,
        "never_cancelled": {name for name, row in expected.items() if row["cancelled"] == 0} - champions,
    }


def counts(warehouse: Warehouse) -> tuple[int, ...]:
    """Lines that were landed, that differ, and that belong to somebody."""
    with warehouse.session() as session:
        return tuple(
            session.scalar(f"select count(*) from {warehouse.table(table)}")
            for table in ("raw_shop__lines", "shop__lines", "row_links")
        )


def read(given: Any, like: Any) -> Any:
    """A value as the oracle has it: lists are JSON in a warehouse."""
    return json.loads(given) if isinstance(like, list) else given


def test_every_cell_of_every_customer_equals_pandas(warehouse, tmp_path, expected):
    road = travel(warehouse, PROJECT, tmp_path, dataset("commerce/online_retail"), NOW)
    profiles = road.profiles()
    names = {row["profile_id"]: row["customer"] for row in profiles}
    found = {row["customer"]: row for row in profiles}
    assert len(found) == len(profiles) == 1749
    assert found.keys() == expected.keys()
    differing = [
        (name, column, row[column], found[name][column])
        for name, row in expected.items()
        for column in row
        if read(found[name][column], row[column]) != row[column]
    ]
    assert differing == []
    assert {
        segment: {names[profile] for profile in road.members(segment)} for segment in members(expected)
    } == members(expected)
