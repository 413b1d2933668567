# SPDX-License-Identifier: Apache-2.0
"""Quality rules, references and service levels of an ODCS file as rules of a stream's contract."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.odcs_columns import slug

if TYPE_CHECKING:
    from open_data_contract_standard.model import (
        DataQuality,
        Relationship,
        SchemaObject,
        ServiceLevelAgreementProperty,
    )

    from cdp_provider.core.ingest.odcs_columns import Mapped
    from cdp_provider.core.project.problems import Path

_SEVERITIES = {
    **dict.fromkeys(("info", "low", "warn", "warning", "medium", "minor"), "warn"),
    **dict.fromkeys(("error", "fail", "high", "critical", "major", "blocker"), "fail"),
}
_OPERATORS = {
    "mustBe": "=",
    "mustNotBe": "<>",
    "mustBeGreaterThan": ">",
    "mustBeGreaterOrEqualTo": ">=",
    "mustBeLessThan": "<",
    "mustBeLessOrEqualTo": "<=",
    "mustBeBetween": "between",
    "mustNotBeBetween": "not between",
}
_METRICS = ("nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount")
#: What others let stand for the rows and the column in a query.
_ROWS = re.compile(r"\$\{(?:table|object|model|schema)\}|\{(?:table|object|model)\}")
_COLUMN = re.compile(r"\$\{(?:column|property|field)\}|\{(?:column|property|field)\}")
_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), "seconds"),
    **dict.fromkeys(("min", "minute", "minutes"), "minutes"),
    **dict.fromkeys(("h", "hr", "hour", "hours"), "hours"),
    **dict.fromkeys(("d", "day", "days"), "days"),
    **dict.fromkeys(("w", "wk", "week", "weeks"), "weeks"),
}
#: Promises about a service, of which no batch tells anything.
_SERVICE = frozenset(
    {
        *("availability", "generalavailability", "endofsupport", "endoflife", "throughput", "errorrate"),
        *("retention", "frequency", "timeofavailability", "timetodetect", "timetonotify", "timetorepair"),
    }
)


def read_quality(found: Mapped, rules: list[DataQuality] | None, column: str | None, at: Path) -> None:
    """Note what quality rules of a property (or, without `column`, of the whole schema) ask for."""
    for i, rule in enumerate(rules or ()):
        here = (*at, "quality", i)
        kind = rule.type or "library"
        if kind == "text":
            continue
        if kind not in ("library", "sql"):
            message = f"quality rules of type {kind!r} cannot be run"
            found.refuse((*here, "type"), message, "write it as type sql, or as text if it only describes")
            continue
        if rule.schedule or rule.scheduler:
            key = "schedule" if rule.schedule else "scheduler"
            found.refuse((*here, key), "rules are held against every batch, at no other time", "remove it")
        severity = _severity(found, rule, here)
        (_sql if kind == "sql" else _library)(found, rule, column, severity, here)


def _severity(found: Mapped, rule: DataQuality, here: Path) -> str:
    if rule.severity is None:
        return "fail"
    if (known := _SEVERITIES.get(rule.severity.lower())) is None:
        found.refuse((*here, "severity"), f"there is no severity {rule.severity!r}", "write warning or error")
    return known or "fail"


def _library(found: Mapped, rule: DataQuality, column: str | None, severity: str, here: Path) -> None:
    metric = rule.metric or rule.rule
    if metric not in _METRICS:
        message = f"there is no metric {metric!r}" if metric else "this rule has no metric"
        found.refuse((*here, "metric"), message, f"known: {', '.join(_METRICS)}")
        return
    name = slug(rule.name or rule.id) if rule.name or rule.id else slug(column or "", metric)
    if metric == "rowCount":
        _row_count(found, rule, name, severity, here)
        return
    limits = _limits(found, rule, metric, here)
    if limits is None:
        return
    named = {"name": name, "severity": severity, **limits}
    if metric == "duplicateValues":
        columns = _arguments(rule, "properties") or ([column] if column else [])
        if not columns:
            found.refuse(here, "duplicateValues names no properties", "list them in arguments.properties")
            return
        found.rule(here, **named, unique=columns)
    elif column is None:
        found.refuse((*here, "metric"), f"{metric!r} is about a property", "put it under one")
    elif metric == "nullValues":
        found.rule(here, **named, column=column, required=True)
    elif metric == "missingValues":
        _missing_values(found, rule, column, named, here)
    else:
        _invalid_values(found, rule, column, named, here)


def _missing_values(found: Mapped, rule: DataQuality, column: str, named: dict[str, Any], here: Path) -> None:
    values = _arguments(rule, "missingValues")
    if not values:
        found.refuse(here, "missingValues names no values", "list them in arguments.missingValues")
        return
    texts = [value for value in values if value is not None]
    parts = [f'"{column}" is not null'] if None in values else []
    if texts:
        listed = ", ".join("'" + str(text).replace("'", "''") + "'" for text in texts)
        parts.append(f'coalesce(cast("{column}" as varchar) not in ({listed}), true)')
    found.rule(here, **named, sql=" and ".join(parts))


def _invalid_values(found: Mapped, rule: DataQuality, column: str, named: dict[str, Any], here: Path) -> None:
    arguments = rule.arguments or {}
    conditions = {"values": arguments.get("validValues"), "pattern": arguments.get("pattern")}
    given = {key: value for key, value in conditions.items() if value is not None}
    if unknown := sorted(arguments.keys() - {"validValues", "pattern"}):
        found.refuse((*here, "arguments"), f"the argument {unknown[0]!r} cannot be checked", "remove it")
    elif len(given) != 1:
        message = "invalidValues needs one of validValues and pattern"
        found.refuse(here, message, "give it in arguments; for both, write two rules")
    else:
        found.rule(here, **named, column=column, **given)


def _arguments(rule: DataQuality, key: str) -> list[Any]:
    value = (rule.arguments or {}).get(key)
    return value if isinstance(value, list) else []


def _operator(found: Mapped, rule: DataQuality, here: Path) -> tuple[str, Any] | None:
    """The one comparison that a rule makes."""
    given = {key: getattr(rule, key) for key in _OPERATORS if getattr(rule, key) is not None}
    if len(given) != 1:
        message = f"this rule compares {len(given)} times" if given else "this rule compares with nothing"
        found.refuse(here, message, f"give exactly one of {', '.join(_OPERATORS)}")
        return None
    ((key, value),) = given.items()
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        found.refuse((*here, key), f"{value!r} is no number", "compare with a number")
        return None
    return key, value


def _limits(found: Mapped, rule: DataQuality, metric: str, here: Path) -> dict[str, Any] | None:
    """How many rows may break a rule; None, and a problem, where that is not what it says."""
    if (compared := _operator(found, rule, here)) is None:
        return None
    key, value = compared
    percent = rule.unit == "percent"
    if rule.unit not in (None, "rows", "percent"):
        found.refuse((*here, "unit"), f"there is no unit {rule.unit!r}", "write rows or percent")
        return None
    most = {
        "mustBe": value if value == 0 else None,
        "mustBeLessOrEqualTo": value,
        "mustBeLessThan": _below(value, percent=percent) if key == "mustBeLessThan" else None,
        "mustBeBetween": value[1] if key == "mustBeBetween" and value[0] == 0 else None,
    }.get(key)
    if most is None or most < 0:
        message = f"{key} {value} says no more than how many rows have to break {metric}"
        found.refuse((*here, key), message, "allow a number from 0 up: mustBe 0, mustBeLessThan, ...")
        return None
    return {"max_share": min(1.0, most / 100)} if percent else {"max_rows": math.floor(most)}


def _below(value: float, *, percent: bool) -> float:
    """The largest number that is smaller."""
    return math.nextafter(value, -math.inf) if percent else math.ceil(value) - 1


def _row_count(found: Mapped, rule: DataQuality, name: str, severity: str, here: Path) -> None:
    if (compared := _operator(found, rule, here)) is None:
        return
    key, value = compared
    if rule.unit not in (None, "rows"):
        found.refuse((*here, "unit"), f"rows are not counted in {rule.unit!r}", "write rows")
        return
    low, high = value if isinstance(value, list) else (value, value)
    span = {
        "mustBe": {"min": low, "max": high},
        "mustBeBetween": {"min": low, "max": high},
        "mustBeGreaterThan": {"min": math.floor(low) + 1},
        "mustBeGreaterOrEqualTo": {"min": math.ceil(low)},
        "mustBeLessThan": {"max": math.ceil(high) - 1},
        "mustBeLessOrEqualTo": {"max": math.floor(high)},
    }.get(key)
    if span is None:
        found.refuse((*here, key), f"{key} cannot be checked of rowCount", "bound it from below or above")
        return
    found.rule(here, name=name, rows=span, severity=severity)


def _sql(found: Mapped, rule: DataQuality, column: str | None, severity: str, here: Path) -> None:
    compared = _operator(found, rule, here)
    if not rule.query:
        found.refuse(here, "this rule has no query", "give one; it selects one number")
        return
    if compared is None:
        return
    key, value = compared
    query = _ROWS.sub("{rows}", rule.query).strip().removesuffix(";")
    if _COLUMN.search(query):
        if column is None:
            found.refuse((*here, "query"), "this query names a column, and the rule has none")
            return
        query = _COLUMN.sub(f'"{column}"', query)
    places = {"mustBe": ("min", "max"), "mustBeGreaterOrEqualTo": ("min",), "mustBeLessOrEqualTo": ("max",)}
    bounds: dict[str, Any] = dict.fromkeys(places.get(key, ()), value)
    if key == "mustBeBetween":
        bounds = {"min": value[0], "max": value[1]}
    elif not bounds:
        against = " and ".join(map(str, value)) if isinstance(value, list) else str(value)
        holds = f"value {_OPERATORS[key]} {against}"
        query = f"select count(*) from ({query}) as measured(value) where not ({holds})"
    name = slug(rule.name or rule.id) if rule.name or rule.id else slug(column or "", "query")
    found.rule(here, name=name, query=query, severity=severity, **bounds)


def read_relationships(
    found: Mapped, given: list[Relationship] | None, column: str | None, source: str, at: Path
) -> None:
    """Note what a property (or the schema, by `from`) refers to."""
    for i, link in enumerate(given or ()):
        here = (*at, "relationships", i)
        mine = column or (_last(link.from_) if isinstance(link.from_, str) else None)
        if link.type not in (None, "foreignKey"):
            found.refuse(
                (*here, "type"), f"there is no relationship of type {link.type!r}", "write foreignKey"
            )
        elif mine is None or not isinstance(link.to, str):
            found.refuse(here, "only one column can refer to one other", "remove it, or write a query rule")
        elif (target := _target(link.to, source)) is None:
            message = f"{link.to!r} does not name a stream and its column"
            found.refuse((*here, "to"), message, "write <stream>.<column> or <source>.<stream>.<column>")
        else:
            found.rule(here, name=f"{mine}.references", column=mine, references=target)


def _last(place: str) -> str:
    return re.split(r"[./]", place)[-1]


def _target(place: str, source: str) -> str | None:
    parts = place.split(".")
    if place.startswith("schema/"):
        steps = place.split("/")
        parts = [steps[1], steps[3]] if len(steps) == 4 and steps[2] == "properties" else []
    if not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", part) for part in parts):
        return None
    return ".".join([source, *parts] if len(parts) == 2 else parts) if len(parts) in (2, 3) else None


def read_service_level(
    found: Mapped, given: ServiceLevelAgreementProperty, schema: SchemaObject, at: Path
) -> tuple[str, str | None] | None:
    """A freshness as a duration, with the column that tells the time if it is named; None for all else."""
    kind = re.sub(r"[^a-z]", "", (given.property or "").lower())
    if kind in _SERVICE:
        return None
    if kind not in ("freshness", "latency", "fr", "ly"):
        hint = "freshness and latency are; other promises stand in the project file"
        found.refuse((*at, "property"), f"the service level {given.property!r} cannot be checked", hint)
        return None
    table, _, column = (given.element or "").rpartition(".")
    if table and table not in (schema.name, schema.physicalName):
        return None
    unit, value = _UNITS.get((given.unit or "").strip().lower()), given.value
    if unit is None or isinstance(value, bool) or not isinstance(value, int) or value < 1:
        message = f"{given.value!r} {given.unit!r} is no duration"
        found.refuse((*at, "value"), message, "write a whole number, and d, h, min or s as its unit")
        return None
    return f"{value} {unit}", column or None
