# SPDX-License-Identifier: Apache-2.0
"""Salesforce's Bulk API 2.0: a job takes rows of CSV and says later how each fared.

https://developer.salesforce.com/docs/platform/api-asynch/guide/bulk-api-2-0-ingest.html
"""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.destinations.answers import body_of, without_values
from cdp_provider.core.activation.destinations.base import Outcome, Refused, Request
from cdp_provider.core.activation.destinations.jobs import finished
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from cdp_provider.core.activation.destinations.base import Line

_ENDED = frozenset({"JobComplete", "Failed", "Aborted"})
_TAKEN = re.compile(r"job ?state|multiple contents", re.IGNORECASE)
#: What is wrong with all rows alike: a column that the object has not, a file that is no CSV.
_OF_ALL = ("InvalidBatch", "ClientInputError")


def row(values: Sequence[str]) -> str:
    """A line of CSV, without its end."""
    return ",".join(map(_cell, values))


def _cell(text: str) -> str:
    if text.isalnum():
        return text
    return '"' + text.replace('"', '""') + '"' if text else ""


async def run_job(
    line: Line, path: str, job: Mapping[str, Any], rows: Sequence[str], wait: timedelta
) -> Mapping[str, Outcome] | None:
    """Value of the first column -> how its row fared; None where the job has not ended within `wait`.

    :param path: of ingest jobs, with the version of the API.
    :param job: what the job does with its rows.
    :param rows: lines of CSV, of which the first has the columns' names.
    :raises DataError: the job went wrong on its way; another one may not.
    """
    created = await line.send(
        Request("POST", path, encode({**job, "contentType": "CSV", "lineEnding": "LF"})),
        records=len(rows) - 1,
    )
    number = body_of(created).get("id")
    if not isinstance(number, str) or not number.isalnum():
        msg = f"{created.method} {created.path} answered {created.status} without the id of a job"
        raise DataError(msg)
    path = f"{path}/{number}"
    body = "\n".join(rows).encode() + b"\n"
    try:
        await line.send(Request("PUT", f"{path}/batches", body, {"Content-Type": "text/csv"}))
        await line.send(Request("PATCH", path, b'{"state":"UploadComplete"}'))
    except Refused as refusal:
        if not _TAKEN.search(str(refusal)):
            raise
        # A job takes its rows once; this one has them, and the answer that said so was lost.
        msg = f"the job was told twice: {refusal}"
        raise DataError(msg) from None
    ended = await finished(line, Request("GET", path), lambda body: body.get("state") in _ENDED, wait)
    if ended is None:
        return None
    if (fault := str(ended.get("errorMessage") or "")).startswith(_OF_ALL):
        msg = f"a job {ended['state']}: {without_values(fault)[:200]}; check object and fields"
        raise ConfigurationError(msg)
    return await _results(line, path, rows[0].partition(",")[0].strip('"'))


async def _results(line: Line, path: str, key: str) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for result in await _table(line, f"{path}/successfulResults", key):
        outcomes[result[key]] = Outcome("accepted", sent=result.get("sf__Id"))
    for result in await _table(line, f"{path}/failedResults", key):
        outcomes[result[key]] = Outcome("rejected", result.get("sf__Error"))
    for result in await _table(line, f"{path}/unprocessedrecords", key):
        outcomes[result[key]] = Outcome("retryable", "the job ended before this record")
    return outcomes


async def _table(line: Line, path: str, key: str) -> list[dict[str, str]]:
    """Rows of a CSV file with the column `key`; a file without rows may lack it."""
    response = await line.send(Request("GET", path, headers={"Accept": "text/csv"}))
    try:
        text = io.StringIO(response.body.decode("utf-8-sig"), newline="")
        reader = csv.DictReader(text, strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error):
        rows, reader = [], None
    columns = () if reader is None else reader.fieldnames or (key,)
    if key not in columns and (rows or "sf__Id" not in columns):
        msg = f"{response.method} {response.path} answered {response.status} with no CSV of the job's rows"
        raise DataError(msg)
    return rows
