# SPDX-License-Identifier: Apache-2.0
"""The example project against what is true about its data."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from cdp_provider.core.run import Run, Window
from cdp_provider.testing import shop
from cdp_provider.testing.vendor import VendorServer
from tests.conftest import ENGINES
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A shop after its first run."""
    folder = tmp_path_factory.mktemp("shop")
    shop.generate(folder, customers=1000, events=8000, orders=1500)
    postgres = request.param == "postgres"
    place = request.getfixturevalue("postgres_url") if postgres else str(folder / "shop.duckdb")
    with VendorServer(data=folder) as vendor:
        world = World(request.param, place, "shop_truth", vendor.url, str(folder))
        for stage, node in world.steps():
            world.step(stage, node, Run("shop", "run", Window(None, shop.ANCHOR)))
        yield world
    with world.warehouse.session() as session:
        session.execute("drop schema shop_truth cascade")


def truth_of(world: World) -> tuple[shop.Truth, Path]:
    from pathlib import Path

    return shop.Truth.read(Path(world.data)), Path(world.data)


def test_exactly_the_broken_lines_are_in_quarantine(world: World) -> None:
    truth, _ = truth_of(world)
    with world.warehouse.session() as session:
        found = session.fetch("select source, line from shop_truth.quarantine order by source, line")
    broken = [(line.file, line.line) for part in (truth.web, truth.orders) for line in part.broken]
    assert found == sorted(broken)


def test_the_views_hold_each_row_once(world: World) -> None:
    truth, _ = truth_of(world)
    with world.warehouse.session() as session:
        counts = [
            session.scalar(f"select count(*) from shop_truth.{view}")
            for view in ("crm__customers", "web__events", "till__orders")
        ]
    assert counts == [truth.crm.rows, truth.web.events, truth.orders.orders]


def test_no_profile_holds_two_persons_and_duplicates_are_left_to_the_limit(world: World) -> None:
    truth, folder = truth_of(world)
    persons = [json.loads(line) for line in (folder / "people.ndjson").read_text().splitlines()]
    owners = defaultdict(set)
    for number, person in enumerate(persons):
        for customer in person["customer_ids"]:
            owners["user_id", customer].add(number)
        for email in person["emails"]:
            owners["email", email].add(number)
        for phone in person["phones"]:
            owners["phone", phone].add(number)
        for anonymous in person["anonymous_ids"]:
            owners["anonymous_id", anonymous].add(number)
    with world.warehouse.session() as session:
        identifiers = session.fetch("select type, value, profile_id from shop_truth.identifiers")
    held = defaultdict(set)
    parts = defaultdict(set)
    for kind, value, profile in identifiers:
        for person in owners[kind, value] if len(owners[kind, value]) == 1 else ():
            held[profile].add(person)
            parts[person].add(profile)
    assert [profile for profile, people in held.items() if len(people) > 1] == []
    # user_id has limit 1, so a person whom the CRM knows twice stays two profiles; hardly anybody else does.
    twice = {n for n, person in enumerate(persons) if len(person["customer_ids"]) > 1}
    apart = {person for person, profiles in parts.items() if len(profiles) > 1}
    assert twice <= apart
    assert len(apart - twice) <= len(persons) // 100


def test_revenue_adds_up(world: World) -> None:
    truth, _ = truth_of(world)
    with world.warehouse.session() as session:
        total = session.scalar("select sum(lifetime_value) from shop_truth.profiles")
        unlinked = session.scalar(
            "select coalesce(sum(o.total), 0) from shop_truth.till__orders o left join shop_truth.row_links l"
            " on l.stream = 'till.orders' and l.load_id = o._load_id and l.position = o._position"
            " where l.node_id is null and o.status = 'paid'"
        )
    assert round((total + unlinked) * 100) == sum(truth.orders.paid_cents.values())
