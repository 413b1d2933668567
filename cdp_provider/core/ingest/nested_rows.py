# SPDX-License-Identifier: Apache-2.0
"""The rows of a stream whose lists are taken apart, from where they have landed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import NotFoundError
from cdp_provider.core.ingest.sql_rows import document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from cdp_provider.core.run import Window
    from cdp_provider.core.warehouse import Session

_JSON = ("json", "jsonb")
_ROWS = 10_000
#: Beyond any load_id.
_NO_BOUND = 2**62


@dataclass(frozen=True)
class Version:
    """A row of the parent at one time.

    :param text: its list, as JSON.
    :param parent: its other columns.
    :param now: the same columns of the newest version, where this is an old one.
    """

    text: str | None
    parent: dict[str, Any]
    now: dict[str, Any] = field(default_factory=dict)


class Parents:
    """Batches of the parent that a batch of the child takes in.

    These are the ones of its own window, and those that no batch of the child has taken in yet: from before
    the child was declared, or taken in by one that failed its check. Only batches that passed count.

    :param of: the parent, as ``source.stream``.
    :param key: columns that tell its rows apart.
    :param inherited: columns that are in the child's primary key.
    :raises NotFoundError: the parent has never been landed, or has no such column.
    """

    def __init__(
        self, session: Session, of: str, column: str, key: Sequence[str], inherited: Sequence[str]
    ) -> None:
        self._session, self._of = session, of
        source, _, name = of.partition(".")
        self._raw, self._view = f"raw_{source}__{name}", f"{source}__{name}"
        # The names of the view's own columns begin with a line, as no stream's do.
        self._types = {k: t for k, t in session.columns(self._view).items() if not k.startswith("_")}
        for wanted in (column, *key, *inherited):
            if wanted not in self._types:
                msg = (
                    f"the stream {of} has no landed column {wanted!r}; land it first, or correct `of`, `list`"
                    " and the primary key"
                )
                raise NotFoundError(msg)
        self._list = column
        self._key = tuple(key)
        self._told = tuple(dict.fromkeys((*key, *inherited)))
        self._others = [name for name in self._types if name != column]
        self._params: dict[str, Any] = {}
        self.highest = self.rows = 0

    def choose(self, window: Window, after: int, until: int | None) -> None:
        """Decide which batches are taken in.

        :param after: the highest load_id that an earlier batch of the child has taken in.
        :param until: the highest that this one took in when it was landed before.
        """
        self._params = {
            "of": self._of,
            "start": window.start,
            "end": window.end,
            "after": after,
            "until": _NO_BOUND if until is None else until,
        }
        highest = self._session.scalar(f"select max(load_id) from ({self._fresh()}) fresh", self._params)
        self.highest = highest or 0

    def newest(self) -> Iterator[Version]:
        """New rows that are the newest of their key."""
        if not self.highest:
            return iter(())
        columns = [self._text("v", self._list), *(self._text("v", name) for name in self._others)]
        found = self._session.arrow(
            f"select {_numbered(columns)} from {self._table(self._view)} v"
            f" where v._load_id in ({self._fresh()}) order by v._load_id, v._position",
            self._params,
        )
        self.rows = found.num_rows
        return (
            Version(row[0], self._plain(self._others, row[1:])) for row in _rows(found) if row[0] is not None
        )

    def replaced(self) -> Iterator[tuple[Version, str | None]]:
        """Earlier versions of rows that have a new one with another list, each with the new list.

        Of a row that is deleted there is no new list; of one whose newest version came with another batch
        nothing is said here.
        """
        if not self.highest:
            return iter(())
        quote, told, others = self._session.warehouse.quote, self._told, self._others
        same = " and ".join(f"v.{quote(name)} = o.{quote(name)}" for name in self._key)
        touched = " and ".join(f"n.{quote(name)} = r.{quote(name)}" for name in self._key)
        wanted = [
            "o.cdp_list",
            f"v.{quote(self._key[0])} is null",
            self._text("v", self._list),
            *(f"o.{quote(name)}" for name in told),
            *(self._text("v", name) for name in others),
        ]
        changed = [
            f"{self._text('v', self._list)} is distinct from o.cdp_list",
            *(f"v.{quote(name)} is distinct from o.{quote(name)}" for name in told if name not in self._key),
        ]
        found = self._session.arrow(
            f"select {_numbered(wanted)} from (select distinct {', '.join(f'r.{quote(n)}' for n in told)},"
            f" {self._text('r', self._list)} as cdp_list from {self._table(self._raw)} r"
            f" join {self._table('loads')} l on l.load_id = r._load_id"
            f" where l.state = 'passed' and l.window_end <= :end and r.{quote(self._list)} is not null"
            f" and r._load_id not in ({self._fresh()}) and exists (select 1 from {self._table(self._raw)} n"
            f" where n._load_id in ({self._fresh()}) and {touched})) o"
            f" left join {self._table(self._view)} v on {same}"
            f" where v.{quote(self._key[0])} is null"
            f" or v._load_id in ({self._fresh()}) and ({' or '.join(changed)})"
            f" order by {', '.join(str(4 + place) for place in range(len(told)))}, 1",
            self._params,
        )
        return (self._pair(row) for row in _rows(found))

    def _pair(self, row: Sequence[Any]) -> tuple[Version, str | None]:
        text, deleted, new_text, *values = row
        then = self._plain(self._told, values[: len(self._told)])
        now = {} if deleted else self._plain(self._others, values[len(self._told) :])
        # What is not in the key is as of now: it says when the element went.
        return Version(text, {**now, **then}, now), new_text

    def _fresh(self) -> str:
        """SQL of the load_ids that are taken in."""
        return (
            f"select load_id from {self._table('loads')} where stream = :of and state = 'passed'"
            " and window_end <= :end and (window_end = :end"
            " and window_start is not distinct from cast(:start as timestamp with time zone)"
            " or load_id > :after and load_id <= :until)"
        )

    def _table(self, name: str) -> str:
        return self._session.warehouse.table(name)

    def _text(self, alias: str, name: str) -> str:
        """SQL of a column; JSON as text, in which no digit is lost."""
        column = f"{alias}.{self._session.warehouse.quote(name)}"
        return f"cast({column} as varchar)" if self._is_json(name) else column

    def _is_json(self, name: str) -> bool:
        return self._types[name].lower() in _JSON

    def _plain(self, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
        return {
            name: document(value) if value is not None and self._is_json(name) else value
            for name, value in zip(names, values, strict=True)
        }


def _numbered(columns: Sequence[str]) -> str:
    """Two columns may have one name."""
    return ", ".join(f"{column} as c{place}" for place, column in enumerate(columns))


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
