# SPDX-License-Identifier: Apache-2.0
"""What the checks of a project look things up in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from cdp_provider.core.project.possible import NEVER_MISSING, Possible, among, either
from cdp_provider.core.project.problems import Path, Problem, did_you_mean
from cdp_provider.core.project.spans import HIGHEST, before, points, span, union
from cdp_provider.core.project.typing import account_kind, field_type, trait_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.model import Project
    from cdp_provider.core.project.profiles import Trait
    from cdp_provider.core.project.streams import Stream


class World:
    """A project of which some parts may be broken, with its streams and types by name.

    Every lookup is silent about what is broken: that has been reported where it stands.
    """

    def __init__(self, project: Project, broken: frozenset[Path]) -> None:
        self.project = project
        self._broken = broken
        #: Every stream that has a valid model, by reference.
        self.streams: dict[str, Stream] = {
            stream.ref: stream
            for stream in project.streams()
            if not self.is_broken("sources", stream.source, "streams", stream.name)
        }
        #: Type of every field and trait; None when it cannot be known.
        self.types: dict[str, str | None] = {
            **dict.fromkeys((*project.profiles.fields, *project.profiles.traits)),
            **{name: field_type(field, self.streams) for name, field in self.intact("profiles", "fields")},
            **{name: trait_type(trait, self.streams) for name, trait in self.intact("profiles", "traits")},
            **dict.fromkeys(project.profiles.fields.keys() & project.profiles.traits.keys()),
        }
        accounts = project.profiles.accounts
        known = {name: kind for name, kind in self.types.items() if kind is not None}
        #: Type of every trait of accounts; None when it cannot be known.
        self.account_types: dict[str, str | None] = {}
        if accounts is not None and not self.is_broken("profiles", "accounts"):
            path = ("profiles", "accounts", "traits")
            sound = {name: account_kind(trait, known) for name, trait in self.intact(*path)}
            self.account_types = {**dict.fromkeys(accounts.traits), **sound}
        #: In which dates are days; UTC where there is no such zone.
        self.zone = zone_of(project.profiles.timezone) or ZoneInfo("UTC")
        self._universes: dict[str, Possible] = {}

    def is_broken(self, *path: str | int) -> bool:
        """Whether the model in that very place is only a stand-in."""
        return path in self._broken

    def complete(self, *path: str) -> bool:
        """Whether the names of a section's members are all known, though a member itself may be broken."""
        return not any(path[:length] in self._broken for length in range(1, len(path) + 1))

    def all_streams(self) -> bool:
        """Whether every stream of the project is known and valid."""
        named = {stream.ref for stream in self.project.streams()}
        return named == self.streams.keys() and all(
            self.complete("sources", source, "streams") for source in self.project.sources
        )

    def intact(self, *path: str) -> Iterator[tuple[str, Any]]:
        """Name and model of every valid member of a section."""
        section: Any = self.project
        for part in path:
            section = getattr(section, part)
        yield from ((name, model) for name, model in section.items() if not self.is_broken(*path, name))

    def universe(self, name: str) -> Possible:
        """What a field or trait can be at all."""
        if name not in self._universes:
            trait = self.project.profiles.traits.get(name)
            known = trait is not None and not self.is_broken("profiles", "traits", name)
            found = _universe(trait) if trait is not None and known else Possible()
            self._universes[name] = (
                found & either(nullable=True) if self.types.get(name) == "boolean" else found
            )
        return self._universes[name]

    def stream(self, ref: str, path: Path) -> tuple[Stream | None, list[Problem]]:
        """A stream, whoever its rows belong to."""
        if ref in self.streams:
            return self.streams[ref], []
        return self.linked_stream(ref, path)

    def linked_stream(self, ref: str, path: Path) -> tuple[Stream | None, list[Problem]]:
        """A stream whose rows belong to profiles."""
        stream = self.streams.get(ref)
        if stream is not None:
            if stream.identifiers:
                return stream, []
            message = f"the rows of {ref} belong to no profile, because the stream names no identifiers"
            return stream, [Problem(path, message, f"add 'identifiers' to the stream {ref}")]
        if self._may_exist(ref):
            return None, []
        hint = did_you_mean(ref, self.streams) if "." in ref else "name it as <source>.<stream>"
        return None, [Problem(path, f"there is no stream {ref!r}", hint)]

    def _may_exist(self, ref: str) -> bool:
        """Whether the stream is there but broken, or hidden in a source that is."""
        source, _, name = ref.partition(".")
        if not self.complete("sources", source, "streams"):
            return True
        known = self.project.sources.get(source)
        return known is not None and name in known.streams

    def value_problems(self, name: str, path: Path) -> list[Problem]:
        """A name of a field or trait that leads nowhere."""
        if name in self.types or not (
            self.complete("profiles", "fields") and self.complete("profiles", "traits")
        ):
            return []
        return [Problem(path, f"there is no field or trait {name!r}", did_you_mean(name, self.types))]

    def segment_problems(self, name: str, path: Path) -> list[Problem]:
        """A name of a segment that leads nowhere."""
        segments = self.project.segments
        if name in segments or not self.complete("segments"):
            return []
        return [Problem(path, f"there is no segment {name!r}", did_you_mean(name, segments))]

    def no_column(self, stream: Stream, column: str, path: Path, *, at_key: bool = False) -> Problem:
        """The problem that a stream lacks a column."""
        hint = did_you_mean(column, stream.columns)
        return Problem(path, f"the stream {stream.ref} has no column {column!r}", hint, at_key=at_key)

    def no_time(self, stream: Stream, what: str, path: Path) -> Problem:
        """The problem that a stream's rows cannot be placed in time."""
        return Problem(path, f"{what} needs the time of rows, and the stream {stream.ref} names none", _TIME)


_TIME = "add 'time: <a timestamp column>' to the stream"


def zone_of(name: str) -> ZoneInfo | None:
    """A time zone by its name; None when there is none of it."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return None


def _universe(trait: Trait) -> Possible:
    """What a trait can be by its type."""
    never = trait.type in ("count", "distinct_count", "exists")
    possible = NEVER_MISSING if never or trait.default is not None else Possible()
    if trait.type in ("count", "distinct_count", "days_since_last", "days_since_first"):
        spans = span(before(0), HIGHEST)
    elif trait.type == "quantile":
        spans = points(range(1, trait.buckets + 1))
    else:
        return possible
    default = points([trait.default]) if isinstance(trait.default, int) else ()
    return possible & among(union((*spans, *default)), nullable=True)
