# SPDX-License-Identifier: Apache-2.0
"""Where questions read rows that no run keeps anything for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.profiles import linked
from cdp_provider.core.profiles.versions import (
    columns_of,
    lies_ready,
    loads_of,
    still_there,
    versions,
    visible,
)

if TYPE_CHECKING:
    from cdp_provider.core.profiles.params import Params
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.warehouse import Session


class StandingRows:
    """Reads linked rows where their table speaks of now, and raw rows elsewhere. Writes nothing."""

    def __init__(self, session: Session, params: Params) -> None:
        self._session, self._params = session, params

    def prepare(self, relations: object) -> None:
        """Nothing to do."""

    def table(self, stream: Stream) -> str | None:
        """A table, or a select in parentheses; None for an optional stream that was never landed."""
        if linked.speaks_of(self._session, stream, self._params.now):
            return self._session.warehouse.table(linked.table_of(stream))
        return _from_raw(self._session, stream, self._params)


class RawRows(StandingRows):
    """Reads raw rows, as of any moment, with all that is known of them today."""

    def table(self, stream: Stream) -> str | None:
        """A select in parentheses; None for an optional stream that was never landed."""
        return _from_raw(self._session, stream, self._params)


def _from_raw(session: Session, stream: Stream, params: Params) -> str | None:
    """What a table of linked rows would hold, as a select in parentheses over the raw rows."""
    if not lies_ready(session, stream):
        return None
    warehouse = session.warehouse
    happened = visible(warehouse, stream, params.moment())
    rows = versions(warehouse, stream, loads_of(session, stream), happened, params.bind(stream.ref, "string"))
    names = [*columns_of(warehouse, stream), '"_load_id"', '"_position"', '"_node_id"', '"_order"']
    keys = ", ".join(warehouse.quote(name) for name in stream.primary_key)
    return (
        f"(select {', '.join(names)} from (select r.*, row_number() over (partition by {keys}"
        f' order by "_order" desc) as "_rank" from ({rows}) r) ranked where "_rank" = 1'
        f" and {still_there(warehouse, stream, 'ranked')})"
    )
