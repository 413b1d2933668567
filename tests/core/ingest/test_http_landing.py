# SPDX-License-Identifier: Apache-2.0
"""Rows of an HTTP source in the warehouse, window after window."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from cdp_provider.core.http import Endpoint
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.http import HttpConnector, Patience
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.streams import Stream
from cdp_provider.testing.vendor import VendorServer
from tests.core.ingest.conftest import START
from tests.core.ingest.fetching import Ledger, stream_of
from tests.core.ingest.service import Answer, Service


def test_numbers_keep_their_digits_and_a_bad_record_spoils_no_page(warehouse, customers, run):
    stream = Stream(
        source="crm",
        name="customers",
        primary_key=("id",),
        columns={"id": "string", "d": "decimal", "n": "number"},
        quarantine={"max_share": 1},
        options=customers(cursor=None).options,
    )
    body = (
        b'{"data":[{"id":12345678901234567890123,"d":1234567890123456789.123456},{"id":"2","n":NaN},'
        b'{"id":"\\ud800"},{"id":"4","n":0.1,"z":NaN}]}'
    )
    with Service([Answer(body=body)]) as service:
        report = land(warehouse, stream, HttpConnector(Endpoint(service.url)), run())
    assert (report.rows_out, report.rows_refused) == (2, 2)
    check(warehouse, stream, run())
    with warehouse.session() as session:
        assert session.fetch(f"select id, d, n from {warehouse.table('crm__customers')} order by 1") == [
            ("12345678901234567890123", Decimal("1234567890123456789.123456"), None),
            ("4", None, 0.1),
        ]
        assert session.fetch(
            f"select source, position, reason from {warehouse.table('quarantine')} order by 2"
        ) == [
            ("GET /customers", 2, 'column "n": "NaN" is not a number'),
            ("GET /customers", 3, "malformed JSON"),
        ]


def test_windows_one_after_the_other_against_the_stand_in_vendor(warehouse, customers, run):
    stream = customers(
        path="/crm/customers",
        paging={"type": "cursor", "next": "next_cursor", "parameter": "cursor"},
        page_size={"parameter": "limit", "value": 50},
        cursor={"column": "updated_at", "parameter": "updated_since"},
    ).model_copy(
        update={
            "primary_key": ("customer_id",),
            "columns": customers().columns | {"customer_id": customers().columns["id"]},
        }
    )
    start = run().window.start

    def people(first: int, last: int, day: int) -> list[dict[str, str]]:
        at = start + timedelta(days=day - 1)
        return [
            {"customer_id": f"c{n}", "updated_at": (at + timedelta(seconds=n)).isoformat()}
            for n in range(first, last)
        ]

    with VendorServer(customers=people(0, 400, 1) + people(400, 420, 2)) as vendor:
        connector = HttpConnector(
            Endpoint(vendor.url, {"Authorization": "Bearer shop-crm-token"}), patience=Patience(base=0.01)
        )
        counts = []
        for day in (1, 2, 2, 3):
            vendor.inject("/crm", cut=True, after=1)
            counts.append(land(warehouse, stream, connector, run(day)).rows_out)
            check(warehouse, stream, run(day))
        # Every window asks from the newest row it knows, that row included, and leaves it out.
        assert counts == [400, 20, 20, 0]
        vendor.put_customers(people(5, 8, 3))
        assert land(warehouse, stream, connector, run(3)).rows_out == 3
        check(warehouse, stream, run(3))
    with warehouse.session() as session:
        table = warehouse.table("crm__customers")
        assert session.scalar(f"select count(*) from {table}") == 420
        newest = session.scalar(f"select updated_at from {table} where customer_id = 'c6'")
        assert newest == start + timedelta(days=2, seconds=6)


def test_stretches_with_numeric_times_land_every_record_once(warehouse, run):
    first = int(START.timestamp())
    source = Ledger(*(first + n * 3_600 for n in range(60)))  # two and a half days
    stream = stream_of(
        {"updated_at": {"type": "timestamp", "format": "unix"}},
        paging={"type": "last_record", "field": "id", "parameter": "after", "more": "more"},
        cursor={"column": "updated_at", "overlap": "2 hours"},
        window={"start": "created[gte]", "end": "created[lt]", "step": "8 hours", "format": "unix"},
    )
    counts = []
    with Service(source) as service:
        connector = HttpConnector(Endpoint(service.url))
        for day in (1, 2, 2, 3):
            counts.append(land(warehouse, stream, connector, run(day)).rows_out)
            check(warehouse, stream, run(day))
        source.rows.append({"id": 60, "updated_at": first + 59 * 3_600 - 1})  # late
        counts.append(land(warehouse, stream, connector, run(4)).rows_out)
        check(warehouse, stream, run(4))
    assert counts == [24, 24, 24, 12, 1]
    with warehouse.session() as session:
        rows = session.fetch(f"select id, updated_at from {warehouse.table('crm__customers')}")
    assert {(row[0], row[1].timestamp()) for row in rows} == {
        (str(row["id"]), row["updated_at"]) for row in source.rows
    }
    assert len(rows) == 61
