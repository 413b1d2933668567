# SPDX-License-Identifier: Apache-2.0
"""Shopify: lists of its GraphQL Admin API, ordered by change."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from tests.core.ingest.vendors.base import SECRET, Vendor, only, refuse, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.testing.destinations.fake import FakeRequest
    from tests.core.ingest.vendors.base import Record


def _shopify(kind: str, **members: Any) -> Record:
    def make(n: int, at: datetime) -> dict[str, Any]:
        moments = dict.fromkeys(
            ("createdAt", "updatedAt", "cancelledAt", "processedAt", "publishedAt"),
            at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
        return {"id": f"gid://shopify/{kind}/{n}", **members, **moments}

    return make


_MONEY = {"shopMoney": {"amount": "12.50", "currencyCode": "EUR"}}


RECORDS: dict[str, Record] = {
    "customers": _shopify(
        "Customer",
        firstName="Ada",
        lastName="L",
        locale="de",
        state="ENABLED",
        tags=["vip"],
        numberOfOrders="3",
        amountSpent={"amount": "12.50", "currencyCode": "EUR"},
        defaultEmailAddress={"emailAddress": "a@example.com", "marketingState": "SUBSCRIBED"},
        defaultPhoneNumber={"phoneNumber": "+4930", "marketingState": "NOT_SUBSCRIBED"},
        defaultAddress={"city": "Berlin", "countryCodeV2": "DE", "zip": "10115"},
    ),
    "orders": _shopify(
        "Order",
        name="#1001",
        email="a@example.com",
        phone="+4930",
        customer={"id": "gid://shopify/Customer/1"},
        displayFinancialStatus="PAID",
        displayFulfillmentStatus="FULFILLED",
        currentTotalPriceSet=_MONEY,
        totalRefundedSet=_MONEY,
        currentSubtotalLineItemsQuantity=2,
        sourceName="web",
        tags=[],
        test=False,
    ),
    "products": _shopify(
        "Product",
        title="Hat",
        handle="hat",
        vendor="Hats",
        productType="Hat",
        status="ACTIVE",
        tags=[],
        totalInventory=5,
        priceRangeV2={
            "minVariantPrice": {"amount": "1.0", "currencyCode": "EUR"},
            "maxVariantPrice": {"amount": "2.0", "currencyCode": "EUR"},
        },
    ),
}


class Shopify(Vendor):
    name = "shopify"
    records = RECORDS
    needs: ClassVar = {"x-shopify-access-token": SECRET, "content-type": "application/json"}

    def listed(self, request: FakeRequest) -> dict[str, Any]:
        if (request.method, request.path) != ("POST", "/admin/api/2026-10/graphql.json"):
            refuse(f"{request.method} {request.path}")
        body = request.json()
        only(body, "query", "variables", "operationName")
        variables = body["variables"]
        only(variables, "first", "after", "query")
        asked = re.fullmatch(
            r"\s*query \(\$first: Int!, \$after: String, \$query: String\) \{\s*(\w+)\("
            r"first: \$first, after: \$after, query: \$query, sortKey: UPDATED_AT\) \{\s*nodes \{(.*)\}"
            r"\s*pageInfo \{ hasNextPage endCursor \}\s*\}\s*\}\s*",
            body["query"],
            re.DOTALL,
        )
        filtered = re.fullmatch(r"updated_at:>='([^']+)'", variables["query"])
        if asked is None or filtered is None:
            refuse("the query")
        since = datetime.fromisoformat(filtered[1])
        ordered = sorted(self.lists[asked[1]].values(), key=lambda record: record["updatedAt"])
        found = [record for record in ordered if datetime.fromisoformat(record["updatedAt"]) >= since]
        start = int(base64.b64decode(variables["after"])) if variables.get("after") else 0
        shown, following = self.page(found, start, size_of(variables["first"], 0, 250))
        wanted = selection(asked[2])
        end = base64.b64encode(str(start + len(shown)).encode()).decode() if shown else None
        info = {"hasNextPage": following is not None, "endCursor": end}
        nodes = [selected(record, wanted) for record in shown]
        return {"data": {asked[1]: {"nodes": nodes, "pageInfo": info}}, "extensions": {"cost": {}}}


def selection(text: str) -> dict[str, Any]:
    """``a b { c }`` -> ``{"a": {}, "b": {"c": {}}}``."""
    whole: dict[str, Any] = {}
    open_ones, last = [whole], whole
    for word in re.findall(r"\w+|[{}]", text):
        if word == "{":
            open_ones.append(last)
        elif word == "}":
            open_ones.pop()
        else:
            last = open_ones[-1].setdefault(word, {})
    assert open_ones == [whole]
    return whole


def selected(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for of a record; KeyError for what it does not have."""
    return {key: selected(record[key], inner) if inner else record[key] for key, inner in wanted.items()}
