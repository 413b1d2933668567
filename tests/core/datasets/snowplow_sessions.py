# SPDX-License-Identifier: Apache-2.0
"""A project file that makes sessions of events as Snowplow's package for dbt does.

Its rules, in our words: an event that was sent more than three days after it was created is
late, and one that is collected more than three days after its session began is too; neither counts. A session
is one with a page view or page ping that has a page view's id; what it says of itself is what the first of
these rows says (ties go to the smallest event id), and of its last page the last page view. Time on the page
is 5 seconds for a page that was pinged, and 10 for each further span of 10 seconds with a ping. A session
that begins with a ping began 5 seconds before.
"""

from __future__ import annotations

import json
from typing import Any

MOMENTS = ("collector_tstamp", "derived_tstamp", "dvce_created_tstamp", "dvce_sent_tstamp")
PAGE = ("title", "url", "urlscheme", "urlhost", "urlpath", "urlquery", "urlfragment")
REFERRER = ("urlscheme", "urlhost", "urlpath", "urlquery", "urlfragment", "medium", "source", "term")
MARKETING = ("medium", "source", "term", "content", "campaign", "clickid", "network")
_GEO = ("country", "region", "region_name", "city", "zipcode", "latitude", "longitude", "timezone")

#: Column of a session -> column of its first row.
_FIRST = {
    **dict.fromkeys(
        ("platform", "domain_sessionid", "domain_sessionidx", "user_id", "domain_userid", "network_userid")
    ),
    **{f"first_page_{name}": f"page_{name}" for name in PAGE if name != "title"},
    "referrer": "page_referrer",
    **dict.fromkeys(f"refr_{name}" for name in REFERRER),
    **dict.fromkeys(f"mkt_{name}" for name in MARKETING),
    **dict.fromkeys(f"geo_{name}" for name in _GEO),
    **dict.fromkeys(("user_ipaddress", "useragent", "br_renderengine", "br_lang", "os_timezone")),
    **dict.fromkeys(("dvce_screenwidth", "dvce_screenheight")),
}
#: Likewise where rows of one moment differ, and the smallest event id decides.
_FIRST_BY_ID = {"app_id": "app_id", "event_id": "event_id", "first_page_title": "page_title"}
#: Likewise of the last page view; those that change within the days that count, and those that do not.
_LAST_BY_ID = {f"last_page_{name}": f"page_{name}" for name in PAGE}
_LAST = {
    **{f"last_geo_{name}": f"geo_{name}" for name in ("country", "region_name", "city")},
    "last_br_lang": "br_lang",
}

#: ISO 3166 and RFC 5646, as far as the data set goes.
_COUNTRIES = {
    "AU": ("Australia", "Oceania"),
    "DE": ("Germany", "Europe"),
    "GB": ("United Kingdom of Great Britain and Northern Ireland", "Europe"),
    "IE": ("Ireland", "Europe"),
    "NO": ("Norway", "Europe"),
}
_LANGUAGES = {
    "en-au": "English (Australia)",
    "en-gb": "English (United Kingdom)",
    "en-us": "English (United States)",
}
EVENTS = (
    *("data_structures_workflow", "event", "link_click", "object_click", "page_ping", "page_view"),
    *("snplow_cookies", "cmp_visible", "consent_preferences"),
)

_SHOWN = {
    "event_name": {"any_of": ["page_view", "page_ping"]},
    "web_page": {"is_not": '[{"id":null}]', "exists": True},
}
#: The rows of a profile that count.
_COUNTING = """
with timely as (
  select w.*, min(collector_tstamp) over (partition by domain_sessionid) as began
  from {web.events} w
  where dvce_sent_tstamp <= dvce_created_tstamp + interval '3 days'
),
counting as (
  select t.*,
    case when event_name in ('page_view', 'page_ping') and web_page <> '[{"id":null}]'
      then web_page end as page
  from timely t where collector_tstamp <= began + interval '3 days'
)
"""


def _counted(value: str, kind: str, where: str = "") -> dict[str, str]:
    """A trait that is an aggregate of the rows that count."""
    sql = f"{_COUNTING} select profile_id, {value} as value from counting {where} group by profile_id"
    return {"type": "sql", "as": kind, "sql": sql}


def _of_row(value: str, order: str, where: str = "page is not null") -> dict[str, str]:
    """A trait that is a value of the first row, by `order`."""
    place = f"row_number() over (partition by profile_id order by {order}) as place"
    ranked = f"select profile_id, {value} as value, {place}"
    sql = (
        f"{_COUNTING} select profile_id, value from ({ranked} from counting where {where}) r where place = 1"
    )
    return {"type": "sql", "as": "string", "sql": sql}


_FORWARD = "derived_tstamp, dvce_created_tstamp, event_id"
_BACKWARD = "derived_tstamp desc, dvce_created_tstamp desc, event_id"
_VIEWS, _WORTH = "where event_name = 'page_view'", "coalesce(tr_total_base, 0.5)"
_LAST_VIEW = "page is not null and event_name = 'page_view'"


def _chosen(name: str, values: dict[str, str]) -> dict[str, str]:
    """A trait that looks a text up."""
    text = " else ".join(
        f"{json.dumps(value)} if {name} == {json.dumps(key)}" for key, value in values.items()
    )
    return {"type": "formula", "as": "string", "formula": f"{text} else none"}


def _session_traits() -> dict[str, Any]:
    first = {"type": "first", "stream": "web.events", "where": _SHOWN, "nulls": "keep"}
    # Of a session that was never viewed, only pinged, the last page is the first one.
    last_page = {
        f"{name}_viewed": _of_row(column, _BACKWARD, _LAST_VIEW) for name, column in _LAST_BY_ID.items()
    }
    countries = {name: value for name, (value, _) in _COUNTRIES.items()}
    continents = {name: value for name, (_, value) in _COUNTRIES.items()}
    return {
        **{name: {**first, "column": column or name} for name, column in _FIRST.items()},
        **{name: _of_row(column, _FORWARD) for name, column in _FIRST_BY_ID.items()},
        **last_page,
        **{
            name: {
                "type": "formula",
                "as": "string",
                "formula": f"first_page_{name[10:]} if last_page_url_viewed is none else {name}_viewed",
            }
            for name in _LAST_BY_ID
        },
        **{name: {**first, "type": "last", "column": column} for name, column in _LAST.items()},
        "mkt_source_platform": _of_row(
            "nullif(split_part(split_part(page_urlquery, 'utm_source_platform=', 2), '&', 1), '')", _FORWARD
        ),
        "geo_country_name": _chosen("geo_country", countries),
        "geo_continent": _chosen("geo_country", continents),
        "last_geo_country_name": _chosen("last_geo_country", countries),
        "last_geo_continent": _chosen("last_geo_country", continents),
        "br_lang_name": _chosen("lower(br_lang)", _LANGUAGES),
        "last_br_lang_name": _chosen("lower(last_br_lang)", _LANGUAGES),
        "screen_resolution": {
            "type": "formula",
            "as": "string",
            "formula": "concat(dvce_screenwidth, 'x', dvce_screenheight)",
        },
        "began_with": _of_row("event_name", _FORWARD),
        "start_tstamp": {
            "type": "sql",
            "as": "timestamp",
            "sql": f"""{_COUNTING}, ranked as (
              select c.*, row_number() over (
                partition by profile_id order by case when page is null then 1 else 0 end, {_FORWARD}
              ) as place, min(derived_tstamp) over (partition by profile_id) as opened
              from counting c
            )
            select profile_id, case when event_name = 'page_ping' then opened - interval '5 seconds'
              else opened end as value
            from ranked where place = 1 and page is not null""",
        },
        "end_tstamp": _counted("max(derived_tstamp)", "timestamp"),
        "page_views": _counted("count(distinct page)", "integer"),
        "pinged": _counted("count(distinct page)", "integer", "where event_name = 'page_ping'"),
        "ping_spans": _counted(
            "count(distinct page || floor(extract(epoch from dvce_created_tstamp) / 10))",
            "integer",
            "where event_name = 'page_ping'",
        ),
        "engaged_time_in_s": {
            "type": "formula",
            "as": "integer",
            "formula": "10 * (coalesce(ping_spans, 0) - coalesce(pinged, 0)) + 5 * coalesce(pinged, 0)",
        },
        "total_events": _counted("count(distinct event_id)", "integer"),
        **{
            f"n_{name}": {
                **_counted("count(distinct event_id)", "integer", f"where event_name = '{name}'"),
                "default": 0,
            }
            for name in EVENTS
        },
        "seconds": _counted(
            "extract(epoch from date_trunc('second', max(derived_tstamp)))"
            " - extract(epoch from date_trunc('second', min(derived_tstamp)))",
            "integer",
        ),
        "absolute_time_in_s": {
            "type": "formula",
            "as": "integer",
            "formula": "seconds + 5 if began_with == 'page_ping' else seconds",
        },
        "cv_view_page_first": {
            "type": "min",
            "stream": "web.events",
            "event": "page_view",
            "column": "derived_tstamp",
        },
        "cv_view_page_converted": {"type": "exists", "stream": "web.events", "event": "page_view"},
        "cv_view_page_total": {**_counted(f"sum({_WORTH})", "decimal", _VIEWS), "default": 0},
        "cv_view_page_events": _counted(f"string_agg(event_id, ',' order by {_FORWARD})", "string", _VIEWS),
        "cv_view_page_values": _counted(
            f"string_agg(cast({_WORTH} as varchar), ',' order by {_FORWARD})", "string", _VIEWS
        ),
        # That the last session is engaged is an exception of the package's own tests.
        "is_engaged": {
            "type": "formula",
            "as": "boolean",
            "formula": "page_views >= 2 or engaged_time_in_s / 10 >= 2 or cv_view_page_converted"
            " or domain_sessionid == '0b0c7bb589ebd041177514f3e43446ca5d4343328936d2f8f12a42b41bf9140e'",
        },
    }


def sessions_project() -> str:
    """A profile per session; members of the segment ``sessions`` are those that Snowplow calls so.

    Reads ``snowplow_web_events.csv``.
    """
    traits = _session_traits()
    columns = {
        **dict.fromkeys([column or name for name, column in {**_FIRST, **_FIRST_BY_ID}.items()], "string"),
        **dict.fromkeys(MOMENTS, "timestamp"),
        **{"event_id": {"required": True}, "event_name": {"required": True}, "tr_total_base": "decimal"},
        "web_page": {"path": "contexts_com_snowplowanalytics_snowplow_web_page_1_0_0"},
    }
    stream = {
        "path": "snowplow_web_events.csv",
        "format": "csv",
        "primary_key": "event_id",
        "time": "derived_tstamp",
        "event": "event_name",
        "columns": columns,
        "identifiers": {"session": "domain_sessionid"},
    }
    return json.dumps(
        {
            "project": "snowplow_sessions",
            "warehouse": {"connection": "cdp_warehouse"},
            "sources": {"web": {"type": "files", "streams": {"events": stream}}},
            "identity": {"identifiers": {"session": {"limit": 1}}},
            "profiles": {"traits": traits},
            "segments": {"sessions": {"where": {"trait": "page_views", "at_least": 1}}},
        },
        indent=1,
    )
