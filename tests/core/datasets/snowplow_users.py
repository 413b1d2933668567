# SPDX-License-Identifier: Apache-2.0
"""A project file that makes users of sessions as Snowplow's package for dbt does, and stitches them."""

from __future__ import annotations

import json

from tests.core.datasets.snowplow_sessions import MARKETING, PAGE, REFERRER

#: Column of a user -> column of its first session, of its last one.
_OF_FIRST = {
    **dict.fromkeys(("user_id", "network_userid", "referrer", "mkt_source_platform")),
    **dict.fromkeys(f"first_page_{name}" for name in PAGE),
    **dict.fromkeys([*(f"refr_{name}" for name in REFERRER), *(f"mkt_{name}" for name in MARKETING)]),
    **{
        f"first_{name}": name
        for name in (
            *("geo_country", "geo_country_name", "geo_continent", "geo_city", "geo_region_name"),
            *("br_lang", "br_lang_name"),
        )
    },
    "first_event_id": "event_id",
}
_OF_LAST = {
    **dict.fromkeys(f"last_page_{name}" for name in PAGE),
    **dict.fromkeys(
        f"last_{name}"
        for name in (
            *("geo_country", "geo_country_name", "geo_continent", "geo_city", "geo_region_name"),
            *("br_lang", "br_lang_name"),
        )
    ),
    "last_event_id": "event_id",
}
#: Columns of sessions that a user is made of.
SESSION_COLUMNS = {
    **dict.fromkeys(
        [column or name for name, column in {**_OF_FIRST, **_OF_LAST}.items()]
        + ["domain_sessionid", "domain_userid"],
        "string",
    ),
    **dict.fromkeys(("page_views", "engaged_time_in_s"), "integer"),
    **dict.fromkeys(("start_tstamp", "end_tstamp"), "timestamp"),
}


def users_project() -> str:
    """A profile per device; members of the segment ``users`` are those that Snowplow calls so.

    Reads ``snowplow_web_events.csv`` for stitching, by the time that events were collected, and sessions as
    NDJSON: ``opened.ndjson``, where of sessions that begin at one moment the one that counts as the first
    comes first, and ``closed.ndjson``, where of those that end so the one that counts as the last comes last.
    """
    session = {
        "format": "ndjson",
        "primary_key": "domain_sessionid",
        "columns": SESSION_COLUMNS,
        "identifiers": {"device": "domain_userid"},
    }
    events = {
        "path": "snowplow_web_events.csv",
        "format": "csv",
        "primary_key": "event_id",
        "time": "collector_tstamp",
        "columns": {
            **dict.fromkeys(("event_id", "user_id", "domain_userid"), "string"),
            "collector_tstamp": "timestamp",
        },
        "identifiers": {"device": "domain_userid"},
    }
    opened, closed = {"stream": "web.opened", "nulls": "keep"}, {"stream": "web.closed", "nulls": "keep"}
    traits = {
        **{name: {"type": "first", **opened, "column": column or name} for name, column in _OF_FIRST.items()},
        **{name: {"type": "last", **closed, "column": column or name} for name, column in _OF_LAST.items()},
        "start_tstamp": {"type": "min", "stream": "web.opened", "column": "start_tstamp"},
        "end_tstamp": {"type": "max", "stream": "web.opened", "column": "end_tstamp"},
        "page_views": {"type": "sum", "stream": "web.opened", "column": "page_views"},
        "engaged_time_in_s": {"type": "sum", "stream": "web.opened", "column": "engaged_time_in_s"},
        "sessions": {"type": "distinct_count", "stream": "web.opened", "column": "domain_sessionid"},
        **{
            f"{end}_event_id2": {
                "type": "formula",
                "as": "string",
                "formula": f'concat({end}_event_id, "-{end}")',
            }
            for end in ("first", "last")
        },
    }
    return json.dumps(
        {
            "project": "snowplow_users",
            "warehouse": {"connection": "cdp_warehouse"},
            "sources": {
                "web": {
                    "type": "files",
                    "streams": {
                        "events": events,
                        "opened": {**session, "path": "opened.ndjson", "time": "start_tstamp"},
                        "closed": {**session, "path": "closed.ndjson", "time": "end_tstamp"},
                    },
                }
            },
            "identity": {"identifiers": {"device": {"limit": 1}}},
            "profiles": {
                "fields": {
                    "domain_userid": {"from": ["web.events.domain_userid"]},
                    "stitched_user_id": {"from": ["web.events.user_id"]},
                },
                "traits": traits,
            },
            "segments": {"users": {"where": {"trait": "sessions", "at_least": 1}}},
        },
        indent=1,
    )
