# SPDX-License-Identifier: Apache-2.0
"""What the stand-in vendor remembers: a SQLite file, or memory."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

Operation = Literal["upsert", "remove", "update"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE customers (customer_id TEXT PRIMARY KEY, updated INTEGER NOT NULL, data TEXT NOT NULL,
                        fields TEXT) WITHOUT ROWID;
CREATE INDEX customers_updated ON customers (updated, customer_id);
CREATE TABLE contacts (list TEXT, email TEXT, fields TEXT NOT NULL, PRIMARY KEY (list, email)) WITHOUT ROWID;
CREATE TABLE applied (sequence INTEGER PRIMARY KEY, target TEXT NOT NULL, key TEXT NOT NULL,
                      operation TEXT NOT NULL, payload TEXT NOT NULL);
CREATE INDEX applied_key ON applied (key);
CREATE TABLE answers (path TEXT, key TEXT, request TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
                      PRIMARY KEY (path, key)) WITHOUT ROWID;
CREATE TABLE requests (sequence INTEGER PRIMARY KEY, method TEXT NOT NULL, path TEXT NOT NULL,
                       query TEXT NOT NULL, status INTEGER, records INTEGER NOT NULL, idempotency_key TEXT,
                       replayed INTEGER NOT NULL, seconds REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the vendor saw it.

    :param status: None where the connection was cut without an answer.
    :param records: number of records in the request's body.
    :param replayed: whether the stored answer of an earlier request with this idempotency key was given.
    :param seconds: how long the vendor took.
    """

    method: str
    path: str
    query: str
    status: int | None
    records: int
    idempotency_key: str | None
    replayed: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Applied:
    """How often one write was applied to one record.

    :param target: ``mail/<list>`` or ``crm``.
    :param key: the contact's e-mail address (lower case) or the customer's id.
    :param operation: ``upsert`` or ``remove`` (mail), ``update`` (crm).
    """

    target: str
    key: str
    operation: str
    payload: dict[str, Any]
    times: int


class StoredAnswer(NamedTuple):
    """The answer that an idempotency key got, and the text of the request that got it."""

    request: str
    status: int
    body: str


def canonical(value: object) -> str:
    """Return JSON text that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def epoch_microseconds(timestamp: str) -> int:
    """Read an ISO 8601 timestamp (UTC if it names no zone); ValueError if it is none."""
    moment = datetime.fromisoformat(timestamp)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class VendorState:
    """The vendor's tables. Every method takes the one lock; :meth:`transaction` holds it for a whole request.

    :param path: SQLite file, made if absent; ``:memory:`` forgets everything at the end.
    """

    def __init__(self, path: str | Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
        try:
            self._prepare(path)
        except BaseException:
            self._database.close()
            raise

    def _prepare(self, path: str | Path) -> None:
        # The operating system outlives a killed process, so nothing has to reach the disk at once.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            msg = f"{path} holds state of version {version}, this vendor reads {_VERSION}: delete the file."
            raise ValueError(msg)
        if version == 0:
            self._database.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_VERSION};COMMIT;")

    def close(self) -> None:
        """Close the file; what was committed stays."""
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock; commit at the end, or roll back on an exception. An inner one joins the outer."""
        with self._lock:
            if self._database.in_transaction:
                yield
                return
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(sql, values).fetchall()

    def _write(self, sql: str, *values: object) -> int:
        with self.transaction():
            return self._database.execute(sql, values).rowcount

    # The CRM's customers

    def put_customers(self, customers: Iterable[Mapping[str, Any]]) -> None:
        """Insert or replace customers by ``customer_id``; without ``updated_at`` (ISO 8601): ValueError."""
        customers = list(customers)
        for position, given in enumerate(customers):
            if not {"customer_id", "updated_at"} <= given.keys():
                msg = f"Customer {position} lacks customer_id or updated_at; the CRM pages by both."
                raise ValueError(msg)
        rows = [
            (given["customer_id"], epoch_microseconds(given["updated_at"]), canonical(given))
            for given in customers
        ]
        with self.transaction():
            self._database.executemany(
                "INSERT INTO customers (customer_id, updated, data) VALUES (?, ?, ?)"
                " ON CONFLICT (customer_id)"
                " DO UPDATE SET updated = excluded.updated, data = excluded.data WHERE data <> excluded.data",
                rows,
            )

    def customer_page(
        self, *, since: int | None, after: tuple[int, str] | None, limit: int
    ) -> list[tuple[int, str, dict[str, Any]]]:
        """Return up to ``limit`` customers as (updated, id, customer), ordered by the first two.

        :param since: smallest ``updated_at``, inclusive, in microseconds since 1970.
        :param after: (updated, id) of the last customer of the page before.
        """
        lower = max((since if since is not None else -(2**62), ""), after or (-(2**62), ""))
        rows = self._rows(
            "SELECT updated, customer_id, data FROM customers WHERE (updated, customer_id) > (?, ?)"
            " ORDER BY updated, customer_id LIMIT ?",
            *lower,
            limit,
        )
        return [(updated, customer_id, json.loads(data)) for updated, customer_id, data in rows]

    def update_customer(self, customer_id: str, fields: Mapping[str, Any]) -> bool:
        """Merge written fields into a customer; False if there is none with this id.

        They stand beside the source's data and leave ``updated_at`` alone: a write-back that touched it would
        be read again by the next run as news.
        """
        with self.transaction():
            rows = self._rows("SELECT fields FROM customers WHERE customer_id = ?", customer_id)
            if not rows:
                return False
            merged = {**json.loads(rows[0][0] or "{}"), **fields}
            self._write(
                "UPDATE customers SET fields = ? WHERE customer_id = ?", canonical(merged), customer_id
            )
            self._log_applied("crm", customer_id, "update", fields)
            return True

    def written_customers(self) -> dict[str, dict[str, Any]]:
        """Return the written fields of each customer that was ever written to."""
        rows = self._rows("SELECT customer_id, fields FROM customers WHERE fields IS NOT NULL ORDER BY 1")
        return {customer_id: json.loads(fields) for customer_id, fields in rows}

    # The e-mail tool's lists

    def upsert_contact(self, list_name: str, email: str, fields: Mapping[str, Any]) -> bool:
        """Merge fields into a contact; True if it is new."""
        with self.transaction():
            rows = self._rows("SELECT fields FROM contacts WHERE list = ? AND email = ?", list_name, email)
            merged = {**(json.loads(rows[0][0]) if rows else {}), **fields}
            self._write(
                "INSERT OR REPLACE INTO contacts VALUES (?, ?, ?)", list_name, email, canonical(merged)
            )
            self._log_applied(f"mail/{list_name}", email, "upsert", fields)
            return not rows

    def remove_contact(self, list_name: str, email: str) -> bool:
        """Remove a contact; False if the list does not hold it."""
        with self.transaction():
            removed = self._write("DELETE FROM contacts WHERE list = ? AND email = ?", list_name, email)
            if removed:
                self._log_applied(f"mail/{list_name}", email, "remove", {})
            return removed > 0

    def contacts(self, list_name: str) -> dict[str, dict[str, Any]]:
        """Return the fields of each contact of a list, by e-mail address."""
        rows = self._rows("SELECT email, fields FROM contacts WHERE list = ? ORDER BY email", list_name)
        return {email: json.loads(fields) for email, fields in rows}

    def lists(self) -> list[str]:
        """Return the names of the lists that hold contacts."""
        return [name for (name,) in self._rows("SELECT DISTINCT list FROM contacts ORDER BY list")]

    # What was applied

    def _log_applied(self, target: str, key: str, operation: Operation, payload: Mapping[str, Any]) -> None:
        self._write(
            "INSERT INTO applied (target, key, operation, payload) VALUES (?, ?, ?, ?)",
            target,
            key,
            operation,
            canonical(payload),
        )

    def applied(self, key: str | None = None) -> list[Applied]:
        """Return how often each write was applied to the record, or to every record; oldest first."""
        rows = self._rows(
            "SELECT target, key, operation, payload, count(*) FROM applied WHERE ?1 IS NULL OR key = ?1"
            " GROUP BY target, key, operation, payload ORDER BY min(sequence)",
            key,
        )
        return [Applied(row[0], row[1], row[2], json.loads(row[3]), row[4]) for row in rows]

    def doubled(self) -> list[Applied]:
        """Return writes that were applied to a record twice in a row, with how often in all."""
        rows = self._rows(
            "SELECT target, key, operation, payload, 1 + count(*) FROM (SELECT *, lag(operation || payload)"
            " OVER (PARTITION BY target, key ORDER BY sequence) AS before FROM applied)"
            " WHERE before = operation || payload GROUP BY target, key, operation, payload ORDER BY 1, 2"
        )
        return [Applied(row[0], row[1], row[2], json.loads(row[3]), row[4]) for row in rows]

    # Requests and idempotency keys

    def stored_answer(self, path: str, key: str) -> StoredAnswer | None:
        """Return the answer that this key got before on this path."""
        rows = self._rows("SELECT request, status, body FROM answers WHERE path = ? AND key = ?", path, key)
        return StoredAnswer(*rows[0]) if rows else None

    def store_answer(self, path: str, key: str, answer: StoredAnswer) -> None:
        """Keep the answer for the next request with this key."""
        self._write("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", path, key, *answer)

    def log_request(self, request: LoggedRequest) -> None:
        """Append to the request log."""
        self._write(
            "INSERT INTO requests (method, path, query, status, records, idempotency_key, replayed, seconds)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            request.method,
            request.path,
            request.query,
            request.status,
            request.records,
            request.idempotency_key,
            request.replayed,
            request.seconds,
        )

    def requests(self, path_prefix: str | None = None) -> list[LoggedRequest]:
        """Return the requests under a path, oldest first."""
        rows = self._rows(
            "SELECT method, path, query, status, records, idempotency_key, replayed, seconds FROM requests"
            " WHERE substr(path, 1, length(?1)) = ?1 ORDER BY sequence",
            path_prefix or "",
        )
        return [
            LoggedRequest(method, path, query, status, records, key, bool(replayed), seconds)
            for method, path, query, status, records, key, replayed, seconds in rows
        ]

    def count_requests(self, method: str, path: str) -> int:
        """Return how often a path was called."""
        rows = self._rows("SELECT count(*) FROM requests WHERE method = ? AND path = ?", method, path)
        return int(rows[0][0])
