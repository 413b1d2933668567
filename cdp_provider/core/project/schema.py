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
    _leave_to_a_file(definitions["Stream"])
    for name in ("Source", "Stream", "Destination", "Segment", "Split", "Sync"):
        _drop(definitions[name], _FILLED)
    sections = [schema["properties"][name] for name in _EMPTY]
    for name in ("Identity", "Profiles", "Accounts", "Consent"):
        sections += [definitions[name], *definitions[name]["properties"].values()]
    for section in sections:
        if section.get("type") in ("object", "array"):
            section["type"] = [section["type"], "null"]
    _split_sources(definitions, kinds)
    _split_destinations(definitions, kinds.destinations)
    return {"$schema": _DIALECT, **schema}


def _leave_to_a_file(stream: dict[str, Any]) -> None:
    """Columns and primary key may stand in the file of the contract instead."""
    needed = [name for name in ("columns", "primary_key") if name in stream["required"]]
    stream["required"] = [name for name in stream["required"] if name not in needed]
    by_file = {"properties": {"contract": {"required": ["file"]}}, "required": ["contract"]}
    stream["anyOf"] = [{"required": needed}, by_file]


def _split_sources(definitions: dict[str, Any], kinds: Kinds) -> None:
    """A stream's further keys follow from the type of its source, and those it needs from the preset."""
    source, stream = definitions["Source"], definitions.pop("Stream")
    source["properties"]["type"] = {"enum": sorted(kinds.sources)}
    names = source["properties"]["streams"]
    source["properties"]["streams"] = {"type": "object", "minProperties": 1}
    cases = []
    for kind, options in sorted(kinds.sources.items()):
        name = f"{kind.title().replace('_', '')}Stream"
        definitions[name] = _merged(stream, options, definitions)
        streams: dict[str, Any] = {"properties": {"streams": _with_members(names, _REF.format(model=name))}}
        if presets := sorted(key for key, preset in kinds.presets.items() if kind in preset.types):
            definitions[f"Preset{name}"] = _partial(definitions[name], definitions)
            laid_over = _with_members(names, _REF.format(model=f"Preset{name}"))
            streams = {
                "if": {"required": ["preset"]},
                "then": {"properties": {"preset": {"enum": presets}, "streams": laid_over}},
                "else": streams,
            }
        required = ["connection"] if options.needs_connection else []
        cases.append(_case(kind, {**streams, "required": required}))
    source["allOf"] = cases


def _partial(stream: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A stream laid over one of a preset: no key is needed, and null takes one away."""
    properties = {key: _laid_over(value, definitions) for key, value in stream["properties"].items()}
    kept = {key: value for key, value in stream.items() if key not in ("required", "properties", "anyOf")}
    return {**kept, "type": ["object", "null"], "properties": properties}


def _laid_over(value: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """What a key may hold that is merged, one level deep."""
    if "discriminator" in value:
        return {"anyOf": [value, {"type": "null"}]}
    members = [_merged_with_nulls(member, definitions) for member in value.get("anyOf", [value])]
    return {"anyOf": [*members, {"type": "null"}]}


def _merged_with_nulls(value: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    known = definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
    if known.get("type") != "object":
        return value
    loose = {key: inner for key, inner in known.items() if key not in ("required", "minProperties")}
    for key in ("properties", "patternProperties"):
        if key in known:
            loose[key] = {name: {"anyOf": [inner, {"type": "null"}]} for name, inner in known[key].items()}
    if isinstance(known.get("additionalProperties"), dict):
        loose["additionalProperties"] = {"anyOf": [known["additionalProperties"], {"type": "null"}]}
    return loose


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
