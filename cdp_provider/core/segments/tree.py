# SPDX-License-Identifier: Apache-2.0
"""What conditions and segments refer to, and in which order they can be decided."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.conditions import (
    AccountIs,
    AccountMembers,
    AllOf,
    AnyOf,
    ConsentIs,
    InSegment,
    InSplit,
    Near,
    NoneOf,
    Related,
    TraitIs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.conditions import Condition
    from cdp_provider.core.project.model import Segment, Segmentation
    from cdp_provider.core.project.profiles import Profiles


def children(condition: Condition) -> tuple[Condition, ...]:
    """The conditions that a condition consists of."""
    match condition:
        case AllOf(all=parts) | AnyOf(any=parts) | NoneOf(none=parts):
            return parts
        case AccountMembers(where=where):
            return (where,)
    return ()


def walk(condition: Condition) -> Iterator[Condition]:
    """A condition and all in it, each before those that it consists of."""
    yield condition
    for part in children(condition):
        yield from walk(part)


def referred(condition: Condition) -> Iterator[str]:
    """Names of the segments that a condition refers to; not those of splits."""
    return (part.segment for part in walk(condition) if isinstance(part, InSegment))


def splits_of(condition: Condition) -> Iterator[str]:
    """Names of the splits that a condition refers to."""
    return (part.split for part in walk(condition) if isinstance(part, InSplit))


def traits_of(condition: Condition) -> Iterator[str]:
    """Names of the fields and traits that a condition compares; see also :func:`compared`."""
    for part in walk(condition):
        match part:
            case TraitIs():
                yield part.trait
            case Near():
                yield from (part.latitude, part.longitude)
            case Related():
                yield from part.on.values()


def compared(segmentation: Segmentation, profiles: Profiles) -> set[str]:
    """Names of all fields and traits that segments need of the profiles."""
    names = {name for split in segmentation.splits for name in split.stratify}
    for segment in segmentation.segments:
        names.update(traits_of(segment.where))
        if segment.limit is not None:
            names |= {segment.limit.by, segment.limit.per or segment.limit.by}
        for part in walk(segment.where):
            match part:
                case ConsentIs() if part.consent in segmentation.consent.purposes:
                    names.add(segmentation.consent.purposes[part.consent])
                case AccountIs() | AccountMembers() if profiles.accounts is not None:
                    names.add(profiles.accounts.key)
    return names


def suppressing(segment: str, segmentation: Segmentation) -> tuple[str, ...]:
    """Segments of ``suppression`` whose members do not belong to this one."""
    return () if segment in segmentation.suppression else segmentation.suppression


def preceding(segment: str, segmentation: Segmentation) -> list[str]:
    """Segments that come before this one in a list of ``exclusive``."""
    lists = (names for names in segmentation.exclusive.values() if segment in names)
    return list(dict.fromkeys(name for names in lists for name in names[: names.index(segment)]))


def references(segment: Segment, segmentation: Segmentation) -> list[str]:
    """Names of the segments that have to be decided before this one, whatever the reason."""
    divided = {split.name: split.segment for split in segmentation.splits}
    return [
        *referred(segment.where),
        *(name for split in splits_of(segment.where) if (name := divided.get(split)) is not None),
        *segment.but_not,
        *suppressing(segment.name, segmentation),
        *preceding(segment.name, segmentation),
    ]


def ordered(segmentation: Segmentation) -> list[Segment]:
    """The segments, each after those that it refers to.

    :raises ConfigurationError: one refers to what is no segment, or some refer to each other in a circle.
    """
    by_name = {segment.name: segment for segment in segmentation.segments}
    graph = {name: set(references(segment, segmentation)) for name, segment in by_name.items()}
    for name, others in graph.items():
        if unknown := sorted(others - by_name.keys()):
            msg = (
                f"the segment {name} refers to {', '.join(unknown)}, which is no segment here;"
                f" it may be one of {', '.join(by_name)}"
            )
            raise ConfigurationError(msg)
    try:
        return [by_name[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        # The sorter names each node before the one that depends on it.
        path = " -> ".join(reversed(error.args[1]))
        msg = f"segments refer to each other in a circle: {path}; take one of these references out"
        raise ConfigurationError(msg) from None
