# SPDX-License-Identifier: Apache-2.0
"""The different values that a profile's rows state: how many, which most often, which most recently."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from cdp_provider.core.profiles.params import Params


@dataclass(frozen=True)
class Stated:
    """Values that rows of a stream state: SQL of the value, and of the conditions on the rows."""

    ref: str
    value: str
    where: tuple[str, ...]


@dataclass
class Values:
    """Values of one or several streams, in groups of equal ones; all that is asked of them is one select.

    :param rows: stream -> the relation of its rows.
    :param stated: in the order of the sources.
    :param relation: quoted name.
    :param windows: stream -> lengths of windows in the conditions.
    :param always: the conditions move with now in another way.
    """

    params: Params
    rows: dict[str, str]
    stated: tuple[Stated, ...]
    kind: str
    relation: str
    windows: dict[str, frozenset[timedelta]]
    always: bool
    _columns: dict[str, str] = field(default_factory=dict)

    @property
    def refs(self) -> tuple[str, ...]:
        """The streams whose rows are read."""
        return tuple(dict.fromkeys(one.ref for one in self.stated))

    def distinct(self) -> str:
        """SQL of their number."""
        return f"coalesce({self._column('count(*)')}, 0)"

    def most_frequent(self) -> str:
        """SQL of the value of most rows; of several, the one stated most recently."""
        warehouse = self.params.warehouse
        key, width = warehouse.counted_key('"_times"', '"_newest"', self._width())
        return self._column(warehouse.latest('"_value"', self.kind, key, "true", width=width))

    def most_recent(self, limit: int) -> str:
        """SQL of a list of them as JSON, the most recently stated first."""
        return self._column(self.params.warehouse.json_list('"_value"', '"_newest" desc', limit))

    @property
    def sql(self) -> str:
        """A select of all that was asked, one line per profile."""
        chosen = ", ".join(['"_profile_id"', *(f"{sql} as {name}" for sql, name in self._columns.items())])
        groups = [self._groups(place, one) for place, one in enumerate(self.stated)]
        grouped = groups[0]
        if len(groups) > 1:
            grouped = (
                'select "_profile_id", "_value", sum("_times") as "_times", max("_newest") as "_newest"'
                f" from ({' union all '.join(groups)}) u group by 1, 2"
            )
        return f'select {chosen} from ({grouped}) v group by "_profile_id"'

    def _groups(self, place: int, one: Stated) -> str:
        newest = 'max("_order")'
        if len(self.stated) > 1:
            newest = self.params.warehouse.ranked_key(newest, place)
        return (
            f'select "_profile_id", {one.value} as "_value", count(*) as "_times", {newest} as "_newest"'
            f" from {self.rows[one.ref]} where {' and '.join(one.where) or 'true'} group by 1, 2"
        )

    def _width(self) -> int:
        warehouse = self.params.warehouse
        return warehouse.ranked_width if len(self.stated) > 1 else warehouse.order_width

    def _column(self, sql: str) -> str:
        name = self._columns.setdefault(sql, f'"v{len(self._columns)}"')
        return f"{self.relation}.{name}"
