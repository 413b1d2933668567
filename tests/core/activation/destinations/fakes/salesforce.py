# SPDX-License-Identifier: Apache-2.0
"""A Salesforce org with contacts: sObject Collections, Composite and Bulk API 2.0."""

from __future__ import annotations

import csv
import io
from typing import Any
from urllib.parse import unquote

from cdp_provider.testing.destinations import FakeAnswer, FakeRequest, FakeVendor

_DATA = "/services/data/v66.0"
_KEY = "External_Id__c"
_COLUMNS = {"Id", _KEY, "FirstName", "Country__c"}
_USAGE = {"Sforce-Limit-Info": "api-usage=18/5000"}


class SalesforceVendor(FakeVendor):
    """Contacts by the external id ``External_Id__c``.

    :ivar stops: a bulk job comes to its end without the rows of these keys.
    :ivar error: error code of what it refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.contacts: dict[str, dict[str, Any]] = {}
        self.stops: set[str] = set()
        self.error = "FIELD_CUSTOM_VALIDATION_EXCEPTION"
        self.jobs: dict[str, dict[str, Any]] = {}
        self._ids: dict[str, str] = {}

    def holds(self):
        return {key: {name: value for name, value in fields.items()} for key, fields in self.contacts.items()}

    def answer(self, request: FakeRequest) -> FakeAnswer:
        path = request.path.removeprefix(_DATA)
        if path.startswith("/jobs/ingest"):
            return self._job(request, path.removeprefix("/jobs/ingest").strip("/"))
        if path == f"/composite/sobjects/Contact/{_KEY}" and request.method == "PATCH":
            return self._collection(request.json())
        if path == "/composite/sobjects" and request.method == "DELETE":
            ids = request.query["ids"].split(",")
            assert len(ids) <= 200
            return FakeAnswer(200, [self._delete(number) for number in ids], _USAGE)
        if path == "/composite":
            return self._composite(request.json()["compositeRequest"])
        return _refusal(404, "NOT_FOUND", "The requested resource does not exist")

    def _collection(self, body: dict[str, Any]) -> FakeAnswer:
        assert body["allOrNone"] is False
        assert len(body["records"]) <= 200
        for record in body["records"]:
            assert record.pop("attributes") == {"type": "Contact"}
            if wrong := record.keys() - _COLUMNS:
                return _refusal(
                    400, "INVALID_FIELD", f"No such column '{min(wrong)}' on sobject of type Contact"
                )
        return FakeAnswer(200, [self._upsert(record) for record in body["records"]], _USAGE)

    def _upsert(self, record: dict[str, Any]) -> dict[str, Any]:
        key = str(record[_KEY])
        if key in self.refuses:
            error = {"statusCode": self.error, "message": f"refused {key}", "fields": ["FirstName"]}
            return {"success": False, "errors": [error]}
        created = key not in self.contacts
        number = self._ids.setdefault(key, f"003{len(self._ids):015}")
        self.contacts.setdefault(key, {}).update(record)
        self.applied[key] += 1
        return {"id": number, "success": True, "errors": [], "created": created}

    def _delete(self, number: str) -> dict[str, Any]:
        key = next((key for key, known in self._ids.items() if known == number), None)
        if key is None or self.contacts.pop(key, None) is None:
            error = {"statusCode": "ENTITY_IS_DELETED", "message": "entity is deleted", "fields": []}
            return {"id": number, "success": False, "errors": [error]}
        return {"id": number, "success": True, "errors": []}

    def _composite(self, calls: list[dict[str, Any]]) -> FakeAnswer:
        assert len(calls) <= 25
        results = []
        for call in calls:
            key = unquote(call["url"].removeprefix(f"{_DATA}/sobjects/Contact/{_KEY}/"))
            known = self.contacts.pop(key, None) is not None
            gone = [{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}]
            results.append(
                {
                    "body": None if known else gone,
                    "httpHeaders": {},
                    "httpStatusCode": 204 if known else 404,
                    "referenceId": call["referenceId"],
                }
            )
        return FakeAnswer(200, {"compositeResponse": results}, _USAGE)

    def _job(self, request: FakeRequest, path: str) -> FakeAnswer:
        if not path:
            number = f"750{len(self.jobs):015}"
            self.jobs[number] = {**request.json(), "id": number, "state": "Open", "polls": 0}
            return FakeAnswer(200, self._told(number), _USAGE)
        number, _, part = path.partition("/")
        job = self.jobs[number]
        if part == "batches":
            return self._upload(job, request)
        if request.method == "PATCH":
            if job["state"] != "Open":
                return _refusal(400, "INVALIDJOBSTATE", "the job is not Open")
            job["state"] = request.json()["state"]
        elif not part:
            self._work(job)
        return self._results(job, part) if part else FakeAnswer(200, self._told(number), _USAGE)

    def _upload(self, job: dict[str, Any], request: FakeRequest) -> FakeAnswer:
        if "rows" in job:
            return _refusal(400, "CLIENT_INPUT_ERROR", "Found multiple contents for job")
        assert request.headers["content-type"] == "text/csv"
        text = io.StringIO(request.body.decode(), newline="")
        job["rows"] = list(csv.DictReader(text, strict=True))
        return FakeAnswer(201, None, _USAGE)

    def _work(self, job: dict[str, Any]) -> None:
        job["polls"] += 1
        if job["state"] == "UploadComplete":
            job["state"] = "InProgress"
        elif job["state"] == "InProgress":
            job["state"] = "Failed" if self.stops else "JobComplete"
            columns = job["rows"][0].keys() if job["rows"] else set()
            if wrong := columns - _COLUMNS:
                job |= {
                    "state": "Failed",
                    "errorMessage": f"InvalidBatch : Field name not found : {min(wrong)}",
                }
                return
            job["done"] = [
                (row, self._row(job, row)) for row in job["rows"] if row.get(_KEY) not in self.stops
            ]

    def _row(self, job: dict[str, Any], row: dict[str, str]) -> dict[str, Any]:
        if job["operation"] == "delete":
            return self._delete(row["Id"])
        assert job["externalIdFieldName"] == _KEY
        return self._upsert({name: None if text == "#N/A" else text for name, text in row.items() if text})

    def _results(self, job: dict[str, Any], part: str) -> FakeAnswer:
        done = job.get("done", [])
        ended = [row for row, _ in done]
        if part == "successfulResults":
            rows = [
                {"sf__Id": told["id"], "sf__Created": str(told.get("created", False)).lower(), **row}
                for row, told in done
                if told["success"]
            ]
        elif part == "failedResults":
            rows = [
                {"sf__Id": "", "sf__Error": _bulk_error(told["errors"][0]), **row}
                for row, told in done
                if not told["success"]
            ]
        else:
            rows = [row for row in job["rows"] if row not in ended]
        out = io.StringIO()
        # A job does not keep the order of its rows.
        writer = csv.DictWriter(out, rows[0].keys() if rows else ["sf__Id"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(reversed(rows))
        return FakeAnswer(200, out.getvalue().encode(), {"Content-Type": "text/csv", **_USAGE})

    def _told(self, number: str) -> dict[str, Any]:
        return {
            name: value for name, value in self.jobs[number].items() if name not in ("rows", "done", "polls")
        }


def _bulk_error(error: dict[str, Any]) -> str:
    return f"{error['statusCode']}:{error['message']}:{','.join(error['fields'])} --"


def _refusal(status: int, code: str, message: str) -> FakeAnswer:
    return FakeAnswer(status, [{"errorCode": code, "message": message}], _USAGE)
