# SPDX-License-Identifier: Apache-2.0
"""An account of Klaviyo: bulk import jobs with their errors, profiles by filter, members of a list."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeVendor

_JSON_API = {"Content-Type": "application/vnd.api+json"}
_JOB = re.compile(r"/api/profile-bulk-import-jobs/([^/]+)(/import-errors)?")
_ANY = re.compile(r"any\((\w+),(\[.*\])\)")
_TIME = "2026-07-01T00:00:00+00:00"


class KlaviyoVendor(FakeVendor):
    """One account.

    :param list_id: if given, :meth:`holds` tells its members.
    :param identifier: by which profiles are known.
    :ivar profiles: identifier -> attributes; custom properties stand among them.
    :ivar looks: how often a job is still under way when it is asked after.
    :ivar payloads: whether an error names the profile, besides its place.
    :ivar places: whether an error names the place of the profile.
    :ivar cancelled: jobs end so, without doing anything.
    """

    def __init__(self, list_id: str | None = None, identifier: str = "email") -> None:
        super().__init__()
        self.list_id, self.identifier = list_id, identifier
        self.profiles: dict[str, dict[str, Any]] = {}
        self.members: set[str] = set()
        self.looks = 0
        self.payloads, self.places, self.cancelled = True, True, False
        self._jobs: list[dict[str, Any]] = []

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if request.path == "/api/profile-bulk-import-jobs":
            return self._import(request.json()["data"])
        found = _JOB.fullmatch(request.path)
        if found and found[1].isdecimal() and int(found[1]) < len(self._jobs):
            job = self._jobs[int(found[1])]
            return self._errors(job, request) if found[2] else self._job(200, job)
        if request.path == "/api/profiles":
            return self._look_up(request)
        if request.path == f"/api/lists/{self.list_id}/relationships/profiles":
            return self._take_off(request.json()["data"])
        return _refusal(404, "not_found", "The list does not exist.")

    def holds(self) -> dict[str, dict[str, Any]]:
        known = self.profiles if self.list_id is None else self.members
        return {key: self.profiles[key] for key in known}

    def _import(self, data: dict[str, Any]) -> FakeAnswer:
        profiles = data["attributes"]["profiles"]["data"]
        lists = [each["id"] for each in data.get("relationships", {}).get("lists", {}).get("data", ())]
        if lists not in ([], [self.list_id]):
            return _refusal(400, "invalid", "The list does not exist.")
        if len(profiles) > 10_000:
            return _refusal(400, "invalid", "Too many profiles.")
        job: dict[str, Any] = {"id": str(len(self._jobs)), "total": len(profiles), "errors": []}
        job["looks"] = self.looks
        for place, profile in enumerate(profiles if not self.cancelled else ()):
            self._upsert(place, profile, job["errors"], listed=bool(lists))
        self._jobs.append(job)
        return self._job(202, job)

    def _upsert(
        self, place: int, profile: dict[str, Any], errors: list[dict[str, Any]], *, listed: bool
    ) -> None:
        attributes = dict(profile["attributes"])
        key = attributes[self.identifier].lower()
        if key in self.refuses:
            error: dict[str, Any] = {"code": "invalid", "title": "Invalid input"}
            error["detail"] = f"{key} was refused."
            where = f"/data/attributes/profiles/data/{place}/attributes/email"
            error["source"] = {"pointer": where if self.places else "/data"}
            error["original_payload"] = profile["attributes"] if self.payloads else None
            errors.append({"type": "import-error", "id": f"error-{place}", "attributes": error})
            return
        held = self.profiles.setdefault(key, {})
        held |= attributes.pop("properties", {})
        held |= {f"location.{name}": value for name, value in attributes.pop("location", {}).items()}
        held |= attributes
        for name in profile.get("meta", {}).get("patch_properties", {}).get("unset", ()):
            held.pop(name, None)
        self.applied[key] += 1
        if listed:
            self.members.add(key)

    def _job(self, status: int, job: dict[str, Any]) -> FakeAnswer:
        under_way = status == 202 or job["looks"] > 0
        if status == 200:
            job["looks"] -= 1
        ended = "cancelled" if self.cancelled else "complete"
        attributes = {
            "status": "processing" if under_way else ended,
            "created_at": _TIME,
            "total_count": job["total"],
            "completed_count": None if under_way else job["total"],
            "failed_count": None if under_way else len(job["errors"]),
        }
        me = f"https://a.klaviyo.com/api/profile-bulk-import-jobs/{job['id']}"
        links = {"links": {"self": me}}
        data = {"type": "profile-bulk-import-job", "id": job["id"], "attributes": attributes, **links}
        return FakeAnswer(status, {"data": data, **links}, _JSON_API)

    def _errors(self, job: dict[str, Any], request: FakeRequest) -> FakeAnswer:
        return _page(job["errors"], request)

    def _look_up(self, request: FakeRequest) -> FakeAnswer:
        asked = _ANY.fullmatch(request.query["filter"])
        if asked is None or asked[1] != self.identifier or len(json.loads(asked[2])) > 100:
            return _refusal(400, "invalid", "Invalid filter.")
        keys = [key.lower() for key in json.loads(asked[2])]
        found = [
            {
                "type": "profile",
                "id": f"id-{key}",
                "attributes": {self.identifier: key},
                "links": {"self": f"https://a.klaviyo.com/api/profiles/{quote(key)}"},
            }
            for key in keys
            if key in self.profiles
        ]
        return _page(found, request)

    def _take_off(self, data: list[dict[str, str]]) -> FakeAnswer:
        if len(data) > 1_000:
            return _refusal(400, "invalid", "Too many profiles.")
        for profile in data:
            self.members.discard(profile["id"].removeprefix("id-"))
        return FakeAnswer(204, None, _JSON_API)


def _page(items: list[dict[str, Any]], request: FakeRequest) -> FakeAnswer:
    """Pages as large as asked for, linked at Klaviyo's own host."""
    size, start = int(request.query["page[size]"]), int(request.query.get("page[cursor]", "0"))
    me = f"https://a.klaviyo.com{request.path}"
    links = {"self": me}
    if start + size < len(items):
        links["next"] = f"{me}?page%5Bsize%5D={size}&page%5Bcursor%5D={start + size}"
    return FakeAnswer(200, {"data": items[start : start + size], "links": links}, _JSON_API)


def _refusal(status: int, code: str, detail: str) -> FakeAnswer:
    error = {"id": "1", "code": code, "title": "Invalid input.", "detail": detail}
    return FakeAnswer(status, {"errors": [{**error, "source": {"pointer": "/data"}}]}, _JSON_API)
