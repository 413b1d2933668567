# SPDX-License-Identifier: Apache-2.0
"""A YAML file as plain values that remember where they stand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from cdp_provider.core.project.faults import Fault, ProjectError, excerpt
from cdp_provider.core.project.problems import path_text

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from cdp_provider.core.project.problems import Path, Problem

#: libyaml's parser where PyYAML was built with it: about ten times faster, the same result.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEEPEST = 60

#: Where the YAML parsers themselves stop being safe: libyaml's composer overruns its stack some way beyond.
_DEEPEST_TEXT = 500
_MOST_VALUES = 1_000_000

#: Rules set by hand name identifiers of people, which have no place in a log.
_PERSONAL = ("identity", "rules")

#: Keys of the project's own language; nobody means anything else by them.
_WORDS = ("null", "on")

_TAG = "tag:yaml.org,2002:"
_MAPPING = f"{_TAG}map"
_SEQUENCE = f"{_TAG}seq"
_TEXT = f"{_TAG}str"
_PLAIN = frozenset(f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "timestamp"))


class Document:
    """The values of one YAML file: dicts with text keys, lists and scalars.

    :param file: how the file is called in faults.
    :raises ProjectError: it is no YAML, so that there are no values at all.

    Faults that leave the rest readable, such as a key given twice, are in :attr:`faults`.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self._lines = text.splitlines()
        self._values: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()
        if _nests_deeply(text):
            raise ProjectError([self.whole("it is nested too deeply")])
        try:
            self._loader = _Loader(text)
            self._root = self._loader.get_single_node()
        except yaml.YAMLError as error:
            raise ProjectError([self._syntax_fault(error, text)]) from None
        self.value = self._build(self._root, ()) if self._root is not None else None

    def fault(self, problem: Problem) -> Fault:
        """The problem with its place in the file."""
        line, column, path = self._locate(problem.path, at_key=problem.at_key)
        return self._fault(line, column, path, problem.message, problem.hint)

    def whole(self, message: str, hint: str = "") -> Fault:
        """A fault of the file as a whole."""
        return Fault(self.file, 0, 0, "", message, hint)

    def _fault(self, line: int, column: int, path: Path, message: str, hint: str = "") -> Fault:
        shown = line < len(self._lines) and path[: len(_PERSONAL)] != _PERSONAL
        text = excerpt(self._lines[line]) if shown else ""
        return Fault(self.file, line + 1, column + 1, path_text(path), message, hint, text)

    def _note(self, node: yaml.Node, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(self._fault(node.start_mark.line, node.start_mark.column, path, message, hint))

    def _locate(self, path: Path, *, at_key: bool) -> tuple[int, int, Path]:
        """Line and column of the deepest part of a path that the file has, and the path.

        A scalar is pointed at directly; a mapping or list at the key that names it. What a shorthand leaves
        out (``status: paid`` for ``status: {is: paid}``) is no part of the path.
        """
        node = mark = self._root
        if node is None or mark is None:
            return 0, 0, path
        for depth, part in enumerate(path):
            if isinstance(node, yaml.ScalarNode):
                path = path[:depth]
                break
            found = _child(node, part)
            if found is None:
                break
            key, node = found
            mark = node if isinstance(node, yaml.ScalarNode) else key
            if at_key:
                mark = key
        return mark.start_mark.line, mark.start_mark.column, path

    def _syntax_fault(self, error: yaml.YAMLError, text: str) -> Fault:
        if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
            detail = ", ".join(filter(None, (error.context, error.problem)))
            line = min(mark.line, max(len(self._lines) - 1, 0))
            column = mark.column if line == mark.line else 0
            return self._fault(line, column, (), f"this is no valid YAML: {detail}", _syntax_hint(detail))
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position)
        return self._fault(line, 0, (), "this is no valid YAML: a character that YAML does not allow")

    def _build(self, node: yaml.Node, path: Path) -> Any:
        """Plain value of a node; what an alias repeats is built once."""
        known = id(node)
        if known in self._values:
            return self._values[known]
        if isinstance(node, yaml.ScalarNode):
            value = self._values[known] = self._scalar(node, path)
            return value
        if known in self._open:
            self._note(node, path, "this value contains itself", "remove the alias that closes the circle")
            return None
        if len(path) > _DEEPEST:
            self._note(node, path, f"this is nested deeper than {_DEEPEST} levels")
            return None
        self._open.add(known)
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            value = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            value = [self._build(child, (*path, i)) for i, child in enumerate(node.value)]
        else:
            value = self._scalar(node, path)
        self._open.discard(known)
        self._values[known] = value if self._fits(node, path) else None
        return self._values[known]

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                hint = f"it already stands in line {seen[name]}; keep one of them"
                self._note(key, (*path, name), f"the key {name!r} is given twice", hint)
            elif name is not None:
                seen[name] = key.start_mark.line + 1
        try:
            self._loader.flatten_mapping(node)
        except yaml.MarkedYAMLError as error:
            self._note(
                node, path, f"{error.problem}", "<< takes an alias of a mapping, such as '<<: *defaults'"
            )
        value = {}
        for key, child in node.value:
            name = self._key(key, path)
            if name is not None:
                value[name] = self._build(child, (*path, name))
        return value

    def _key(self, key: yaml.Node, path: Path) -> str | None:
        if not isinstance(key, yaml.ScalarNode):
            self._note(key, path, "a key must be text, and this is a mapping or a list")
            return None
        if key.tag != _TEXT and key.value not in _WORDS:
            kind = key.tag.rpartition(":")[2]
            reason = f"a key must be text, and YAML reads {key.value!r} as {kind}"
            self._note(key, (*path, key.value), reason, f"put it in quotes: '{key.value}'")
        return str(key.value)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN:
            self._note(
                node, path, f"the YAML tag {node.tag.removeprefix(_TAG)!r} is not allowed", "remove it"
            )
            return None
        try:
            value = node.value if node.tag == _TEXT else self._loader.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            kind = node.tag.rpartition(":")[2]
            hint = "correct it, or put it in quotes if it is meant as text"
            self._note(node, path, f"{node.value[:40]!r} looks like a {kind}, and is none", hint)
            return None
        if isinstance(value, str) and "\0" in value:
            self._note(node, path, "text must not contain the character NUL")
            return None
        return value

    def _fits(self, node: yaml.Node, path: Path) -> bool:
        """Count the values below a node as if every alias were written out, and refuse an explosion."""
        children = (
            [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []
        )
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        self._sizes[id(node)] = 1 + sum(self._sizes.get(id(child), 1) for child in children)
        if self._sizes[id(node)] <= _MOST_VALUES:
            return True
        self._sizes[id(node)] = 1
        self._note(
            node, path, f"this makes more than {_MOST_VALUES:,} values once its aliases are written out"
        )
        return False


def read(path: FilePath) -> Document:
    """Read a project file.

    :raises ProjectError: there is no such file, it is no text, or it is no YAML.
    """
    file = str(path)
    try:
        content = path.read_bytes()
        return Document(content.decode("utf-8-sig"), file)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        fault = Fault(file, line, column, "", "the file is not UTF-8 text", "save it as UTF-8")
    except FileNotFoundError:
        fault = Fault(file, 0, 0, "", "there is no such file", "check the path and the working directory")
    except IsADirectoryError:
        fault = Fault(file, 0, 0, "", "this is a directory", "name the file in it, such as cdp.yaml")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "this is no usable path"
        fault = Fault(file, 0, 0, "", f"the file cannot be read: {reason}")
    raise ProjectError([fault])


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Key and value node of one step down; an item of a list is its own key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == part:
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _nests_deeply(text: str) -> bool:
    """Whether brackets or indentation go so deep that a parser had better not see it; a rough upper bound."""
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if bracket in "[{" else max(depth - 1, 0)
        if depth > _DEEPEST_TEXT:
            return True
    return re.search(rf"^[ ?:-]{{{_DEEPEST_TEXT},}}", text, re.MULTILINE) is not None


def _syntax_hint(detail: str) -> str:
    """What usually lies behind a message of the YAML parser."""
    if "\\t" in detail or "'\t'" in detail or "cannot start any token" in detail:
        return "indent with spaces, and put text that begins with @, ` or % in quotes"
    if "mapping values are not allowed" in detail:
        return "check the indentation, and put text that contains ': ' in quotes"
    if "expected a single document" in detail:
        return "keep one document per file: remove the line '---'"
    return ""
