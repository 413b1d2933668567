# SPDX-License-Identifier: Apache-2.0
"""Rows that do not fit into memory: SQL in the warehouse decides as the process does."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity import pushdown, pushdown_rows
from cdp_provider.core.identity.policies import POLICIES
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.identity import Deny, Exclude, ExcludedRow, Identifier, Identity
from cdp_provider.core.project.streams import Column, Stream
from cdp_provider.core.warehouse import DuckDBWarehouse
from tests.core.identity.landed import DAY, SEGMENT, History, run_of
from tests.core.identity.test_oracle import STREAMS, histories, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.warehouse import Warehouse

#: What the tables say of a run, whichever way it went.
_TOLD = {
    "identifiers": "node_id, type, value, profile_id, first_seen, resolved_seq, published_seq, evicted_seq",
    "row_links": "stream, load_id, position, node_id",
    "merges": "resolved_seq, run_id, loser, winner, stream, load_id, position, evidence",
    "refused_links": "resolved_seq, run_id, stream, load_id, position, type, value, rule",
    "splits": "resolved_seq, run_id, profile_id, new_profile_id, identifiers, rule",
    "barred_identifiers": "resolved_seq, run_id, type, value, reason, rule, seen_with, stream, load_id,"
    " position",
    "neighbours": "type, value, other_type, other_value, resolved_seq",
    "loads": "load_id, resolved_seq, resolved_hash",
    "identity_runs": "run_id, resolved_seq, replayed, rules, rows_in, rows_without_identifier, identifiers,"
    " new_identifiers, profiles, new_profiles, merged, split, refused, sizes, largest",
}


class Counted(History):
    """A history whose batches know how many rows they hold."""

    def _batch(self, session: Any, stream: Any, load_id: Any, rows: int, state: str, content: str) -> int:
        found = super()._batch(session, stream, load_id, rows, state, content)
        session.execute(
            f"update {self.warehouse.table('loads')} set rows_landed = :rows where load_id = :id",
            {"rows": rows, "id": found},
        )
        return found

    def told(self) -> dict[str, list[tuple[Any, ...]]]:
        with self.warehouse.session() as session:
            return {
                name: sorted(session.fetch(f"select {spec} from {self.warehouse.table(name)}"), key=repr)
                for name, spec in _TOLD.items()
            }


class Both:
    """The same history in two warehouses: decided in the process, and by SQL."""

    def __init__(
        self, here: Warehouse, there: Warehouse, *, memory: int = 1, streams: tuple[Stream, ...] = STREAMS
    ) -> None:
        self.here, self.there = (Counted(warehouse, streams=streams) for warehouse in (here, there))
        self.memory = memory

    def clear(self) -> None:
        self.here.clear()
        self.there.clear()

    def rule(self, identity: Identity) -> None:
        self.here.identity = identity
        self.there.identity = identity.model_copy(update={"memory": self.memory})

    def land(self, *rows: dict[str, Any], **batch: Any) -> None:
        self.here.land(*rows, **batch)
        self.there.land(*rows, **batch)

    def resolve(self, *, rebuild: bool = False) -> None:
        """Both take in what landed; what they wrote and reported has to be the same."""
        for side in (self.here, self.there):
            side.report = side.rebuild() if rebuild else side.resolve()
        here, there = self.here.told(), self.there.told()
        for name in _TOLD:
            assert there[name] == here[name], name
        told = [side.report.summary() for side in (self.here, self.there)]
        assert [summary.pop("pushed_down") for summary in told] == [False, bool(self.there.report.rows_in)]
        assert told[1] == told[0]


def play(both: Both, steps: list[tuple[Any, ...]]) -> None:
    both.clear()
    sources: list[int] = []
    for kind, *what in [*steps, ("resolve",)]:
        if kind == "rules":
            both.rule(what[0])
        elif kind == "resolve":
            both.resolve()
        elif kind == "land":
            sources.append(what[0])
            both.land(*what[1], stream=what[0])
        elif sources:
            number = what[0] % len(sources)
            both.land(*what[1], stream=sources[number], load_id=number + 1, state=what[2])
    both.resolve(rebuild=True)


@pytest.fixture(scope="module")
def in_memory() -> Both:
    roots = [duckdb.connect(":memory:") for _ in range(2)]
    return Both(*(DuckDBWarehouse(root.cursor) for root in roots))


@pytest.mark.parametrize("policy", POLICIES)
@settings_of(5)
@given(data=st.data())
def test_sql_decides_as_the_process_does(in_memory, policy, data):
    play(in_memory, data.draw(histories(policy, changing=True)))


@pytest.mark.parametrize("policy", POLICIES)
@settings_of(1)
@given(data=st.data())
def test_sql_decides_as_the_process_does_on_postgres(on_postgres, policy, data):
    play(on_postgres, data.draw(histories(policy, changing=True)))


@pytest.fixture
def on_postgres(make_warehouse: Callable[[str], Warehouse]) -> Both:
    return Both(make_warehouse("postgres"), make_warehouse("postgres"))


#: Every type of column that may be part of a key, or identify.
TYPED = Stream(
    source="app",
    name="typed",
    primary_key=("name", "at", "decimal", "float", "date", "boolean"),
    time="at",
    columns={
        "name": Column(),
        "at": Column(type="timestamp"),
        **{kind: Column(type=kind) for kind in ("decimal", "date", "boolean")},
        "float": Column(type="number"),
        "number": Column(type="integer"),
        "phone": Column(),
        "country": Column(),
    },
    identifiers={"number": ("number",), "name": ("name",), "phone": ("phone",)},
    options=Options(),
)
MORNING = ("Ada", "2026-01-02 00:00:00.000000Z", "0.000001", "3", "2026-01-05", "true")
TYPES = Identity(
    identifiers={
        "number": Identifier(limit=2, hub=4),
        "name": Identifier(limit=2),
        "phone": Identifier(limit=1, normalize="phone", region="DE", region_column="country"),
    },
    rules=(
        Exclude(exclude=ExcludedRow(stream="app.typed", key=MORNING)),
        Exclude(exclude={"number": "7"}),
        Deny(deny=({"number": "1"}, {"number": "5"})),
    ),
)


def typed_row(n: int) -> dict[str, Any]:
    """Values whose text or order might differ between an engine and Arrow."""
    return {
        "name": ("Ada", "ada", "Ägidius", "", "adA", "\u00adada")[n % 6],
        "at": DAY + timedelta(days=n % 2) if n % 5 else None,
        "decimal": ("0.000001", "20.000000", "-1.500000", "3.000000")[n // 2 % 4],
        "float": ("3.0", "1e20", "0.1", "-1e-7", "inf", "nan")[n // 3 % 6],
        "date": f"2026-01-0{5 - n % 3}",
        "boolean": ("false", "true")[n % 4 > 0],
        "number": n * 37 % 11,
        "phone": ("030 555000", "+49 30 555000", "01 234", " ", "5551234", None, "0")[n % 7],
        "country": ("at", "DE", None, "", "xx")[n // 2 % 5],
    }


@pytest.mark.parametrize("engine", ["duckdb", "postgres"])
def test_columns_of_all_types_are_read_alike(make_warehouse, engine):
    both = Both(make_warehouse(engine), make_warehouse(engine), memory=10_000, streams=(TYPED,))
    both.rule(TYPES)
    for start in (0, 30, 60):
        # The second row of each batch is the one that is excluded by hand.
        excluded = dict(zip(TYPED.primary_key, MORNING, strict=True)) | {
            "at": DAY + timedelta(days=1),
            "number": 3,
        }
        both.land(typed_row(start), excluded, *(typed_row(n) for n in range(start + 1, start + 40)))
        both.resolve()
    assert {"blocked", "invalid", "excluded"} <= both.there.report.detail.keys()
    both.resolve(rebuild=True)


def test_values_come_in_pages_and_components_in_parts(make_warehouse, monkeypatch):
    monkeypatch.setattr(pushdown_rows, "_LEAST_PAGE", 3)
    both = Both(make_warehouse("duckdb"), make_warehouse("duckdb"), memory=2500)
    both.rule(SEGMENT)
    both.land(
        *({"user_id": f"u{n}", "email": f"{n % 7}@example.com", "anonymous_id": f"a{n}"} for n in range(30))
    )
    both.resolve()
    assert both.there.report.rows_refused


def test_order_of_keys_does_not_depend_on_the_language_of_the_database(make_warehouse, postgres_url):
    """Where letters sort as in a dictionary, ``B`` comes after ``a``; recorded order is that of bytes."""
    with psycopg.connect(postgres_url) as connection:
        try:
            connection.execute("select 'a' < 'B' collate \"en-x-icu\"")
        except psycopg.Error:
            pytest.skip("this PostgreSQL has the collation C only; CDP_TEST_POSTGRES_URL names another one")
    both = Both(make_warehouse("postgres"), make_warehouse("postgres"))
    both.rule(SEGMENT)
    keys = ("a", "B", "_", "ä", "Z", "b", "", "é", "-a", "aB", "\U0001f600", "￿")
    for collation in ("en-x-icu", "de-x-icu"):
        with both.there.warehouse.session() as session:
            raw = both.there.warehouse.table(STREAMS[0].raw_table)
            session.execute(f'alter table {raw} alter column key type text collate "{collation}"')
        both.land(
            *({"key": key, "user_id": f"u{n}", "email": "jo@example.com"} for n, key in enumerate(keys))
        )
        both.resolve()


class Backwards(DuckDBWarehouse):
    """An engine that sorts texts in an order of its own."""

    def byte_order(self, text: str) -> str:
        return f"reverse({text})"


def test_an_engine_that_sorts_otherwise_never_gives_a_wrong_result(tmp_path):
    history = Counted(Backwards(lambda: duckdb.connect(str(tmp_path / "file.duckdb"))), streams=STREAMS)
    history.identity = SEGMENT.model_copy(update={"memory": 1})
    history.land(*({"key": key, "user_id": key, "email": "jo@example.com"} for key in ("az", "by")))
    with pytest.raises(ConfigurationError, match=r"raise identity\.memory"):
        history.resolve()
    assert history.partition() == {}


def test_what_fits_is_decided_in_the_process(warehouse, caplog):
    history = Counted(warehouse, streams=STREAMS)
    history.land({"user_id": "u1"}, {"user_id": "u2"})
    columns = 4  # one of each type, and work_email
    per_row = pushdown._BYTES_PER_ROW + columns * pushdown._BYTES_PER_COLUMN
    caplog.set_level("INFO")
    history.identity = SEGMENT.model_copy(update={"memory": 2 * per_row})
    assert history.resolve().detail["pushed_down"] is False
    assert not caplog.messages
    history.identity = SEGMENT.model_copy(update={"memory": 2 * per_row - 1})
    assert history.rebuild().detail["pushed_down"] is True
    assert [
        message for message in caplog.messages if f"2 rows would take about {2 * per_row} bytes" in message
    ]


def test_duckdb_keeps_within_memory_and_gets_its_own_back(tmp_path):
    warehouse = DuckDBWarehouse(lambda: duckdb.connect(str(tmp_path / "file.duckdb")))
    limit = "select current_setting('memory_limit')"
    with warehouse.session() as session:
        session.execute("set memory_limit = '2GiB'")
        for memory, meanwhile in ((1 << 30, "1.0 GiB"), (256_000_000, "244.1 MiB"), (1 << 40, "2.0 GiB")):
            with session.bounded(memory):
                assert session.scalar(limit) == meanwhile
            assert session.scalar(limit) == "2.0 GiB"


def test_a_run_that_finds_the_tables_changed_begins_again(warehouse, monkeypatch):
    """Another run takes the same batch in while this one decides: it must not be taken in twice."""
    history = Counted(warehouse, streams=STREAMS)
    history.land({"user_id": "u1", "email": "jo@example.com"}, {"email": "jo@example.com"})
    decide = pushdown.PushedDown.decide
    decided = []

    def overtaken(self: Any, decider: Any) -> Any:
        found = decide(self, decider)
        resolve(warehouse, SEGMENT, STREAMS, run_of(0))
        decided.append(found)
        return found

    monkeypatch.setattr(pushdown.PushedDown, "decide", overtaken)
    history.identity = SEGMENT.model_copy(update={"memory": 1})
    report = history.resolve()
    assert (report.state, report.rows_in, report.detail["loads"]) == ("ok", 0, 0)
    assert len(decided) == 1
    assert len(history.state()["row_links"]) == 2
    assert history.partition() == {"user_id:u1": 1, "email:jo@example.com": 1}
