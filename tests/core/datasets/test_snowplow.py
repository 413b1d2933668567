# SPDX-License-Identifier: Apache-2.0
"""Users, sessions and stitching of Snowplow's own test data come out of two project files.

The data set has what dbt-snowplow-web makes of its events. All of its rows are compared with ours, and all of
their columns but these:

- what stands in the enrichments (``category`` to ``spider_or_robot``, ``useragent_family`` to
  ``operating_system_version``, ``device_category``): these are JSON texts within cells of a CSV file, which
  landing does not unpack;
- ``default_channel_group``: asks a table of known sources of traffic that is not in the data set;
- ``original_*``: columns of the package's tests, which repeat their namesakes.
"""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import ENGINES
from tests.core.datasets.road import dataset, travel
from tests.core.datasets.snowplow_sessions import EVENTS, sessions_project
from tests.core.datasets.snowplow_users import SESSION_COLUMNS, users_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

#: Of the sessions; of them only one value occurs, and in JSON.
_ENRICHED = (
    *("category", "primary_impact", "reason", "spider_or_robot", "device_category"),
    *(f"useragent_{name}" for name in ("family", "major", "minor", "patch", "version")),
    *(f"os_{name}" for name in ("family", "major", "minor", "patch", "patch_minor", "version")),
    *(f"device_{name}" for name in ("family", "class", "brand", "name", "version")),
    *(
        f"agent_{name}"
        for name in ("class", "name", "name_version", "name_version_major", "version", "version_major")
    ),
    *(
        f"layout_engine_{name}"
        for name in ("class", "name", "name_version", "name_version_major", "version", "version_major")
    ),
    *(f"operating_system_{name}" for name in ("class", "name", "name_version", "version")),
)
_NOT_OURS = {*_ENRICHED, "default_channel_group", "original_domain_sessionid", "original_domain_userid"}
#: Ours -> theirs, where they have a name that is too long, or one value twice.
_ALIASES = {
    "cv_view_page_first_conversion": "cv_view_page_first",
    "cv_view_page_volume": "n_page_view",
    "cv__all_volume": "n_page_view",
    "cv__all_total": "cv_view_page_total",
    "event_id2": "event_id",
}


@dataclass(frozen=True)
class Outcome:
    """What both projects made: sessions and users by their ids, and the newest user id of each device."""

    sessions: dict[str, dict[str, Any]]
    users: dict[str, dict[str, Any]]
    stitched: dict[str | None, str]


@pytest.fixture
def outcome(make_warehouse: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Outcome:
    root = dataset("events/snowplow_web")
    engine = request.param
    road = travel(make_warehouse(engine), sessions_project(), tmp_path, root)
    members = road.members("sessions")
    sessions = {row["domain_sessionid"]: row for row in road.profiles() if row["profile_id"] in members}
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(root / "snowplow_web_events.csv", files)
    # Of sessions that begin or end at one moment, Snowplow takes the one with the largest id.
    _write(files / "opened.ndjson", (sessions[name] for name in sorted(sessions, reverse=True)))
    _write(files / "closed.ndjson", (sessions[name] for name in sorted(sessions)))
    road = travel(make_warehouse(engine), users_project(), tmp_path, files)
    devices, members = road.profiles(), road.members("users")
    return Outcome(
        sessions,
        {row["domain_userid"]: row for row in devices if row["profile_id"] in members},
        {row["domain_userid"]: row["stitched_user_id"] for row in devices},
    )


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = ({name: row[name] for name in SESSION_COLUMNS} for row in rows)
    file.write_text("".join(f"{json.dumps(line, default=str)}\n" for line in lines))


def expected(name: str, key: str) -> dict[str, dict[str, str]]:
    """Rows of a file by a column; no value is an empty text."""
    file = dataset("events/snowplow_web") / f"snowplow_web_{name}_expected.csv"
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = {row[key]: row for row in rows}
    assert len(found) == len(rows)
    return found


def as_text(value: Any) -> str:
    """A value as their files write it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S.%f}"[:-3]
        case Decimal():
            return f"{value.normalize():f}"
    return str(value)


def session_as_text(ours: Mapping[str, Any], column: str, stitched: Mapping[str | None, str]) -> str:
    """A value of a session as their file writes it."""
    match column:
        case "stitched_user_id":
            return stitched.get(ours["domain_userid"], "")
        case "event_counts":
            counts = [f'"{name}" :{ours[f"n_{name}"]}' for name in sorted(EVENTS) if ours[f"n_{name}"]]
            return f"{{{', '.join(counts)}}}"
        case "cv_view_page_events":
            return json.dumps((ours[column] or "").split(",") if ours[column] else [], separators=(",", ":"))
        case "cv_view_page_values":
            values = (ours[column] or "").split(",") if ours[column] else []
            return f"[{','.join(as_text(Decimal(value)) for value in values)}]"
    return as_text(ours[_ALIASES.get(column, column)])


def differing(
    theirs: Mapping[str, Mapping[str, str]], ours: Mapping[str, Any], text: Callable[[Any, str], str]
) -> list[tuple[str, str, str, str]]:
    """Row, column, their value, our value; of all columns that are compared."""
    return [
        (key, column, value, given)
        for key, row in theirs.items()
        for column, value in row.items()
        if column not in _NOT_OURS and (given := text(ours[key], column)) != value
    ]


@pytest.mark.parametrize("outcome", ENGINES, indirect=True)
def test_users_sessions_and_stitching_are_those_of_snowplow(outcome):
    sessions, users = expected("sessions", "domain_sessionid"), expected("users", "domain_userid")
    assert outcome.sessions.keys() == sessions.keys()
    assert len(sessions) == 18
    assert len({*next(iter(sessions.values()))} - _NOT_OURS) == 81
    told = partial(session_as_text, stitched=outcome.stitched)
    assert differing(sessions, outcome.sessions, told) == []
    assert outcome.users.keys() == users.keys()
    assert len(users) == 11
    assert len({*next(iter(users.values()))} - _NOT_OURS) == 57
    assert differing(users, outcome.users, lambda row, column: as_text(row[column])) == []
