# SPDX-License-Identifier: Apache-2.0
"""Rows of a real PostgreSQL, brought by the real delivery."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import psycopg
import pytest

from cdp_provider.core.activation.delivery import Patience, deliver
from cdp_provider.core.activation.destinations.base import Record
from cdp_provider.core.activation.destinations.postgres import Postgres, PostgresOptions
from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DeliveryError,
    NotFoundError,
    UnavailableError,
)
from cdp_provider.core.project.activation import Destination, Sync

START = datetime(2026, 7, 1, tzinfo=UTC)
COLUMNS = (
    "email text primary key, first_name text not null default 'nobody', orders integer check (orders >= 0),"
    " spent numeric, seen timestamptz, born date, tags jsonb, kept text default 'kept',"
    ' archived boolean not null default false, "Odd ""name"" 100%s" text'
)
ODD = 'Odd "name" 100%s'


@dataclass
class Table:
    """A table of the test's own."""

    url: str
    schema: str
    outcomes: dict[str, Any] = field(default_factory=dict)

    def connect(self):
        return psycopg.connect(self.url)

    def rows(self, columns="email, first_name, orders", where="true"):
        with self.connect() as connection:
            query = f"select {columns} from {self.schema}.people where {where} order by email"
            return connection.execute(query).fetchall()

    def run(self, sql):
        with self.connect() as connection:
            connection.execute(sql)

    def kind(self, *, sync=None, batch=None, **options):
        given = {"schema": self.schema, "table": "people", "key": "email", **options}
        destination = Destination(
            name="crm",
            type="postgres",
            connection="crm",
            batch=batch,
            options=PostgresOptions.model_validate(given),
        )
        return Postgres(destination, declared(**sync or {}))

    def deliver(self, records, *, sync=None, connect=None, batch=None, **options):
        """Outcomes' states, in the order of the records."""
        told: dict[str, Any] = {}
        deliver(
            self.kind(sync=sync, batch=batch, **options),
            connect or self.connect,
            [[replace(record, place=place) for place, record in enumerate(records)]],
            write=lambda results: told.update({r.record.record_key: r.outcome for r in results}),
            patience=Patience(tries=2, pause=0.01),
        )
        self.outcomes = told
        return [told[record.record_key].state for record in records]


def declared(**changed):
    given = {
        "name": "people_to_crm",
        "segment": "newsletter",
        "destination": "crm",
        "key": "email",
        "fields": {"first_name": "first_name", "orders": "orders"},
    }
    return Sync.model_validate(given | changed)


def person(n, operation="upsert", **fields):
    key = f"person{n:05}@example.com"
    if operation in ("upsert", "insert"):
        fields = {"first_name": f"Person {n}", "orders": n} | fields
    return Record(
        record_key=key,
        key=key,
        profile_id=n,
        fields=fields,
        operation=operation,
        payload_hash=str((operation, fields)),
        attempts=0,
        intended=START,
    )


@pytest.fixture
def table(postgres_url):
    schema = f"crm_{uuid.uuid4().hex[:12]}"
    made = Table(postgres_url, schema)
    made.run(f"create schema {schema}; create table {schema}.people ({COLUMNS})")
    yield made
    made.run(f"drop schema {schema} cascade")


def test_rows_are_created_and_changed_and_a_repeat_changes_nothing(table):
    for _ in range(2):
        assert table.deliver([person(n) for n in range(5)], batch=2) == ["accepted"] * 5
    assert table.deliver([person(0, first_name="Ada")]) == ["accepted"]
    expected = [(f"person{n:05}@example.com", f"Person {n}" if n else "Ada", n) for n in range(5)]
    assert table.rows() == expected
    assert set(table.rows("kept")) == {("kept",)}


def test_values_keep_their_types(table):
    values = {
        "spent": Decimal("1234567890123456789012.123456"),
        "seen": datetime(2026, 7, 1, 12, 0, 0, 1500, tzinfo=UTC),
        "born": date(1990, 2, 28),
        "tags": orjson.Fragment('{"a": [1, "ü"]}'),
        "first_name": "J\u2028\"'\\ü\t",
        ODD: "50%",
    }
    sync = {"fields": {name: "first_name" for name in values}}
    record = replace(person(0), fields=values)
    assert table.deliver([record], sync=sync) == ["accepted"]
    columns = 'spent, seen, born, tags, first_name, "Odd ""name"" 100%s"'
    (row,) = table.rows(columns)
    assert row == (*list(values.values())[:3], {"a": [1, "ü"]}, *list(values.values())[4:])


def test_numbers_as_keys(table):
    table.run(f"create table {table.schema}.numbered (id bigint primary key, first_name text, orders int)")
    records = [replace(person(n), key=n, record_key=str(n)) for n in (9, 10)]
    assert table.deliver(records, table="numbered", key="id") == ["accepted"] * 2
    with table.connect() as connection:
        rows = connection.execute(f"select id from {table.schema}.numbered order by id").fetchall()
    assert rows == [(9,), (10,)]


def test_what_a_constraint_refuses_is_told_apart(table):
    records = [person(n, orders=-n if n == 3 else n) for n in range(8)]
    states = table.deliver(records)
    assert states == ["accepted"] * 3 + ["rejected"] + ["accepted"] * 4
    reason = table.outcomes[records[3].record_key].reason
    assert reason == "CheckViolation (23514) at people_orders_check"
    assert len(table.rows()) == 7


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"first_name": None}, "NotNullViolation (23502) at first_name"),
        ({"orders": "secret@example.com"}, "InvalidTextRepresentation (22P02)"),
        ({"orders": 10**12}, "NumericValueOutOfRange (22003)"),
        ({"first_name": "nul \x00"}, "UntranslatableCharacter (22P05)"),
    ],
)
def test_reasons_hold_no_values(table, fields, reason):
    assert table.deliver([person(0), person(1, **fields), person(2)])[1] == "rejected"
    assert table.outcomes["person00001@example.com"].reason == reason


def test_a_trigger_may_refuse(table):
    table.run(
        f"create function {table.schema}.no() returns trigger language plpgsql as"
        " $$ begin if new.orders = 1 then raise exception 'not %', new.email; end if; return new; end $$;"
        f"create trigger no before insert on {table.schema}.people"
        f" for each row execute function {table.schema}.no()"
    )
    assert table.deliver([person(n) for n in range(3)]) == ["accepted", "rejected", "accepted"]
    assert table.outcomes["person00001@example.com"].reason == "RaiseException (P0001)"


def test_a_table_that_refuses_everybody_ends_the_delivery(table):
    records = [person(n, orders=-1) for n in range(12)]
    with pytest.raises(DeliveryError, match="refused a batch of 4"):
        table.deliver(records, batch=4)
    assert table.rows() == []


def test_insert_creates_and_leaves_what_is_there(table):
    table.deliver([person(0)])
    records = [person(n, "insert", first_name="New") for n in (0, 1)]
    assert table.deliver(records, sync={"mode": "insert"}) == ["accepted"] * 2
    assert [name for _, name, _ in table.rows()] == ["Person 0", "New"]


def test_update_creates_nobody_and_says_so(table):
    table.deliver([person(0), person(2)])
    records = [person(n, "update", first_name=f"New {n}") for n in range(3)]
    records.append(person(3, "update", orders=9))
    states = table.deliver(records, sync={"mode": "update"})
    assert states == ["accepted", "rejected", "accepted", "rejected"]
    assert table.outcomes["person00001@example.com"].reason == "no row has this key"
    assert [name for _, name, _ in table.rows()] == ["New 0", "New 2"]


def test_removal_takes_away_and_bears_that_nobody_is_there(table):
    table.deliver([person(n) for n in range(3)])
    for _ in range(2):
        gone = [person(0, "remove"), person(2, "remove")]
        assert table.deliver(gone, sync={"mode": "mirror"}) == ["accepted"] * 2
    assert [key for key, _, _ in table.rows()] == ["person00001@example.com"]


def test_archived_rows_stay_and_come_back(table):
    options = {"sync": {"mode": "archive"}, "archived": "archived"}
    table.deliver([person(0), person(1)], **options)
    gone = [person(n, "archive") for n in (0, 7)]
    assert table.deliver(gone, **options) == ["accepted"] * 2
    assert table.rows("first_name, archived") == [("Person 0", True), ("Person 1", False)]
    table.deliver([person(0)], **options)
    assert table.rows("archived") == [(False,), (False,)]


def test_clearing_empties_and_brings_nobody_back(table):
    table.deliver([person(0), person(1)])
    nothing = [person(n, "clear", orders=None) for n in (0, 7)]
    sync = {"mode": "mirror", "removal": "clear", "fields": {"orders": "orders"}}
    assert table.deliver(nothing, sync=sync) == ["accepted"] * 2
    assert table.rows("first_name, orders") == [("Person 0", None), ("Person 1", 1)]


def test_fields_that_are_left_out_stay_as_they_are(table):
    table.deliver([person(0), person(1)])
    records = [replace(person(n), fields={"orders": 50 + n}) for n in range(3)]
    records[1] = replace(person(1), fields={"first_name": "Ada"})
    assert table.deliver(records) == ["accepted"] * 3
    assert [row[1:] for row in table.rows()] == [("Person 0", 50), ("Ada", 1), ("nobody", 52)]


@pytest.mark.parametrize("mode", ["upsert", "update"])
def test_if_empty_asks_first_and_holds_against_others(table, mode):
    table.deliver([person(n) for n in range(3)])
    table.run(f"update {table.schema}.people set orders = null where orders > 0")
    fields = {"first_name": "first_name", "orders": {"from": "orders", "write": "if_empty"}}
    sync = {"mode": mode, "fields": fields}
    kind = table.kind(sync=sync)

    class Line:
        target = table.connect
        idempotency_key = "k"

    records = [replace(person(n, first_name="New", orders=90 + n), operation=mode) for n in range(3)]
    assert kind._read(Line(), [*records, person(9)], ["orders", "first_name"]) == [
        set(),
        {"orders"},
        {"orders"},
        {"orders", "first_name"},
    ]
    # Somebody else fills a value in after we asked.
    table.run(f"update {table.schema}.people set orders = 5 where email like 'person00001%'")
    items = [orjson.dumps(kind.item(mode, record)) for record in records]
    kind._write(Line(), mode, records, items)
    assert [row[1:] for row in table.rows()] == [("New", 0), ("New", 5), ("New", 92)]
    again = [replace(record, fields={"first_name": "Newer", "orders": 1}) for record in records]
    assert table.deliver(again, sync=sync) == ["accepted"] * 3
    assert [row[1:] for row in table.rows()] == [("Newer", 0), ("Newer", 5), ("Newer", 92)]


@pytest.mark.parametrize(
    ("options", "sync", "error", "message"),
    [
        ({"table": "peple"}, {}, NotFoundError, "there is no table .*peple"),
        (
            {},
            {"fields": {"firstname": "first_name"}},
            ConfigurationError,
            "'firstname'; did you mean 'first_n",
        ),
        ({"key": "first_name"}, {"fields": {"orders": "orders"}}, ConfigurationError, "is not unique"),
        ({}, {"fields": {"generated": "orders"}}, ConfigurationError, "GeneratedAlways"),
    ],
)
def test_what_cannot_fit_is_told_at_once(table, options, sync, error, message):
    table.run(
        f"alter table {table.schema}.people add generated int generated always as (length(email)) stored"
    )
    fields = dict.fromkeys(declared(**sync).fields, "1")
    with pytest.raises(error, match=message):
        table.deliver([replace(person(0), fields=fields)], sync=sync, **options)
    assert table.rows() == []


def test_rights_that_are_missing_are_told(table):
    role = f"reader_{table.schema}"
    table.run(
        f"create role {role}; grant usage on schema {table.schema} to {role};"
        f" grant select on {table.schema}.people to {role}"
    )

    def connect():
        return psycopg.connect(table.url, options=f"-c role={role}")

    try:
        with pytest.raises(AccessError, match="InsufficientPrivilege"):
            table.deliver([person(0)], connect=connect)
    finally:
        table.run(f"drop owned by {role}; drop role {role}")


def test_few_connections_at_the_same_time(table):
    lock, now, most = threading.Lock(), 0, 0

    @contextmanager
    def counted():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with table.connect() as connection:
            time.sleep(0.02)
            yield connection
        with lock:
            now -= 1

    assert table.deliver([person(n) for n in range(24)], batch=2, connect=counted) == ["accepted"] * 24
    assert 1 < most <= 4


def test_a_server_that_is_away_is_unavailable(table):
    with pytest.raises(UnavailableError) as caught:
        table.deliver([person(0)], connect=lambda: psycopg.connect("host=127.0.0.1 port=9 password=secret"))
    assert "secret" not in str(caught.value)


def test_a_connection_that_breaks_leaves_nothing_and_a_repeat_brings_all(table):
    @contextmanager
    def broken():
        with psycopg.connect(table.url) as connection:
            yield connection
            # The transaction is committed; the answer to it is lost.
            msg = "server closed the connection unexpectedly: person00000"
            raise psycopg.OperationalError(msg)

    class Line:
        target = staticmethod(broken)
        idempotency_key = "k"

    records = [person(n) for n in range(3)]
    kind = table.kind()
    items = [orjson.dumps(kind.item("upsert", record)) for record in records]
    with pytest.raises(UnavailableError) as caught:
        kind._write(Line(), "upsert", records, items)
    assert "person00000" not in str(caught.value)
    assert table.deliver(records) == ["accepted"] * 3
    assert len(table.rows()) == 3


@pytest.mark.parametrize(
    ("options", "sync", "message"),
    [
        ({}, {"mode": "event"}, "the mode 'event' needs more"),
        ({}, {"mode": "archive"}, "the mode 'archive' needs more"),
        ({"archived": "gone"}, {"fields": {"gone": "orders"}}, "is no field"),
        ({}, {"fields": {"email": "email"}}, "is no field"),
        ({"archived": "gone"}, {"mode": "archive"}, None),
        ({}, {"mode": "mirror"}, None),
    ],
)
def test_syncs_that_do_not_fit_are_told(options, sync, message):
    given = PostgresOptions.model_validate({"table": "people", "key": "email", **options})
    problems = [p.message for p in given.sync_problems(declared(**sync))]
    assert len(problems) == (message is not None)
    assert message is None or message in problems[0]
