# SPDX-License-Identifier: Apache-2.0
"""``cdp.yaml`` -> :class:`Project`, or all of its faults at once.

Each stream, trait, segment and so on is validated by itself. One that has faults is replaced by an empty
stand-in, so that the rest of the file is still checked in full; what refers to it is left in peace.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from cdp_provider.core.project.activation import Consent, Destination, Sync
from cdp_provider.core.project.activation_checks import Fit, no_problems
from cdp_provider.core.project.base import Model, Options
from cdp_provider.core.project.checks import check
from cdp_provider.core.project.contract_file import ContractFile, ContractReader, named_file
from cdp_provider.core.project.document import Document, read
from cdp_provider.core.project.explain import explain
from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.identity import RULE_KEYS, RULES, Exclude, Identifier, Identity, rule_key
from cdp_provider.core.project.model import Project, Segment, Split
from cdp_provider.core.project.presets import Preset, chosen
from cdp_provider.core.project.problems import Path, Problem, did_you_mean
from cdp_provider.core.project.profiles import Accounts, AccountTrait, ProfileField, Profiles, Trait
from cdp_provider.core.project.stand_ins import sound, stand_in
from cdp_provider.core.project.streams import Source, Stream
from cdp_provider.core.project.typed import typed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path as FilePath

    from cdp_provider.core.project.faults import Fault

M = TypeVar("M", bound=Model)

#: Sections that may stand empty, as they do when all of their lines are comments; so may their parts.
_SECTIONS = (
    *("identity", "profiles", "segments", "splits", "exclusive", "suppression", "destinations", "syncs"),
    "consent",
)


@dataclass(frozen=True)
class Kinds:
    """The kinds of sources and destinations that a project may name.

    :param sources: type of a source -> options of its streams.
    :param destinations: type of a destination -> its options.
    :param fit: what is wrong between a destination and a sync, both valid by themselves, that options cannot
        tell; paths are relative to the sync.
    :param presets: name -> streams that are known beforehand.
    :param contracts: reads the file that a stream names for its contract.
    """

    sources: Mapping[str, type[Options]]
    destinations: Mapping[str, type[Options]]
    fit: Fit = no_problems
    presets: Mapping[str, Preset] = field(default_factory=dict)
    contracts: ContractReader | None = None


def load(path: FilePath, kinds: Kinds) -> Project:
    """Read and validate a project file.

    :raises ProjectError: it has faults; all of them.
    """
    return interpret(read(path), kinds, path.parent)


def interpret(document: Document, kinds: Kinds, folder: FilePath | None = None) -> Project:
    """The project that a document declares.

    :param folder: what the files that it names are relative to; None where it may name none.
    :raises ProjectError: it has faults; all of them.
    """
    raw = document.value
    if raw is None and not document.faults:
        raise ProjectError([document.whole("the file is empty", "begin with 'project: <name>'")])
    if not isinstance(raw, dict):
        fault = document.whole("the file is not a mapping of keys", "begin with 'project: <name>'")
        raise ProjectError([*document.faults, fault])
    reading = _Reading(kinds, folder)
    project = reading.project(raw)
    reading.broken |= reading.lost()
    problems = [*_without_consequences(reading.problems), *check(project, reading.broken, kinds.fit)]
    if problems or document.faults or reading.faults:
        located = (reading.foreign(problem) or document.fault(problem) for problem in problems)
        faults = {*document.faults, *reading.faults, *located}
        raise ProjectError(sorted(faults, key=lambda fault: _order(fault, document.file)))
    return typed(project)


class _Reading:
    """Turns raw values into models; keeps what is wrong, and which places have no valid model."""

    def __init__(self, kinds: Kinds, folder: FilePath | None) -> None:
        self.kinds = kinds
        self.folder = folder
        self.faults: list[Fault] = []
        #: Stream -> the file of its contract, and what the project itself says of the stream.
        self._files: dict[Path, tuple[ContractFile, Any]] = {}
        self.problems: list[Problem] = []
        self.broken: set[Path] = set()
        self._identifiers: Collection[str] | None = None

    def project(self, raw: Mapping[str, Any]) -> Project:
        given = {key: value for key, value in raw.items() if value is not None or key not in _SECTIONS}
        self._identifiers = _identifiers(given)
        sections = {
            "sources": self._each(given, ("sources",), self._source),
            "identity": self._identity(given),
            "profiles": self._profiles(given),
            "segments": self._each(given, ("segments",), self._segment),
            "splits": self._each(given, ("splits",), self._split),
            "destinations": self._each(given, ("destinations",), self._destination),
            "syncs": self._each(given, ("syncs",), self._sync),
            "consent": self._consent(given),
        }
        filled = {key: value for key, value in sections.items() if value is not None}
        kept = {"sources": {}, **filled, "schedule": given.get("schedule")}
        return self._model(
            Project, given, (), {key: value for key, value in filled.items() if key in given}, kept
        )

    def lost(self) -> set[Path]:
        """Places that are empty only because their key is missing or misspelt."""
        misspelt = {(*problem.path[:-1], problem.meant) for problem in self.problems if problem.meant}
        return misspelt | {(*problem.path, problem.missing) for problem in self.problems if problem.missing}

    def _identity(self, raw: Mapping[str, Any]) -> Identity | None:
        path: Path = ("identity",)
        rules = self._rules(self._mapping(raw, path) or {}, (*path, "rules"))
        return self._parts(Identity, raw, path, {"identifiers": Identifier}, {"rules": rules})

    def _rules(self, raw: Mapping[str, Any], path: Path) -> tuple[Model, ...] | None:
        """The rules set by hand, each by itself; None when there is no list of them."""
        given = raw.get("rules", [])
        if isinstance(given, list):
            return tuple(self._rule(value, (*path, i)) for i, value in enumerate(given))
        return None

    def _rule(self, raw: Any, path: Path) -> Model:
        key = rule_key(raw)
        if key is not None:
            return self._model(RULES[key], raw, path)
        hint = did_you_mean(next(iter(raw)), RULES) if isinstance(raw, dict) and len(raw) == 1 else ""
        self.problems.append(Problem(path, RULE_KEYS, hint))
        self.broken.add(path)
        return stand_in(Exclude, {})

    def _profiles(self, raw: Mapping[str, Any]) -> Profiles | None:
        path: Path = ("profiles",)
        accounts = self._accounts(self._mapping(raw, path) or {}, (*path, "accounts"))
        return self._parts(
            Profiles, raw, path, {"fields": ProfileField, "traits": Trait}, {"accounts": accounts}
        )

    def _accounts(self, raw: Mapping[str, Any], path: Path) -> Accounts | None:
        if raw.get("accounts") is None:
            return None
        return self._parts(Accounts, raw, path, {"traits": AccountTrait}, kept={"key": ""})

    def _parts(
        self,
        model: type[M],
        raw: Mapping[str, Any],
        path: Path,
        parts: Mapping[str, type[Model]],
        built: Mapping[str, Any] | None = None,
        kept: Mapping[str, Any] | None = None,
    ) -> M | None:
        """A section whose named parts need nothing from their surroundings.

        :param built: further parts, built already; None for one that is not of its type.
        :param kept: for keys that it cannot do without.
        """
        given = self._mapping(raw, path)
        if given is None:
            return None
        lists = [name for name, field in model.model_fields.items() if isinstance(field.default, tuple)]
        may_be_empty = (*parts, *(built or ()), *lists)
        given = {key: value for key, value in given.items() if value is not None or key not in may_be_empty}
        members = {
            key: self._each(given, (*path, key), partial(self._model, part)) for key, part in parts.items()
        }
        known = {**members, **(built or {})}
        filled = {key: value for key, value in known.items() if value is not None and key in given}
        return self._model(model, given, path, filled, {**(kept or {}), **filled})

    def _source(self, raw: Any, path: Path) -> Source:
        name = str(path[-1])
        kind = self._kind(raw, path, self.kinds.sources)
        if kind and kind.needs_connection and raw.get("connection") is None:
            self._needs_connection(raw, path)
        streams = None
        if not isinstance(raw, dict):
            self.broken.add((*path, "streams"))
        else:
            build = self._preset(raw, path, kind) or partial(self._stream, source=name, kind=kind)
            streams = self._each(raw, (*path, "streams"), build)
        filled = {"name": name} if streams is None else {"name": name, "streams": streams}
        return self._model(Source, raw, path, filled, {"streams": {}, **filled})

    def foreign(self, problem: Problem) -> Fault | None:
        """The problem in the file of a contract, if that is where it comes from."""
        file, raw = self._files.get(problem.path[:4], (None, None))
        return file.fault(raw, replace(problem, path=problem.path[4:])) if file is not None else None

    def _stream(self, raw: Any, path: Path, source: str, kind: type[Options] | None) -> Stream:
        identity = {"source": source, "name": str(path[-1])}
        if (name := named_file(raw)) is not None and self.kinds.contracts is not None:
            if self.folder is None:
                message = f"{name!r} is relative to the project file, and this project is in none"
                self.problems.append(Problem((*path, "contract", "file"), message))
                return self._unknown_stream(raw, path, source)
            file = self.kinds.contracts(self.folder / name, raw, source)
            self.faults += file.faults
            self.problems += [problem.below(path) for problem in file.problems]
            if file.faults or file.problems:
                return self._unknown_stream(raw, path, source)
            self._files[path] = file, raw
            raw = file.under(raw)
        return self._with_options(Stream, raw, path, identity, kind)

    def _preset(
        self, raw: Mapping[str, Any], path: Path, kind: type[Options] | None
    ) -> Callable[[Any, Path], Stream] | None:
        """What builds the streams of a source that names a preset; None for other sources."""
        source, preset = str(path[-1]), chosen(raw, self.kinds.presets)
        if preset is None:
            return None
        if isinstance(preset, Problem):
            self.problems.append(preset.below(path))
            return partial(self._unknown_stream, source=source)

        def build(value: Any, at: Path) -> Stream:
            stream = str(at[-1])
            if stream not in preset.streams and not value:
                message = (
                    f"the preset {raw['preset']!r} has no stream {stream!r}, so its keys must stand here"
                )
                hint = did_you_mean(stream, preset.streams)
                self.problems.append(Problem(at, message, hint, at_key=True))
                return self._unknown_stream(value, at, source)
            if value is None or isinstance(value, dict):
                value = preset.under(stream, value or {}, kind, self._identifiers)
            return self._stream(value, at, source, kind)

        return build

    def _unknown_stream(self, raw: Any, path: Path, source: str) -> Stream:
        """Of whose keys nothing can be said."""
        self.broken.add(path)
        return stand_in(Stream, {"source": source, "name": str(path[-1]), "options": Options()})

    def _destination(self, raw: Any, path: Path) -> Destination:
        kind = self._kind(raw, path, self.kinds.destinations)
        return self._with_options(Destination, raw, path, {"name": str(path[-1])}, kind)

    def _segment(self, raw: Any, path: Path) -> Segment:
        return self._model(Segment, raw, path, {"name": str(path[-1])})

    def _split(self, raw: Any, path: Path) -> Split:
        return self._model(Split, raw, path, {"name": str(path[-1])})

    def _sync(self, raw: Any, path: Path) -> Sync:
        return self._model(Sync, raw, path, {"name": str(path[-1])})

    def _consent(self, raw: Mapping[str, Any]) -> Consent | None:
        path: Path = ("consent",)
        given = self._mapping(raw, path)
        if given is None:
            return None
        parts = Consent.model_fields
        given = {key: value for key, value in given.items() if value is not None or key not in parts}
        return self._model(Consent, given, path)

    def _kind(self, raw: Any, path: Path, kinds: Mapping[str, type[Options]]) -> type[Options] | None:
        """Options of the type that is named; None, and a problem, when there is no such type."""
        kind = raw.get("type") if isinstance(raw, dict) else None
        if isinstance(kind, str) and kind not in kinds:
            problem = Problem(
                (*path, "type"), f"there is no type {kind!r} of {path[0]}", did_you_mean(kind, kinds)
            )
            self.problems.append(problem)
        return kinds.get(kind) if isinstance(kind, str) else None

    def _needs_connection(self, raw: Mapping[str, Any], path: Path) -> None:
        message = f"a source of type {raw['type']!r} needs the key 'connection'"
        self.problems.append(Problem(path, message, "name an Airflow connection", at_key=True))

    def _with_options(
        self, model: type[M], raw: Any, path: Path, named: Mapping[str, str], kind: type[Options] | None
    ) -> M:
        """A model whose keys stand next to those of its kind's options."""
        if not isinstance(raw, dict):
            return self._model(model, raw, path, named)
        own = set(model.model_fields) - {*named, "options"}
        options = Options()
        if kind is not None:
            rest = {key: value for key, value in raw.items() if key not in own}
            options = self._model(kind, rest, path, known=own)
        keys = [] if kind is None else [field.alias or name for name, field in kind.model_fields.items()]
        given = {key: value for key, value in raw.items() if key in own}
        return self._model(model, given, path, {**named, "options": options}, known=keys)

    def _each(
        self, raw: Mapping[str, Any], path: Path, build: Callable[[Any, Path], M]
    ) -> dict[str, M] | None:
        """Every member of a mapping; None when there is no mapping."""
        given = self._mapping(raw, path)
        return None if given is None else {name: build(value, (*path, name)) for name, value in given.items()}

    def _mapping(self, raw: Mapping[str, Any], path: Path) -> Mapping[str, Any] | None:
        """What stands under the last key of a path: nothing counts as empty, a wrong type as broken."""
        given = raw.get(str(path[-1]), {})
        if isinstance(given, dict):
            return given
        self.broken.add(path)
        return None

    def _model(
        self,
        model: type[M],
        raw: Any,
        path: Path,
        filled: Mapping[str, Any] | None = None,
        kept: Mapping[str, Any] | None = None,
        known: Iterable[str] = (),
    ) -> M:
        """Validate one value; on faults note them and return an empty stand-in.

        :param filled: values that the file does not hold in this place, or that are models already.
        :param kept: given for a model that holds others: they stay good when it has faults of its own.
        :param known: keys that the value may have besides those of the model.
        """
        filled = filled or {}
        value = {**raw, **filled} if isinstance(raw, dict) else raw
        for key in ("name", "source"):
            if key in filled and isinstance(raw, dict) and key in raw:
                message = f"unknown key {key!r}: the name of {path[-1]!r} is its place in the file"
                self.problems.append(Problem((*path, key), message, f"remove {key!r}", at_key=True))
        try:
            return model.model_validate(value, by_alias=True, by_name=False)
        except ValidationError as error:
            found = explain(error, model, value, known)
            # A bad name is reported where it is a key; here it only repeats itself.
            named = {(key,) for key in ("name", "source") if key in filled}
            self.problems += [problem.below(path) for problem in found if problem.path[:1] not in named]
            if kept is None:
                self.broken.add(path)
                return stand_in(model, filled)
            return stand_in(model, {**sound(model, value), **kept})


def _without_consequences(problems: list[Problem]) -> list[Problem]:
    """A key that is missing because it is misspelt is one problem, not two."""
    meant = {(problem.path[:-1], problem.meant) for problem in problems if problem.meant}
    return [problem for problem in problems if (problem.path, problem.missing) not in meant]


def _order(fault: Fault, own: str) -> tuple[bool, str, int, int, str, str]:
    """The project's own faults first, in the order of the file."""
    return (fault.file != own, fault.file, fault.line, fault.column, fault.path, fault.message)


def _identifiers(raw: Mapping[str, Any]) -> Collection[str] | None:
    """Identifier types that a project declares; None where nobody can tell."""
    identity = raw.get("identity") or {}
    declared = (identity.get("identifiers") or {}) if isinstance(identity, dict) else None
    return frozenset(declared) if isinstance(declared, dict) else None
