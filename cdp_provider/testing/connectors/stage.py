# SPDX-License-Identifier: Apache-2.0
"""A stream of a source under test and the warehouse that it lands in, day by day."""
# ruff: noqa: S101, S608 - part of the suite; names of tables are the warehouse's own

from __future__ import annotations

import os
import signal
import time
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.run import Run, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cdp_provider.core.ingest.base import Connector
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse
    from cdp_provider.testing.connectors.source import SourceUnderTest

#: ``name``, ``amount``, ``updated_at`` by ``id``.
Rows: TypeAlias = "dict[str, tuple[str | None, Decimal | None, datetime]]"

FIRST_DAY = datetime(2026, 7, 1, tzinfo=UTC)
#: Seconds that a process may take which is to be killed.
_PATIENCE = 60.0


def moment(day: float) -> datetime:
    """Day 1 is the first; day 1.5 is noon of it."""
    return FIRST_DAY + timedelta(days=day - 1)


def record(number: int, day: float, **changed: Any) -> dict[str, Any]:
    """The n-th record, changed last at that time; `changed` replaces its members."""
    updated = moment(day).isoformat().replace("+00:00", "Z")
    given = {"id": f"r{number:05}", "name": f"name {number}", "amount": number + 0.5, "updated_at": updated}
    return given | changed


def newest(records: Iterable[Mapping[str, Any]]) -> Rows:
    """What a view must show of records that came in this order: the newest one of each id."""
    shown: Rows = {}
    for given in records:
        amount = given.get("amount")
        when = datetime.fromisoformat(given["updated_at"])
        row = (given.get("name"), None if amount is None else Decimal(str(amount)), when)
        if given["id"] not in shown or shown[given["id"]][2] <= when:
            shown[given["id"]] = row
    return shown


@dataclass(frozen=True)
class Stage:
    """One stream from its source into a warehouse; days are windows."""

    source: SourceUnderTest
    stream: Stream
    warehouse: Warehouse

    def put(self, *records: Mapping[str, Any], day: float) -> None:
        """Let records arrive at the source at that time."""
        self.source.put(records, moment(day))

    def run(self, day: int) -> Run:
        """The run of a day."""
        return Run("conformance", f"run_{day}", Window(moment(day), moment(day + 1)))

    def land(self, day: int, connector: Connector | None = None) -> Report:
        """Land a day's batch and let it pass its check."""
        report = land(self.warehouse, self.stream, connector or self.source.connector(), self.run(day))
        check(self.warehouse, self.stream, self.run(day))
        return report

    def with_contract(self, **contract: Any) -> Stage:
        """The same, under another contract."""
        changed = {name: getattr(self.stream, name) for name in type(self.stream).model_fields}
        return replace(self, stream=type(self.stream)(**changed | {"contract": contract}))

    def with_options(self, options: Mapping[str, Any]) -> Stage:
        """The same, read with other options."""
        made = type(self.stream.options).model_validate(options)
        return replace(self, stream=self.stream.model_copy(update={"options": made}))

    def shown(self) -> Rows:
        """The stream's view."""
        view = self.warehouse.table(self.stream.view)
        with self.warehouse.session() as session:
            rows = session.fetch(f"select id, name, amount, updated_at from {view}")
        found = {row[0]: (row[1], row[2], row[3].astimezone(UTC)) for row in rows}
        assert len(found) == len(rows), "the view shows an id twice"
        return found

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that landing has written: raw rows, quarantine, ledgers of batches and files."""
        found = {}
        with self.warehouse.session() as session:
            for table in (self.stream.raw_table, "quarantine", "loads", "files"):
                # How many bytes there were is the source's business; it may have more to say meanwhile.
                names = [name for name in session.columns(table) if name not in ("bytes", "state")]
                columns = ", ".join(map(self.warehouse.quote, names))
                rows = session.fetch(f"select {columns} from {self.warehouse.table(table)}") if names else []
                found[table] = sorted(rows, key=repr)
        return found

    def killed(self, day: int, when: str) -> int:
        """Land a day's batch in a process that is killed.

        :param when: ``fetch`` kills it when everything is fetched and nothing is written; ``confirm`` when
            everything is written and the source has not been told.
        :returns: the process's exit code.
        """

        def work() -> None:
            connector = self.source.connector()
            setattr(connector, when, _dying(getattr(connector, when), first=when == "confirm"))
            land(self.warehouse, self.stream, connector, self.run(day))

        return in_child(work)


def _dying(method: Callable[..., Any], *, first: bool) -> Callable[..., Any]:
    def dying(*args: Any, **kwargs: Any) -> Any:
        if not first:
            method(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return dying


def in_child(work: Callable[[], None]) -> int:
    """Exit code of a process that does nothing but `work`; the number of the signal, negative, if killed."""
    with warnings.catch_warnings():
        # Threads of the source that the suite runs stay behind in the parent; the child needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child must not go on as a second test run
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + _PATIENCE
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            msg = f"the process did not come to its end within {_PATIENCE:.0f} seconds"
            raise AssertionError(msg)
        time.sleep(0.01)
