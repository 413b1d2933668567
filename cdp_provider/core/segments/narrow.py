# SPDX-License-Identifier: Apache-2.0
"""What narrows a segment to so many members."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.segments.columns import Expr, both

if TYPE_CHECKING:
    from collections.abc import Callable

    from cdp_provider.core.project.model import Limit
    from cdp_provider.core.segments.columns import Columns

#: What is held against the number, by the way in which ties are settled.
_RANKS = {
    "id": "row_number() over ({alike} order by {value}{direction}, profile_id)",
    "include": "rank() over ({alike} order by {value}{direction})",
    "exclude": "count(*) over ({alike} order by {value}{direction})",  # with all those level with it
}


def limited(
    members: Expr, limit: Limit, trait: Callable[[str], Expr], order: Callable[[str], str], columns: Columns
) -> Expr:
    """Those of `members` whom a limit admits.

    :param trait: the column of a field or trait; `order` SQL to order by it.
    """
    ranked = [name for name in (limit.by, limit.per) if name is not None]
    present = [Expr(f"{trait(name).sql} is not null") for name in ranked]
    eligible = columns.store(both(members, *present))
    alike = [eligible.sql, *([trait(limit.per).sql] if limit.per is not None else [])]
    rank = _RANKS[limit.ties].format(
        alike=f"partition by {', '.join(alike)}",
        value=order(limit.by),
        direction=" desc" * (limit.order == "descending"),
    )
    return Expr(f"({eligible.sql} and {rank} <= {limit.count})", eligible.level)
