# SPDX-License-Identifier: Apache-2.0
"""The SQL that types one block of records and says what is wrong with which row."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.conversion import MAX_DEPTH, NOUNS, SUSPECT, convert
from cdp_provider.core.ingest.rules import row_faults

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from cdp_provider.core.project.streams import Column, Stream

#: Longest stretch of a bad value that a reason quotes.
_SHOWN = 60
#: What marks a record of a row that is gone; an object's key or a column's name.
DELETED = "_deleted"
#: Why a row is bad whose JSON has to be looked at more closely.
SUSPICIOUS = "suspicious JSON"


def literal(text: str) -> str:
    """A string constant of DuckDB."""
    return "'" + text.replace("'", "''") + "'"


def quote(name: str) -> str:
    """An identifier of DuckDB."""
    return '"' + name.replace('"', '""') + '"'


class Plan(ABC):
    """How the records in the relation ``block`` become typed rows.

    ``block`` has ``_position`` and the raw columns of its format. On the way, column number i of the stream
    has its text in ``_t<i>``; ``_fault`` is null, or what is wrong with the record as a whole.

    :param loose: columns of text that take any value, as it stands.
    """

    def __init__(self, stream: Stream, loose: Collection[str] = ()) -> None:
        self.stream = stream
        self.loose = frozenset(loose)
        self._judged = False
        self.deletes = stream.options.by_arrival()
        self.columns: list[tuple[str, Column]] = list(stream.columns.items())

    @abstractmethod
    def texts(self) -> str:
        """Select ``_position``, ``_fault``, ``_gone`` (a text), each ``_t<i>`` and ``_extra``."""

    @property
    def params(self) -> dict[str, Any]:
        """Values that :meth:`texts` binds."""
        return {}

    def value(self, index: int) -> str:
        """SQL of column number `index`, typed."""
        column = self.columns[index][1]
        return convert(column.type, f"_t{index}", column.format)

    def suspects(self) -> str:
        """Select ``_position`` and ``text`` of what DuckDB takes for JSON and another engine may not; empty
        when nothing can be."""
        return ""

    def judge(self) -> None:
        """From now on there is a relation ``judged``: ``position``, ``fault``, ``line``."""
        self._judged = True

    def query(self, constants: Mapping[str, int]) -> str:
        """Select the stream's columns, ``_position``, ``_extra``, ``_deleted``, ``_bad``, ``_reason`` (null
        in a good row), ``_hash`` (of the rest) and ``_key`` (of its primary key).

        :param constants: further columns, the same in all rows.
        """
        values = ", ".join(f"{self.value(i)} as {quote(name)}" for i, (name, _) in enumerate(self.columns))
        gone = "case when lower(_gone) in ('true', 't', '1') then true end"
        typed = f"select *, {values}, {gone} as _deleted from ({self.texts()}) texts"
        faults = list(self._faults())
        bad = " or ".join(f"({condition})" for condition, _ in faults)
        reasons = ", ".join(f"case when {condition} then {reason} end" for condition, reason in faults)
        names = ", ".join(quote(name) for name, _ in self.columns)
        key = ", ".join(map(quote, self.stream.primary_key))
        more = "".join(f", cast({value} as bigint) as {quote(name)}" for name, value in constants.items())
        return (
            f"select {names}, _position, _extra, _deleted, _bad,"
            f" case when _bad then concat_ws('; ', {reasons}) end as _reason,"
            f" hash({names}, _extra, _deleted) as _hash, hash({key}) as _key{more}"
            f" from (select *, {bad} as _bad from ({typed}) typed) flagged"
        )

    def _faults(self) -> Iterator[tuple[str, str]]:
        """Pairs of SQL: never-null condition, reason."""
        yield "_fault is not null", "_fault"
        for i, (name, column) in enumerate(self.columns):
            key = name in self.stream.primary_key
            stays = "_fault is null" + ("" if key else " and _deleted is null")
            cut = f"case when length(_t{i}) > {_SHOWN} then left(_t{i}, {_SHOWN}) || '…' else _t{i} end"
            shown = f"to_json({cut})"
            if column.type != "string" or self._may_be_nested(name):
                yield (
                    f"{stays} and _t{i} is not null and {quote(name)} is null",
                    f"'column {quote(name)}: ' || {shown} || ' is not {NOUNS[column.type]}'",
                )
            if key:
                blank = f" or trim(_t{i}) = ''" if column.type == "string" else ""
                yield (
                    f"{stays} and (_t{i} is null{blank})",
                    literal(f"primary key column {quote(name)} is missing"),
                )
            elif column.required:
                yield f"{stays} and _t{i} is null", literal(f"required column {quote(name)} is missing")
        for condition, reason in row_faults(self.stream):
            yield f"_fault is null and _deleted is null and {condition}", reason

    def _may_be_nested(self, name: str) -> bool:  # noqa: ARG002
        """Whether a column of text may meet what is no text."""
        return False


class JsonPlan(Plan):
    """NDJSON: the raw column is ``line``; a column's path may lead into nested objects.

    :param clean: every line is known to be strict JSON.
    """

    def __init__(self, stream: Stream, loose: Collection[str] = (), *, clean: bool = False) -> None:
        super().__init__(stream, loose)
        self.clean = clean
        self.paths = [tuple((column.path or name).split(".")) for name, column in self.columns]
        #: Objects that hold declared values, the outermost first.
        self.parents = sorted({path[:n] for path in self.paths for n in range(1, len(path))})
        self._shapes: dict[tuple[str, ...], list[tuple[str, ...]]] = {}

    def shape_queries(self) -> Mapping[tuple[str, ...], str]:
        """Object -> select of some of the lists of keys that it has in ``block``.

        Empty where a path leads into an array: arrays stay whole in ``_extra``.
        """
        if any(map(str.isdigit, (part for path in self.paths for part in path[1:]))):
            return {}
        return {
            parent: f"select distinct {self._keys(parent)} from (select line from block"
            " where json_valid(line) limit 100) sample limit 8"
            for parent in [(), *self.parents]
        }

    def know(self, shapes: Mapping[tuple[str, ...], Sequence[Sequence[str] | None]]) -> None:
        """Lists of keys that objects have; those without an unknown key are then told at a glance."""
        for parent, lists in shapes.items():
            declared = {path[len(parent)] for path in self.paths if path[: len(parent)] == parent != path}
            declared |= {DELETED} if self.deletes and not parent else set()
            plain = (keys for keys in lists if keys and len(set(keys)) == len(keys))
            self._shapes[parent] = [tuple(keys) for keys in plain if declared.issuperset(keys)]

    def value(self, index: int) -> str:
        name, column = self.columns[index]
        if column.type == "json" or name in self.loose:
            return f"_t{index}"
        if column.type != "string":
            return super().value(index)
        nested = f"json_type(_line, {_pointer(self.paths[index])}) in ('OBJECT', 'ARRAY')"
        looks = f"(starts_with(_t{index}, '{{') or starts_with(_t{index}, '['))"
        return f"case when {looks} and {nested} then null else _t{index} end"

    def _may_be_nested(self, name: str) -> bool:
        return name not in self.loose

    def texts(self) -> str:
        scalar = [i for i, (_, column) in enumerate(self.columns) if column.type != "json"]
        whole = [i for i, (_, column) in enumerate(self.columns) if column.type == "json"]
        fields = [
            *(f"s[{n}] as _t{i}" for n, i in enumerate(scalar, 1)),
            *(f"nullif(cast(j[{n}] as varchar), 'null') as _t{i}" for n, i in enumerate(whole, 1)),
        ]
        asked = [*(self.paths[i] for i in scalar), *([(DELETED,)] if self.deletes else [])]
        extracts = [
            *([f"json_extract_string(_line, {_pointers(asked)}) as s"] if asked else []),
            *([f"json_extract(_line, {_pointers([self.paths[i] for i in whole])}) as j"] if whole else []),
            *([f"json_type(_line, {_pointers(self.parents)}) as p"] if self.parents else []),
            f"{self._known()} as known",
        ]
        return (
            f"select _position, _line, coalesce(_fault, {self._misplaced()}, {self._twice()}) as _fault,"
            f" {', '.join(fields)}, {f's[{len(asked)}]' if self.deletes else _NOTHING} as _gone,"
            f" case when not known then {self._rest()} end as _extra"
            f" from (select _position, _line, _fault, {', '.join(extracts)} from ({self._lines()}) lines)"
            " extracted"
        )

    def _lines(self) -> str:
        """Select ``_position``, ``_fault`` and ``_line``, which is null where there is a fault."""
        if self.clean and not self._judged:
            fault = "case when json_type(line) <> 'OBJECT' then 'not a JSON object' end"
        else:
            fault = (
                "case when not json_valid(line) then 'malformed JSON'"
                " when json_type(line) <> 'OBJECT' then 'not a JSON object' end"
            )
        block = "block"
        if self._judged:
            fault = f"coalesce(judged_fault, {fault})"
            block = (
                "(select b._position, coalesce(j.line, b.line) as line, j.fault as judged_fault"
                " from block b left join judged j on j.position = b._position)"
            )
        return (
            "select _position, _fault, case when _fault is null then line end as _line"
            f" from (select _position, line, {fault} as _fault from {block} given) faulty"
        )

    def suspects(self) -> str:
        # Counting brackets costs more than it is worth on short lines.
        deep = (
            f"(length(line) > {2 * MAX_DEPTH}"
            f" and length(line) - length(translate(line, '[{{', '')) > {MAX_DEPTH})"
        )
        if self.clean:
            odd = " or ".join(f"contains(line, {literal(mark)})" for mark in _ODD)
        else:
            odd = f"json_valid(line) and regexp_matches(line, {literal(SUSPECT)})"
        valid = "" if self.clean else "json_valid(line) and "
        return f"select _position, line as text from block where {odd} or ({valid}{deep})"

    def _misplaced(self) -> str:
        """SQL for the fault of a record in which a declared parent is no object: its value would vanish."""
        cases = "".join(
            f" when p[{n}] not in ({self._kinds(parent)})"
            f" then {literal(quote('.'.join(parent)) + ' is not an object')}"
            for n, parent in enumerate(self.parents, 1)
        )
        return f"case{cases} end" if cases else "cast(null as varchar)"

    def _kinds(self, parent: tuple[str, ...]) -> str:
        """JSON types that `parent` may have: a number in a path is a place in an array."""
        following = {path[len(parent)] for path in self.paths if path[: len(parent)] == parent != path}
        return "'OBJECT', 'NULL', 'ARRAY'" if all(map(str.isdigit, following)) else "'OBJECT', 'NULL'"

    def _rest(self) -> str:
        """SQL of what no column takes, as JSON; null when that is nothing."""
        patch = literal(json.dumps(self._declared()))
        rest = self._pruned(f"cast(json_merge_patch(_line, {patch}) as varchar)")
        return f"nullif({rest}, '{{}}')"

    def _known(self) -> str:
        """SQL condition, never null: the keys are one of the lists seen before, all of them declared."""
        if not self._shapes or not all(self._shapes.values()):
            return "false"
        return " and ".join(
            f"coalesce({self._keys(parent, '_line')} in ({', '.join(map(_texts, shapes))}), {bool(parent)})"
            for parent, shapes in self._shapes.items()
        )

    def _twice(self) -> str:
        """SQL for the fault of a record that names a key twice: one of the values would vanish."""
        if self.clean:
            return _NOTHING
        keys = [self._keys(parent, "_line") for parent in [(), *self.parents]]
        twice = " or ".join(f"coalesce(len(list_distinct({k})) < len({k}), false)" for k in keys)
        return f"case when not known and ({twice}) then 'a key is there twice' end"

    def _keys(self, parent: tuple[str, ...], line: str = "line") -> str:
        return f"json_keys({line}, {_pointer(parent)})" if parent else f"json_keys({line})"

    def _pruned(self, rest: str) -> str:
        """SQL that takes out of `rest` the parents in which nothing is left.

        The text is DuckDB's own compact JSON, and inside a string a quote is escaped, so the pattern only
        meets members.
        """
        if not self.parents:
            return rest
        members = "|".join(map(self._emptied, self.parents))
        return f"regexp_replace({rest}, {literal(f',({members})|({members}),?')}, '', 'g')"

    def _emptied(self, parent: tuple[str, ...]) -> str:
        """Pattern of a member that is an object of nothing but emptied ones."""
        inner = "|".join(self._emptied(child) for child in self.parents if child[:-1] == parent)
        name = re.escape(json.dumps(parent[-1], ensure_ascii=False))
        return name + (rf":\{{(({inner}),?)*\}}" if inner else r":\{\}")

    def _declared(self) -> dict[str, Any]:
        """A merge patch that removes what columns take, so that the rest stays. Arrays stay whole."""
        patch: dict[str, Any] = {DELETED: None} if self.deletes else {}
        for path in sorted(self.paths, key=len):
            if any(map(str.isdigit, path[1:])):
                continue
            level = patch
            for part in path[:-1]:
                if level.setdefault(part, {}) is None:
                    break
                level = level[part]
            else:
                level[path[-1]] = None
        return patch


#: As JSON writes the character that no engine stores, and halves of characters.
_ODD = ("\\u0000", "\\ud")


class FieldsPlan(Plan):
    """Records of named fields: the raw columns are ``f<i>``, all of them text.

    :param header: names of the fields.
    :param nested: those whose text is JSON, into which a column's path may lead.
    :param whole: nobody looks closer at suspicious JSON: its row is bad, for the reason :data:`SUSPICIOUS`.
    :raises DataError: the header lacks a column of the primary key or a required one.
    """

    def __init__(
        self,
        stream: Stream,
        source: str,
        header: Sequence[str],
        loose: Collection[str] = (),
        nested: Collection[str] = (),
        *,
        whole: bool = False,
    ) -> None:
        super().__init__(stream, loose)
        self.whole = whole
        self.header = list(header)
        self.nested = frozenset(nested)
        self.names = [column.path or name for name, column in self.columns]
        needed = {
            wanted
            for (name, column), wanted in zip(self.columns, self.names, strict=True)
            if column.required or name in stream.primary_key
        }
        missing = sorted(wanted for wanted in needed if self._field(wanted) == _NOTHING)
        if missing:
            shown = ", ".join(header)
            msg = (
                f"the header of {source} lacks {', '.join(map(repr, missing))}, which {stream.ref} requires;"
                f" it reads: {shown[:200]}{'…' if len(shown) > 200 else ''}. Correct the file, the"
                " delimiter, or the column's path"
            )
            raise DataError(msg)
        known = {*self.names, *([DELETED] if self.deletes else [])}
        self.unknown = [i for i, name in enumerate(self.header) if name not in known]

    def _field(self, wanted: str) -> str:
        """SQL of the text of a field, or of a value inside of a nested one."""
        if wanted in self.header:
            return f"f{self.header.index(wanted)}"
        head, _, rest = wanted.partition(".")
        if rest and head in self.nested:
            return f"json_extract_string(f{self.header.index(head)}, {_pointer(rest.split('.'))})"
        return _NOTHING

    def texts(self) -> str:
        fields = [f"{self._field(name)} as _t{i}" for i, name in enumerate(self.names)]
        pairs = ", ".join(f"cast($h{i} as varchar), {self._unknown(i)}" for i in self.unknown)
        extra = f"cast(json_object({pairs}) as varchar)" if pairs else _NOTHING
        given = ("block", self._suspicious())
        if self._judged:
            joined = "select b.*, j.fault from block b left join judged j on j.position = b._position"
            given = (f"({joined}) given", "fault")
        gone = self._field(DELETED) if self.deletes else _NOTHING
        return (
            f"select _position, {given[1]} as _fault, {', '.join(fields)}, {gone} as _gone, {extra} as _extra"
            f" from {given[0]}"
        )

    def _suspicious(self) -> str:
        found = [f"regexp_matches({name}, {literal(SUSPECT)})" for name in self._json() if self.whole]
        return f"case when {' or '.join(found)} then {literal(SUSPICIOUS)} end" if found else _NOTHING

    def _json(self) -> list[str]:
        return [
            f"f{self.header.index(name)}"
            for name, (_, column) in zip(self.names, self.columns, strict=True)
            if column.type == "json" and name in self.header
        ]

    def suspects(self) -> str:
        return " union all ".join(
            f"select _position, {name} as text from block"
            f" where regexp_matches({name}, {literal(SUSPECT)}) and json_valid({name})"
            for name in self._json()
        )

    def _unknown(self, index: int) -> str:
        return f"json(f{index})" if self.header[index] in self.nested else f"f{index}"

    @property
    def params(self) -> dict[str, Any]:
        return {f"h{i}": self.header[i] for i in self.unknown}


_NOTHING = "cast(null as varchar)"


def _pointer(path: Sequence[str]) -> str:
    return literal("".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path))


def _pointers(paths: Sequence[Sequence[str]]) -> str:
    return "[" + ", ".join(map(_pointer, paths)) + "]"


def _texts(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(literal, texts)) + "]"
