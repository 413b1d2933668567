# SPDX-License-Identifier: Apache-2.0
"""The SQL that types one block of records and says what is wrong with which row."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.conversion import MAX_DEPTH, NOUNS, SUSPECT, convert

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cdp_provider.core.project.streams import Column, Stream

#: Longest stretch of a bad value that a reason quotes.
_SHOWN = 60


def literal(text: str) -> str:
    """A string constant of DuckDB."""
    return "'" + text.replace("'", "''") + "'"


def quote(name: str) -> str:
    """An identifier of DuckDB."""
    return '"' + name.replace('"', '""') + '"'


class Plan(ABC):
    """How the records in the relation ``checked`` become typed rows.

    ``checked`` has ``position``, ``fault`` (null, or what is wrong with the record as a whole: such records
    are already counted as bad) and the raw columns of its format. Column number i of the stream has its text
    in ``t<i>`` and its value in ``v<i>``.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.columns: list[tuple[str, Column]] = list(stream.columns.items())

    @abstractmethod
    def texts(self, records: str) -> str:
        """Select ``position``, ``fault``, each ``t<i>`` and ``_extra`` from `records` (like ``checked``)."""

    @property
    def params(self) -> dict[str, Any]:
        """Values that :meth:`texts` binds."""
        return {}

    def value(self, index: int) -> str:
        """SQL for ``v<index>``."""
        return convert(self.columns[index][1].type, f"t{index}")

    def record_fault(self) -> str:
        """SQL over the raw columns: what is wrong with the record as a whole, or null."""
        return "cast(null as varchar)"

    def judgement(self) -> str:
        """Assignments that take over the verdict from ``judged`` (``fault``, ``line``)."""
        return "fault = judged.fault"

    @abstractmethod
    def suspects(self) -> str:
        """Select ``position`` and ``text`` of what DuckDB takes for JSON and another engine may not."""

    def typed(self) -> str:
        """Select the rows as ``Parsed.rows`` has them, and a flag ``bad``."""
        values = ", ".join(f"v{i} as {quote(name)}" for i, (name, _) in enumerate(self.columns))
        bad = " or ".join(f"({condition})" for condition, _ in self._faults())
        return f"select {values}, position as _position, _extra, {bad} as bad from ({self._values()}) valued"

    def bad(self) -> str:
        """Select ``position`` and ``reason`` of those rows of ``checked`` that are bad in ``typed``."""
        reasons = ", ".join(
            f"case when {condition} then {reason} end" for condition, reason in self._faults()
        )
        chosen = "(select * from checked where position in (select _position from typed where bad)) checked"
        return f"select position, concat_ws('; ', {reasons}) as reason from ({self._values(chosen)}) valued"

    def _values(self, records: str = "checked") -> str:
        values = ", ".join(f"{self.value(i)} as v{i}" for i in range(len(self.columns)))
        return f"select *, {values} from ({self.texts(records)}) texts"

    def _faults(self) -> Iterator[tuple[str, str]]:
        """Pairs of SQL: never-null condition, reason."""
        yield "fault is not null", "fault"
        for i, (name, column) in enumerate(self.columns):
            shown = (
                f"to_json(case when length(t{i}) > {_SHOWN} then left(t{i}, {_SHOWN}) || '…' else t{i} end)"
            )
            yield (
                f"fault is null and t{i} is not null and v{i} is null",
                f"'column {quote(name)}: ' || {shown} || ' is not {NOUNS[column.type]}'",
            )
            if name in self.stream.primary_key:
                blank = f" or trim(t{i}) = ''" if column.type == "string" else ""
                yield (
                    f"fault is null and (t{i} is null{blank})",
                    literal(f"primary key column {quote(name)} is missing"),
                )
            elif column.required:
                yield f"fault is null and t{i} is null", literal(f"required column {quote(name)} is missing")


class JsonPlan(Plan):
    """NDJSON: the raw column is ``line``; a column's path may lead into nested objects."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self.paths = [tuple((column.path or name).split(".")) for name, column in self.columns]
        #: Objects that hold declared values, the outermost first.
        self.parents = sorted({path[:n] for path in self.paths for n in range(1, len(path))})

    def record_fault(self) -> str:
        return (
            "case when not json_valid(line) then 'malformed JSON'"
            " when json_type(line) <> 'OBJECT' then 'not a JSON object' end"
        )

    def judgement(self) -> str:
        return "fault = judged.fault, line = judged.line"

    def value(self, index: int) -> str:
        kind = self.columns[index][1].type
        if kind == "json":
            return f"t{index}"
        if kind != "string":
            return super().value(index)
        nested = f"json_type(line, {_pointer(self.paths[index])}) in ('OBJECT', 'ARRAY')"
        return f"case when left(t{index}, 1) in ('{{', '[') and {nested} then null else t{index} end"

    def texts(self, records: str) -> str:
        scalar = [i for i, (_, column) in enumerate(self.columns) if column.type != "json"]
        whole = [i for i, (_, column) in enumerate(self.columns) if column.type == "json"]
        fields = [
            *(f"s[{n}] as t{i}" for n, i in enumerate(scalar, 1)),
            *(f"nullif(cast(j[{n}] as varchar), 'null') as t{i}" for n, i in enumerate(whole, 1)),
        ]
        extracts = [
            *([f"json_extract_string(line, {self._pointers(scalar)}) as s"] if scalar else []),
            *([f"json_extract(line, {self._pointers(whole)}) as j"] if whole else []),
            *([f"json_type(line, {_pointers(self.parents)}) as p"] if self.parents else []),
            f"cast(json_merge_patch(line, {literal(json.dumps(self._declared()))}) as varchar) as rest",
        ]
        return (
            f"select position, line, {self._misplaced()} as fault, {', '.join(fields)},"
            f" nullif({self._pruned('rest')}, '{{}}') as _extra"
            f" from (select position, line, {', '.join(extracts)} from {records}"
            " where fault is null) extracted"
        )

    def suspects(self) -> str:
        return (
            "select position, line as text from checked where fault is null and"
            f" (regexp_matches(line, {literal(SUSPECT)})"
            # Counting brackets costs more than it is worth on short lines.
            f" or (length(line) > {2 * MAX_DEPTH}"
            f" and length(line) - length(translate(line, '[{{', '')) > {MAX_DEPTH}))"
        )

    def _pointers(self, indexes: Sequence[int]) -> str:
        return _pointers([self.paths[i] for i in indexes])

    def _misplaced(self) -> str:
        """SQL for the fault of a record in which a declared parent is no object: its value would vanish."""
        cases = "".join(
            f" when p[{n}] not in ({self._shapes(parent)})"
            f" then {literal(quote('.'.join(parent)) + ' is not an object')}"
            for n, parent in enumerate(self.parents, 1)
        )
        return f"case{cases} end" if cases else "cast(null as varchar)"

    def _shapes(self, parent: tuple[str, ...]) -> str:
        """JSON types that `parent` may have: a number in a path is a place in an array."""
        following = {path[len(parent)] for path in self.paths if path[: len(parent)] == parent != path}
        return "'OBJECT', 'NULL', 'ARRAY'" if all(map(str.isdigit, following)) else "'OBJECT', 'NULL'"

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
        patch: dict[str, Any] = {}
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


class CsvPlan(Plan):
    """CSV: the raw columns are ``f<i>``, named by the file's header.

    :raises DataError: the header lacks a column of the primary key or a required one.
    """

    def __init__(self, stream: Stream, source: str, header: Sequence[str]) -> None:
        super().__init__(stream)
        self.header = list(header)
        self.names = [column.path or name for name, column in self.columns]
        needed = {
            wanted
            for (name, column), wanted in zip(self.columns, self.names, strict=True)
            if column.required or name in stream.primary_key
        }
        missing = sorted(needed - set(header))
        if missing:
            shown = ", ".join(header)
            msg = (
                f"the header of {source} lacks {', '.join(map(repr, missing))}, which {stream.ref} requires;"
                f" it reads: {shown[:200]}{'…' if len(shown) > 200 else ''}. Correct the file, the"
                " delimiter, or the column's path"
            )
            raise DataError(msg)
        self.unknown = [i for i, name in enumerate(self.header) if name not in self.names]

    def texts(self, records: str) -> str:
        fields = [
            f"f{self.header.index(name)} as t{i}" if name in self.header else f"cast(null as varchar) as t{i}"
            for i, name in enumerate(self.names)
        ]
        pairs = ", ".join(f"cast($h{i} as varchar), f{i}" for i in self.unknown)
        extra = f"cast(json_object({pairs}) as varchar)" if pairs else "cast(null as varchar)"
        return (
            f"select position, fault, {', '.join(fields)}, {extra} as _extra"
            f" from {records} where fault is null"
        )

    def suspects(self) -> str:
        held = [
            f"f{self.header.index(name)}"
            for name, (_, column) in zip(self.names, self.columns, strict=True)
            if column.type == "json" and name in self.header
        ]
        return " union all ".join(
            f"select position, {name} as text from checked"
            f" where fault is null and regexp_matches({name}, {literal(SUSPECT)}) and json_valid({name})"
            for name in held
        )

    @property
    def params(self) -> dict[str, Any]:
        return {f"h{i}": self.header[i] for i in self.unknown}


def _pointer(path: Sequence[str]) -> str:
    return literal("".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path))


def _pointers(paths: Sequence[Sequence[str]]) -> str:
    return "[" + ", ".join(map(_pointer, paths)) + "]"
