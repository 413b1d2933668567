# SPDX-License-Identifier: Apache-2.0
"""What is true about the generated shop, for those who check what a pipeline made of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that breaks its contract.

    :param file: path below the data folder.
    :param line: number of the line, from 1; a CSV file's header is line 1.
    :param kind: what is wrong with it.
    """

    file: str
    line: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CrmTruth:
    """The CRM's customers.

    :param rows: customers in the file.
    :param same_person: pairs of customer ids that are one person.
    :param test_address: rows with ``test@example.com``.
    :param without_email: rows with no e-mail address at all.
    :param broken_email: rows whose e-mail address is none.
    :param bouncing_email: rows in the domain ``bounce.invalid``, which the e-mail tool rejects.
    :param without_phone: rows with no phone.
    :param nonsense_phone: rows whose phone is no number that exists.
    :param changed_email: customer id to the address used before; orders and events of that time hold it.
    """

    rows: int
    same_person: list[list[str]]
    test_address: int
    without_email: int
    broken_email: int
    bouncing_email: int
    without_phone: int
    nonsense_phone: int
    changed_email: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebTruth:
    """The web events.

    :param lines: all lines of all files; ``events + duplicates + len(broken)``.
    :param events: sound events, each counted once.
    :param duplicates: further lines with the messageId of a sound event.
    :param duplicates_in_same_file: how many of them stand in the file of the first one.
    :param late: events whose timestamp lies on a day before their file's.
    :param anonymous_ids: distinct anonymousId values of sound events.
    :param shared_laptops: anonymousId to the customer ids (one for each person) that logged in there.
    :param by_name: sound events by ``event`` of a track call, or by type.
    """

    lines: int
    events: int
    duplicates: int
    duplicates_in_same_file: int
    late: int
    anonymous_ids: int
    shared_laptops: dict[str, list[str]]
    by_name: dict[str, int]
    broken: list[BrokenLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersTruth:
    """The orders.

    :param rows: all rows of all files without the headers; ``orders + len(broken)``.
    :param orders: sound orders.
    :param guest_orders: orders without a customer id.
    :param test_address: orders with ``test@example.com``.
    :param old_email: orders with an e-mail address that its owner has changed since.
    :param by_status: sound orders by status.
    :param paid_cents: sum of the paid orders' totals, in hundredths, by currency.
    """

    rows: int
    orders: int
    guest_orders: int
    test_address: int
    old_email: int
    by_status: dict[str, int]
    paid_cents: dict[str, int]
    broken: list[BrokenLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The truth about one generated shop.

    ``people.ndjson`` beside it names every person (customers first, then guests) with ``person``,
    ``customer_ids``, ``emails`` (lower case), ``phones`` (E.164) and ``anonymous_ids`` (browsers where nobody
    else logged in). Two people never share one of these.

    :param persons: people behind the CRM's customers.
    :param guests: people who only ever bought without an account.
    """

    seed: int
    anchor: str
    persons: int
    guests: int
    crm: CrmTruth
    web: WebTruth
    orders: OrdersTruth

    def to_json(self) -> str:
        """Return the truth as indented JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read ``truth.json`` of a data folder."""
        given: dict[str, Any] = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        for part in ("web", "orders"):
            given[part]["broken"] = [BrokenLine(**line) for line in given[part]["broken"]]
        given["crm"] = CrmTruth(**given["crm"])
        given["web"] = WebTruth(**given["web"])
        given["orders"] = OrdersTruth(**given["orders"])
        return cls(**given)
