# SPDX-License-Identifier: Apache-2.0
"""A tap made with singer-sdk, in whose environment it runs: the rows of a JSON file, incrementally."""

from __future__ import annotations

import json

from singer_sdk import Stream, Tap
from singer_sdk import typing as th


class Rows(Stream):
    name = "answers"
    primary_keys = ("id",)
    replication_key = "updated_at"
    schema = th.PropertiesList(
        th.Property("id", th.IntegerType),
        th.Property("name", th.StringType),
        th.Property("price", th.NumberType),
        th.Property("updated_at", th.DateTimeType),
    ).to_dict()

    def get_records(self, context):
        since = self.get_starting_replication_key_value(context) or ""
        with open(self.config["path"]) as file:
            rows = json.load(file)
        yield from (row for row in rows if row["updated_at"] >= since)


class Others(Rows):
    name = "others"


class TapRows(Tap):
    name = "tap-rows"
    config_jsonschema = th.PropertiesList(
        th.Property("path", th.StringType, required=True),
        th.Property("token", th.StringType, required=True, secret=True),
    ).to_dict()

    def discover_streams(self):
        return [Rows(self), Others(self)]


if __name__ == "__main__":
    TapRows.cli()
