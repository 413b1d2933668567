# SPDX-License-Identifier: Apache-2.0
"""The house keeps its shape: imports go one way and never in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cdp_provider"

#: Along the road of the data; a room may import those before it.
ROAD = ("project", "warehouse", "ingest", "identity", "profiles", "segments", "activation")
#: Modules of `core` that belong to no room: `base` ones know no room but those named, `top` ones know all.
SHARED = {
    "exceptions": (),
    "run": (),
    "tables": ("warehouse",),
    "runs": ("warehouse",),
    "http": (),
    "auth": (),
    "oauth": (),
    "plugins": (),
    "registry": ROAD,
}
WING = ("hooks", "operators", "sensors", "triggers", "notifications", "plugins", "factory")


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def imports(path: Path) -> set[str]:
    """Names imported anywhere in the file, inside functions and TYPE_CHECKING blocks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def resolved(name: str, known: dict[str, Path]) -> str | None:
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def graph() -> dict[str, set[str]]:
    """Module -> modules it imports; ``from package import module`` imports the package as well."""
    known = modules()
    return {
        module: {
            target
            for name in imports(path)
            for target in (resolved(name, known), name.rpartition(".")[0])
            if target in known and target != module
        }
        for module, path in known.items()
    }


def test_core_never_imports_airflow_or_the_wing():
    for module, path in modules().items():
        if not module.startswith("cdp_provider.core"):
            continue
        for name in imports(path):
            assert name.split(".")[0] != "airflow", f"{module} imports {name}"
            assert not any(name.startswith(f"cdp_provider.{room}") for room in WING), (
                f"{module} imports {name}"
            )


def test_rooms_of_core_import_along_the_road_only():
    for module, targets in graph().items():
        parts = module.split(".")
        if parts[:2] != ["cdp_provider", "core"] or len(parts) < 3:
            continue
        room = parts[2]
        allowed = set(SHARED.get(room, ROAD[: ROAD.index(room)] if room in ROAD else ()))
        if room in ("project", "warehouse"):
            allowed = set()
        for target in targets:
            other = target.split(".")
            if (
                other[:2] == ["cdp_provider", "core"]
                and len(other) > 2
                and other[2] in ROAD
                and other[2] != room
            ):
                assert other[2] in allowed, f"{module} imports {target}, against the road"


def test_every_room_of_core_is_known_here():
    rooms = {path.stem if path.is_file() else path.name for path in (PACKAGE / "core").iterdir()}
    assert rooms - {"__init__", "__pycache__", "py"} == set(ROAD) | set(SHARED)


def test_no_circles():
    try:
        tuple(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_the_test_itself_sees_a_circle():
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
