# SPDX-License-Identifier: Apache-2.0
"""Data contracts in the Open Data Contract Standard (ODCS) 3, as what a project says of a stream.

What describes is read past. What asks for something that is not checked here is a fault: nobody should
believe in a rule that nothing enforces.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, get_args

from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, Team
from pydantic import BaseModel, ValidationError

from cdp_provider.core.ingest.odcs_columns import Mapped, keys_of, read_property
from cdp_provider.core.ingest.odcs_quality import read_quality, read_relationships, read_service_level
from cdp_provider.core.project.contract_file import ContractFile
from cdp_provider.core.project.document import read
from cdp_provider.core.project.explain import explain
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.problems import Path, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path as FilePath

#: Parts whose keys are known for certain; servers, prices and the like may hold what they want.
_STRICT = ("schema", "slaProperties")


def read_contract(path: FilePath, stream: Mapping[str, Any], source: str) -> ContractFile:
    """What an ODCS file says of a stream.

    :param stream: what the project itself says of it: columns that have a type there may be of any in the
        file, and ``contract.schema`` names the part of the file that is meant.
    :param source: of the stream; a reference to another schema of the file means its stream of that name.
    """
    try:
        document = read(path)
    except ProjectError as error:
        return ContractFile(faults=list(error.faults))
    result = ContractFile(document=document, faults=list(document.faults))
    raw = _plain(document.value)
    problems = [*_head_problems(raw)]
    if not problems:
        problems += _unknown_keys(OpenDataContractStandard, raw)
        try:
            contract = OpenDataContractStandard.model_validate(raw)
        except ValidationError as error:
            known = {problem.path for problem in problems}
            found = explain(error, OpenDataContractStandard, raw)
            problems += [problem for problem in found if problem.path not in known]
        else:
            problems += _fill(result, contract, stream, source)
    result.faults += [document.fault(problem) for problem in problems]
    return result


def _plain(value: Any) -> Any:
    """Dates as text: the standard knows no others."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def _head_problems(raw: Any) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        yield Problem((), "this file is no mapping of keys", "begin with 'apiVersion: v3.1.0'")
    elif raw.get("kind") != "DataContract":
        yield Problem(("kind",), "this file is no data contract of ODCS", "write 'kind: DataContract'")
    elif not str(raw.get("apiVersion", "")).startswith("v3."):
        message = f"{raw.get('apiVersion')!r} is no version of ODCS that is read here"
        yield Problem(("apiVersion",), message, "write 'apiVersion: v3.1.0'")


def _unknown_keys(model: type[BaseModel], raw: Any, path: Path = ()) -> Iterator[Problem]:
    """Keys that the standard has not, in the parts that are read."""
    if not isinstance(raw, dict):
        return
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in raw.items():
        here = (*path, key)
        if key not in fields:
            yield Problem(here, f"unknown key {key!r}", did_you_mean(key, fields), at_key=True)
        elif path or key in _STRICT:
            inner = _model_of(fields[key].annotation)
            for at, part in _parts(here, value) if inner is not None else ():
                yield from _unknown_keys(inner, part, at)


def _parts(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, list):
        yield from (((*path, i), part) for i, part in enumerate(value))
    else:
        yield path, value


def _model_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_of(part))), None)


def _fill(
    result: ContractFile, contract: OpenDataContractStandard, stream: Mapping[str, Any], source: str
) -> list[Problem]:
    """Put what the contract says into `result`; what it cannot say is returned, with places in the file."""
    place = _schema(result, contract.schema_ or [], stream["contract"].get("schema"))
    if place is None:
        return []
    number, schema = place
    at: Path = ("schema", number)
    found = Mapped(typed=_typed(stream))
    for i, given in enumerate(schema.properties or ()):
        here = (*at, "properties", i)
        name = read_property(found, given, here)
        if name is not None:
            read_quality(found, given.quality, name, here)
            read_relationships(found, given.relationships, name, source, here)
    read_quality(found, schema.quality, None, at)
    read_relationships(found, schema.relationships, None, source, at)
    _service_levels(result, found, contract, schema)
    if (owner := _owner(contract)) is not None:
        result.contract["owner"] = owner
    if found.rules:
        result.contract["rules"] = found.rules
    if keys := keys_of(found):
        result.keys["primary_key"] = keys
    result.columns, result.origins = found.columns, {**found.origins, **result.origins}
    result.origins["columns",] = (*at, "properties")
    return found.problems


def _schema(result: ContractFile, schemas: list[SchemaObject], named: Any) -> tuple[int, SchemaObject] | None:
    """The schema object that is meant, and its place; None, and a problem, where nobody can tell."""
    names = [schema.name or "" for schema in schemas]
    meant = [i for i, name in enumerate(names) if named is None or name == named]
    if len(meant) == 1:
        return meant[0], schemas[meant[0]]
    path: Path = ("contract", "schema") if named is not None else ("contract", "file")
    if named is not None:
        message = f"the contract has no schema {named!r}"
        problem = Problem(path, message, did_you_mean(str(named), names))
    else:
        message = f"the contract has {len(names)} schemas" if names else "the contract has no schema"
        problem = Problem(path, message, f"add 'schema', one of {', '.join(names)}" if names else "")
    result.problems.append(problem)
    return None


def _typed(stream: Mapping[str, Any]) -> frozenset[str]:
    columns = stream.get("columns")
    given = columns.items() if isinstance(columns, dict) else ()
    return frozenset(name for name, value in given if isinstance(value, str) or "type" in (value or {}))


def _service_levels(
    result: ContractFile, found: Mapped, contract: OpenDataContractStandard, schema: SchemaObject
) -> None:
    for i, given in enumerate(contract.slaProperties or ()):
        here: Path = ("slaProperties", i)
        if (level := read_service_level(found, given, schema, here)) is None:
            continue
        if "freshness" in result.contract:
            found.refuse(here, "the newest row has one age, and another level bounds it", "keep one of them")
            continue
        result.contract["freshness"], column = level
        result.origins["contract", "freshness"] = (*here, "value")
        if column is not None:
            result.keys["time"] = column
            result.origins["time",] = (*here, "element")


def _owner(contract: OpenDataContractStandard) -> str | None:
    """The team, or whoever in it is called owner."""
    team = contract.team
    if isinstance(team, Team) and team.name:
        return team.name
    members = (team.members if isinstance(team, Team) else team) or []
    owners = [member for member in members if "owner" in (member.role or "").lower()]
    return next((owner.name or owner.username for owner in owners), None)
