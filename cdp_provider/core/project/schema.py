# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of ``cdp.yaml``, with which editors complete and check it while it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.model import Project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from cdp_provider.core.project.base import Options
    from cdp_provider.core.project.loader import Kinds

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{model}"

#: What the loader fills in from the keys of the file.
_FILLED = ("name", "source", "options")

#: Sections that may stand empty, besides those that are models.
_EMPTY = ("segments", "splits", "exclusive", "suppression", "destinations", "syncs")


def json_schema(kinds: Kinds) -> dict[str, Any]:
    """Schema (draft 2020-12) of a project file whose sources and destinations are of these kinds."""
    schema = Project.model_json_schema(by_alias=True, mode="validation", ref_template=_REF)
    definitions = schema["$defs"]
    definitions.pop("Options", None)
    for name in ("Source", "Stream", "Destination", "Segment", "Split", "Sync"):
        _drop(definitions[name], _FILLED)
    sections = [schema["properties"][name] for name in _EMPTY]
    for name in ("Identity", "Profiles", "Accounts", "Consent"):
        sections += [definitions[name], *definitions[name]["properties"].values()]
    for section in sections:
        if section.get("type") in ("object", "array"):
            section["type"] = [section["type"], "null"]
    _split_sources(definitions, kinds.sources)
    _split_destinations(definitions, kinds.destinations)
    return {"$schema": _DIALECT, **schema}


def _split_sources(definitions: dict[str, Any], kinds: Mapping[str, type[Options]]) -> None:
    """A stream's further keys follow from the type of its source."""
    source, stream = definitions["Source"], definitions.pop("Stream")
    source["properties"]["type"] = {"enum": sorted(kinds)}
    names = source["properties"]["streams"]
    source["properties"]["streams"] = {"type": "object", "minProperties": 1}
    cases = []
    for kind, options in sorted(kinds.items()):
        name = f"{kind.title().replace('_', '')}Stream"
        definitions[name] = _merged(stream, options, definitions)
        streams = _with_members(names, _REF.format(model=name))
        required = ["connection"] if options.needs_connection else []
        cases.append(_case(kind, {"properties": {"streams": streams}, "required": required}))
    source["allOf"] = cases


def _split_destinations(definitions: dict[str, Any], kinds: Mapping[str, type[Options]]) -> None:
    """A destination's further keys follow from its type."""
    common = definitions["Destination"]
    cases = []
    for kind, options in sorted(kinds.items()):
        name = f"{kind.title().replace('_', '')}Destination"
        definitions[name] = _merged(common, options, definitions)
        cases.append(_case(kind, {"$ref": _REF.format(model=name)}))
    definitions["Destination"] = {
        "type": "object",
        "description": common.get("description", ""),
        "properties": {"type": {"enum": sorted(kinds)}},
        "required": ["type"],
        "allOf": cases,
    }


def _case(kind: str, then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {"type": {"const": kind}}, "required": ["type"]}, "then": then}


def _merged(base: dict[str, Any], options: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """One object with the keys of both."""
    added = options.model_json_schema(by_alias=True, mode="validation", ref_template=_REF)
    for name, definition in added.pop("$defs", {}).items():
        if definitions.setdefault(name, definition) != definition:
            # Two kinds may call different things by one name.
            msg = f"two kinds define the model {name} differently; rename one of them"
            raise ValueError(msg)
    return {
        **base,
        "properties": {**base["properties"], **added.get("properties", {})},
        "required": [*base.get("required", ()), *added.get("required", ())],
    }


def _drop(definition: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        definition["properties"].pop(name, None)
    definition["required"] = [name for name in definition.get("required", ()) if name not in names]


def _with_members(mapping: dict[str, Any], ref: str) -> dict[str, Any]:
    """A mapping's schema whose members follow another definition."""
    replaced = dict(mapping)
    for key in ("additionalProperties", "patternProperties"):
        if isinstance(inner := mapping.get(key), dict):
            member = {"$ref": ref}
            replaced[key] = member if key == "additionalProperties" else dict.fromkeys(inner, member)
    return replaced
