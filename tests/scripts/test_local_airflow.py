# SPDX-License-Identifier: Apache-2.0
"""The settings of the local Airflow; that it runs is shown by `make demo` in `.ci/run`."""

from __future__ import annotations

import json
import socket
from importlib.metadata import version
from pathlib import Path

import pytest

from scripts.local_airflow import HOST, LocalAirflow, free_port
from scripts.services import Services
from scripts.shop import Shop
from scripts.stage import services_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shop(tmp_path) -> Shop:
    return Shop(Services(tmp_path / "running.json", tmp_path / "logs", "demo"), tmp_path, ROOT)


@pytest.fixture
def airflow(tmp_path, shop) -> LocalAirflow:
    return LocalAirflow(shop.services, tmp_path, ROOT / "dags", ROOT, 12345, shop.connections())


def test_every_setting_is_one_that_airflow_knows(airflow):
    from airflow.configuration import conf

    known = {
        (section, option)
        for section, content in conf.configuration_description.items()
        for option in content["options"]
    }
    settings = [name for name in airflow.environment() if name.startswith("AIRFLOW__")]
    assert len(settings) > 15
    for name in settings:
        section, option = name.removeprefix("AIRFLOW__").lower().split("__")
        assert (section, option) in known, (
            f"Airflow {version('apache-airflow-core')} has no [{section}] {option}"
        )


def test_everything_listens_and_stays_inside(airflow, tmp_path):
    env = airflow.environment()
    assert env["AIRFLOW__API__HOST"] == HOST
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:12345/execution/"
    for name in ("AIRFLOW_HOME", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__LOGGING__BASE_LOG_FOLDER"):
        assert str(tmp_path) in env[name]


def test_the_example_finds_each_connection_that_it_names(airflow):
    from cdp_provider.core.registry import load_project

    project = load_project(ROOT / "dags" / "shop" / "cdp.yaml")
    named = {project.warehouse.connection}
    named |= {source.connection for source in project.sources.values() if source.connection}
    named |= {destination.connection for destination in project.destinations.values()}
    assert named <= set(airflow.connections)
    env = airflow.environment()
    assert all(json.loads(env[f"AIRFLOW_CONN_{name.upper()}"])["conn_type"] for name in named)


def test_a_database_of_this_airflow_is_not_migrated_again(airflow, tmp_path):
    (tmp_path / "migrated").write_text(version("apache-airflow-core"))
    assert airflow.migrate() is None
    assert airflow.services.started == []


def test_a_taken_port_gives_way_to_the_next_free_one():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port(port) < port + 50
    assert free_port() > 0


def test_the_vendors_start_with_the_data_and_answer(shop):
    from cdp_provider.testing.shop import generate

    generate(shop.data, customers=100, events=1000, orders=100)
    (shop.home / "data-written").touch()
    with shop.services:
        assert shop.generate() is None
        shop.start(None)
        assert shop.doubled() == 0
        assert shop.connections()["shop_crm"]["host"] == shop.vendor


def test_a_second_command_of_the_same_checkout_is_refused(shop, tmp_path):
    with shop.services as services:
        services.address = "http://127.0.0.1:1"
        services.note()
        with pytest.raises(SystemExit, match=r"already running at http://127.0.0.1:1 \(make demo\)"):
            services_for("ui", record=tmp_path / "running.json")
    assert services_for("ui", record=tmp_path / "running.json").purpose == "ui"
