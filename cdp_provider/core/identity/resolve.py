# SPDX-License-Identifier: Apache-2.0
"""Identity resolution: every batch that passed its check is taken into the graph, once and in order.

What is slow (fetching rows, normalising, deciding) happens on copies, outside of any transaction. What is
written goes in one short transaction, under the lock ``identity``, after a look whether the tables are still
those that the decisions were made on; if another run was first, everything starts again.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from cdp_provider.core import tables
from cdp_provider.core.exceptions import WarehouseBusyError
from cdp_provider.core.identity import history, store
from cdp_provider.core.identity.graph import Graph
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.identity.graph import Known
    from cdp_provider.core.identity.history import History, Plan
    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.run import Run
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Warehouse

_ATTEMPTS = 5


def resolve(warehouse: Warehouse, identity: Identity, streams: Sequence[Stream], run: Run) -> Report:
    """Take in the batches that passed their check and no run took in before.

    The result is a function of recorded history. Where a batch that was taken in has been landed again with
    other content, history is not what it was: all of it is replayed, as by :func:`rebuild`. Otherwise the
    cost follows the new rows and the profiles they touch.

    :param streams: all streams of the project, in its order.
    :returns: ``rows_in`` rows looked at, ``rows_out`` rows that belong to a profile, ``rows_refused`` rows of
        which an identifier was dropped because of a limit; more in ``detail``.
    :raises ConfigurationError: a replay is due and would lose the links of a stream that was not given.
    :raises WarehouseBusyError: other runs kept writing.
    """
    return _resolve(warehouse, identity, streams, run, replay=False)


def rebuild(warehouse: Warehouse, identity: Identity, streams: Sequence[Stream], run: Run) -> Report:
    """Decide everything anew from the raw rows, in recorded order, by today's rules.

    With the rules unchanged the result equals what the runs before have built: the same profiles, ids, links,
    merges and refusals. An identifier keeps its node id for ever. One that is not carried in any more stands
    as a profile of its own without rows; a profile that falls apart leaves its id to the part with the
    oldest identifier. Streams that are not given lose their links for good.
    """
    return _resolve(warehouse, identity, streams, run, replay=True)


def _resolve(
    warehouse: Warehouse, identity: Identity, streams: Sequence[Stream], run: Run, *, replay: bool
) -> Report:
    with reported(warehouse, run, "resolve") as report:
        for _ in range(_ATTEMPTS):
            if _attempt(warehouse, identity, streams, report, replay=replay):
                return report
        msg = (
            f"identity resolution found the tables changed by other runs {_ATTEMPTS} times in a row; let the"
            " runs that land, check or resolve at the same time finish, and try again"
        )
        raise WarehouseBusyError(msg, retry_after=30)


def _attempt(
    warehouse: Warehouse, identity: Identity, streams: Sequence[Stream], report: Report, *, replay: bool
) -> bool:
    """One try; False when another run wrote between reading and writing."""
    rules = history.rules(identity, streams)
    with warehouse.session() as session:
        tables.ensure(session)
        if superseded(session, report):
            return True
        plan = history.plan(session, streams, replay=replay)
        raw = history.read(session, plan, streams, identity)
        run_ids = defaultdict(lambda: report.run.run_id, store.recorded_runs(session) if plan.replay else {})
    rows = history.arrange(raw, plan, rules)
    del raw
    with warehouse.session() as session:
        known = store.read_known(session, rows, rules, plan)
    graph = Graph(rows.kinds, [rule.limit for rule in rules.values()], known)
    graph.take(rows.columns)
    changes = store.changes(rows, graph, [stream.ref for stream in streams], rules, run_ids)
    with warehouse.session() as session, session.lock("identity"):
        if superseded(session, report):
            return True
        with session.transaction():
            if not plan.holds(history.plan(session, streams, replay=replay)):
                return False
            cut = store.apply(session, changes, plan)
            report.rows_in, report.rows_out = len(rows), changes.row_links.num_rows
            report.rows_refused = len({refusal.row for refusal in graph.refusals})
            report.watermark = rows.newest()
            report.detail = _detail(rows, graph, known, plan, cut, store.totals(session))
            advance(session, report)
            report.write(session)
    return True


def _detail(
    rows: History, graph: Graph, known: Known, plan: Plan, cut: int, totals: tuple[int, int]
) -> dict[str, object]:
    """Counts of what the run found, made and refused; never a value."""
    nodes, profiles = graph.nodes(), graph.profiles()
    held = profiles > 0
    heads = held & (profiles == nodes)
    joined = known.heads & held & ~heads if plan.replay else graph.moved()[0]
    with_identifier = sum(column >= 0 for column in rows.columns)
    return {
        "profiles": totals[0],
        "new_profiles": int(np.count_nonzero(heads & ~known.heads)) + cut,
        "identifiers": totals[1],
        "new_identifiers": int(np.count_nonzero(nodes > known.last_node)),
        "joins": graph.joins,
        "merges": int(np.count_nonzero(joined)),
        "refused_links": len(graph.refusals),
        "rows_without_identifier": len(rows) - int(np.count_nonzero(with_identifier)),
        "loads": len(plan.loads),
        "replayed": plan.replay,
        **rows.refused,
    }
