# SPDX-License-Identifier: Apache-2.0
"""All that one statement asks about profiles' rows.

Traits, fields and segments ask here and get the SQL of a column back. What is asked of one stream is computed
together, in one pass over its rows, or taken from what earlier runs kept (:mod:`.kept`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.profiles.asked import Asked
from cdp_provider.core.profiles.relations import Relations
from cdp_provider.core.project.conditions import Window

if TYPE_CHECKING:
    from cdp_provider.core.project.conditions import Filter


class Facts(Relations):
    """What is asked, and where the answers are joined."""

    def ask(
        self,
        ref: str,
        function: str,
        column: str | None = None,
        *,
        event: str | None = None,
        where: Filter | None = None,
        window: Window | None = None,
        nulls: str = "ignore",
        limit: int = 100,
    ) -> str:
        """SQL of a value of each profile, where :meth:`joins` are joined.

        ``count`` of rows, ``count_values``, ``sum`` (in the column's type), ``average`` (a double), ``min``,
        ``max``, ``any``, ``all``, ``distinct_count``, ``most_frequent``, ``list`` (JSON), ``first``,
        ``last``, ``first_time``, ``last_time``, and ``first_order``, ``last_order`` (the row's place).
        Counts are 0 for a profile without such rows, everything else NULL.

        :param nulls: ``ignore`` rows without a value, ``empty`` those with an empty text too, take them for
            ``zero``, or ``keep`` them as values.
        :param limit: of a ``list``: at most so many values, the most recent ones.
        :raises ConfigurationError: as :meth:`conditions`.
        """
        last = window.within_last if window else None
        between = Window(between=window.between) if window and window.between else None
        if last is not None:
            self.time(ref)
        with self.params.watched() as seen:
            where_sql = tuple(self.conditions(ref, where or {}, event=event, window=between))
        asked = Asked(self, ref, where_sql, last, moving=seen.relative)
        if function in ("count", "first_time", "last_time"):
            return asked.of_rows(function)
        if column is None:
            msg = f"{function} is computed from a column, and none was named"
            raise ValueError(msg)
        quoted = self.column(ref, column)
        return asked.of_column(function, quoted, self.stream(ref).columns[column].type, nulls, limit)
