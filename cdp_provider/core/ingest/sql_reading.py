# SPDX-License-Identifier: Apache-2.0
"""What is to be read from a database, whatever its dialect."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from cdp_provider.core.ingest.base import Cursor

#: Alias of the table or query in every statement; unlikely to be a column, which would win over it.
ROW = "cdp_row"
#: So many rows are remembered at the most; with more of them, all come again.
MOST_SEEN = 10_000


@dataclass(frozen=True)
class Changes:
    """Only the rows that changed since the batch before.

    :param column: a column of the source.
    :param kind: ``timestamp``, ``date`` or ``integer``.
    :param before: cursor of the batch before; empty for the first one.
    :param until: highest value that may be read, None where the window bounds it.
    :param end: what bounds timestamps and dates, itself not included.
    """

    name: str
    column: str
    kind: str
    overlap: timedelta
    before: Cursor
    until: int | None
    end: datetime

    @property
    def last(self) -> Any:
        """The highest value that was read so far, as it was written; None for the first batch."""
        return self.before.get("value")

    def cursor(self, value: Any, seen: Sequence[str]) -> Cursor | None:
        """Where the next batch goes on.

        :param seen: digests of rows that the next batch will meet again.
        """
        if value is None:
            return None
        kept = {"seen": sorted(seen)} if 0 < len(seen) <= MOST_SEEN else {}
        return {"column": self.name, "value": value, **kept}


@dataclass(frozen=True)
class Reading:
    """A table or query, and how much of it.

    :param table: schema and name, or just the name; empty where there is a query.
    :param key: columns of the source that the primary key is made of.
    :param documents: columns of the source that the stream declares as json.
    """

    table: tuple[str, ...]
    query: str
    key: tuple[str, ...]
    documents: frozenset[str]
    changes: Changes | None

    @property
    def what(self) -> str:
        """For messages and the quarantine."""
        return f"table {'.'.join(self.table)}" if self.table else "query"

    def relation(self, quote: Callable[[str], str]) -> str:
        """SQL of the table or query, aliased."""
        if self.table:
            return f"{'.'.join(map(quote, self.table))} {ROW}"
        # The line break ends a comment.
        return f"({self.query.strip().rstrip(';')}\n) {ROW}"

    def check(self, names: Sequence[str]) -> None:
        """Refuse a result that would not be told apart.

        :raises ConfigurationError: two columns have one name.
        :raises NotFoundError: a column of the primary key is missing.
        """
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            msg = f"the {self.what} has two columns {twice[0]!r}; name each column in `query`, with an alias"
            raise ConfigurationError(msg)
        missing = [name for name in self.key if name not in names]
        if missing:
            msg = (
                f"the {self.what} has no column {missing[0]!r}, which the primary key needs; it has"
                f" {', '.join(names)[:200]}. Correct the column's path; upper and lower case count"
            )
            raise NotFoundError(msg)
