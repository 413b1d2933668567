# SPDX-License-Identifier: Apache-2.0
"""Resources of dlt, in whose environment this is imported; the rows lie in a JSON file."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from decimal import Decimal

import dlt

SINCE = dlt.sources.incremental("at", initial_value="2020")


def rows(path):
    with open(path) as file:
        return json.load(file)


@dlt.resource(primary_key="id", write_disposition="merge")
def orders(path, token=dlt.secrets.value, updated=SINCE):
    assert token == "hush-hush-token"
    yield rows(path)


@dlt.resource(write_disposition="replace")
def typed():
    yield {
        "id": 1,
        "price": Decimal("12345678901234567890.123456789"),
        "count": 2**40,
        "ok": True,
        "at": datetime(2026, 7, 1, 8, tzinfo=UTC),
        "Weird Name": "x",
        "tags": [{"a": 1}],
        "address": {"city": "Bonn"},
    }
    yield {"id": "2", "price": 1.5, "count": None, "ok": "no", "at": "2026-07-01T08:00:00Z"}


@dlt.resource
def mixed():
    yield [{"id": 1, "n": 1}, {"id": 2, "n": "personal"}]


@dlt.resource
def arrow(count=10):
    import pyarrow as pa

    yield pa.table({"id": list(range(count)), "text": ["x"] * count, "n": [0.5] * count})


@dlt.source
def shop(path):
    return [
        dlt.resource(rows(path), name="orders", primary_key="id"),
        dlt.resource([{"id": 9}], name="others"),
    ]


@dlt.resource
def failing():
    import sys

    print("out of tea, hush-hush-token", file=sys.stderr)
    yield {"id": 1}
    raise TimeoutError


@dlt.resource
def refused():
    error = OSError("401")
    error.response = type("Response", (), {"status_code": 401})()
    yield {"id": 1}
    raise error


@dlt.resource
def seen(path):
    with open(path, "w") as file:
        json.dump(dict(os.environ), file)
    yield {"id": 1}


@dlt.resource
def forgetful(state_size=20_000):
    state = dlt.current.resource_state()
    state["runs"] = state.get("runs", 0) + 1
    state["pad"] = os.urandom(state_size).hex()
    yield {"id": state["runs"]}
