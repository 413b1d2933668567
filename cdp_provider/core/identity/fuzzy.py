# SPDX-License-Identifier: Apache-2.0
"""Pairs of profiles that look like one person: proposed by splink, decided by people, taken in by the graph.

An accepted pair becomes a row of the stream ``cdp.fuzzy_links`` that carries an identifier of either side.
For identity resolution it is a row like any other: it links within all limits and rules, it is evidence, and
a replay meets it again. Nothing is merged behind its back.

Scores are computed in a DuckDB of the worker's own, whatever the warehouse is: splink trains by creating many
tables, which have no place in a schema that others read; that takes minutes, for which nobody should hold a
DuckDB file; and the same profiles get the same scores everywhere.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from cdp_provider.core import tables
from cdp_provider.core.exceptions import ConfigurationError, NotFoundError
from cdp_provider.core.identity.scoring import score
from cdp_provider.core.ingest.base import Connector, Fetched, RawFile
from cdp_provider.core.ingest.contracts import check
from cdp_provider.core.ingest.landing import land
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.streams import Column, Stream
from cdp_provider.core.runs import advance, reported, superseded

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import pyarrow as pa

    from cdp_provider.core.ingest.base import Cursor, FileKey
    from cdp_provider.core.project.fuzzy import Fuzzy
    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.run import Run, Window
    from cdp_provider.core.runs import Report
    from cdp_provider.core.warehouse import Session, Warehouse

TABLE = "fuzzy_links"

_BY_SCORE = "score"
_FOLDED = "nullif(lower(trim(cast({} as varchar))), '')"
#: Pairs that a review lists; the best and the worst of them tell most.
_LISTED = 50
_BANDS = (0.99, 0.95, 0.9, 0.8, 0.5, 0.0)


def stream(identity: Identity) -> Stream:
    """The internal stream of accepted pairs; identity resolution reads it where ``fuzzy`` is declared."""
    kinds = identity.ranked()
    sides = {f"{side}_{kind}": Column() for side in ("left", "right") for kind in kinds}
    return Stream(
        source="cdp",
        name=TABLE,
        primary_key=("pair",),
        columns={"pair": Column(required=True), "score": Column(type="number", required=True), **sides},
        identifiers={kind: (f"left_{kind}", f"right_{kind}") for kind in kinds},
        options=Options(),
    )


def propose(warehouse: Warehouse, identity: Identity, run: Run) -> Report:
    """Score the profiles of the table ``profiles`` and write the pairs that look like one person.

    Pairs from ``accept_from`` on are accepted at once, the others wait for :func:`decide`. Pairs that were
    decided before stay decided, whatever their profiles are called today. Proposals that nobody has answered
    are withdrawn, and made again if the profiles still look alike: they always belong to the newest run.

    :param identity: with ``fuzzy`` declared; only types of identifiers that it names can link.
    :returns: a report of stage ``propose``; ``rows_in`` profiles, ``rows_out`` pairs proposed; ``detail``:
        ``accepted`` by score, ``to_review``, ``untrained`` the lists of ``block_on`` that taught nothing.
    :raises NotFoundError: the profiles were never built.
    :raises ConfigurationError: nothing is declared, a field does not exist or does not suit, or splink is not
        installed.
    """
    with reported(warehouse, run, "propose") as report:
        fuzzy = _declared(identity)
        with warehouse.session() as session:
            tables.ensure(session)
            if superseded(session, report):
                return report
            profiles = _profiles(session, fuzzy)
        pairs, untrained = score(profiles, fuzzy)
        with warehouse.session() as session, session.lock(TABLE):
            if superseded(session, report):
                return report
            with session.transaction():
                _write(session, identity, fuzzy, pairs, run)
                states = _states(session, run)
                report.rows_in, report.rows_out = profiles.num_rows, sum(states.values())
                report.detail = {
                    "accepted": states.get("accepted", 0),
                    "to_review": states.get("proposed", 0),
                    "untrained": untrained,
                }
                advance(session, report)
                report.write(session)
    return report


def review(warehouse: Warehouse, run: Run) -> str:
    """What a person needs to decide on this run's proposals, as Markdown; empty when there are none.

    It names profiles by their ids and says which fields agree, and holds no personal data.
    """
    with warehouse.session() as session:
        tables.ensure(session)
        rows = session.fetch(
            "select l.profile_id, r.profile_id, f.score, f.evidence"
            f" from {warehouse.table(TABLE)} f"
            f" join {warehouse.table('identifiers')} l on l.node_id = f.left_node"
            f" join {warehouse.table('identifiers')} r on r.node_id = f.right_node"
            " where f.state = 'proposed' and f.batch_id = :batch order by f.score desc, f.pair",
            {"batch": _batch(run)},
        )
    if not rows:
        return ""
    bands = [next(band for band in _BANDS if score >= band) for _, _, score, _ in rows]
    counts = [(f"from {band}", str(bands.count(band))) for band in _BANDS if band in bands]
    half = _LISTED // 2
    listed = rows if len(rows) <= _LISTED else [*rows[:half], *rows[-half:]]
    pairs = [(f"{left} and {right}", f"{score:.4f}", how) for left, right, score, how in listed]
    note = "" if listed is rows else f"\n\nThe {half} best and the {half} worst of {len(rows)} are shown."
    return (
        _markdown(("score", "pairs"), counts)
        + "\n\n"
        + _markdown(("profiles", "score", "fields"), pairs)
        + note
    )


def decide(
    warehouse: Warehouse, identity: Identity, run: Run, *, approved: bool | None, by: str = "nobody"
) -> Report:
    """Record what became of this run's proposals, and land those that are accepted as a batch.

    Called again with another answer, the pairs that were reviewed change their state, and so does the batch;
    identity resolution replays its history then.

    :param approved: the reviewer's answer; None when nothing was there to review.
    :param by: who gave it.
    :returns: a report of stage ``decide``; ``rows_in`` pairs of this run, ``rows_out`` those accepted,
        ``rows_refused`` those rejected.
    """
    with reported(warehouse, run, "decide") as report:
        with warehouse.session() as session, session.lock(TABLE):
            tables.ensure(session)
            with session.transaction():
                if approved is not None:
                    _answer(session, run, "accepted" if approved else "rejected", by)
                states = _states(session, run)
                report.rows_in = sum(states.values())
                report.rows_out, report.rows_refused = states.get("accepted", 0), states.get("rejected", 0)
                report.write(session)
        take_in(warehouse, identity, run)
    return report


def take_in(warehouse: Warehouse, identity: Identity, run: Run) -> Report:
    """Land this run's accepted pairs as a batch of :func:`stream`, checked, for ``resolve`` to take in.

    Landed again, the batch replaces itself.

    :returns: the report of the landing.
    """
    declared = stream(identity)
    with warehouse.session() as session:
        tables.ensure(session)
        accepted = session.fetch(
            "select pair, score, left_type, left_value, right_type, right_value"
            f" from {warehouse.table(TABLE)} where state = 'accepted' and batch_id = :batch order by pair",
            {"batch": _batch(run)},
        )
    report = land(warehouse, declared, _Accepted(accepted), run)
    check(warehouse, declared, run)
    return report


class _Accepted(Connector):
    """Accepted pairs, already at hand.

    :param pairs: pair, score, type and value of the left side, type and value of the right side.
    """

    options: ClassVar[type[Options]] = Options

    def __init__(self, pairs: Sequence[tuple[str, float, str, str, str, str]]) -> None:
        self._pairs = pairs

    def fetch(
        self,
        stream: Stream,
        cursor: Cursor | None,  # noqa: ARG002 - every batch is whole by itself
        window: Window,  # noqa: ARG002
        spool: Path,
        *,
        taken: Collection[FileKey] = (),  # noqa: ARG002
        until: Cursor | None = None,  # noqa: ARG002
    ) -> Fetched:
        path = spool / "accepted.ndjson"
        with path.open("w") as file:
            for pair, score, *sides in self._pairs:
                left, left_value, right, right_value = sides
                row = {
                    "pair": pair,
                    "score": score,
                    f"left_{left}": left_value,
                    f"right_{right}": right_value,
                }
                file.write(json.dumps(row) + "\n")
        return Fetched([RawFile(path, f"the table {TABLE}", "ndjson")], bytes=path.stat().st_size)


def _declared(identity: Identity) -> Fuzzy:
    if identity.fuzzy is None or not identity.identifiers:
        missing = "identity.fuzzy" if identity.fuzzy is None else "identity.identifiers"
        msg = f"{missing} is not declared, so no pair can be proposed; declare it, or leave this step out"
        raise ConfigurationError(msg)
    return identity.fuzzy


def _batch(run: Run) -> str:
    return run.batch_id(f"cdp.{TABLE}")


def _profiles(session: Session, fuzzy: Fuzzy) -> pa.Table:
    """The golden records: ``profile_id`` and the fields, dates as such, everything else as folded text."""
    warehouse = session.warehouse
    present = session.columns("profiles")
    if not present:
        msg = (
            f"the table {warehouse.table('profiles')} does not exist, so there is nothing to compare;"
            " build the profiles first"
        )
        raise NotFoundError(msg)
    if missing := [name for name in fuzzy.fields() if name not in present]:
        msg = (
            f"identity.fuzzy names {', '.join(missing)}, which the table {warehouse.table('profiles')} does"
            " not have; add it to profiles.fields and build the profiles, or leave it out"
        )
        raise ConfigurationError(msg)
    dates = [name for name, how in fuzzy.compare.items() if how == "date"]
    if wrong := [name for name in dates if present[name].lower() != "date"]:
        msg = (
            f"identity.fuzzy compares {', '.join(wrong)} as date, and it is {present[wrong[0]]}; declare the"
            " column it comes from as date, or compare it as text"
        )
        raise ConfigurationError(msg)
    columns = ", ".join(
        f"{column if name in dates else _FOLDED.format(column)} as {warehouse.quote(name)}"
        for name in fuzzy.fields()
        for column in [f"p.{warehouse.quote(name)}"]
    )
    return session.arrow(
        f"select p.profile_id as profile_id, {columns} from {warehouse.table('profiles')} p"
        " order by p.profile_id"
    )


def _write(session: Session, identity: Identity, fuzzy: Fuzzy, pairs: pa.Table, run: Run) -> None:
    """Put the proposals in place of those that nobody has answered."""
    table = session.warehouse.table(TABLE)
    session.execute(f"delete from {table} where state = 'proposed'")
    if not pairs.num_rows:
        return
    scored = session.temp("cdp_scored_pairs", pairs)
    values = {
        "accept_from": 2.0 if fuzzy.accept_from is None else fuzzy.accept_from,
        "batch": _batch(run),
        "run_id": run.run_id,
        "by": _BY_SCORE,
        **{f"kind_{n}": kind for n, kind in enumerate(identity.identifiers)},
    }
    identifiers = session.warehouse.table("identifiers")
    session.execute(
        f"insert into {table} ({', '.join(tables.TABLES[TABLE])})"
        f" with oldest as ({_oldest(session, len(identity.identifiers))}), decided as ({_decided(session)}),"
        " pairs as (select s.score as score, s.evidence as evidence,"
        " least(a.node_id, b.node_id) as left_node, greatest(a.node_id, b.node_id) as right_node"
        f' from {scored} s join oldest a on a.profile_id = s."left" join oldest b on b.profile_id = s."right"'
        ' where not exists (select 1 from decided d where d.left_profile = s."left"'
        ' and d.right_profile = s."right"))'
        " select concat(p.left_node, '-', p.right_node), p.left_node, l.type, l.value, p.right_node, r.type,"
        " r.value, p.score, p.evidence,"
        " case when p.score >= :accept_from then 'accepted' else 'proposed' end, :batch, :run_id,"
        " case when p.score >= :accept_from then :run_id end, case when p.score >= :accept_from then :by end"
        f" from pairs p join {identifiers} l on l.node_id = p.left_node"
        f" join {identifiers} r on r.node_id = p.right_node"
        f" where not exists (select 1 from {table} f"
        " where f.left_node = p.left_node and f.right_node = p.right_node)",
        values,
    )


def _oldest(session: Session, kinds: int) -> str:
    """SQL: the oldest identifier of each profile that can still link it."""
    table = session.warehouse.table
    named = ", ".join(f":kind_{n}" for n in range(kinds))
    return (
        f"select i.profile_id as profile_id, min(i.node_id) as node_id from {table('identifiers')} i"
        f" where i.type in ({named}) and i.evicted_seq is null"
        f" and not exists (select 1 from {table('barred_identifiers')} b"
        " where b.type = i.type and b.value = i.value) group by i.profile_id"
    )


def _decided(session: Session) -> str:
    """SQL: today's profiles of the pairs that were accepted or rejected."""
    table = session.warehouse.table
    return (
        "select least(l.profile_id, r.profile_id) as left_profile,"
        f" greatest(l.profile_id, r.profile_id) as right_profile from {table(TABLE)} f"
        f" join {table('identifiers')} l on l.node_id = f.left_node"
        f" join {table('identifiers')} r on r.node_id = f.right_node where f.state <> 'proposed'"
    )


def _answer(session: Session, run: Run, state: str, by: str) -> None:
    """Every pair of the run that is not accepted by its score alone gets the reviewer's answer."""
    session.execute(
        f"update {session.warehouse.table(TABLE)} set state = :state, decided_run = :run_id, decided_by = :by"
        " where batch_id = :batch and (state = 'proposed' or decided_by <> :by_score)",
        {
            "state": state,
            "run_id": run.run_id,
            "by": f"review by {by}",
            "batch": _batch(run),
            "by_score": _BY_SCORE,
        },
    )


def _states(session: Session, run: Run) -> dict[str, int]:
    """How many pairs of this run are in which state."""
    return dict(
        session.fetch(
            f"select state, count(*) from {session.warehouse.table(TABLE)}"
            " where batch_id = :batch group by state",
            {"batch": _batch(run)},
        )
    )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
