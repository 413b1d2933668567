# SPDX-License-Identifier: Apache-2.0
"""The product's own tables: what each holds, and how they come to exist.

Tables that follow from a project (``raw_<source>__<stream>``, ``profiles``) are made by the step that fills
them; these here are the same for every project.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdp_provider.core.warehouse import Session

_WINDOW = {"window_start": "timestamp", "window_end": "timestamp"}

#: What became of one record in one attempt.
_ATTEMPT = {
    "sync": "string!",
    "run_id": "string!",
    "window_end": "timestamp!",
    "record_key": "string!",
    "profile_id": "integer",
    "operation": "string!",
    "fields": "string",  # the names of the fields that travelled, never what they said
    "outcome": "string!",
    "status": "integer",  # of the HTTP answer
    "reason": "string",
    "attempt": "integer!",
    "answered_at": "timestamp",
    "idempotency_key": "string!",
    "payload": "string",  # only where the sync says log_payload
}

#: table -> column -> project column type. ``!`` marks a column that is never null.
TABLES: Mapping[str, Mapping[str, str]] = {
    # One row per stage and node of every run: what went in, what came out, how fresh it is.
    "runs": {
        "pipeline": "string!",
        "run_id": "string!",
        **_WINDOW,
        "stage": "string!",
        "node": "string!",
        "state": "string!",
        "rows_in": "integer!",
        "rows_out": "integer!",
        "rows_refused": "integer!",
        "bytes": "integer!",
        "seconds": "number!",
        "watermark": "timestamp",
        "detail": "string!",
        "error": "string",
    },
    # One row per landed batch. load_seq is the order of arrival: equal for all streams of one window.
    "loads": {
        "load_id": "integer!",
        "load_seq": "integer!",
        "batch_id": "string!",
        "pipeline": "string!",
        "stream": "string!",
        "run_id": "string!",
        **_WINDOW,
        "cursor_before": "string",
        "cursor_after": "string",
        "rows_read": "integer!",
        "rows_landed": "integer!",
        "rows_quarantined": "integer!",
        "bytes": "integer!",
        "watermark": "timestamp",
        "content_hash": "string!",
        "state": "string!",  # landed -> passed | failed: only passed batches are read downstream
        "resolved_seq": "integer",  # the identity run that took it in; null until then
        "resolved_hash": "string",  # content_hash as that run saw it
    },
    # Which files a batch took, so that a file is landed once.
    "files": {
        "stream": "string!",
        "path": "string!",
        "size": "integer!",
        "checksum": "string!",
        "load_id": "integer!",
        "modified": "string",  # what the file system told of the content read: an etag, or a time of change
    },
    # What others have sent us, until a run takes it in. See core/ingest/inbox.
    "inbox": {
        "channel": "string!",
        "number": "integer!",  # in the channel, from 1 on, without a gap, in the order of commits
        "received_at": "timestamp!",
        "headers": "string",  # JSON
        "body": "string!",
    },
    "quarantine": {
        "load_id": "integer!",
        "stream": "string!",
        "run_id": "string!",
        **_WINDOW,
        "source": "string!",  # file name or endpoint the row came from
        "line": "integer!",  # of that file; of an endpoint's answers, the how many-th record
        "position": "integer!",  # in the batch
        "reason": "string!",
        "raw": "string!",
        "format": "string",  # JSON: fields, delimiter and null of a line of CSV; null where `raw` is JSON
        "released": "integer",  # the batch that took it in after a replay
    },
    # What every rule of a stream's contract said of a batch. Names and counts, never what a row holds.
    "contract_results": {
        "pipeline": "string!",
        "run_id": "string!",
        **_WINDOW,
        "stream": "string!",
        "load_id": "integer!",
        "rule": "string!",
        "kind": "string!",
        "severity": "string!",  # quarantine | fail | warn
        "checked": "integer!",  # rows, or values of them
        "failed": "integer!",
        "share": "number!",
        "outcome": "string!",  # passed | warned | failed
        "detail": "string",
    },
    # Every identifier value ever accepted. node_id grows in the order of first sight; the profile's id is the
    # node_id of its oldest identifier.
    "identifiers": {
        "node_id": "integer!",
        "type": "string!",
        "value": "string!",
        "profile_id": "integer!",
        "first_seen": "timestamp",
        "resolved_seq": "integer!",
        "published_seq": "integer",  # the identity run after which a profile was first named after it
        "evicted_seq": "integer",  # the identity run that took the value from it; its profile keeps the node
    },
    # Which identifier a raw row hangs on: its profile is that identifier's profile, also after merges.
    "row_links": {
        "stream": "string!",
        "load_id": "integer!",
        "position": "integer!",
        "node_id": "integer!",
    },
    "merges": {
        "resolved_seq": "integer!",
        "run_id": "string!",
        "loser": "integer!",
        "winner": "integer!",
        "stream": "string!",
        "load_id": "integer!",
        "position": "integer!",
        "evidence": "string!",  # identifier types (never values) that met in that row
    },
    "refused_links": {
        "resolved_seq": "integer!",
        "run_id": "string!",
        "stream": "string!",
        "load_id": "integer!",
        "position": "integer!",
        "type": "string!",
        "value": "string!",
        "rule": "string!",
    },
    # Profiles that lost identifiers to another, and why.
    "splits": {
        "resolved_seq": "integer!",
        "run_id": "string!",
        "profile_id": "integer!",
        "new_profile_id": "integer!",
        "identifiers": "integer!",  # so many went over
        "rule": "string!",
    },
    # Values that are no identifiers any more: hubs from the rows of that identity run on, broken ones in all.
    "barred_identifiers": {
        "resolved_seq": "integer!",
        "run_id": "string!",
        "type": "string!",
        "value": "string!",
        "reason": "string!",  # hub | broken
        "rule": "string!",
        "seen_with": "integer",
        "stream": "string",
        "load_id": "integer",
        "position": "integer",
    },
    # With whom values of types that have a hub limit were seen; kept until they are hubs.
    "neighbours": {
        "type": "string!",
        "value": "string!",
        "other_type": "string!",
        "other_value": "string!",
        "resolved_seq": "integer!",
    },
    # Pairs of profiles that look like one person, by the oldest identifier of each as it was when proposed.
    "fuzzy_links": {
        "pair": "string!",  # both node ids, the smaller one first: 12-340
        "left_node": "integer!",  # the oldest identifier of its profile, as it was when the pair was proposed
        "left_type": "string!",
        "left_value": "string!",
        "right_node": "integer!",
        "right_type": "string!",
        "right_value": "string!",
        "score": "number!",
        "evidence": "string!",  # how each field compares, never what it holds
        "state": "string!",  # proposed | accepted | rejected
        "batch_id": "string!",  # the batch of cdp.fuzzy_links that carries it, once it is accepted
        "run_id": "string!",  # the run that proposed it
        "decided_run": "string",
        "decided_by": "string",  # score | review by <user>
    },
    # One row per run of identity resolution: what it found, under which rules.
    "identity_runs": {
        "pipeline": "string!",
        "run_id": "string!",
        "resolved_seq": "integer!",
        "window_end": "timestamp!",
        "replayed": "boolean!",
        "rules": "string!",  # a fingerprint; what they say stands in the project
        "rows_in": "integer!",
        "rows_without_identifier": "integer!",
        "identifiers": "integer!",
        "new_identifiers": "integer!",
        "profiles": "integer!",
        "new_profiles": "integer!",
        "merged": "integer!",
        "split": "integer!",
        "refused": "string!",  # JSON: rule -> refused links
        "sizes": "string!",  # JSON: distribution of identifiers per profile
        "largest": "string!",  # JSON: the largest profiles, and the identifiers that glue them, by node id
    },
    # How far each stream's table of linked rows has come.
    "linked": {
        "stream": "string!",
        "linked_seq": "integer!",  # counts the times it was brought up to date
        "window_end": "timestamp!",  # rows before it, or without a time, are in
        "fingerprint": "string!",  # of what would make every row anew; empty: make it anew
        "resolved_seq": "integer!",  # the newest identity run whose rows are in
        "rebuilt_seq": "integer!",  # the linked_seq that made every row anew
        "waiting": "string!",  # JSON: batches with rows whose time is still to come
    },
    # Rows that left a table of linked rows because a newer one with their key came.
    "unlinked": {
        "stream": "string!",
        "linked_seq": "integer!",
        "node_id": "integer",
    },
    # What profiles and segments keep of rows from run to run: one line per table, and how far it has come.
    "kept": {
        "name": "string!",
        "fingerprint": "string!",
        "window_end": "timestamp!",
        "resolved_seq": "integer!",
        "linked": "string!",  # JSON: stream -> linked_seq
    },
    # Past values of the fields and traits that the project lists as `history`.
    "profile_history": {
        "profile_id": "integer!",
        "name": "string!",
        "as_of": "timestamp!",
        "value": "json",
    },
    # The windows that profile_history knows of.
    "history_windows": {
        "as_of": "timestamp!",
        "run_id": "string!",
    },
    # Open and closed stays of profiles in segments. left_at is null while the stay lasts.
    "memberships": {
        "segment": "string!",
        "profile_id": "integer!",
        "entered_at": "timestamp!",
        "entered_run": "string!",
        "left_at": "timestamp",
        "left_run": "string",
    },
    # One row per segment and window.
    "segment_sizes": {
        "segment": "string!",
        "window_end": "timestamp!",
        "run_id": "string!",
        "size": "integer!",
        "entered": "integer!",
        "left": "integer!",
        "usual_low": "number",  # sizes that the history would explain; null while there is too little of it
        "usual_high": "number",
        "unusual": "boolean!",
    },
    # How many profiles two segments share now; the first name comes before the second.
    "segment_overlap": {
        "segment": "string!",
        "other": "string!",
        "profiles": "integer!",
    },
    # What the destination acknowledged, per sync and record key. A row is 'pending' from before its first
    # request until an answer stands here, so that nothing that may have arrived is ever forgotten.
    "sync_ledger": {
        "sync": "string!",
        "record_key": "string!",
        "profile_id": "integer",
        "payload_hash": "string",  # what the destination acknowledged and holds; null: nothing
        "attempted_hash": "string",  # what was tried since, without being accepted
        # pending | accepted | removed | rejected | retryable | ambiguous | dead | invalid | withheld
        "state": "string!",
        "operation": "string",  # of the last try
        "reason": "string",
        "attempts": "integer!",  # answers to the payload of the last try
        "refusals": "integer",  # rejections among them since it was released; none: it may be tried at once
        "unsure": "boolean",  # an earlier try since the last acknowledgement may have arrived
        "place": "integer",  # in the order of sending of the window that meant it
        "sent": "string",  # what the kind remembers of the acknowledged payload: hashed identifiers, an id
        "window_end": "timestamp!",
        "run_id": "string!",
    },
    # Answers that are not in the ledger yet: appended with every batch, folded in when a sync ends or begins.
    # Updating a ledger of millions for each hundred records would cost far more than sending them.
    # Each line becomes one of delivery_log then, too.
    "sync_answers": {
        **_ATTEMPT,
        "payload_hash": "string!",
        "sent": "string",
        "answer": "integer!",  # grows within a task: of two answers to one try the later one counts
        "ends_try": "boolean",  # else the record stays pending
    },
    # One row per sync: who works on it, and how it fares.
    "sync_state": {
        "sync": "string!",
        "claim": "string!",  # of the task that took it last; an older one stops
        "resync": "string!",  # changes with a full resync, and with it every payload's hash
        "failures": "integer!",  # runs in a row that ended in a failure of the destination
        "failed_run": "string",  # the last of them
    },
    # One row per record and attempt.
    "delivery_log": _ATTEMPT,
    # One row per account and endpoint class: what of its limits is used. See core/activation/limiter.
    "account_limits": {
        "account": "string!",
        "state": "string!",
    },
    # How far each stage has come: the newest window whose result stands in the tables.
    "progress": {
        "stage": "string!",
        "node": "string!",
        "window_end": "timestamp!",
        "run_id": "string!",
    },
}

#: table -> columns that are unique together.
KEYS: Mapping[str, tuple[str, ...]] = {
    "runs": ("pipeline", "run_id", "stage", "node"),
    "loads": ("load_id",),
    "files": ("stream", "path", "checksum"),
    "inbox": ("channel", "number"),
    "identifiers": ("node_id",),
    "identity_runs": ("pipeline", "run_id"),
    "fuzzy_links": ("pair",),
    "linked": ("stream",),
    "kept": ("name",),
    "profile_history": ("name", "profile_id", "as_of"),
    "history_windows": ("as_of",),
    "memberships": ("segment", "profile_id", "entered_at"),
    "segment_sizes": ("segment", "window_end"),
    "segment_overlap": ("segment", "other"),
    "sync_ledger": ("sync", "record_key"),
    "sync_state": ("sync",),
    "account_limits": ("account",),
    "progress": ("stage", "node"),
}


def ensure(session: Session) -> None:
    """Create the schema and whatever table or column is missing. Costs two queries when nothing is."""
    warehouse = session.warehouse
    product, shape = warehouse.table("product"), _shape()
    if "shape" in session.columns("product") and session.scalar(f"select max(shape) from {product}") == shape:
        return
    with session.lock("tables"), session.transaction():
        session.execute(f"create schema if not exists {warehouse.quote(warehouse.schema)}")
        for table, columns in TABLES.items():
            _create(session, table, columns)
        _create_redirect(session)
        session.execute(f"create table if not exists {product} (shape {warehouse.types['string']})")
        session.execute(f"delete from {product}")
        session.execute(f"insert into {product} values (:shape)", {"shape": shape})


def _shape() -> str:
    """Changes whenever the tables do."""
    return hashlib.sha256(json.dumps([TABLES, KEYS]).encode()).hexdigest()[:16]


def _create(session: Session, table: str, columns: Mapping[str, str]) -> None:
    """Create a table, or give one that an earlier version made the columns it lacks."""
    warehouse = session.warehouse
    types = {name: warehouse.types[kind.rstrip("!")] for name, kind in columns.items()}
    if present := session.columns(table):
        for name in columns.keys() - present.keys():
            # Its rows have no value for it, so it cannot be "not null" any more.
            added = f"{warehouse.quote(name)} {types[name]}"
            session.execute(f"alter table {warehouse.table(table)} add column {added}")
        return
    spec = [
        f"{warehouse.quote(name)} {types[name]}{' not null' if kind.endswith('!') else ''}"
        for name, kind in columns.items()
    ]
    if table in KEYS:
        spec.append(f"primary key ({', '.join(map(warehouse.quote, KEYS[table]))})")
    session.execute(f"create table {warehouse.table(table)} ({', '.join(spec)})")


def _create_redirect(session: Session) -> None:
    """Any profile id ever published, and the one it is called today."""
    warehouse = session.warehouse
    session.execute(
        f"create or replace view {warehouse.table('profile_redirect')} as"
        f" select node_id as old_profile_id, profile_id from {warehouse.table('identifiers')}"
        " where published_seq is not null and profile_id <> node_id"
    )
