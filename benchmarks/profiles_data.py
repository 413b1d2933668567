# SPDX-License-Identifier: Apache-2.0
"""A made-up shop for the benchmark of profiles: two years of visits and orders, and what is asked of them.

All of it is arithmetic on row numbers, done by the warehouse, so both engines hold the same. Everything
happens in visits: ten events within some minutes, and an order. 104 weeks of visits are 20 events and 2
orders per profile; one week more is about 1 %. Visits and not single events, because that is how people
come: a week of single events would touch one profile in six, a week of visits touches about 2 % of them.
Visitors are uneven: the busiest make about 100 visits, one profile in four makes none.

Each week is one batch per stream. One order in 20 is open at first; the next week's batch brings it again,
paid. Of the visits of a week that :func:`next_week` lands, a tenth are of new profiles and a tenth come under
new identifiers of known ones; some profiles are merged besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cdp_provider.core import tables
from cdp_provider.core.ingest import raw
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.streams import Stream
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from cdp_provider.core.warehouse import Session, Warehouse

WEB, TILL = "web.events", "till.orders"
WEEKS = 104
WEEK = timedelta(weeks=1)
_START = datetime(2024, 7, 1, tzinfo=UTC)
_EVENTS = 10

#: A project file's streams, without what only their kind of source understands.
STREAMS: dict[str, dict[str, Any]] = {
    WEB: {
        "primary_key": "event_id",
        "time": "happened",
        "event": "name",
        "columns": {
            "event_id": "string",
            "happened": "timestamp",
            "name": "string",
            "user_id": "string",
            "page": "string",
            "product_id": "string",
            "price": "decimal",
            "duration": "number",
            "device": "string",
        },
        "identifiers": {"user_id": "user_id"},
    },
    TILL: {
        "primary_key": "order_id",
        "time": "ordered_at",
        "columns": {
            "order_id": "string",
            "ordered_at": "timestamp",
            "user_id": "string",
            "status": "string",
            "total": "decimal",
            "items": "integer",
        },
        "identifiers": {"user_id": "user_id"},
    },
}

#: Name of an event -> how many of a hundred have it; from Product Viewed on, with a product.
_NAMES = {
    "Page Viewed": 42,
    "Search": 7,
    "Scrolled": 5,
    "Video Played": 2,
    "Signed In": 3,
    "Help Opened": 1,
    "Product Viewed": 22,
    "Product Added": 8,
    "Product Removed": 3,
    "Checkout Started": 4,
    "Coupon Used": 1,
    "Review Written": 2,
}
_STATUSES = {"open": 5, "paid": 80, "refunded": 8, "cancelled": 7}
_DEVICES = {"desktop": 45, "mobile": 48, "tablet": 7}


def _of(ref: str, kind: str, column: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": kind, "stream": ref, **({"column": column} if column else {}), **more}


#: Thirty traits, in the language of a project file.
TRAITS: dict[str, dict[str, Any]] = {
    "events": _of(WEB, "count"),
    "products_viewed": _of(WEB, "count", event="Product Viewed"),
    "mobile_events": _of(WEB, "count", where={"device": "mobile"}),
    "visits_7d": _of(WEB, "count", event="Page Viewed", within_last="7 days"),
    "added_30d": _of(WEB, "count", event="Product Added", within_last="30 days"),
    "dear_90d": _of(WEB, "count", where={"price": {"at_least": 50}}, within_last="90 days"),
    "orders": _of(TILL, "count", where={"status": {"any_of": ["paid", "open"]}}),
    "refunds": _of(TILL, "count", where={"status": "refunded"}),
    "time_on_site": _of(WEB, "sum", "duration"),
    "viewed_value": _of(WEB, "sum", "price", event="Product Viewed"),
    "spent": _of(TILL, "sum", "total", where={"status": "paid"}),
    "spent_365d": _of(TILL, "sum", "total", where={"status": "paid"}, within_last="365 days"),
    "items_bought": _of(TILL, "sum", "items"),
    "page_seconds": _of(WEB, "average", "duration", event="Page Viewed"),
    "price_seen": _of(WEB, "average", "price"),
    "basket": _of(TILL, "average", "total", where={"status": "paid"}),
    "cheapest_seen": _of(WEB, "min", "price"),
    "longest_look": _of(WEB, "max", "duration"),
    "largest_order": _of(TILL, "max", "total"),
    "first_page": _of(WEB, "first", "page"),
    "last_page": _of(WEB, "last", "page"),
    "last_viewed": _of(WEB, "last", "product_id", event="Product Viewed"),
    "last_status": _of(TILL, "last", "status"),
    "products_seen": _of(WEB, "distinct_count", "product_id"),
    "pages_seen": _of(WEB, "distinct_count", "page"),
    "favourite_page": _of(WEB, "most_frequent", "page"),
    "products": _of(WEB, "list", "product_id", limit=20),
    "days_since_visit": _of(WEB, "days_since_last"),
    "days_since_order": _of(TILL, "days_since_last", where={"status": "paid"}),
    "reviewed": _of(WEB, "exists", event="Review Written"),
}

#: The days of windows, and the place of each one's bound below.
DAYS = (7, 30, 90, 365)


@dataclass(frozen=True)
class Asked:
    """A segment, and the same by hand.

    :param where: its condition, in the language of a project file.
    :param members: SQL over the tables of ``cdp`` that selects its ``profile_id``.
    :param aggregate: of one on an event window of so many `days`: what it measures of rows of `ref`, with
        ``{since}`` for the further condition on time.
    """

    where: dict[str, Any]
    members: str
    ref: str = ""
    aggregate: str = ""
    days: int = 0


def on_traits(engine: str) -> list[Asked]:
    """Sixty segments on traits."""
    held = "products @> '\"{0}\"'" if engine == "postgres" else "json_contains(products, '\"{0}\"')"
    found: list[tuple[dict[str, Any], str]] = []

    def bounds(trait: str, operator: str, sign: str, *values: float) -> None:
        found.extend(({"trait": trait, operator: value}, f"{trait} {sign} {value}") for value in values)

    bounds("spent", "at_least", ">=", 800, 1200, 1600, 2000, 3000, 4000)
    bounds("orders", "at_least", ">=", 6, 8, 12, 16, 24, 40)
    bounds("days_since_order", "at_most", "<=", 1, 3, 7, 14, 21)
    bounds("days_since_visit", "at_most", "<=", 1, 2, 5, 10, 20)
    bounds("time_on_site", "more_than", ">", 10_000, 15_000, 20_000, 30_000, 40_000)
    bounds("largest_order", "at_least", ">=", 200, 240, 270, 290)
    for low in (20, 50, 80, 110, 140):
        found.append(({"trait": "basket", "between": [low, low + 3]}, f"basket between {low} and {low + 3}"))
    for status in ("open", "refunded", "cancelled"):
        found.append(({"trait": "last_status", "is": status}, f"last_status = '{status}'"))
    for page in range(10, 50, 10):
        pages = [f"/page/{number}" for number in range(page, page + 5)]
        found.append(
            ({"trait": "first_page", "any_of": pages}, f"first_page in ({', '.join(map(repr, pages))})")
        )
        start = {"trait": "favourite_page", "starts_with": f"/page/{page}"}
        found.append((start, f"starts_with(lower(favourite_page), '/page/{page}')"))
    for product in ("p0", "p1", "p2", "p3", "p4"):
        found.append(({"trait": "products", "contains": product}, held.format(product)))
    for least in (500, 1000, 1500, 2000):
        both = [{"trait": "reviewed", "is": True}, {"trait": "spent", "at_least": least}]
        found.append(({"all": both}, f"reviewed and spent >= {least}"))
        either = [
            {"trait": "refunds", "at_least": least // 250},
            {"trait": "price_seen", "less_than": least // 100},
        ]
        found.append(({"any": either}, f"(refunds >= {least // 250} or price_seen < {least // 100})"))
    return [Asked(where, f"select profile_id from cdp.profiles where {by_hand}") for where, by_hand in found]


def on_events(now: datetime) -> list[Asked]:
    """Forty segments on windows of events, ten for each length."""
    numbers = "count(*) filter (where {0}{{since}})"
    sums = "sum({1}) filter (where {0}{{since}})"
    found = []

    def each(ref: str, asked: dict[str, Any], by_hand: str, aggregate: str, *bounds: int) -> None:
        for days, bound in zip(DAYS, bounds, strict=True):
            where = {"stream": ref, **asked, "within_last": f"{days} days", "at_least": bound}
            having = aggregate.format(by_hand, asked.get("sum")).format(since="")
            rows = f"from {linked(ref)} where {by_hand} and {since(ref, now, days)}"
            members = f"select profile_id {rows} group by profile_id having {having} >= {bound}"
            found.append(Asked(where, members, ref, aggregate.format(by_hand, asked.get("sum")), days))

    added, paid = {"event": "Product Added"}, {"where": {"status": "paid"}}
    is_added, is_paid = "name = 'Product Added'", "status = 'paid'"
    each(WEB, {"event": "Page Viewed"}, "name = 'Page Viewed'", numbers, 6, 8, 10, 30)
    dear = {"event": "Product Viewed", "where": {"price": {"at_least": 100}}}
    each(WEB, dear, "name = 'Product Viewed' and price >= 100", numbers, 2, 3, 4, 8)
    each(WEB, added, is_added, numbers, 2, 2, 3, 6)
    searched = {"event": "Search", "where": {"device": "mobile"}}
    each(WEB, searched, "name = 'Search' and device = 'mobile'", numbers, 1, 1, 2, 5)
    each(WEB, {"event": "Video Played", "sum": "duration"}, "name = 'Video Played'", sums, 50, 100, 300, 600)
    each(WEB, {**added, "sum": "price"}, is_added, sums, 100, 150, 200, 600)
    each(TILL, paid, is_paid, numbers, 1, 2, 2, 5)
    each(TILL, {**paid, "sum": "total"}, is_paid, sums, 50, 150, 200, 600)
    each(TILL, {"sum": "items"}, "true", sums, 4, 6, 8, 20)
    for days, orders in zip(DAYS, (20, 10, 6, 3), strict=True):
        never = {"stream": TILL, **paid, "within_last": f"{days} days", "exactly": 0}
        where = {"all": [{"trait": "orders", "at_least": orders}, never]}
        recent = f"select profile_id from {linked(TILL)} where {is_paid} and {since(TILL, now, days)}"
        members = (
            f"select p.profile_id from cdp.profiles p where orders >= {orders}"
            f" and not exists (select 1 from ({recent}) r where r.profile_id = p.profile_id)"
        )
        found.append(Asked(where, members, TILL, numbers.format(is_paid), days))
    return found


def linked(ref: str) -> str:
    """SQL of a stream's rows with their profiles, as one joins them by hand."""
    name = ref.replace(".", "__")
    return f"cdp.linked_{name} r join cdp.identifiers i on i.node_id = r._node_id"


def since(ref: str, now: datetime, days: int) -> str:
    """SQL: a row's time is no longer ago."""
    start = (now - timedelta(days=days)).isoformat()
    return f"{STREAMS[ref]['time']} >= timestamp with time zone '{start}'"


def streams() -> list[Stream]:
    """The streams, as the steps take them."""
    found = []
    for ref, stream in STREAMS.items():
        source, name = ref.split(".")
        found.append(Stream.model_validate({"source": source, "name": name, **stream, "options": Options()}))
    return found


def run(week: int) -> Run:
    """The run at the end of that week, counted from 1."""
    end = _START + week * WEEK
    return Run("bench", f"week_{week}", Window(end - WEEK, end))


def land(warehouse: Warehouse, profiles: int) -> None:
    """Two years of a shop with so many profiles, a multiple of 5, that one identity run took in."""
    with warehouse.session() as session:
        tables.ensure(session)
        with session.transaction():
            for stream in streams():
                raw.ensure(session, stream)
        with session.transaction():
            _people(session, profiles)
            for week in range(1, WEEKS + 1):
                _batch(session, profiles, week, resolved=1)
            _resolved(session, WEEKS, 1)
        for column in ("value", "profile_id"):
            session.index("identifiers", column, text=column == "value")
        for table in (*(stream.raw_table for stream in streams()), "loads", "identifiers", "row_links"):
            session.analyze(warehouse.table(table))


def next_week(warehouse: Warehouse, profiles: int, week: int) -> None:
    """One week more, for `week` from 105 on: landed, and taken in by an identity run of its own."""
    resolved = week - WEEKS + 1
    with warehouse.session() as session, session.transaction():
        _newcomers(session, profiles, week, resolved)
        _batch(session, profiles, week, resolved)
        _merges(session, profiles, week, resolved)
        _resolved(session, week, resolved)


def _whole(number: str, divisor: int) -> str:
    """SQL of a whole number by another, rounded down; engines differ in what ``/`` is."""
    return f"cast((({number}) - ({number}) % {divisor}) / {divisor} as bigint)"


def _chance(number: str, salt: int) -> str:
    """SQL of a number from 0 to 2,147,483,646 that looks random and follows from `number` and `salt`."""
    mixed = f"((cast({number} as bigint) * 7368787 + {salt * 611_953 + 12_345}) % 2147483647)"
    return f"(({mixed} * ({mixed} % 48271 + 16807)) % 2147483647)"


def _share(number: str, salt: int) -> str:
    """SQL of the same as a share of 1."""
    return f"(cast({_chance(number, salt)} as double precision) / 2147483647)"


def _drawn(number: str, salt: int, weights: dict[str, int]) -> str:
    """SQL of a text, each as often as its weight of 100 says."""
    drawn, upto, cases = f"{_chance(number, salt)} % 100", 0, []
    for text, weight in weights.items():
        upto += weight
        cases.append(f"when {drawn} < {upto} then '{text}'")
    return f"case {' '.join(cases)} end"


def _node(place: str) -> str:
    """SQL of the oldest identifier, and so the id, of the profile at a place from 0. Of five profiles in a
    row three have two identifiers, so they take eight numbers."""
    among = f"case when {place} % 5 < 3 then {place} % 5 * 2 else {place} % 5 + 3 end"
    return f"({_whole(place, 5)} * 8 + 1 + {among})"


def _visits_a_week(profiles: int) -> int:
    return max(2 * profiles // WEEKS, 10)


def _fresh(profiles: int) -> int:
    """So many visits of a later week are of new profiles, and so many under new identifiers."""
    return _visits_a_week(profiles) // 10


def _newest_node(profiles: int, week: int) -> int:
    """The last identifier known before a week after the first two years."""
    return profiles * 8 // 5 + (week - WEEKS - 1) * 2 * _fresh(profiles)


def _visits(profiles: int, week: int) -> str:
    """SQL of a week's visits: ``p`` from 0, ``k`` unique over all weeks, ``happened``, ``node``."""
    count = _visits_a_week(profiles)
    k = f"({week * count} + p)"
    # A busy few, then ever fewer; the prime spreads them over all ids.
    rank = f"cast(floor({profiles} * {_share(k, 1)} * (0.02e0 + 0.98e0 * {_share(k, 1)})) as bigint)"
    second = f"case when place % 5 < 3 and {_chance('k', 2)} % 10 < 3 then 1 else 0 end"
    node = f"{_node('place')} + {second}"
    if week > WEEKS:
        newest = _newest_node(profiles, week)
        node = f"case when p < {2 * _fresh(profiles)} then {newest} + 1 + p else {node} end"
    start = (_START + (week - 1) * WEEK).isoformat()
    return (
        f"select p, k, cast('{start}' as timestamp with time zone) + ({_chance('k', 3)} % 601200)"
        f" * interval '1 second' as happened, {node} as node from (select p, {k} as k,"
        f" {rank} * 7368787 % {profiles} as place from generate_series(0, {count - 1}) as g(p)) v"
    )


def _batch(session: Session, profiles: int, week: int, resolved: int) -> None:
    table, visits = session.warehouse.table, _visits(profiles, week)
    count = _visits_a_week(profiles)
    events, orders = streams()
    _load(session, events, week, resolved, count * _EVENTS)
    session.execute(
        f"insert into {table(events.raw_table)} ({', '.join(events.columns)}, _load_id, _position)"
        f" select {_event_columns()}, {_load_id(events, week)}, p * {_EVENTS} + j + 1"
        f" from (select v.*, j, k * {_EVENTS} + j as e"
        f" from ({visits}) v cross join generate_series(0, {_EVENTS - 1}) as g(j)) e"
    )
    _link(session, events, week, f"p * {_EVENTS} + j + 1", visits, _EVENTS)
    again = week > 1
    _load(session, orders, week, resolved, count * (1 + again))
    parts = [(visits, "p + 1", _drawn("k", 20, _STATUSES), "true")]
    if again:
        was_open = f"{_drawn('k', 20, _STATUSES)} = 'open'"
        parts.append((_visits(profiles, week - 1), f"p + {count + 1}", "'paid'", was_open))
    for rows, position, status, where in parts:
        session.execute(
            f"insert into {table(orders.raw_table)} ({', '.join(orders.columns)}, _load_id, _position)"
            f" select 'o' || k, happened + interval '15 minutes', 'u' || node, {status},"
            f" cast({_share('k', 21)} * {_share('k', 22)} * 30000 as bigint) * cast(0.01 as decimal(3, 2)),"
            f" 1 + {_chance('k', 23)} % 5, {_load_id(orders, week)}, {position} from ({rows}) v where {where}"
        )
        _link(session, orders, week, position, rows, 1, where)


def _event_columns() -> str:
    """SQL of an event's columns, in the order of the stream's."""
    named = _drawn("e", 10, _NAMES)
    without = sum(list(_NAMES.values())[:6])
    product = f"case when {_chance('e', 10)} % 100 >= {without} then"
    return (
        "md5(cast(e as varchar)),"
        f" happened + (j * 50 + {_chance('e', 11)} % 40) * interval '1 second', {named}, 'u' || node,"
        f" '/page/' || cast(floor(200 * {_share('e', 12)} * {_share('e', 12)}) as bigint),"
        f" {product} 'p' || cast(floor(5000 * {_share('e', 13)} * {_share('e', 13)}) as bigint) end,"
        f" {product} cast({_chance('e', 14)} % 20000 as bigint) * cast(0.01 as decimal(3, 2)) end,"
        f" case when {_chance('e', 15)} % 10 > 0"
        f" then cast({_chance('e', 15)} % 600000 as double precision) / 1000 end,"
        f" {_drawn('k', 16, _DEVICES)}"
    )


def _load_id(stream: Stream, week: int) -> int:
    return 2 * week - (stream.ref == WEB)


def _load(session: Session, stream: Stream, week: int, resolved: int, rows: int) -> None:
    """The line of a batch; `rows` is about right."""
    session.execute(
        f"insert into {session.warehouse.table('loads')}"
        " (load_id, load_seq, batch_id, pipeline, stream, run_id, window_start, window_end, rows_read,"
        " rows_landed, rows_quarantined, bytes, content_hash, state, resolved_seq, resolved_hash)"
        " values (:id, :week, :batch, 'bench', :stream, :run, :start, :end, :rows, :rows, 0, 0, 'hash',"
        " 'passed', :resolved, 'hash')",
        {
            "id": _load_id(stream, week),
            "week": week,
            "batch": f"{stream.ref} {week}",
            "stream": stream.ref,
            "run": run(week).run_id,
            "start": run(week).window.start,
            "end": run(week).window.end,
            "rows": rows,
            "resolved": resolved,
        },
    )


def _link(
    session: Session, stream: Stream, week: int, position: str, visits: str, times: int, where: str = "true"
) -> None:
    session.execute(
        f"insert into {session.warehouse.table('row_links')} (stream, load_id, position, node_id)"
        f" select '{stream.ref}', {_load_id(stream, week)}, {position}, node"
        f" from ({visits}) v cross join generate_series(0, {times - 1}) as g(j) where {where}"
    )


def _people(session: Session, profiles: int) -> None:
    """All identifiers of the first two years."""
    own = f"n - case when {_node_in_eight()} < 6 and {_node_in_eight()} % 2 = 1 then 1 else 0 end"
    _identifiers(session, f"generate_series(1, {profiles * 8 // 5}) as g(n)", own, _START, 1)


def _node_in_eight() -> str:
    return "((n - 1) % 8)"


def _newcomers(session: Session, profiles: int, week: int, resolved: int) -> None:
    """A week's new identifiers: the first half are new profiles, the others belong to known ones."""
    first, fresh = _newest_node(profiles, week) + 1, _fresh(profiles)
    known = _node(f"({_chance('n', 30)} % {profiles})")
    held = f"(select i.profile_id from {session.warehouse.table('identifiers')} i where i.node_id = {known})"
    own = f"case when n < {first + fresh} then n else {held} end"
    numbers = f"generate_series({first}, {first + 2 * fresh - 1}) as g(n)"
    _identifiers(session, numbers, own, _START + (week - 1) * WEEK, resolved)


def _identifiers(session: Session, numbers: str, own: str, seen: datetime, resolved: int) -> None:
    session.execute(
        f"insert into {session.warehouse.table('identifiers')} (node_id, type, value, profile_id, first_seen,"
        " resolved_seq, published_seq) select n, 'user_id', 'u' || n, profile_id, :seen, :seq,"
        f" case when n = profile_id then :seq end from (select n, {own} as profile_id from {numbers}) i",
        {"seen": seen, "seq": resolved},
    )


def _merges(session: Session, profiles: int, week: int, resolved: int) -> None:
    """One profile in 5,000 goes into another; no profile does so in two weeks."""
    count = max(profiles // 5_000, 1)
    first = (week - WEEKS) * 2 * count
    merges, identifiers = map(session.warehouse.table, ("merges", "identifiers"))
    events, _ = streams()
    session.execute(
        f"insert into {merges} select :seq, :run, {_node('(q + 1)')}, {_node('q')},"
        " :stream, :load, 1, 'user_id'"
        f" from (select {first} + 2 * m as q from generate_series(0, {count - 1}) as g(m)) v",
        {"seq": resolved, "run": run(week).run_id, "stream": events.ref, "load": _load_id(events, week)},
    )
    session.execute(
        f"update {identifiers} set profile_id = m.winner from {merges} m"
        " where m.resolved_seq = :seq and identifiers.profile_id = m.loser",
        {"seq": resolved},
    )


def _resolved(session: Session, week: int, resolved: int) -> None:
    """The line of an identity run; what it counts is nobody's business here."""
    session.execute(
        f"insert into {session.warehouse.table('identity_runs')} (pipeline, run_id, resolved_seq, window_end,"
        " replayed, rules, rows_in, rows_without_identifier, identifiers, new_identifiers, profiles,"
        " new_profiles, merged, split, refused, sizes, largest) values ('bench', :run, :seq, :end, false,"
        " 'rules', 0, 0, 0, 0, 0, 0, 0, 0, '{}', '{}', '[]')",
        {"run": run(week).run_id, "seq": resolved, "end": run(week).window.end},
    )
