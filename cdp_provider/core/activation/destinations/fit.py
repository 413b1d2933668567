# SPDX-License-Identifier: Apache-2.0
"""What kinds of destination share when they say whether a sync fits them, and when they read answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.activation.destinations.answers import without_values
from cdp_provider.core.activation.destinations.base import ACCEPTED, Outcome
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from cdp_provider.core.activation.destinations.base import DestinationKind, Operation, Record
    from cdp_provider.core.project.activation import Sync


def operation_problems(sync: Sync, operations: Collection[Operation]) -> Iterator[Problem]:
    """A mode, or a removal, that needs what the destination does not do."""
    able = f"destination {sync.destination} can {', '.join(sorted(operations))} records"
    if sync.mode == "mirror":
        if "upsert" not in operations:
            yield Problem(("mode",), f"{able}, and a mirror has to upsert them")
        elif sync.removal == "remove" and "remove" not in operations:
            hint = "use removal: clear or removal: nothing"
            yield Problem(("removal",), f"{able}, and cannot remove them as this mirror has to", hint)
    elif not {sync.mode} | ({"upsert"} if sync.mode == "archive" else set()) <= set(operations):
        yield Problem(("mode",), f"{able}, and the mode {sync.mode!r} needs more", "use another mode")


def reading_problems(kind: DestinationKind) -> Iterator[Problem]:
    """A field that is written only where it is empty, at a destination that cannot be asked."""
    if kind.capabilities.reads:
        return
    for name, field in kind.sync.fields.items():
        if field.write == "if_empty":
            message = f"destination {kind.destination.name} cannot be asked what it holds, as if_empty has to"
            yield Problem(("fields", name, "write"), message, "use write: always")


def parameter_problems(sync: Sync, places: Collection[str]) -> Iterator[Problem]:
    """A ``{place}`` of the options that the sync fills with nothing."""
    for name in sorted(set(places) - set(sync.parameters)):
        message = f"destination {sync.destination} needs the parameter {name!r}"
        yield Problem(("parameters",), message, f"add parameters: {{{name}: ...}}")


def field_problems(sync: Sync, taken: Collection[str]) -> Iterator[Problem]:
    """A field whose name means something else at the destination."""
    for name in sync.fields:
        if name in taken:
            message = f"{name!r} is no field that destination {sync.destination} lets a sync write"
            yield Problem(("fields", name), message, "rename the field, or leave it out", at_key=True)


def by_position(
    errors: Any, records: Sequence[Record], position: str, reason: Callable[[dict[str, Any]], str]
) -> list[Outcome] | None:
    """Outcomes of `records`, where an answer lists those that failed by their position in the request.

    :param position: the error's key that holds it.
    :returns: None where an error does not say which record it is about.
    """
    outcomes = [ACCEPTED] * len(records)
    for error in errors:
        place = error.get(position) if isinstance(error, dict) else None
        if not isinstance(place, int) or not 0 <= place < len(records):
            return None
        outcomes[place] = Outcome("rejected", without_values(reason(error), records[place]))
    return outcomes
