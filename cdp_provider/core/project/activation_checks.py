# SPDX-License-Identifier: Apache-2.0
"""Syncs, their destinations and consent: what does not fit together, and what could never be sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from cdp_provider.core.project.activation import Destination, Sync
from cdp_provider.core.project.problems import Path, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.world import World

Fit: TypeAlias = Callable[[Destination, Sync], Iterable[Problem]]

#: Types that a record's key at a destination may have: they are written as text in one way only.
_KEY_TYPES = ("string", "integer")

#: Modes that speak of who entered or left, and what they do with them.
_OF_SEGMENTS = {
    "mirror": "removes who left a segment",
    "archive": "archives who left a segment",
    "event": "tells who entered a segment",
}


def no_problems(destination: Destination, sync: Sync) -> Iterable[Problem]:
    """Nothing is wrong between them."""
    return ()


def activation_problems(world: World, fit: Fit) -> Iterator[Problem]:
    """All problems of consent and syncs."""
    yield from _consent_problems(world)
    for name, sync in world.intact("syncs"):
        yield from (problem.below(("syncs", name)) for problem in _sync_problems(world, sync, fit))


def _consent_problems(world: World) -> Iterator[Problem]:
    if not world.complete("consent"):
        return
    consent = world.project.consent
    places: list[tuple[str, Path]] = [
        *((name, ("consent", "purposes", purpose)) for purpose, name in consent.purposes.items()),
        *((name, ("consent", "suppressed", i)) for i, name in enumerate(consent.suppressed)),
    ]
    for name, path in places:
        yield from world.value_problems(name, path)
        kind = world.types.get(name)
        if kind not in (None, "boolean"):
            hint = "name a boolean one; a trait of type exists is one too"
            yield Problem(path, f"{name!r} is {kind}, and consent is yes or no", hint)


def _sync_problems(world: World, sync: Sync, fit: Fit) -> Iterator[Problem]:
    yield from _mode_problems(sync)
    segments = world.project.segments
    if sync.segment is not None and world.complete("segments") and sync.segment not in segments:
        hint = did_you_mean(sync.segment, segments)
        yield Problem(("segment",), f"there is no segment {sync.segment!r}", hint)
    yield from world.value_problems(sync.key, ("key",))
    kind = world.types.get(sync.key)
    if kind is not None and kind not in _KEY_TYPES:
        message = f"{sync.key!r} is {kind}; a key at a destination is {' or '.join(_KEY_TYPES)}"
        yield Problem(("key",), message)
    for name, field in sync.fields.items():
        yield from world.value_problems(field.source, ("fields", name, "from"))
    yield from _destination_problems(world, sync, fit)


def _mode_problems(sync: Sync) -> Iterator[Problem]:
    """What the sync's mode needs, and what means nothing in it."""
    if sync.segment is None and sync.mode in _OF_SEGMENTS:
        message = f"the mode {sync.mode!r} {_OF_SEGMENTS[sync.mode]}, and none is named"
        yield Problem(("mode",), message, "name a segment, or use the mode 'upsert'")
    if sync.approve_above is not None and not sync.takes_away:
        message = f"approve_above guards removals, and the mode {sync.mode!r} makes none here"
        yield Problem(("approve_above",), message, "remove approve_above, or use the mode 'mirror'")
    if sync.mode in ("insert", "event"):
        for name, field in sync.fields.items():
            if field.write == "if_empty":
                message = f"write: if_empty is for records that are there, and {sync.mode!r} makes new ones"
                yield Problem(("fields", name, "write"), message, "write: always")


def _destination_problems(world: World, sync: Sync, fit: Fit) -> Iterator[Problem]:
    destinations = world.project.destinations
    if not world.complete("destinations"):
        return
    if sync.destination not in destinations:
        hint = did_you_mean(sync.destination, destinations)
        yield Problem(("destination",), f"there is no destination {sync.destination!r}", hint)
        return
    if world.is_broken("destinations", sync.destination):
        return
    destination = destinations[sync.destination]
    places = destination.options.places()
    for name in sorted(sync.parameters.keys() - places):
        message = f"the destination {sync.destination!r} has no place {{{name}}}"
        yield Problem(("parameters", name), message, did_you_mean(name, places), at_key=True)
    yield from _purpose_problems(world, destination)
    found = [*destination.options.sync_problems(sync)]
    yield from found or fit(destination, sync)


def _purpose_problems(world: World, destination: Destination) -> Iterator[Problem]:
    """A purpose that nobody can have agreed to."""
    if not world.complete("consent", "purposes"):
        return
    mapped = world.project.consent.purposes
    for purpose in dict.fromkeys((*destination.options.purposes, *destination.purposes)):
        if purpose not in mapped:
            message = (
                f"the destination {destination.name!r} needs consent to {purpose!r}, and consent.purposes"
                " maps that to no field, so nobody would ever be sent"
            )
            hint = f"add consent: {{purposes: {{{purpose}: <a boolean field or trait>}}}}"
            yield Problem(("destination",), message, hint)
