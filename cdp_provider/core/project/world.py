# SPDX-License-Identifier: Apache-2.0
"""What the checks of a project look things up in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.problems import Path, Problem, did_you_mean
from cdp_provider.core.project.typing import field_type, trait_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.project.model import Project
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

    def no_column(self, stream: Stream, column: str, path: Path, *, at_key: bool = False) -> Problem:
        """The problem that a stream lacks a column."""
        hint = did_you_mean(column, stream.columns)
        return Problem(path, f"the stream {stream.ref} has no column {column!r}", hint, at_key=at_key)

    def no_time(self, stream: Stream, what: str, path: Path) -> Problem:
        """The problem that a stream's rows cannot be placed in time."""
        return Problem(path, f"{what} needs the time of rows, and the stream {stream.ref} names none", _TIME)


_TIME = "add 'time: <a timestamp column>' to the stream"
