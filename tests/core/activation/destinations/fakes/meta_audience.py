# SPDX-License-Identifier: Apache-2.0
"""A Meta custom audience: identifiers are in it or not; rows are counted, never named."""

from __future__ import annotations

import re

from cdp_provider.testing.destinations import FakeAnswer, FakeRequest, FakeVendor

_HASH = re.compile(r"[0-9a-f]{64}")
_PLAIN = {"EXTERN_ID", "MADID"}
_SCHEMA = {
    *_PLAIN,
    *("EMAIL", "PHONE", "GEN", "DOBY", "DOBM", "DOBD", "LN", "FN", "FI", "CT", "ST", "ZIP", "COUNTRY"),
}


class MetaAudienceVendor(FakeVendor):
    """The audience 42, version 25.0.

    :param names: what `refuses` and `applied` call the person with an identifier.
    :ivar identifiers: schema's name and value of what is in the audience.
    :ivar sessions: ids of the sessions, in their order.
    """

    def __init__(self, names: dict[str, str]) -> None:
        super().__init__()
        self.names = names
        self.identifiers: set[tuple[str, str]] = set()
        self.sessions: list[int] = []

    def holds(self):
        return {self.names[value]: {} for _, value in self.identifiers if value in self.names}

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if request.path != "/v25.0/42/users":
            return _error(100, 33)
        body = request.json()
        schema, rows = body["payload"]["schema"], body["payload"]["data"]
        if not set(schema) <= _SCHEMA or not 0 < len(rows) <= 10_000:
            return _error(100, None)
        assert body["session"]["estimated_num_total"] == len(rows)
        assert 0 < body["session"]["session_id"] < 2**63
        self.sessions.append(body["session"]["session_id"])
        wrong = sum(not self._take(request.method, dict(zip(schema, row, strict=True))) for row in rows)
        said = {"num_received": len(rows), "num_invalid_entries": wrong, "invalid_entry_samples": {}}
        return FakeAnswer(200, {"audience_id": "42", "session_id": str(self.sessions[-1]), **said})

    def _take(self, method: str, row: dict[str, str]) -> bool:
        cells = {(name, value) for name, value in row.items() if value}
        known = [self.names[value] for _, value in cells if value in self.names]
        shaped = all(name in _PLAIN or _HASH.fullmatch(value) for name, value in cells)
        if not cells or not shaped or self.refuses & set(known):
            return False
        if method == "DELETE":
            self.identifiers -= cells
        else:
            self.identifiers |= cells
            self.applied.update(known)
        return True


def _error(code: int, subcode: int | None) -> FakeAnswer:
    error = {"message": "Invalid parameter", "type": "OAuthException", "code": code, "fbtrace_id": "x"}
    if subcode is not None:
        error["error_subcode"] = subcode
    return FakeAnswer(400, {"error": error})
