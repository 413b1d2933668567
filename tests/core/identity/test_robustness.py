# SPDX-License-Identifier: Apache-2.0
"""Killed at any statement, run twice at once: the tables show the old state or the new one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

from cdp_provider.core.exceptions import WarehouseBusyError
from cdp_provider.core.identity import store
from cdp_provider.core.identity.policies import POLICIES
from cdp_provider.core.identity.resolve import resolve
from cdp_provider.core.warehouse import DuckDBWarehouse, PostgresWarehouse
from tests.core.identity.landed import SEGMENT, History, run_of, stream_of
from tests.core.identity.test_oracle import DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.warehouse import Session, Warehouse

#: Of how many statements each case dies before one; eight cases, or sixteen, differ in where they begin.
SHARES = 4 if DEPTH > 1 else 8

_processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _preload() -> None:
    _processes.set_forkserver_preload(["tests.core.identity.test_robustness"])


class Killed(BaseException):
    """What a process that dies looks like from inside: nothing catches it."""


@contextmanager
def killed_at(warehouse: Warehouse, statement: int) -> Iterator[list[int]]:
    """Let the process die before the n-th statement that it sends."""
    count = [0]
    plain = warehouse.session

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == statement:
                raise Killed
            return call(*args, **kwargs)

        return counted

    @contextmanager
    def session() -> Iterator[Session]:
        with plain() as opened:
            for name in ("execute", "fetch", "arrow", "load"):
                setattr(opened, name, watched(getattr(opened, name)))
            yield opened

    warehouse.session = session
    try:
        yield count
    finally:
        del warehouse.session


def under(policy: str) -> Identity:
    return SEGMENT.model_copy(update={"over_limit": policy})


def some_history(history: History) -> None:
    """Two runs' worth, with merges, what limits do, and (in the second) a batch that changed."""
    history.land(
        {"user_id": "u1", "email": "a@x.de"}, {"user_id": "u2", "email": "a@x.de"}, {"anonymous_id": "d"}
    )
    history.land({"email": "b@x.de"}, stream=1)


def more_history(history: History) -> None:
    history.land({"anonymous_id": "d", "email": "b@x.de"}, {"user_id": "u3", "email": "a@x.de"})


@pytest.mark.parametrize("policy", POLICIES if DEPTH > 1 else ("demote", "break"))
@pytest.mark.parametrize("changed", [False, True], ids=["incremental", "replay"])
def test_killed_before_any_statement_the_next_run_completes_to_the_same_state(
    make_warehouse, changed, policy
):
    for engine in ("duckdb", "postgres"):
        history = History(make_warehouse(engine), under(policy))

        def start(history: History = history) -> dict[str, list]:
            history.clear()
            some_history(history)
            history.resolve()
            more_history(history)
            if changed:
                history.land({"user_id": "u9", "email": "a@x.de"}, load_id=1)
            return history.state()

        start()
        with killed_at(history.warehouse, -1) as count:
            history.resolve()
        statements, new = count[0], history.state()
        old = start()
        assert old != new
        # All cases send nearly the same statements, and share them among them.
        turn = (engine == "postgres") + 2 * (policy in ("break", "evict")) + 4 * changed
        for statement in range(1 + turn % SHARES, statements + 1, SHARES):
            with killed_at(history.warehouse, statement), pytest.raises(Killed):
                history.resolve()
            history.day -= 1
            if history.state() != old:
                break
        assert history.state() in (old, new)
        assert statement > statements - SHARES - 1, "nothing but the unlocking comes after the commit"
        history.resolve()
        assert history.state() == new


def connect(engine: str, where: str) -> Warehouse:
    if engine == "duckdb":
        return DuckDBWarehouse(lambda: duckdb.connect(where), lock_timeout=60)
    url, schema = where.split("|")
    return PostgresWarehouse(lambda: psycopg.connect(url), schema=schema, lock_timeout=60)


def where_is(warehouse: Warehouse, tmp_path: Any, request: pytest.FixtureRequest) -> tuple[str, str]:
    if warehouse.engine == "duckdb":
        return "duckdb", str(next(tmp_path.glob("*.duckdb")))
    return "postgres", f"{request.getfixturevalue('postgres_url')}|{warehouse.schema}"


def resolve_elsewhere(engine: str, where: str, policy: str, day: int, die: bool) -> None:
    """The body of another process; with `die` it is killed while its transaction is open."""
    if die:
        plain = store.apply

        def apply(*args: Any) -> None:
            plain(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        store.apply = apply
    resolve(connect(engine, where), under(policy), (stream_of("web"), stream_of("crm")), run_of(day))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.other_process
def test_kill_9_with_the_transaction_open_leaves_the_old_state(warehouse, tmp_path, request, policy):
    history = History(warehouse, under(policy))
    some_history(history)
    history.resolve()
    more_history(history)
    old = history.state()
    other = _processes.Process(
        target=resolve_elsewhere, args=(*where_is(warehouse, tmp_path, request), policy, 2, True)
    )
    other.start()
    other.join(60)
    assert other.exitcode == -signal.SIGKILL
    assert history.state() == old
    history.resolve()
    new = history.state()
    assert new != old
    history.rebuild()
    assert history.state() == new


@pytest.mark.other_process
def test_two_processes_at_once_take_each_batch_once(warehouse, tmp_path, request):
    history = History(warehouse)
    for n in range(40):
        history.land(*({"user_id": f"u{n}", "email": f"e{m % 7}@x.de"} for m in range(20)), stream=n % 2)
    others = [
        _processes.Process(
            target=resolve_elsewhere, args=(*where_is(warehouse, tmp_path, request), "demote", 1, False)
        )
        for _ in range(2)
    ]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    assert {seq for _, seq, _ in history.state()["loads"]} == {1}
    before = history.state()
    history.rebuild()
    assert history.state() == before


def test_a_run_that_comes_second_starts_again_on_the_new_state(warehouse, monkeypatch):
    history = History(warehouse)
    some_history(history)
    other = History(warehouse, day=0)
    plain, overtaken = store.read_known, []

    def read_known(*args: Any) -> Any:
        known = plain(*args)
        if not overtaken:
            overtaken.append(True)
            # In a thread of its own: the session of this one is still open.
            thread = threading.Thread(target=other.resolve)
            thread.start()
            thread.join(60)
        return known

    monkeypatch.setattr(store, "read_known", read_known)
    report = history.resolve()
    assert overtaken
    assert (report.rows_in, report.detail["identifiers"]) == (0, 5)
    before = history.state()
    history.rebuild()
    assert history.state() == before


def test_a_run_that_is_always_overtaken_says_so(warehouse, monkeypatch):
    history = History(warehouse)
    some_history(history)
    plain = store.read_known

    def read_known(*args: Any) -> Any:
        history.land({"user_id": str(len(landed))}, load_id=1)
        landed.append(1)
        return plain(*args)

    landed: list[int] = []
    monkeypatch.setattr(store, "read_known", read_known)
    with pytest.raises(WarehouseBusyError, match="5 times in a row"):
        history.resolve()
    assert history.state()["identifiers"] == []
    with warehouse.session() as session:
        ledger = session.fetch(f"select state, error from {warehouse.table('runs')}")
    assert ledger[0][0] == "failed"
