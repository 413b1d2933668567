# SPDX-License-Identifier: Apache-2.0
"""What a batch's rows say to a contract: one SELECT over them, and another for a rule that looks further.

Call all of it in a transaction in which the batch stands as passed: the stream's view then shows what it
would show if it were.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.ingest.results import Result, of_batch, of_rows
from cdp_provider.core.ingest.rules import batch_checks, row_checks
from cdp_provider.core.project.contract import QueryRule, Tolerance
from cdp_provider.core.project.own_sql import filled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.ingest.rules import BatchCheck, RowCheck
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Session

#: Errors of engines that speak of the statement alone; others may quote what a row holds.
_OF_THE_STATEMENT = ("BinderException", "ParserException", "CatalogException")
#: Errors that come of computing somebody's own SQL, as opposed to lost connections and the like.
_OF_VALUES = ("ConversionException", "OutOfRangeException", "InvalidInputException", "TypeMismatchException")


class Scan:
    """The rows of one batch under their stream's contract.

    :param load_id: of the batch.
    """

    def __init__(self, session: Session, stream: Stream, run: Run, load_id: int) -> None:
        self.session = session
        self.stream = stream
        self.values = {"load_id": load_id, "now": run.window.end}
        self._quote = session.warehouse.quote
        self._raw = session.warehouse.table(stream.raw_table)
        deleted = "_deleted" in session.columns(stream.raw_table)
        self._own = f"_load_id = :load_id{' and _deleted is not true' if deleted else ''}"
        #: Rows that the batch brought and that are no deletions.
        self.rows = 0
        #: Column -> how many distinct values it has, and how many rows lack one: what was counted of it.
        self.metrics: dict[str, dict[str, int]] = {}

    def results(self) -> list[Result]:
        """One result per rule that looks at rows.

        :raises ConfigurationError: somebody's own SQL cannot be computed.
        """
        checks = [check for check in row_checks(self.stream) if check.severity != "quarantine"]
        wholes = batch_checks(self.stream)
        counts = self._counts(checks, wholes)
        return [
            *self._row_results(checks, counts),
            *(self._whole_result(rule, counts) for rule in wholes),
            *(self._query_result(rule) for rule in self.stream.contract.rules if isinstance(rule, QueryRule)),
        ]

    def _counts(self, checks: list[RowCheck], rules: list[BatchCheck]) -> dict[str, int]:
        """Everything that one look at each row can tell."""
        missing = " or ".join(f"{self._quote(name)} is null" for name in self.stream.primary_key)
        asked = {"rows": "count(*)", "primary_key": f"count(*) filter (where {missing})"}
        for check in checks:
            asked[check.name] = f"count(*) filter (where {check.bad(self.session.warehouse)})"
        for rule in rules:
            value = self._value(rule.columns)
            asked[f"{rule.name}/given"] = f"count({value})"
            if rule.target is None:
                asked[f"{rule.name}/distinct"] = f"count(distinct {value})"
        sql = f"select {', '.join(asked.values())} from {self._raw} where {self._own}"
        own = [check.name for check in checks if check.column is None]
        (row,) = self._computed(own, lambda: self.session.fetch(sql, self.values))
        counts = dict(zip(asked, map(int, row), strict=True))
        self.rows = counts["rows"]
        return counts

    def _value(self, columns: tuple[str, ...]) -> str:
        """SQL of one or several columns as one value; null where one of them is."""
        names = [self._quote(name) for name in columns]
        if len(names) == 1:
            return names[0]
        given = " and ".join(f"{name} is not null" for name in names)
        return f"case when {given} then row({', '.join(names)}) end"

    def _row_results(self, checks: list[RowCheck], counts: dict[str, int]) -> Iterator[Result]:
        key = self.stream.primary_key
        detail = "; land the batch again"
        found = (self.rows, counts["primary_key"])
        yield of_rows("primary_key", "required", "fail", found, Tolerance(), key, detail)
        for check in checks:
            columns = (check.column,) if check.column else ()
            found = (self.rows, counts[check.name])
            if check.kind == "required" and check.column:
                self._measure(check.column, nullCount=counts[check.name])
            yield of_rows(check.name, check.kind, check.severity, found, check.limits, columns)

    def _whole_result(self, rule: BatchCheck, counts: dict[str, int]) -> Result:
        found = self._unique_result if rule.target is None else self._reference_result
        return found(rule, counts)

    def _unique_result(self, rule: BatchCheck, counts: dict[str, int]) -> Result:
        given, distinct = counts[f"{rule.name}/given"], counts[f"{rule.name}/distinct"]
        if len(rule.columns) == 1:
            self._measure(rule.columns[0], distinctCount=distinct, nullCount=self.rows - given)
        if set(rule.columns) == set(self.stream.primary_key):
            failed = given - distinct
        else:
            # Rows of one key may follow each other, so these counts only tell when nothing is wrong.
            suspect = given > distinct or self._met_elsewhere(rule)
            failed = self._shared(rule) if suspect else 0
        return of_rows(rule.name, "unique", rule.severity, (given, failed), rule.limits, rule.columns)

    def _met_elsewhere(self, rule: BatchCheck) -> bool:
        """Whether any row of another batch and of another key has a value of this one."""
        key = self.stream.primary_key
        columns = ", ".join(map(self._quote, dict.fromkeys((*rule.columns, *key))))
        same = " and ".join(f"o.{self._quote(name)} = b.{self._quote(name)}" for name in rule.columns)
        other = " or ".join(f"o.{self._quote(name)} <> b.{self._quote(name)}" for name in key)
        found = self.session.scalar(
            f"select 1 from {self._raw} o join"
            f" (select distinct {columns} from {self._raw} where {self._own}) b"
            f" on {same} where o._load_id <> :load_id and ({other}) limit 1",
            self.values,
        )
        return found is not None

    def _shared(self, rule: BatchCheck) -> int:
        """Rows of the batch, of those that count, whose value another key's row has too."""
        columns = ", ".join(map(self._quote, rule.columns))
        present = " and ".join(f"{self._quote(name)} is not null" for name in rule.columns)
        mine = "count(*) filter (where _load_id = :load_id)"
        found = self.session.scalar(
            f"select coalesce(sum(mine), 0) from (select {mine} as mine"
            f" from {self.session.warehouse.table(self.stream.view)} where {present}"
            f" group by {columns} having count(*) > 1) shared",
            self.values,
        )
        return int(found)

    def _reference_result(self, rule: BatchCheck, counts: dict[str, int]) -> Result:
        given = counts[f"{rule.name}/given"]
        ref, _, column = str(rule.target).rpartition(".")
        view, mine, theirs = ref.replace(".", "__"), self._quote(rule.columns[0]), self._quote(column)
        failed, detail = given, f" - {ref} has landed nothing yet"
        if self.session.exists(view):
            detail = f" - their {rule.columns[0]} is not in {rule.target}"
            failed = self.session.scalar(
                f"select count(*) from {self._raw} b where {self._own} and b.{mine} is not null"
                f" and not exists (select 1 from {self._place(ref)} t where t.{theirs} = b.{mine})",
                self.values,
            )
        return of_rows(
            rule.name, "references", rule.severity, (given, int(failed)), rule.limits, rule.columns, detail
        )

    def _query_result(self, rule: QueryRule) -> Result:
        columns = ", ".join(map(self._quote, self.stream.columns))
        text = filled(rule.query, self._place, ":now")
        sql = (
            f"with _rows as (select {columns} from {self._raw} where {self._own})"
            f" select * from ({text}) as own_query"
        )
        found = self._computed([rule.name], lambda: self.session.fetch(sql, self.values))
        if len(found) != 1 or len(found[0]) != 1 or not _is_number(found[0][0]):
            msg = f"{self.stream.ref}: the query of the rule {rule.name!r} gives no single number; select one"
            raise ConfigurationError(msg)
        return _query_result(rule, found[0][0], self.rows)

    def _place(self, name: str) -> str:
        return "_rows" if name == "rows" else self.session.warehouse.table(name.replace(".", "__"))

    def _computed(
        self, rules: list[str], fetch: Callable[[], list[tuple[Any, ...]]]
    ) -> list[tuple[Any, ...]]:
        """What `fetch` gives, in which the own SQL of these rules stands."""
        try:
            return fetch()
        except Exception as error:
            reason = _reason(error) if rules else None
            if reason is None:
                raise
            named = " or ".join(map(repr, rules))
            msg = f"{self.stream.ref}: the SQL of the rule {named} cannot be computed: {reason}; correct it"
        # Outside of the handler: the engine's error may quote what a row holds, so it must not come along.
        raise ConfigurationError(msg)

    def _measure(self, column: str, **counts: int) -> None:
        self.metrics.setdefault(column, {}).update(counts)


def _query_result(rule: QueryRule, value: Any, rows: int) -> Result:
    """What a query came to is told only where it is a count by the rule itself."""
    if rule.min is None and rule.max is None:
        limits, failed = Tolerance(), 0 if value is None else value
        if math.isfinite(failed) and failed == int(failed) >= 0:
            return of_rows(rule.name, "query", rule.severity, (max(rows, int(failed)), int(failed)), limits)
        return of_batch(rule.name, "query", rule.severity, rows, "its query does not come to 0")
    fault = None
    if value is not None and rule.min is not None and value < rule.min:
        fault = f"its query comes to less than {rule.min}"
    elif value is not None and rule.max is not None and value > rule.max:
        fault = f"its query comes to more than {rule.max}"
    return of_batch(rule.name, "query", rule.severity, rows, fault)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


def _reason(error: Exception) -> str | None:
    """Why an engine could not compute a statement, without values; None for what the statement can't help."""
    name, state = type(error).__name__, getattr(error, "sqlstate", None) or ""
    if name in _OF_THE_STATEMENT or state.startswith("42"):
        return " ".join(str(error).split("\n\n")[0].split("\nLINE ")[0].split())[:300]
    return name if name in _OF_VALUES or state.startswith("22") else None
