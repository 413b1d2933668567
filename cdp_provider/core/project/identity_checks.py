# SPDX-License-Identifier: Apache-2.0
"""Identity rules that cannot hold: no patterns, options without effect, rules against each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cdp_provider.core.project.fuzzy import COMPARABLE
from cdp_provider.core.project.identity import Allow, Deny, ExcludedRow
from cdp_provider.core.project.patterns import pattern_fault
from cdp_provider.core.project.problems import Path, Problem, did_you_mean, path_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cdp_provider.core.project.fuzzy import Fuzzy
    from cdp_provider.core.project.identity import Identifier
    from cdp_provider.core.project.streams import Stream
    from cdp_provider.core.project.world import World

_RULES: Path = ("identity", "rules")
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d*)")


def identity_problems(world: World) -> Iterator[Problem]:
    """All problems of the project's identity rules, and between them and its streams."""
    for name, identifier in world.intact("identity", "identifiers"):
        yield from _identifier_problems(world, name, identifier)
    yield from _rule_problems(world)
    yield from _contradictions(world)
    if world.project.identity.fuzzy is not None:
        yield from fuzzy_problems(world, world.project.identity.fuzzy)


def _identifier_problems(world: World, name: str, identifier: Identifier) -> Iterator[Problem]:
    path: Path = ("identity", "identifiers", name)
    for i, pattern in enumerate(identifier.block_patterns):
        if fault := pattern_fault(pattern):
            message = f"{pattern!r} is no regular expression that RE2 takes: {fault}"
            hint = "correct it, or put a plain value under block"
            yield Problem((*path, "block_patterns", i), message, hint)
    if identifier.normalize != "phone":
        for key in ("region", "region_column"):
            if getattr(identifier, key) is not None:
                message = (
                    f"{key!r} serves phone numbers only, and {name!r} has 'normalize: {identifier.normalize}'"
                )
                yield Problem((*path, key), message, "add 'normalize: phone', or remove it", at_key=True)
    elif identifier.region_column is not None and world.all_streams():
        carriers = [stream for stream in world.streams.values() if name in stream.identifiers]
        columns = [column for stream in carriers for column in stream.columns]
        if carriers and identifier.region_column not in columns:
            message = f"no stream that carries {name!r} has a column {identifier.region_column!r}"
            yield Problem((*path, "region_column"), message, did_you_mean(identifier.region_column, columns))


def _rule_problems(world: World) -> Iterator[Problem]:
    """Rules that name an identifier type, a stream or a key that there cannot be."""
    for path, key, value in _rules(world):
        if isinstance(value, ExcludedRow):
            yield from _row_problems(world, value, path)
        elif key == "exclude":
            yield from _side_problems(world, value, path)
        else:
            for i, side in enumerate(value):
                yield from _side_problems(world, side, (*path, i))
            if len({_form(world, side) for side in value}) == 1:
                hint = "name two different ones"
                yield Problem(path, "both sides are the same identifier", hint, at_key=True)


def _side_problems(world: World, side: Mapping[str, str], path: Path) -> Iterator[Problem]:
    declared = world.project.identity.identifiers
    for kind in side:
        if kind not in declared and world.complete("identity", "identifiers"):
            message = f"there is no identifier {kind!r} in identity.identifiers"
            yield Problem((*path, kind), message, did_you_mean(kind, declared), at_key=True)


def _row_problems(world: World, row: ExcludedRow, path: Path) -> Iterator[Problem]:
    stream, problems = world.linked_stream(row.stream, (*path, "stream"))
    yield from problems
    if stream is None:
        return
    names = stream.primary_key
    if len(row.key) != len(names):
        message = (
            f"the primary key of {stream.ref} has {_parts(len(names))} ({', '.join(names)}),"
            f" and here {'stands' if len(row.key) == 1 else 'stand'} {len(row.key)}"
        )
        yield Problem((*path, "key"), message, "list the values of all parts, in that order")
        return
    yield from _key_problems(stream, row.key, path)


def _parts(count: int) -> str:
    return "1 part" if count == 1 else f"{count} parts"


def _key_problems(stream: Stream, key: tuple[str, ...], path: Path) -> Iterator[Problem]:
    """Parts that no row can have, so that the rule would never do anything."""
    for i, (name, part) in enumerate(zip(stream.primary_key, key, strict=True)):
        if stream.columns[name].type == "integer" and not _WHOLE_NUMBER.fullmatch(part):
            message = f"the column {name!r} is integer, and this part of the key is no whole number"
            yield Problem((*path, "key", i), message, "write it as the column has it")


def _contradictions(world: World) -> Iterator[Problem]:
    """Pairs that are allowed as well as denied; told at the later of the two."""
    first: dict[frozenset[tuple[str, str]], tuple[str, Path]] = {}
    for path, key, value in _rules(world):
        if key == "exclude":
            continue
        pair = frozenset(_form(world, side) for side in value)
        other, place = first.setdefault(pair, (key, path))
        if other != key:
            message = f"this pair has the rule {other!r} too, in {path_text(place[:-1])}"
            yield Problem(path, message, "remove one of them", at_key=True)


def _rules(world: World) -> Iterator[tuple[Path, str, Any]]:
    """Place, key and value of every rule that is valid by itself."""
    for i, rule in enumerate(world.project.identity.rules):
        path = (*_RULES, i)
        if not world.is_broken(*path):
            key = "deny" if isinstance(rule, Deny) else "allow" if isinstance(rule, Allow) else "exclude"
            yield (*path, key), key, getattr(rule, key)


def _form(world: World, side: Mapping[str, str]) -> tuple[str, str]:
    """An identifier as far as it can be compared without its normaliser, which is not loaded here."""
    ((kind, value),) = side.items()
    rule = world.project.identity.identifiers.get(kind)
    folded = rule is not None and rule.normalize in ("lower", "email")
    return kind, value.strip().lower() if folded else value.strip()


def fuzzy_problems(world: World, fuzzy: Fuzzy) -> Iterator[Problem]:
    """Fields that the profile lacks or that do not suit how they are compared; a stream in the way."""
    path: Path = ("identity", "fuzzy")
    if not world.complete("profiles", "fields"):
        return
    for name, how in fuzzy.compare.items():
        here: Path = (*path, "compare", name)
        yield from _compared_problems(world, name, here, at_key=True)
        kind = world.types.get(name)
        if name in world.project.profiles.fields and kind is not None and kind not in COMPARABLE[how]:
            message = f"{name!r} is {kind}; {how!r} takes a field that is {' or '.join(COMPARABLE[how])}"
            yield Problem(here, message)
    for i, fields in enumerate(fuzzy.block_on):
        for name in fields:
            yield from _compared_problems(world, name, (*path, "block_on", i))
    if "cdp" in world.project.sources:
        message = "the source name 'cdp' is reserved: accepted pairs are rows of the stream cdp.fuzzy_links"
        yield Problem(("sources", "cdp"), message, "name the source otherwise", at_key=True)


def _compared_problems(world: World, name: str, path: Path, *, at_key: bool = False) -> Iterator[Problem]:
    fields = world.project.profiles.fields
    if name not in fields:
        message = f"there is no field {name!r} in profiles.fields"
        yield Problem(path, message, did_you_mean(name, fields), at_key=at_key)
