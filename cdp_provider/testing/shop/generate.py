# SPDX-License-Identifier: Apache-2.0
"""Writing of the invented shop's data."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any

from cdp_provider.testing.shop.orders import make_catalogue, make_orders, write_orders
from cdp_provider.testing.shop.people import People, Person, make_customers
from cdp_provider.testing.shop.truth import Truth
from cdp_provider.testing.shop.web import make_web

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SEED = 20260701
ANCHOR = datetime(2026, 7, 1, tzinfo=UTC)

_LEAST = {"customers": 100, "events": 1000, "orders": 100}


def generate(
    folder: Path,
    *,
    customers: int = 10_000,
    events: int = 100_000,
    orders: int = 15_000,
    seed: int = SEED,
    anchor: datetime = ANCHOR,
) -> Truth:
    """Write the shop's data into ``folder`` and return the truth about it.

    The same arguments give the same bytes. A file that already holds them is not touched, and files of an
    earlier call with other arguments are removed. Nothing happens from 00:00 to 05:00 UTC of any day, so runs
    a little after the anchor see every event on the same side of each day's boundary.

    :param folder: made if absent.
    :param customers: rows of the CRM, at least 100.
    :param events: sound web events, at least 1000; doubled and broken ones come on top.
    :param orders: sound orders, at least 100; broken ones come on top.
    :param seed: another seed, another shop.
    :param anchor: the UTC midnight at which the data ends.
    :raises ValueError: an amount is too small, or the anchor is no UTC midnight.
    """
    for name, given in (("customers", customers), ("events", events), ("orders", orders)):
        if given < _LEAST[name]:
            msg = f"{given} {name} are too few for a shop with all its troubles: at least {_LEAST[name]}."
            raise ValueError(msg)
    if anchor.utcoffset() is None or anchor.astimezone(UTC).time() != datetime.min.time():
        msg = f"The anchor {anchor.isoformat()} is no midnight in UTC; give one like {ANCHOR.isoformat()}."
        raise ValueError(msg)
    anchor = anchor.astimezone(UTC)

    makes = People(_random(seed, "people"), anchor)
    people, rows, crm = make_customers(_random(seed, "crm"), anchor, customers, makes)
    catalogue = make_catalogue(_random(seed, "catalogue"))
    rng = _random(seed, "orders")
    bought, guests = make_orders(rng, anchor, orders, people, makes, catalogue)
    order_files, orders_truth = write_orders(rng, anchor, bought)
    web_files, web_truth = make_web(_random(seed, "web"), anchor, events, people, bought, catalogue)
    truth = Truth(
        seed=seed,
        anchor=anchor.isoformat(),
        persons=len(people),
        guests=len(guests),
        crm=crm,
        web=web_truth,
        orders=orders_truth,
    )
    _write(
        folder,
        {
            "crm/customers.ndjson": _ndjson(rows),
            **order_files,
            **web_files,
            "people.ndjson": _ndjson(_described(people, guests)),
            "truth.json": truth.to_json(),
        },
    )
    return truth


def _random(seed: int, part: str) -> Random:
    """Return the numbers of one part of the shop: a change to one part leaves the others as they are."""
    return Random(f"{seed}:{part}")  # noqa: S311 - repeatable on purpose, nothing is kept secret with it


def _described(people: list[Person], guests: list[Person]) -> Iterable[dict[str, Any]]:
    return (person.to_json(f"P{number:06}") for number, person in enumerate([*people, *guests], 1))


def _ndjson(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def _write(folder: Path, files: dict[str, str]) -> None:
    """Make the folder hold exactly these of the generator's files, touching only what differs."""
    for pattern in ("web/????-??-??.ndjson", "orders/orders-????-??.csv"):
        for path in folder.glob(pattern):
            if path.relative_to(folder).as_posix() not in files:
                path.unlink()
    for name, text in files.items():
        path = folder / name
        content = text.encode()
        if path.is_file() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.draft")
        draft.write_bytes(content)
        draft.replace(path)
