# SPDX-License-Identifier: Apache-2.0
"""One run of a pipeline as a page of plain text, from the run ledger alone."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    #: A row of ``cdp.runs``: column name -> value; `detail` is JSON text.
    Row = Mapping[str, Any]

WIDTH = 100
STAGES = ("land", "check", "gate", "resolve", "profiles", "segments", "sync")
_NODE_WIDTH = 36
_IDENTITY = ("identifiers", "profiles", "new_profiles", "joins", "merges", "refused_links")
_DELIVERY = ("accepted", "rejected", "invalid", "removed", "unchanged", "requests")


def read_runs(warehouse: Path, pipeline: str, run_id: str) -> list[dict[str, Any]]:
    """The run ledger's rows of one run. The DuckDB file must be free: no task may hold it."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found = connection.execute(
            "select * from cdp.runs where pipeline = ? and run_id = ?", [pipeline, run_id]
        )
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def newest_window(warehouse: Path, pipeline: str) -> datetime | None:
    """The latest end of a window that any run of the pipeline has worked on; None before the first."""
    if not warehouse.is_file():
        return None
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        tables = "select 1 from information_schema.tables where table_schema = 'cdp' and table_name = 'runs'"
        if connection.execute(tables).fetchone() is None:
            return None
        row = connection.execute(
            "select max(window_end) from cdp.runs where pipeline = ?", [pipeline]
        ).fetchone()
        newest: datetime | None = row[0] if row else None
        return newest


def summary(rows: Sequence[Row]) -> str:
    """What a run did: a line per stage and node, then who, which segments and what was delivered.

    :param rows: the run's rows of the ledger, in any order.
    """
    if not rows:
        return "The run ledger holds nothing of this run."
    ordered = sorted(rows, key=lambda row: (_rank(row["stage"]), row["node"]))
    parts = [_heading(ordered), _stages(ordered), _people(ordered), _deliveries(ordered), verdict(ordered)]
    return "\n\n".join(part for part in parts if part)


def verdict(rows: Sequence[Row]) -> str:
    """What the ledger proves about the run, in a sentence or two."""
    failed = [row for row in rows if row["state"] == "failed"]
    if failed:
        causes = [f"{row['stage']} {row['node']}: {row['error'] or 'see its log'}" for row in failed]
        return "\n".join(_wrapped("Failed: ", cause) for cause in causes)
    older = [row for row in rows if row["state"] == "superseded"]
    if older:
        return "A newer window's result stands already; this run left it as it is."
    if nothing_new(rows):
        again = _total(rows, "sync", "rejected")
        said = "Incremental: nothing new, nothing delivered twice."
        offered = f" {_counted(again, 'delivery', 'deliveries')} refused earlier tried again, refused again."
        return said + offered if again else said
    delivered = _total(rows, "sync", "accepted") + _total(rows, "sync", "removed")
    landed = sum(row["rows_in"] for row in rows if row["stage"] == "land")
    return f"{_counted(landed, 'new row')} taken in, {_counted(delivered, 'change')} delivered."


def nothing_new(rows: Sequence[Row]) -> bool:
    """Whether the ledger proves that the run landed no row and that no vendor accepted anything."""
    landed = [row for row in rows if row["stage"] == "land"]
    synced = [row for row in rows if row["stage"] == "sync"]
    finished = bool(landed and synced) and all(row["state"] == "ok" for row in rows)
    accepted = _total(rows, "sync", "accepted") + _total(rows, "sync", "removed")
    return finished and accepted == 0 and all(row["rows_in"] == 0 for row in landed)


def _heading(rows: Sequence[Row]) -> str:
    start, end = rows[0]["window_start"], rows[0]["window_end"]
    window = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" if start else f"all up to {end:%Y-%m-%d %H:%M}"
    return f"{rows[0]['pipeline']}: {window} {end:%Z}".rstrip()


def _stages(rows: Sequence[Row]) -> str:
    lines = [["stage", "node", "rows in", "rows out", "refused", "seconds", ""]]
    for row in rows:
        counts = [f"{row[name]:,}" for name in ("rows_in", "rows_out", "rows_refused")]
        state = "" if row["state"] == "ok" else row["state"]
        lines.append([row["stage"], _short(row["node"]), *counts, f"{row['seconds']:.1f}", state])
    return _aligned(lines, texts=(0, 1, 6))


def _people(rows: Sequence[Row]) -> str:
    said = []
    for row in rows:
        detail = _detail(row)
        if row["stage"] == "resolve" and detail:
            count = {name: f"{detail.get(name, 0):,}" for name in _IDENTITY}
            said.append(
                _wrapped(
                    "identity  ",
                    f"{count['identifiers']} identifiers make {count['profiles']} profiles, of which"
                    f" {count['new_profiles']} are new; {count['joins']} joins, {count['merges']} of them"
                    f" merged known profiles; {count['refused_links']} links refused",
                )
            )
        elif row["stage"] == "segments" and detail:
            sizes = [f"{name} {size:,}" for name, size in sorted(detail.get("sizes", {}).items())]
            said.append(_wrapped("segments  ", ", ".join(sizes)))
    return "\n".join(said)


def _deliveries(rows: Sequence[Row]) -> str:
    lines = [["deliveries", *_DELIVERY]]
    for row in rows:
        if row["stage"] == "sync":
            detail = _detail(row)
            lines.append([_short(row["node"]), *(f"{detail.get(name, 0):,}" for name in _DELIVERY)])
    return _aligned(lines, texts=(0,)) if len(lines) > 1 else ""


def _aligned(lines: Sequence[Sequence[str]], *, texts: Sequence[int]) -> str:
    """The cells in columns; those named by `texts` to the left, the others, numbers, to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _short(node: str) -> str:
    return node if len(node) <= _NODE_WIDTH else f"{node[: _NODE_WIDTH - 3]}..."


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=label, subsequent_indent=" " * len(label), break_on_hyphens=False
    )


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _total(rows: Sequence[Row], stage: str, count: str) -> int:
    return sum(_detail(row).get(count, 0) for row in rows if row["stage"] == stage)


def _detail(row: Row) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(row["detail"] or "{}")
    return detail


def _rank(stage: str) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)
