# SPDX-License-Identifier: Apache-2.0
"""Stripe: lists, newest first, that can be cut by when an object was created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tests.core.ingest.vendors.base import SECRET, Vendor, only, size_of, unix

if TYPE_CHECKING:
    from datetime import datetime

    from cdp_provider.testing.destinations.fake import FakeRequest
    from tests.core.ingest.vendors.base import Record


def _customer(n: int, at: datetime) -> dict[str, Any]:
    return {
        "id": f"cus_{n}",
        "object": "customer",
        "email": f"p{n}@example.com",
        "name": f"Person {n}",
        "phone": f"+49301234{n:03}",
        "description": "a customer",
        "currency": "eur",
        "balance": 0,
        "delinquent": False,
        "address": {"country": "DE", "city": "Berlin", "postal_code": "10115", "line1": "x"},
        "metadata": {"plan": "gold"},
        "livemode": False,
        "created": unix(at),
    }


def _charge(n: int, at: datetime) -> dict[str, Any]:
    return {
        "id": f"ch_{n}",
        "object": "charge",
        "customer": f"cus_{n}",
        "amount": 1000 + n,
        "amount_captured": 1000 + n,
        "amount_refunded": 0,
        "currency": "eur",
        "status": "succeeded",
        "captured": True,
        "paid": True,
        "refunded": False,
        "disputed": False,
        "description": "a charge",
        "receipt_email": f"p{n}@example.com",
        "billing_details": {"email": f"p{n}@example.com", "name": f"Person {n}"},
        "invoice": f"in_{n}",
        "livemode": False,
        "payment_intent": f"pi_{n}",
        "payment_method_details": {"type": "card"},
        "metadata": {},
        "refunds": {"object": "list", "data": [], "has_more": False, "url": "/v1/x"},
        "created": unix(at),
    }


def _subscription(n: int, at: datetime) -> dict[str, Any]:
    moment = unix(at)
    return {
        "id": f"sub_{n}",
        "object": "subscription",
        "customer": f"cus_{n}",
        "status": "canceled",
        "items": {"object": "list", "data": [], "has_more": False, "url": "/v1/x"},
        "automatic_tax": {"enabled": False},
        "billing_cycle_anchor": moment,
        "collection_method": "charge_automatically",
        "current_period_start": moment,
        "current_period_end": moment,
        "livemode": False,
        "cancel_at_period_end": False,
        "start_date": moment,
        "trial_end": moment,
        "canceled_at": moment,
        "ended_at": moment,
        "metadata": {},
        "created": moment,
    }


def _invoice(n: int, at: datetime) -> dict[str, Any]:
    moment = unix(at)
    return {
        "id": f"in_{n}",
        "object": "invoice",
        "customer": f"cus_{n}",
        "customer_email": f"p{n}@example.com",
        "number": f"A-{n}",
        "attempt_count": 1,
        "attempted": True,
        "automatic_tax": {"enabled": False},
        "collection_method": "charge_automatically",
        "default_tax_rates": [],
        "lines": {"object": "list", "data": [], "has_more": False, "url": "/v1/x"},
        "livemode": False,
        "paid": True,
        "paid_out_of_band": False,
        "payment_settings": {},
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "status_transitions": {},
        "subtotal": 500,
        "total_tax_amounts": [],
        "status": "paid",
        "billing_reason": "manual",
        "currency": "eur",
        "total": 500,
        "amount_due": 500,
        "amount_paid": 500,
        "amount_remaining": 0,
        "due_date": moment,
        "period_start": moment,
        "period_end": moment,
        "metadata": {},
        "created": moment,
    }


def _balance_transaction(n: int, at: datetime) -> dict[str, Any]:
    return {
        "id": f"txn_{n}",
        "object": "balance_transaction",
        "type": "charge",
        "reporting_category": "charge",
        "status": "pending",
        "source": f"ch_{n}",
        "amount": 1000,
        "fee": 30,
        "fee_details": [],
        "net": 970,
        "currency": "eur",
        "available_on": unix(at),
        "created": unix(at),
    }


def _stripe_event(n: int, at: datetime) -> dict[str, Any]:
    return {
        "id": f"evt_{n}",
        "object": "event",
        "type": "charge.succeeded",
        "api_version": "2020-08-27",
        "data": {"object": {"id": f"ch_{n}", "object": "charge", "customer": f"cus_{n}"}},
        "livemode": False,
        "pending_webhooks": 0,
        "created": unix(at),
    }


RECORDS: dict[str, Record] = {
    "customers": _customer,
    "charges": _charge,
    "subscriptions": _subscription,
    "invoices": _invoice,
    "balance_transactions": _balance_transaction,
    "events": _stripe_event,
}


class Stripe(Vendor):
    name = "stripe"
    records = RECORDS
    needs: ClassVar = {"authorization": f"Bearer {SECRET}"}

    def listed(self, request: FakeRequest) -> dict[str, Any]:
        stream = request.path.removeprefix("/v1/")
        more = ("status",) if stream == "subscriptions" else ()
        only(request.query, "limit", "starting_after", "created[gte]", "created[lt]", *more)
        low, high = (
            int(request.query.get(f"created[{key}]", default)) for key, default in (("gte", 0), ("lt", 1e11))
        )
        newest = sorted(self.lists[stream].values(), key=lambda record: record["created"], reverse=True)
        found = [record for record in newest if low <= record["created"] < high]
        start = 0
        if last := request.query.get("starting_after"):
            start = [record["id"] for record in found].index(last) + 1
        shown, following = self.page(found, start, size_of(request.query.get("limit"), 10, 100))
        return {"object": "list", "url": request.path, "has_more": following is not None, "data": shown}
