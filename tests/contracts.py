# SPDX-License-Identifier: Apache-2.0
"""Fakes of vendors behind the contracts that the vendors publish: both what our code asks and what our fake
answers must be what the contract allows.

The contracts are test data beside the repository and no part of a public clone, so tests that need one are
skipped where it is missing.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeVendor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.testing.destinations.fake import FakeRequest

CONTRACTS = Path(__file__).parents[2] / "shared" / "contracts"

_SERVER = "http://vendor"

#: Swagger 2 keeps these beside the name of a parameter, OpenAPI 3 in its schema.
_SCHEMA_KEYS = ("type", "format", "items", "enum", "default", "minimum", "maximum", "pattern")


#: Where a contract contradicts itself: place -> what it should say.
_ERRATA: dict[str, dict[tuple[str, ...], Any]] = {
    "sendgrid": {
        # The id of a job is text everywhere else, and a part of a path.
        (
            *("paths", "/v3/marketing/contacts", "delete", "responses", "202", "content"),
            *("application/json", "schema", "properties", "job_id"),
        ): {"type": "string"}
    }
}


_OWN = frozenset({"_vendor", "_contract", "_unpublished", "violations"})


class Audited(FakeVendor):
    """A fake behind its vendor's contract. A request that the contract forbids is answered 422 and never
    reaches the fake.

    :ivar violations: what the contract forbids, by either side.
    """

    def __init__(self, vendor: FakeVendor, name: str, unpublished: tuple[str, ...] = ()) -> None:
        self._vendor = vendor
        self._contract = contract(name)
        self._unpublished = unpublished
        self.violations: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vendor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What a test sets, it sets of the fake."""
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._vendor, name, value)

    def holds(self) -> dict[str, dict[str, Any]]:
        return self._vendor.holds()

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if request.path.startswith(self._unpublished):
            return self._vendor.answer(request)
        asked = _asked(request)
        if wrong := _told(self._contract.iter_request_errors(asked)):
            self.violations.append(f"{request.method} {request.path}: {wrong}")
            return FakeAnswer(422, {"violation": wrong})
        answer = self._vendor.answer(request)
        given = _answered(answer)
        if wrong := _told(self._contract.iter_response_errors(asked, given)):
            self.violations.append(f"{request.method} {request.path} answered {answer.status}: {wrong}")
        return answer

    def assert_kept(self) -> None:
        """Both sides kept to the contract since the start."""
        assert not self.violations, "\n".join(self.violations)


def audited(vendor: FakeVendor, name: str, *, unpublished: tuple[str, ...] = ()) -> Audited:
    """`vendor` behind the contract `name`; the test is skipped where there are no contracts.

    :param unpublished: how paths begin that the contract, a slice of the vendor's API, leaves out.
    """
    return Audited(vendor, name, unpublished)


@contextmanager
def audit(vendor: FakeVendor, name: str, *, unpublished: tuple[str, ...] = ()) -> Iterator[Audited]:
    """:func:`audited`, asserted at the end."""
    watched = audited(vendor, name, unpublished=unpublished)
    yield watched
    watched.assert_kept()


class ByContract:
    """Has all tests of a ``DestinationConformance`` keep to
    the vendor's contract, where there are contracts. Stands before it among the bases; say :meth:`fake`
    instead of ``vendor``.
    """

    contract: ClassVar[str]
    unpublished: ClassVar[tuple[str, ...]] = ()

    def fake(self) -> FakeVendor:
        """A new fake that knows nobody."""
        raise NotImplementedError

    def vendor(self) -> FakeVendor:
        if not (CONTRACTS / self.contract).is_dir():
            return self.fake()
        self._audited.append(audited(self.fake(), self.contract, unpublished=self.unpublished))
        return self._audited[-1]

    @contextmanager
    def audit(self) -> Iterator[Self]:
        """This suite, whose fakes are asserted at the end."""
        self._audited: list[Audited] = []
        yield self
        for vendor in self._audited:
            vendor.assert_kept()

    @pytest.fixture(autouse=True)
    def _keeps_to_the_contract(self) -> Iterator[None]:
        with self.audit():
            yield


@cache
def contract(name: str) -> OpenAPI:
    """The contract of a vendor, which OpenAPI 3 can express: Swagger 2 is converted."""
    path = CONTRACTS / name / "openapi.json"
    if not path.is_file():
        pytest.skip("a public clone has no contracts of vendors")
    described = json.loads(path.read_text())
    prefix = described.get("basePath", "").rstrip("/")
    if "swagger" in described:
        described = _openapi(described)
    for place, schema in _ERRATA.get(name, {}).items():
        _put(described, place, schema)
    # Our fakes are at no vendor's address; a base URL may hold the API's prefix or leave it to the path.
    described["servers"] = [{"url": _SERVER}, {"url": _SERVER + prefix}]
    return OpenAPI.from_dict(described)


def _put(described: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for key in place[:-1]:
        described = described[key]
    described[place[-1]] = value


def _asked(request: FakeRequest) -> MockRequest:
    # A media type's parameters are none of the contract's business.
    kind = request.headers.get("content-type", "").partition(";")[0]
    return MockRequest(
        host_url=_SERVER,
        method=request.method,
        path=request.path,
        args=dict(request.query),
        headers=dict(request.headers),
        data=request.body,
        content_type=kind,
    )


def _answered(answer: FakeAnswer) -> MockResponse:
    body = answer.body
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {name.lower(): value for name, value in answer.headers.items()}
    kind = given.get("content-type", "application/json").partition(";")[0]
    return MockResponse(data, answer.status, dict(answer.headers), kind)


def _told(errors: Iterator[Exception]) -> str:
    """What is wrong, with the schema's own reasons; empty if nothing is."""
    told = []
    for error in errors:
        causes = getattr(error.__cause__, "schema_errors", None) or [error.__cause__ or error]
        for cause in causes:
            place = "/".join(map(str, getattr(cause, "path", ())))
            told.append(f"{place} {getattr(cause, 'message', cause)}".strip()[:300])
    return "; ".join(told)


def _openapi(swagger: dict[str, Any]) -> dict[str, Any]:
    """A Swagger 2 description as OpenAPI 3.1, as far as the contracts here need it."""
    paths = {
        path: {method: _operation(operation, swagger) for method, operation in methods.items()}
        for path, methods in swagger["paths"].items()
    }
    schemes = {name: _scheme(given) for name, given in swagger.get("securityDefinitions", {}).items()}
    described = {
        "openapi": "3.1.0",
        "info": {"title": swagger["info"]["title"], "version": swagger["info"].get("version", "0")},
        "security": swagger.get("security", []),
        "paths": paths,
        "components": {"schemas": swagger.get("definitions", {}), "securitySchemes": schemes},
    }
    text = json.dumps(described).replace('"#/definitions/', '"#/components/schemas/')
    converted: dict[str, Any] = json.loads(text, object_hook=_alternatives)
    return converted


def _alternatives(schema: dict[str, Any]) -> dict[str, Any]:
    """Slack writes "one of these" as a list of ``items`` of no array."""
    if "type" not in schema and isinstance(schema.get("items"), list):
        schema["anyOf"] = schema.pop("items")
    return schema


def _operation(given: dict[str, Any], swagger: dict[str, Any]) -> dict[str, Any]:
    parameters = given.get("parameters", [])
    consumes = given.get("consumes") or swagger.get("consumes") or ["application/json"]
    produces = given.get("produces") or swagger.get("produces") or ["application/json"]
    operation: dict[str, Any] = {
        "responses": {status: _response(answer, produces) for status, answer in given["responses"].items()},
        "parameters": [_parameter(each) for each in parameters if _stays(each)],
    }
    if "security" in given:
        operation["security"] = given["security"]
    if (schema := _body(parameters)) is not None:
        content = {kind: {"schema": schema} for kind in consumes}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _stays(parameter: dict[str, Any]) -> bool:
    """Whether a parameter is one in OpenAPI 3 too. Slack's header ``token`` is what its security asks for."""
    return parameter["in"] not in {"body", "formData"} and (parameter["in"], parameter["name"]) != (
        "header",
        "token",
    )


def _parameter(given: dict[str, Any]) -> dict[str, Any]:
    kept = {key: given[key] for key in ("name", "in", "required") if key in given}
    return {**kept, "schema": _schema(given)}


def _schema(given: dict[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in _SCHEMA_KEYS if key in given}


def _body(parameters: list[dict[str, Any]]) -> dict[str, Any] | None:
    for parameter in parameters:
        if parameter["in"] == "body":
            whole: dict[str, Any] = parameter["schema"]
            return whole
    fields = [parameter for parameter in parameters if parameter["in"] == "formData"]
    if not fields:
        return None
    return {
        "type": "object",
        "properties": {field["name"]: _schema(field) for field in fields},
        "required": [field["name"] for field in fields if field.get("required")],
    }


def _response(given: dict[str, Any], produces: list[str]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": given.get("description", "")}
    if "schema" in given:
        response["content"] = {kind: {"schema": given["schema"]} for kind in produces}
    return response


def _scheme(given: dict[str, Any]) -> dict[str, Any]:
    if given["type"] == "apiKey":
        return given
    return {"type": "http", "scheme": "basic" if given["type"] == "basic" else "bearer"}
