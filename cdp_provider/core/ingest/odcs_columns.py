# SPDX-License-Identifier: Apache-2.0
"""Properties of an ODCS schema as columns of a stream."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.problems import Path, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from open_data_contract_standard.model import SchemaProperty

#: logicalType -> column type; a number's follows from what holds it, too.
_LOGICAL = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    **dict.fromkeys(("object", "array", "map", "vector"), "json"),
}
_PHYSICAL = (
    ("integer", r"(big|small|tiny|medium)?int(eger)?\d*|long|short|u?int\d+|(big|small)?serial"),
    ("decimal", r"decimal|numeric|number|money"),
    ("number", r"double( precision)?|float\d*|real"),
    ("boolean", r"bool(ean)?"),
    ("date", r"date"),
    ("timestamp", r"timestamp.*|datetime\d*"),
    ("json", r"jsonb?|struct|record|array|map|object|variant|super"),
    ("string", r"n?char|n?varchar2?|character( varying)?|(tiny|medium|long)?text|string|uuid|clob|enum"),
)  # fmt: skip

#: Formats of text that can be told by a pattern, and those that say nothing of the text.
_FORMATS = {
    "email": r"[^@\s]+@[^@\s]+",
    "uuid": r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "uri": r"[A-Za-z][A-Za-z0-9+.\-]*:.+",
    "hostname": r"[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?)*",
    "ipv4": r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)",
    "ipv6": r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*",
}
_FREE_FORMATS = ("password", "byte", "binary")
#: What the parser reads anyway, as Java writes it.
_ISO = re.compile(r"yyyy-MM-dd(('T'|T| )HH:mm(:ss([.,]S+)?)?(X+|Z+|'Z'|XXX|z)?)?")
_INTEGERS = {
    f"{sign}{bits}": (0 if sign == "u" else -(2 ** (bits - 1)), 2 ** (bits - (sign == "i")) - 1)
    for sign in "iu"
    for bits in (8, 16, 32, 64, 128)
}
_CONDITIONS = {"pattern": "pattern", "minLength": "min_length", "maxLength": "max_length"}
_BOUNDS = {"minimum": "min", "maximum": "max"}
_EXCLUSIVE = {"exclusiveMinimum": ("min", ">", 1), "exclusiveMaximum": ("max", "<", -1)}


@dataclass
class Mapped:
    """What has been read so far.

    :param typed: columns whose type the project itself gives.
    :param origins: place in the stream -> place in the file.
    :param problems: paths are places in the file.
    """

    typed: Collection[str] = ()
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: list[tuple[int, str]] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    origins: dict[Path, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: Path, message: str, hint: str = "") -> None:
        """Note what has no counterpart here."""
        self.problems.append(Problem(path, message, hint))

    def rule(self, path: Path, **keys: Any) -> None:
        """Add a rule that stands in that place of the file; a name that is taken gets a number."""
        if name := keys.get("name"):
            taken = {rule.get("name") for rule in self.rules}
            number = next(n for n in range(1, len(taken) + 2) if _numbered(name, n) not in taken)
            keys["name"] = _numbered(name, number)
        self.origins["contract", "rules", len(self.rules)] = path
        self.rules.append(keys)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


def read_property(
    found: Mapped, given: SchemaProperty, at: Path, prefix: str = "", parent: str = ""
) -> str | None:
    """Note a property as a column, or its own properties as columns of ``<name>_<name>``.

    :returns: the column's name; None where there is none.
    """
    if not given.name:
        found.refuse(at, "this property has no name")
        return None
    name, path = f"{prefix}{given.name}", f"{parent}{given.physicalName or given.name}"
    if given.properties and name not in found.typed:
        for i, inner in enumerate(given.properties):
            read_property(found, inner, (*at, "properties", i), f"{name}_", f"{path}.")
        _refuse_of_objects(found, given, at)
        return None
    kind = None if name in found.typed else _type(found, given, at)
    column: dict[str, Any] = {} if kind is None else {"type": kind}
    if path != name:
        column["path"] = path
    for flag in ("required", "unique"):
        if getattr(given, flag):
            column[flag] = True
    if given.primaryKey:
        position = given.primaryKeyPosition
        found.keys.append((position if position and position > 0 else 10**6 + len(found.keys), name))
    if given.enum:
        column["values"] = [item.value for item in given.enum]
    found.columns[name] = column
    for key in ("", *column):
        places = {"type": "logicalType", "values": "enum", "path": "physicalName"}
        found.origins["columns", name, *([key] if key else [])] = (
            *at,
            *([places.get(key, key)] if key else []),
        )
    _options(found, given, name, kind, at)
    _inner(found, given, at)
    return name


def _refuse_of_objects(found: Mapped, given: SchemaProperty, at: Path) -> None:
    """An object is taken apart into its properties, and nothing is left that could be required."""
    for key in ("required", "unique", "primaryKey", "enum", "quality", "relationships", "logicalTypeOptions"):
        if getattr(given, key):
            found.refuse(
                (*at, key), f"{key!r} of an object with properties cannot be checked", "say it of them"
            )


def _inner(found: Mapped, given: SchemaProperty, at: Path) -> None:
    """What is said of the members of a list or a map, which are not looked into."""
    members = {"items": given.items, "map": given.map}
    for key, member in members.items():
        if member is not None and (said := _conditions(member.model_dump(exclude_none=True))):
            message = f"{said[0]!r} of the members of a list or a map cannot be checked"
            found.refuse((*at, key), message, "remove it, or write a rule in cdp.yaml")


def _conditions(value: Any) -> list[str]:
    """Names of conditions anywhere in a value."""
    named = ("required", "unique", "enum", "quality", "logicalTypeOptions", "relationships")
    if isinstance(value, dict):
        own = [key for key in value if key in named and value[key]]
        return own + [name for inner in value.values() for name in _conditions(inner)]
    return [name for inner in value for name in _conditions(inner)] if isinstance(value, list) else []


def _type(found: Mapped, given: SchemaProperty, at: Path) -> str | None:
    physical = re.sub(r"\(.*\)|<.*>|\[\]", "", given.physicalType or "").strip().lower()
    held = next((kind for kind, names in _PHYSICAL if re.fullmatch(names, physical)), None)
    if given.logicalType == "number":
        return held if held in ("decimal", "integer") else "number"
    if given.logicalType in _LOGICAL:
        return _LOGICAL[given.logicalType]
    if given.logicalType is None and held is not None:
        return held
    key = "logicalType" if given.logicalType is not None else "physicalType" if physical else "name"
    said = given.logicalType or given.physicalType
    message = f"there is no column of the type {said!r}" if said else f"{given.name!r} has no logicalType"
    hint = f"name one of {', '.join(_LOGICAL)}, or give the column a type in cdp.yaml"
    found.refuse((*at, key), message, hint)
    return None


def _options(found: Mapped, given: SchemaProperty, name: str, kind: str | None, at: Path) -> None:
    for key, value in (given.logicalTypeOptions or {}).items():
        here = (*at, "logicalTypeOptions", key)
        if key == "format":
            known = _format(found, name, kind, value, here)
        elif key in _CONDITIONS or key in _BOUNDS:
            condition = _CONDITIONS.get(key) or _BOUNDS[key]
            found.columns[name][condition] = value
            found.origins["columns", name, condition] = here
            known = True
        elif key in _EXCLUSIVE:
            known = _exclusive(found, name, kind, key, value, here)
        elif key == "multipleOf" and isinstance(value, int | float) and value:
            found.rule(here, name=f"{name}.multiple_of", sql=f'"{name}" % {value} = 0')
            known = True
        else:
            # Without a zone a moment is one in UTC.
            known = key == "timezone" or (key == "defaultTimezone" and value in ("UTC", "Etc/UTC", "Z"))
        if not known:
            found.refuse(
                here, f"{key!r} with {value!r} cannot be checked", "remove it, or write a rule in cdp.yaml"
            )


def _format(found: Mapped, name: str, kind: str | None, value: Any, here: Path) -> bool:
    if kind in ("date", "timestamp"):
        return isinstance(value, str) and _ISO.fullmatch(value) is not None
    if kind == "integer" and value in _INTEGERS:
        low, high = _INTEGERS[value]
        for condition, bound in (("min", low), ("max", high)):
            if -(2**63) <= bound < 2**63 and (bound or condition == "min"):
                found.columns[name].setdefault(condition, bound)
                found.origins.setdefault(("columns", name, condition), here)
        return True
    if kind in ("number", "decimal"):
        return value in ("f32", "f64")
    if kind == "string" and value in _FORMATS:
        found.rule(here, name=f"{name}.format", column=name, pattern=_FORMATS[value])
        return True
    return kind == "string" and value in _FREE_FORMATS


def _exclusive(found: Mapped, name: str, kind: str | None, key: str, value: Any, here: Path) -> bool:
    """A bound that is itself outside."""
    condition, sign, step = _EXCLUSIVE[key]
    if kind == "integer" and isinstance(value, int):
        found.columns[name][condition] = value + step
    elif kind == "date" and isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        found.columns[name][condition] = (date.fromisoformat(value) + timedelta(days=step)).isoformat()
    elif kind in ("number", "decimal") and isinstance(value, int | float):
        found.rule(here, name=f"{name}.{condition}_exclusive", sql=f'"{name}" {sign} {value}')
        return True
    elif kind == "timestamp" and isinstance(value, str) and re.fullmatch(r"[0-9T:.Z+\- ]+", value):
        sql = f"\"{name}\" {sign} cast('{value}' as timestamp with time zone)"
        found.rule(here, name=f"{name}.{condition}_exclusive", sql=sql)
        return True
    else:
        return False
    found.origins["columns", name, condition] = here
    return True


def keys_of(found: Mapped) -> list[str]:
    """The primary key, in its order."""
    return [name for _, name in sorted(found.keys, key=lambda key: key[0])]


def slug(*parts: Any) -> str:
    """A name for a rule out of whatever the file calls it."""
    words: Mapping[int, str] = {
        i: re.sub(r"[^A-Za-z0-9]+", "_", str(part)).strip("_") for i, part in enumerate(parts)
    }
    text = ".".join(word for word in words.values() if word)
    return text[:110] if text[:1].isalpha() else f"rule_{text}"[:110]
