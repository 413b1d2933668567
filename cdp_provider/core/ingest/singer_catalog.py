# SPDX-License-Identifier: Apache-2.0
"""A Singer tap's catalog, with one of its streams chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import DataError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator


def chosen(
    catalog: Any, stream: str, *, method: str | None = None, key: str | None = None, what: str
) -> dict[str, Any]:
    """The catalog in which `stream` is the only one that is chosen, with all of its fields.

    :param method: how it is replicated; None: as the tap prefers.
    :param key: the field that tells what is new.
    :param what: told the catalog, for messages.
    :raises DataError: it is no catalog.
    :raises NotFoundError: it has no such stream.
    """
    streams = catalog.get("streams") if isinstance(catalog, dict) else None
    if not isinstance(streams, list) or not all(isinstance(entry, dict) for entry in streams):
        msg = (
            f"{what} discovers no catalog: a JSON object with a list `streams`; give its `catalog` as a file"
        )
        raise DataError(msg)
    names = [str(entry.get("stream") or entry.get("tap_stream_id")) for entry in streams]
    ids = [str(entry.get("tap_stream_id")) for entry in streams]
    # A name may occur in several schemas of a database; an id is never there twice.
    of = ids if stream in ids else names
    if of.count(stream) != 1:
        listed = ", ".join(sorted(set(ids if stream in names else names))[:30])
        found = "several streams" if stream in names else "no stream"
        msg = f"{what} has {found} {stream!r}; as `stream`, name one of {listed or 'none at all'}"
        raise NotFoundError(msg)
    told = {"replication-method": method, "replication-key": key}
    more = {name: value for name, value in told.items() if value}
    return {**catalog, "streams": list(_with_choice(streams, of.index(stream), more))}


def names_of(catalog: Any, stream: str) -> set[str]:
    """What the records of a stream may say they are of: taps take the one name or the other.

    :param catalog: in any form.
    """
    streams = catalog.get("streams") if isinstance(catalog, dict) else None
    entries = [entry for entry in streams or [] if isinstance(entry, dict)]
    found = [entry for entry in entries if entry.get("tap_stream_id") == stream] or [
        entry for entry in entries if entry.get("stream") == stream
    ]
    return {
        stream,
        *(str(entry[key]) for entry in found for key in ("stream", "tap_stream_id") if key in entry),
    }


def _with_choice(
    streams: list[dict[str, Any]], wanted: int, more: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """The entries, marked in each of the ways that taps look for."""
    for place, entry in enumerate(streams):
        selected = place == wanted
        schema = entry.get("schema") or {}
        metadata = [item for item in entry.get("metadata") or [] if isinstance(item, dict)]
        known = {tuple(item.get("breadcrumb") or ()): item.get("metadata") or {} for item in metadata}
        known[()] = {**known.get((), {}), "selected": selected, **(more if selected else {})}
        if selected:
            for name in schema.get("properties") or {}:
                path = ("properties", name)
                if known.get(path, {}).get("inclusion") != "unsupported":
                    known[path] = {**known.get(path, {}), "selected": True}
        marked = [{"breadcrumb": list(path), "metadata": facts} for path, facts in known.items()]
        legacy = {name.replace("-", "_"): value for name, value in more.items()} if selected else {}
        yield {
            **entry,
            **legacy,
            "selected": selected,
            "schema": {**schema, "selected": selected},
            "metadata": marked,
        }
