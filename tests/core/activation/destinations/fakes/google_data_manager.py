# SPDX-License-Identifier: Apache-2.0
"""Google's Data Manager: takes a request whole or not at all, and says later how its members fared."""

from __future__ import annotations

import json
import re
from typing import Any

from cdp_provider.testing.destinations import FakeAnswer, FakeRequest, FakeVendor

_HASH = re.compile(r"[0-9a-f]{64}")
_REASON = "PROCESSING_ERROR_REASON_"


class GoogleDataManagerVendor(FakeVendor):
    """The user list 9 of the account 1.

    :param names: what `refuses` and `applied` call the person with a hash.
    :ivar identifiers: JSON text of what is in the list.
    :ivar reason: why it refuses the members of `refuses`.
    :ivar says_which: whether it names the members that it refused.
    :ivar polls: answers "processing" to so many questions about a request.
    """

    def __init__(self, names: dict[str, str]) -> None:
        super().__init__()
        self.names = names
        self.identifiers: set[str] = set()
        self.reason = "NO_CONSENT"
        self.says_which = True
        self.polls = 1
        self._requests: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, int] = {}

    def holds(self):
        return {
            name: {} for hash_, name in self.names.items() if any(hash_ in text for text in self.identifiers)
        }

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if request.path == "/v1/requestStatus:retrieve":
            return self._status(request.query["requestId"])
        body = request.json()
        destination = body["destinations"][0]
        if destination["productDestinationId"] != "9" or destination["operatingAccount"]["accountId"] != "1":
            return _invalid("destinations[0].product_destination_id", "INVALID_USER_LIST_ID")
        members = body["audienceMembers"]
        if len(members) > 10_000:
            return _invalid("audience_members", "TOO_MANY_AUDIENCE_MEMBERS")
        for place, member in enumerate(members):
            if not all(map(_well_formed, member["userData"]["userIdentifiers"])):
                return _invalid(f"audience_members[{place}].user_data", "INVALID_SHA256_FORMAT")
        return self._taken(request.path.rpartition(":")[2], members, destination)

    def _taken(self, action: str, members: list[Any], destination: dict[str, Any]) -> FakeAnswer:
        refused = []
        for place, member in enumerate(members):
            texts = {
                json.dumps(identifier, sort_keys=True) for identifier in member["userData"]["userIdentifiers"]
            }
            known = {name for hash_, name in self.names.items() if any(hash_ in text for text in texts)}
            if known & self.refuses:
                refused.append(place)
            elif action == "remove":
                self.identifiers -= texts
            else:
                self.identifiers |= texts
                self.applied.update(known)
        request_id = f"request/{len(self._requests)}"
        status = "PARTIAL_SUCCESS" if refused else "SUCCESS"
        if refused and len(refused) == len(members):
            status = "FAILED"
        told: dict[str, Any] = {"destination": destination, "requestStatus": status}
        if refused:
            error: dict[str, Any] = {"reason": _REASON + self.reason, "recordCount": str(len(refused))}
            error |= {"recordIndices": refused} if self.says_which else {}
            told["errorInfo"] = {"errorCounts": [error]}
        self._requests[request_id] = told
        return FakeAnswer(200, {"requestId": request_id})

    def _status(self, request_id: str) -> FakeAnswer:
        told = self._requests[request_id]
        self._asked[request_id] = self._asked.get(request_id, 0) + 1
        if self._asked[request_id] <= self.polls:
            told = {"destination": told["destination"], "requestStatus": "PROCESSING"}
        return FakeAnswer(200, {"requestStatusPerDestination": [told]})


def _well_formed(identifier: dict[str, Any]) -> bool:
    ((kind, value),) = identifier.items()
    if kind != "address":
        return bool(_HASH.fullmatch(value))
    hashed = all(_HASH.fullmatch(value[name]) for name in ("givenName", "familyName"))
    return hashed and bool(re.fullmatch(r"[A-Z]{2}", value["regionCode"])) and bool(value["postalCode"])


def _invalid(field: str, reason: str) -> FakeAnswer:
    kind = "type.googleapis.com/google.rpc."
    details = [
        {"@type": kind + "ErrorInfo", "reason": "INVALID_ARGUMENT", "domain": "datamanager.googleapis.com"},
        {"@type": kind + "BadRequest", "fieldViolations": [{"field": field, "reason": reason}]},
    ]
    error = {"code": 400, "message": "There was a problem with the request.", "status": "INVALID_ARGUMENT"}
    return FakeAnswer(400, {"error": {**error, "details": details}})
