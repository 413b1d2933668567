# SPDX-License-Identifier: Apache-2.0
"""Profiles and segments: what thirty traits, a hundred segments and one per cent more events cost.

``make bench-profiles``; ``CDP_BENCH_PROFILES`` instead of a million profiles, with 20 events and 2 orders
each (``profiles_data.py`` makes them), and ``CDP_BENCH_ROUNDS`` instead of 3. A few thousand and one will do
to see it run.

Ours are :func:`build_profiles` and :func:`build_segments`, whole, each in a process that did nothing before,
so that its peak memory is its own. Floors and peers are written by hand for each engine, give the same values
(the benchmark checks that), and run the same way, in turns with ours. DuckDB is a file with a
``memory_limit`` of 2 GB; what its process has at its largest is that and the program.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import yaml

from benchmarks import profiles_data as data
from benchmarks.postgres import postgres
from benchmarks.profiles_data import TILL, TRAITS, WEB, Asked
from benchmarks.table import Measured
from cdp_provider.core.profiles.build import build_profiles
from cdp_provider.core.project.model import Segment, Segmentation
from cdp_provider.core.project.profiles import Profiles
from cdp_provider.core.segments.membership import build_segments
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cdp_provider.core.warehouse import Session, Warehouse

PROFILES = int(os.environ.get("CDP_BENCH_PROFILES", "1_000_000")) // 5 * 5
NAMES = {"duckdb": "DuckDB", "postgres": "PostgreSQL"}
ROUNDS = int(os.environ.get("CDP_BENCH_ROUNDS", "3"))
#: Weeks of one per cent more, one after the other.
LATER = range(data.WEEKS + 1, data.WEEKS + 4)
MEMORY_LIMIT = 2_000_000_000
MB = 1_000_000

_FLOOR = "floor_of_bench"
_WHOLE = "profiles_before"


@dataclass(frozen=True)
class Place:
    """Where a warehouse is."""

    engine: str
    address: str

    def warehouse(self) -> Warehouse:
        """A new one, in whatever process."""
        if self.engine == "postgres":
            return PostgresWarehouse(lambda: psycopg.connect(self.address))
        config: dict[str, Any] = {"memory_limit": f"{MEMORY_LIMIT}B"}
        return DuckDBWarehouse(lambda: duckdb.connect(self.address, config=config))


@dataclass(frozen=True)
class Taken:
    """What a step answered, its seconds, and bytes of its process at its largest."""

    answer: Any
    seconds: float
    peak: int


def run() -> list[Measured]:
    """See the module. Seconds are medians of :data:`ROUNDS`."""
    with tempfile.TemporaryDirectory(prefix="cdp-bench-") as folder, postgres() as url:
        places = [Place("duckdb", str(Path(folder) / "profiles.duckdb")), Place("postgres", url)]
        lines = [line for place in places for line in measured(place)]
        return [*lines, *validation(Path(folder) / "cdp.yaml")]


def measured(place: Place) -> Iterator[Measured]:
    """All lines of one engine."""
    apart(prepare, place)
    taken = in_turn(
        {
            "nothing": (build, forget_all),
            "raw_floor": (traits_by_hand, forget_none),
            "linked": (build, forget_kept),
            "linked_floor": (linked_traits_by_hand, forget_none),
        },
        place,
    )
    apart(compare_traits, place)
    yield from _of_traits(NAMES[place.engine], taken)
    segments = in_turn(
        {
            "ours": (build_all_segments, forget_segments),
            "floor": (aggregates_by_hand, forget_none),
            "peer": (segments_by_hand, forget_none),
        },
        place,
    )
    members = apart(compare_segments, place).answer
    yield from _of_segments(NAMES[place.engine], segments, members)
    later, again = later_weeks(place)
    yield from _of_later(NAMES[place.engine], taken["nothing"], segments["peer"], later, again)
    peak = max(each.peak for each in (*taken_by_us(taken), segments["ours"], *later, *again))
    limit = 500 if place.engine == "postgres" else MEMORY_LIMIT / MB
    what = f"{NAMES[place.engine]}, peak of the task's process, MB"
    yield Measured(what, peak / MB, None, None, None, limit, "of all runs of ours")


def taken_by_us(taken: Mapping[str, Taken]) -> list[Taken]:
    """Without the floors."""
    return [each for name, each in taken.items() if "floor" not in name]


def _of_traits(name: str, taken: Mapping[str, Taken]) -> Iterator[Measured]:
    for ours, floor, rows, goal in (
        ("linked", "linked_floor", "rows linked before", 1.3),
        ("nothing", "raw_floor", "from landed rows", None),
    ):
        mine, hand = taken[ours], taken[floor]
        yield Measured(
            f"{name}, {PROFILES:,} profiles, {len(TRAITS)} traits, {rows}",
            mine.seconds,
            None,
            hand.seconds,
            mine.seconds / hand.seconds,
            goal,
            f"peak {mine.peak // MB} MB, floor {hand.peak // MB} MB; ratio: ours / a GROUP BY by hand",
        )


def _of_segments(name: str, taken: Mapping[str, Taken], members: int) -> Iterator[Measured]:
    ours, floor, peer = taken["ours"], taken["floor"], taken["peer"]
    what = f"{name}, 100 segments"
    yield Measured(
        f"{what}, nothing kept, one GROUP BY",
        ours.seconds,
        None,
        floor.seconds,
        ours.seconds / floor.seconds,
        1.3,
        f"{members:,} members; peak {ours.peak // MB} MB; goal: ours / the 40 filtered aggregates by hand",
    )
    yield Measured(
        f"{what}, nothing kept, one query each",
        ours.seconds,
        peer.seconds,
        None,
        ours.seconds / peer.seconds,
        0.15,
        "goal: ours / 100 queries by hand",
    )


def _of_later(
    name: str, whole: Taken, peer: Taken, later: list[Taken], again: list[Taken]
) -> Iterator[Measured]:
    seconds = statistics.median(each.seconds for each in later)
    yield Measured(
        f"{name}, one week more (1 %), {len(TRAITS)} traits",
        seconds,
        None,
        whole.seconds,
        seconds / whole.seconds,
        0.08,
        f"peak {max(each.peak for each in later) // MB} MB; goal: ours / the run from landed rows",
    )
    seconds = statistics.median(each.seconds for each in again)
    yield Measured(
        f"{name}, one week more (1 %), 100 segments",
        seconds,
        peer.seconds,
        None,
        seconds / peer.seconds,
        None,
        "ratio: ours / 100 queries by hand",
    )


def in_turn(
    steps: Mapping[str, tuple[Callable[[Place], Any], Callable[[Place], None]]], place: Place
) -> dict[str, Taken]:
    """Median seconds and highest peak of each step, which another one prepares unseen.

    Rounds alternate, so that a noisy machine hits all.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, (step, before) in steps.items():
            apart(before, place)
            taken[name].append(apart(step, place))
    return {
        name: Taken(None, statistics.median(t.seconds for t in each), max(t.peak for t in each))
        for name, each in taken.items()
    }


def apart(step: Callable[..., Any], *values: Any) -> Taken:
    """Run a step in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as alone:
        return alone.submit(_timed, step, *values).result()


def _timed(step: Callable[..., Any], *values: Any) -> Taken:
    started = time.perf_counter()
    answer = step(*values)
    seconds = time.perf_counter() - started
    return Taken(answer, seconds, _peak())


def _peak() -> int:
    """Bytes of this process at its largest."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says on Linux begins with the size of the process that started this one.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def prepare(place: Place) -> None:
    """Two years of the shop."""
    warehouse = place.warehouse()
    data.land(warehouse, PROFILES)
    if place.engine == "postgres":
        # Whoever reads rows first would otherwise write to each page that they are visible to all.
        with warehouse.session() as session:
            session.execute("vacuum")


def forget_none(place: Place) -> None:
    """Nothing to prepare."""


def forget_kept(place: Place) -> None:
    """What profiles and segments keep from run to run goes; the linked rows stay."""
    warehouse = place.warehouse()
    with warehouse.session() as session:
        session.execute("delete from cdp.kept")
        _drop(session, "kept_")


def forget_all(place: Place) -> None:
    """As if profiles had never been built."""
    forget_kept(place)
    with place.warehouse().session() as session:
        for table in ("linked", "unlinked"):
            session.execute(f"delete from cdp.{table}")
        _drop(session, "linked_")


def forget_segments(place: Place) -> None:
    """As if segments had never been built."""
    forget_kept(place)
    with place.warehouse().session() as session:
        for table in ("memberships", "segment_sizes", "segment_overlap"):
            session.execute(f"truncate table cdp.{table}")
        session.execute("drop table if exists cdp.membership_flags")


def _drop(session: Session, prefix: str) -> None:
    """Drop the tables whose names begin so."""
    names = session.fetch(
        "select table_name from information_schema.tables where table_schema = 'cdp'"
        " and starts_with(table_name, :prefix)",
        {"prefix": prefix},
    )
    for (name,) in names:
        session.execute(f"drop table {session.warehouse.table(name)}")


def build(place: Place, week: int = data.WEEKS) -> None:
    """Ours: all profiles at the end of a week."""
    build_profiles(place.warehouse(), profiles(), data.streams(), data.run(week))


def build_all_segments(place: Place, week: int = data.WEEKS) -> None:
    """Ours: all segments at the end of a week."""
    build_segments(place.warehouse(), segmentation(place, week), profiles(), data.streams(), data.run(week))


def profiles() -> Profiles:
    """The thirty traits."""
    return Profiles.model_validate({"traits": TRAITS})


def segmentation(place: Place, week: int = data.WEEKS) -> Segmentation:
    """The hundred segments; their order is that of :func:`asked`."""
    segments = [
        Segment.model_validate({"name": f"s{number}", "where": each.where})
        for number, each in enumerate(asked(place, week))
    ]
    return Segmentation(segments=tuple(segments))


def asked(place: Place, week: int = data.WEEKS) -> list[Asked]:
    """All segments, and how one asks for them by hand."""
    return [*data.on_traits(place.engine), *data.on_events(data.run(week).window.end)]


def linked_traits_by_hand(place: Place) -> None:
    """The same thirty over the linked rows."""
    with place.warehouse().session() as session:
        _by_hand(session, _traits_sql(place.engine, "", data.linked, dict.fromkeys((WEB, TILL), "r._order")))


def traits_by_hand(place: Place) -> None:
    """The same thirty over the streams' views."""
    order, ctes = {}, []
    for stream in data.streams():
        order[stream.ref] = "r.place"
        place_of_row = f"row({stream.time}, _load_id, _position)"
        if place.engine == "postgres":
            # Texts of one length, so that their order is that of the three.
            time = f"to_char({stream.time}, 'YYYYMMDDHH24MISSUS')"
            place_of_row = f"{time} || to_char(_load_id, 'FM00000000') || to_char(_position, 'FM0000000000')"
        ctes.append(
            f"{stream.name} as (select profile_id, {', '.join(stream.columns)}, {place_of_row} as place"
            f" from cdp.{stream.view} v join cdp.row_links l on l.stream = '{stream.ref}'"
            " and l.load_id = v._load_id and l.position = v._position"
            " join cdp.identifiers i on i.node_id = l.node_id), "
        )
    with place.warehouse().session() as session:
        rows = _traits_sql(place.engine, "".join(ctes), lambda ref: f"{ref.split('.')[1]} r", order)
        _by_hand(session, rows)


def _traits_sql(engine: str, ctes: str, rows: Callable[[str], str], order: Mapping[str, str]) -> str:
    """A select of all traits by hand.

    Different pages and products are found in groups of their own: `count(distinct ...)` beside the other
    aggregates is slower, on PostgreSQL because it sorts every row.

    :param ctes: what `rows` reads.
    :param rows: SQL of a stream's rows with their profiles.
    :param order: SQL of what orders them.
    """
    now = f"timestamp with time zone '{data.run(data.WEEKS).window.end.isoformat()}'"
    duck = engine == "duckdb"

    def pick(ref: str, value: str, where: str, *, oldest: bool = False) -> str:
        if duck:
            return f"arg_{'min' if oldest else 'max'}({value}, {order[ref]}) filter (where {where})"
        # One pass, where an array in order would sort all rows.
        found = f'{"min" if oldest else "max"}(({order[ref]} || {value}) collate "C") filter (where {where})'
        width = 32 if order[ref] == "r._order" else 38
        return f"substr({found}, {width + 1})"

    def days(time: str) -> str:
        return f"cast(floor(extract(epoch from ({now} - {time})) / 86400) as bigint)"

    def within(ref: str, number: int) -> str:
        return data.since(ref, data.run(data.WEEKS).window.end, number)

    def values(column: str) -> str:
        newest = f"max({order[WEB]})" if duck else f'max({order[WEB]} collate "C")'
        return (
            f"(select profile_id, {column}, count(*) as n, {newest} as newest from {rows(WEB)}"
            f" where {column} is not null group by profile_id, {column}) v group by profile_id"
        )

    paid = "filter (where status = 'paid')"
    viewed = "name = 'Product Viewed'"
    web = (
        f"count(*) as events, count(*) filter (where {viewed}) as products_viewed,"
        " count(*) filter (where device = 'mobile') as mobile_events,"
        f" count(*) filter (where name = 'Page Viewed' and {within(WEB, 7)}) as visits_7d,"
        f" count(*) filter (where name = 'Product Added' and {within(WEB, 30)}) as added_30d,"
        f" count(*) filter (where price >= 50 and {within(WEB, 90)}) as dear_90d,"
        f" sum(duration) as time_on_site, sum(price) filter (where {viewed}) as viewed_value,"
        " avg(duration) filter (where name = 'Page Viewed') as page_seconds, avg(price) as price_seen,"
        " min(price) as cheapest_seen, max(duration) as longest_look,"
        f" {pick(WEB, 'page', 'page is not null', oldest=True)} as first_page,"
        f" {pick(WEB, 'page', 'page is not null')} as last_page,"
        f" {pick(WEB, 'product_id', f'{viewed} and product_id is not null')} as last_viewed,"
        f" {days('max(happened)')} as days_since_visit, bool_or(name = 'Review Written') as reviewed"
    )
    till = (
        "count(*) filter (where status in ('paid', 'open')) as orders,"
        f" count(*) filter (where status = 'refunded') as refunds, sum(total) {paid} as spent,"
        f" sum(total) filter (where status = 'paid' and {within(TILL, 365)}) as spent_365d,"
        f" sum(items) as items_bought, avg(total) {paid} as basket, max(total) as largest_order,"
        f" {pick(TILL, 'status', 'status is not null')} as last_status,"
        f" {days(f'max(ordered_at) {paid}')} as days_since_order"
    )
    first = "arg_max(page, (n, newest))" if duck else "(array_agg(page order by n desc, newest desc))[1]"
    latest = "list(product_id order by newest desc)" if duck else "array_agg(product_id order by newest desc)"
    listed = f"to_json{'' if duck else 'b'}(({latest})[1:20])"
    zero = {"events", "products_viewed", "mobile_events", "visits_7d", "added_30d", "dear_90d", "orders"}
    zero |= {"refunds", "products_seen", "pages_seen"}
    chosen = [
        f"coalesce({name}, {0 if name in zero else 'false'}) as {name}"
        if name in zero | {"reviewed"}
        else name
        for name in TRAITS
    ]
    return (
        f"with {ctes}w as (select profile_id, {web} from {rows(WEB)} group by profile_id),"
        f" t as (select profile_id, {till} from {rows(TILL)} group by profile_id),"
        f" g as (select profile_id, count(*) as pages_seen, {first} as favourite_page from {values('page')}),"
        f" p as (select profile_id, count(*) as products_seen, {listed} as products"
        f" from {values('product_id')})"
        f" select i.profile_id, {', '.join(chosen)} from (select distinct profile_id from cdp.identifiers) i"
        + "".join(f" left join {cte} on {cte}.profile_id = i.profile_id" for cte in "wtgp")
    )


def _by_hand(session: Session, select: str) -> None:
    """Put the result into a table, as ours is in one at the end."""
    session.execute(f"drop table if exists cdp.{_FLOOR}")
    session.execute(f"create table cdp.{_FLOOR} as {select}")


def compare_traits(place: Place) -> None:
    """Check that ours and the floor's values are the same, which is what makes them worth comparing.

    :raises RuntimeError: they are not.
    """
    different = []
    for name, trait in TRAITS.items():
        same = f"o.{name} is not distinct from f.{name}"
        if trait["type"] == "list":
            same = f"cast(o.{name} as varchar) is not distinct from cast(f.{name} as varchar)"
        elif trait["type"] == "average" or name == "time_on_site":
            # Those by hand depend on the order in which doubles are added up.
            same = (
                f"(o.{name} is null and f.{name} is null or abs(o.{name} - f.{name}) < 1e-6 * (1 + o.{name}))"
            )
        different.append(f"count(*) filter (where ({same}) is not true) as {name}")
    with place.warehouse().session() as session:
        found = session.one(
            f"select {', '.join(different)} from cdp.profiles o full join cdp.{_FLOOR} f"
            " on f.profile_id = o.profile_id"
        )
    if wrong := {name: count for name, count in zip(TRAITS, found or (), strict=True) if count}:
        msg = f"{place.engine}: so many profiles differ from those by hand: {wrong}"
        raise RuntimeError(msg)


def aggregates_by_hand(place: Place) -> None:
    """The forty filtered aggregates in one go, of the rows of a year."""
    now = data.run(data.WEEKS).window.end
    parts: dict[str, list[str]] = {WEB: [], TILL: []}
    for number, each in enumerate(data.on_events(now)):
        since = f" and {data.since(each.ref, now, each.days)}"
        parts[each.ref].append(f"{each.aggregate.format(since=since)} as a{number}")
    web, till = (
        f"(select profile_id, {', '.join(parts[ref])} from {data.linked(ref)}"
        f" where {data.since(ref, now, max(data.DAYS))} group by profile_id)"
        for ref in (WEB, TILL)
    )
    with place.warehouse().session() as session:
        _by_hand(session, f"select * from {web} w full join {till} t using (profile_id)")


def segments_by_hand(place: Place) -> None:
    """One statement per segment."""
    with place.warehouse().session() as session:
        session.execute("drop table if exists cdp.members_of_bench")
        session.execute("create table cdp.members_of_bench (segment varchar, profile_id bigint)")
        for number, each in enumerate(asked(place)):
            members = each.members.replace("select ", f"select 's{number}', ", 1)
            session.execute(f"insert into cdp.members_of_bench {members}")


def compare_segments(place: Place) -> int:
    """Check that ours have the members that one finds by hand.

    :returns: how many there are.
    :raises RuntimeError: they differ.
    """
    ours = "(select segment, profile_id from cdp.memberships where left_at is null)"
    with place.warehouse().session() as session:
        found = session.fetch(
            f"select coalesce(o.segment, h.segment), count(*) from {ours} o"
            " full join cdp.members_of_bench h on h.segment = o.segment and h.profile_id = o.profile_id"
            " where o.segment is null or h.segment is null group by 1 order by 2 desc"
        )
        if found:
            named = {name: (count, asked(place)[int(name[1:])].where) for name, count in found[:5]}
            msg = f"{place.engine}: members that only we or only those by hand find: {named}"
            raise RuntimeError(msg)
        return int(session.scalar("select count(*) from cdp.members_of_bench"))


def later_weeks(place: Place) -> tuple[list[Taken], list[Taken]]:
    """Seconds of profiles and of segments, for each week more; the last one's profiles are checked.

    :raises RuntimeError: they are not those of a run over everything.
    """
    apart(build, place)
    apart(build_all_segments, place)
    later, again = [], []
    for week in LATER:
        apart(one_week_more, place, week)
        later.append(apart(build, place, week))
        again.append(apart(build_all_segments, place, week))
    apart(set_aside, place)
    apart(forget_all, place)
    apart(build, place, LATER[-1])
    apart(compare_whole, place)
    return later, again


def one_week_more(place: Place, week: int) -> None:
    """Another week arrives, and identity has taken it in."""
    data.next_week(place.warehouse(), PROFILES, week)


def set_aside(place: Place) -> None:
    """Keep the profiles under another name."""
    with place.warehouse().session() as session:
        session.execute(f"drop table if exists cdp.{_WHOLE}")
        session.execute(f"create table cdp.{_WHOLE} as select * from cdp.profiles")


def compare_whole(place: Place) -> None:
    """Check that weekly runs gave what a run over everything gives, cell by cell.

    :raises RuntimeError: they did not.
    """
    cells = ", ".join(f"cast({name} as varchar) as {name}" for name in ("profile_id", *TRAITS))
    one, other = (f"select {cells} from cdp.{table}" for table in ("profiles", _WHOLE))
    with place.warehouse().session() as session:
        for left, right in ((one, other), (other, one)):
            if count := session.scalar(f"select count(*) from ({left} except {right}) d"):
                msg = f"{place.engine}: {count} profiles differ between weekly runs and one over everything"
                raise RuntimeError(msg)


#: Prints the seconds that importing and loading take.
_LOAD = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from cdp_provider.core.registry import load_project
imported = time.perf_counter()
project = load_project(Path(sys.argv[1]))
done = time.perf_counter()
assert (len(project.profiles.traits), len(project.segments)) == (200, 500)
print(done - imported, done - started)
"""


def validation(file: Path) -> Iterator[Measured]:
    """A project of 200 traits and 500 segments, read and checked in a fresh process."""
    # Through JSON, so that nothing is shared, and YAML does not write it once and refer to it.
    file.write_text(yaml.safe_dump(json.loads(json.dumps(large_project())), sort_keys=False))
    taken = []
    for _ in range(ROUNDS):
        done = subprocess.run(  # noqa: S603 - this very Python
            [sys.executable, "-c", _LOAD, str(file)], stdout=subprocess.PIPE, check=True, text=True
        )
        taken.append([float(each) for each in done.stdout.split()])
    alone, together = map(statistics.median, zip(*taken, strict=True))
    lines = file.read_text().count("\n")
    note = f"{lines:,} lines; goal: seconds; with the imports {together:.2f} s"
    yield Measured("a project of 200 traits and 500 segments, validated", alone, None, None, None, 1.0, note)


def large_project() -> dict[str, Any]:
    """The thirty traits and hundred segments over and over, with those that build on others."""
    sources: dict[str, Any] = {}
    for ref, stream in data.STREAMS.items():
        source, name = ref.split(".")
        path = {"path": f"{name}/*.ndjson", "format": "ndjson"}
        sources[source] = {"type": "files", "connection": "files", "streams": {name: {**path, **stream}}}
    traits = {f"{name}{'_' * bool(n)}{n or ''}": trait for n in range(5) for name, trait in TRAITS.items()}
    for n in range(10):
        each = f"_{n + 1}"
        traits[f"rank{each}"] = {"type": "quantile", "of": "spent", "buckets": n + 2}
        traits[f"share{each}"] = {"type": "ratio", "of": f"refunds_{n % 4 + 1}", "over": "orders"}
        traits[f"worth{each}"] = {
            "type": "formula",
            "formula": f"round(spent * {n} - 5, 2) if orders > {n} else 0",
        }
        traits[f"score{each}"] = {"type": "formula", "formula": f"least(rank{each} * 2, worth{each}, 100)"}
        rows = "select profile_id, max(total) as value from {till.orders} group by profile_id"
        traits[f"own{each}"] = {"type": "sql", "as": "decimal", "sql": rows}
    conditions = [each.where for each in asked(Place("duckdb", ""))]
    segments: dict[str, Any] = {f"s{n}": {"where": conditions[n % 100]} for n in range(400)}
    for n in range(100):
        funnel = [
            {"stream": WEB, "event": "Product Viewed"},
            {"stream": WEB, "event": "Product Added", "within": f"{n + 1} hours"},
            {"stream": TILL, "absent": True},
        ]
        parts = [
            {"segment": f"s{n}"},
            {"none": [conditions[-n]]},
            {"funnel": funnel, "within_last": "30 days"},
        ]
        limit = {"count": 1000 + n, "by": f"score_{n % 10 + 1}"}
        segments[f"tree_{n}"] = {"where": {"all": parts}, "limit": limit, "except": [f"s{n + 100}"]}
    return {
        "project": "large",
        "warehouse": {"connection": "warehouse"},
        "sources": sources,
        "identity": {"identifiers": {"user_id": {"priority": 1, "limit": 1}}},
        "profiles": {"traits": traits},
        "segments": segments,
    }
