# SPDX-License-Identifier: Apache-2.0
"""The distribution is one that Airflow discovers, and its pinned environment is sound."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution, entry_points, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cdp_provider
from cdp_provider.provider_info import get_provider_info

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINS = [Requirement(line) for line in LINES]


def pins(name: str) -> list[Requirement]:
    """More than one where Pythons differ."""
    return [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)]


def pinned_version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return specifier.version


def test_airflow_lists_the_provider():
    from airflow.providers_manager import ProvidersManager

    provider = ProvidersManager().providers[PROJECT["name"]]
    assert (provider.version, provider.data["package-name"]) == (PROJECT["version"], PROJECT["name"])


def test_airflow_knows_the_connection_types():
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    hooks = ProvidersManagerTaskRuntime().hooks
    for declared in get_provider_info()["connection-types"]:
        hook = hooks[declared["connection-type"]]
        assert hook.package_name == PROJECT["name"]
        assert hook.hook_class_name == declared["hook-class-name"]


def test_names_and_versions_agree():
    info = get_provider_info()
    assert info["package-name"] == PROJECT["name"] == distribution(PROJECT["name"]).metadata["Name"]
    assert PROJECT["version"] == cdp_provider.__version__ == info["versions"][0] == version(PROJECT["name"])
    (entry,) = [
        point for point in entry_points(group="apache_airflow_provider") if point.dist.name == PROJECT["name"]
    ]
    assert entry.load() is get_provider_info


def test_type_hints_are_shipped():
    assert (ROOT / "cdp_provider" / "py.typed").is_file()


def test_constraints_hold_no_address_no_path_and_no_option():
    for line in LINES:
        assert re.fullmatch(r"[\w.-]+==[\w.!+]+( ; [\w '.<>=!*]+)?", line), f"{line!r} is more than a pin"


@pytest.mark.parametrize("group", ["dependencies", *PROJECT["optional-dependencies"]])
def test_each_requirement_is_pinned_within_its_range(group):
    wanted = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"][group]
    for requirement in map(Requirement, wanted):
        found = pins(requirement.name)
        assert found, f"{requirement.name} is not pinned: run `make constraints`"
        for pin in found:
            assert requirement.specifier.contains(pinned_version(pin)), f"{pin} is outside of {requirement}"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_each_python_gets_exactly_one_version(python):
    where = {"python_version": python, "python_full_version": f"{python}.5"}
    names = [canonicalize_name(pin.name) for pin in PINS if pin.marker is None or pin.marker.evaluate(where)]
    assert len(names) == len(set(names))


def test_this_environment_is_the_pinned_one():
    others = []
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate():
            wanted = pinned_version(pin)
            installed = version(pin.name)
            others += [] if installed == wanted else [f"{pin.name} {installed} instead of {wanted}"]
    assert not others, f"{', '.join(others)}: run `make setup`"
