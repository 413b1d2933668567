# SPDX-License-Identifier: Apache-2.0
"""Marketing contacts of SendGrid: jobs with a file of errors, searches, deletions, lists."""

from __future__ import annotations

import csv
import io
import re
import uuid
from typing import Any

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeVendor

_CONTACTS = "/v3/marketing/contacts"
_LIST = re.compile(r"/v3/marketing/lists/([^/]+)/contacts")


class SendgridVendor(FakeVendor):
    """One account.

    :param list_id: if given, :meth:`holds` tells its members.
    :param identifier: by which contacts are known.
    :ivar contacts: identifier -> fields; custom fields stand among them.
    :ivar looks: how often a job is still pending when it is asked after.
    :ivar tells: whether the file of errors names the contacts.
    """

    def __init__(self, list_id: str | None = None, identifier: str = "email") -> None:
        super().__init__()
        self.list_id, self.identifier = list_id, identifier
        self.contacts: dict[str, dict[str, Any]] = {}
        self.members: set[str] = set()
        self.looks, self.tells = 0, True
        self._jobs: dict[str, dict[str, Any]] = {}

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if request.path == _CONTACTS:
            return self._import(request) if request.method == "PUT" else self._delete(request)
        if request.path.startswith(f"{_CONTACTS}/imports/"):
            return self._job(request.path.rpartition("/")[2])
        if request.path == f"{_CONTACTS}/search/identifiers/{self.identifier}":
            return self._search(request.json()["identifiers"])
        if request.path.startswith("/errors/"):
            return self._file(request)
        found = _LIST.fullmatch(request.path)
        if found is None or found[1] != self.list_id:
            return FakeAnswer(404, {"errors": [{"message": "not found"}]})
        gone = set(request.query["contact_ids"].split(","))
        self.members = {key for key in self.members if _id(key) not in gone}
        return FakeAnswer(202, {"job_id": self._started("delete", 0, [], "")})

    def holds(self) -> dict[str, dict[str, Any]]:
        known = self.contacts if self.list_id is None else self.members
        return {key: self.contacts[key] for key in known}

    def _import(self, request: FakeRequest) -> FakeAnswer:
        body = request.json()
        errors = []
        for contact in body["contacts"]:
            fields = dict(contact)
            key = fields[self.identifier].lower()
            if key in self.refuses:
                errors.append(key)
                continue
            held = self.contacts.setdefault(key, {})
            held |= fields.pop("custom_fields", {})
            held |= fields
            self.applied[key] += 1
            self.members |= {key} if self.list_id in body.get("list_ids", ()) else set()
        job = self._started("upsert", len(body["contacts"]), errors, request.headers["host"])
        return FakeAnswer(202, {"job_id": job})

    def _delete(self, request: FakeRequest) -> FakeAnswer:
        gone = set(request.query["ids"].split(","))
        for key in [key for key in self.contacts if _id(key) in gone]:
            del self.contacts[key]
        return FakeAnswer(202, {"job_id": self._started("delete", len(gone), [], "")})

    def _search(self, keys: list[str]) -> FakeAnswer:
        if len(keys) > 100:
            return FakeAnswer(400, {"errors": [{"field": "identifiers", "message": "too many"}]})
        known = [key for key in keys if key.lower() in self.contacts]
        if not known:
            return FakeAnswer(404, {"errors": [{"message": "no contacts"}]})
        found: dict[str, Any] = {key: {"error": "contact not found"} for key in keys}
        found |= {key: {"contact": {"id": _id(key.lower())}} for key in known}
        return FakeAnswer(200, {"result": found})

    def _started(self, kind: str, count: int, errors: list[str], host: str) -> str:
        job = str(uuid.uuid5(uuid.NAMESPACE_OID, str(len(self._jobs))))
        status = "completed" if not errors else "errored" if len(errors) < count else "failed"
        results: dict[str, Any] = {"requested_count": count, "errored_count": len(errors)}
        if errors:
            results["errors_url"] = f"http://{host}/errors/{job}?signature=x"
        self._jobs[job] = {"errors": errors, "looks": self.looks}
        self._jobs[job]["answer"] = {"id": job, "status": status, "job_type": kind, "results": results}
        return job

    def _job(self, job: str) -> FakeAnswer:
        if job not in self._jobs:
            return FakeAnswer(404, {"errors": [{"message": "not found"}]})
        told = self._jobs[job]
        told["looks"] -= 1
        answer = told["answer"]
        if told["looks"] >= 0:
            answer = {**answer, "status": "pending", "results": {}}
        return FakeAnswer(200, {**answer, "started_at": "2026-07-01T00:00:00Z"})

    def _file(self, request: FakeRequest) -> FakeAnswer:
        # It stands in a store of files elsewhere, which must not be told our key.
        if "authorization" in request.headers:
            return FakeAnswer(400)
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow([self.identifier, "error_reason"])
        for key in self._jobs[request.path.rpartition("/")[2]]["errors"] if self.tells else ():
            rows.writerow([key, f"{key} was refused"])
        return FakeAnswer(200, text.getvalue().encode(), {"Content-Type": "text/csv"})


def _id(key: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, key))
