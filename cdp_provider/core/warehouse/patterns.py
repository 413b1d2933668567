# SPDX-License-Identifier: Apache-2.0
"""Regular expressions of RE2 in the syntax of PostgreSQL, as far as both mean the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What ``\\d``, ``\\w`` and ``\\s`` hold within brackets.
_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\u0009\\u000a\\u000c\\u000d\\u0020"}
_CONTROLS = {"a": "\a", "f": "\f", "t": "\t", "n": "\n", "r": "\r", "v": "\v"}
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\u0001-\\u007f",
    "blank": "\\u0009\\u0020",
    "cntrl": "\\u0001-\\u001f\\u007f",
    "digit": "0-9",
    "graph": "\\u0021-\\u007e",
    "lower": "a-z",
    "print": "\\u0020-\\u007e",
    "punct": "\\u0021-\\u002f\\u003a-\\u0040\\u005b-\\u0060\\u007b-\\u007e",
    "space": "\\u0009-\\u000d\\u0020",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_NAMED = re.compile(r"\[:(\^?)([a-z]+):\]")
_GROUP = re.compile(r"\(\?(?::|P?<[A-Za-z0-9_]+>)")
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_CODE = re.compile(r"x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2})")

#: How often PostgreSQL lets something repeat; RE2 goes up to 1000.
_MOST = 255


class PatternError(ValueError):
    """A regular expression that not all warehouses would take alike; the message says which part."""


def translated(pattern: str) -> str:
    """A pattern of RE2 as one of PostgreSQL that describes the same whole texts.

    What only says how a text is matched, not whether, is dropped: lazy repetition and names of groups.

    :raises PatternError: it holds what PostgreSQL has not, or means otherwise. What RE2 itself refuses may
        pass.
    """
    return _Translation(pattern).whole()


@dataclass
class _Translation:
    """A reading head over a pattern."""

    pattern: str
    at: int = 0

    def whole(self) -> str:
        out = []
        while self.at < len(self.pattern):
            out.append(self._next())
        return f"^(?:{''.join(out)})$"

    def _next(self) -> str:
        char = self.pattern[self.at]
        if char == "\\":
            return self._escape()
        if char == "[":
            return self._bracket()
        if char == "(":
            return self._group()
        if char == "{" and (count := _COUNT.match(self.pattern, self.at)):
            return self._repeated(count)
        self.at += 1
        if char in "*+?":
            self._skip_lazy()
            return char
        if char in "^$":
            return f"(?:{char})"  # as such it takes no repetition
        return char if char in "|)." else _literal(char)

    def _group(self) -> str:
        if not self.pattern.startswith("(?", self.at):
            self.at += 1
            return "(?:"
        if not (match := _GROUP.match(self.pattern, self.at)):
            part = self.pattern[self.at : self.at + 4]
            msg = f"{part!r} sets flags or looks around, which not every warehouse does"
            raise PatternError(msg)
        self.at = match.end()
        return "(?:"

    def _repeated(self, count: re.Match[str]) -> str:
        self.at = count.end()
        if any(number and int(number) > _MOST for number in count.groups()):
            msg = f"{count[0]} repeats more often than {_MOST} times, which not every warehouse does"
            raise PatternError(msg)
        self._skip_lazy()
        return count[0]

    def _skip_lazy(self) -> None:
        if self.pattern.startswith("?", self.at):
            self.at += 1

    def _escape(self) -> str:
        name = self.pattern[self.at + 1 : self.at + 2]
        if name in _CLASSES or name.lower() in _CLASSES:
            self.at += 2
            return f"[{'^' * name.isupper()}{_CLASSES[name.lower()]}]"
        if name == "Q":
            end = self.pattern.find("\\E", self.at + 2)
            text = self.pattern[self.at + 2 : end if end >= 0 else None]
            self.at = len(self.pattern) if end < 0 else end + 2
            return "".join(map(_literal, text))
        if name in ("A", "z"):
            self.at += 2
            return {"A": "(?:^)", "z": "(?:$)"}[name]
        return _literal(self._character())

    def _character(self) -> str:
        """The one character that an escape stands for."""
        self.at += 1
        name = self.pattern[self.at : self.at + 1]
        if code := _CODE.match(self.pattern, self.at):
            self.at = code.end()
            number = int(code[3], 8) if code[3] else int(code[1] or code[2], 16)
            if number <= 0x10FFFF:
                return chr(number)
        elif name in _CONTROLS:
            self.at += 1
            return _CONTROLS[name]
        elif name and not (name.isascii() and name.isalnum()):
            self.at += 1
            return name
        msg = f"'\\{name}' does not mean the same in every warehouse"
        raise PatternError(msg)

    def _bracket(self) -> str:
        self.at += 1
        out = ["["]
        if self.pattern.startswith("^", self.at):
            self.at += 1
            out.append("^")
        first = True
        while first or not self.pattern.startswith("]", self.at):
            if self.at >= len(self.pattern):
                msg = "a bracket is not closed"
                raise PatternError(msg)
            out.append(self._member())
            first = False
        self.at += 1
        return "".join((*out, "]"))

    def _member(self) -> str:
        """A class, a character or a range within brackets."""
        if named := _NAMED.match(self.pattern, self.at):
            if named[1] or named[2] not in _POSIX:
                msg = f"{named[0]!r} is not known in every warehouse"
                raise PatternError(msg)
            self.at = named.end()
            return _POSIX[named[2]]
        if self.pattern[self.at] == "\\" and (name := self.pattern[self.at + 1 : self.at + 2]):
            if name in _CLASSES:
                self.at += 2
                return _CLASSES[name]
            if name.lower() in _CLASSES:
                msg = f"'\\{name}' in brackets is not known in every warehouse"
                raise PatternError(msg)
        low = self._single()
        if self.pattern[self.at : self.at + 1] == "-" and self.pattern[self.at + 1 : self.at + 2] not in (
            "]",
            "",
        ):
            self.at += 1
            return f"{_literal(low)}-{_literal(self._single())}"
        return _literal(low)

    def _single(self) -> str:
        char = self.pattern[self.at]
        if char == "\\":
            return self._character()
        self.at += 1
        return char


def _literal(char: str) -> str:
    """The character itself, whatever it means elsewhere."""
    if char == "\x00":
        msg = "a text never holds a NUL character"
        raise PatternError(msg)
    if char.isascii() and not char.isalnum():
        return f"\\u{ord(char):04x}"
    return char
