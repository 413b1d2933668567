# SPDX-License-Identifier: Apache-2.0
"""Survivorship: of the values that sources state for one field of a profile, the one that counts.

A null or an empty text is no value. A value is more recent than another when its row's time is later (a row
without a time is the oldest), then when it arrived in a later load, then when its source stands earlier in
the field's list, then by its place within the stream.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from cdp_provider.core.profiles.scan import Scan, Scans
    from cdp_provider.core.project.profiles import FieldFrom, ProfileField

_UNKNOWN_TIME = datetime.min.replace(tzinfo=UTC)


class Fields:
    """The fields of one statement: asks the streams' scans, and keeps what needs a relation of its own."""

    def __init__(self, scans: Scans) -> None:
        self._scans = scans
        self._relations: dict[str, str] = {}

    def field_sql(self, name: str, field: ProfileField, kind: str) -> str:
        """SQL of a field, to be selected where the scans' totals and :meth:`joins` are joined.

        :param kind: the field's column type.
        :raises ConfigurationError: a source does not exist, or is of another type.
        """
        for source in field.sources:
            self._check(name, source, kind)
        if field.keep == "most_frequent":
            relation = f'"_frequent_{len(self._relations)}"'
            self._relations[relation] = self._most_frequent_sql(field)
            return f'{relation}."_value"'
        oldest = field.keep == "first"
        scans = [(self._scans.of(source.stream), source.column) for source in field.sources]
        offers = [_Offer(scan, *self._usable(scan, column), oldest=oldest) for scan, column in scans]
        if len(offers) == 1:
            return offers[0].value
        if field.keep == "source_priority":
            return f"coalesce({', '.join(offer.value for offer in offers)})"
        return _winner(offers, "<" if oldest else ">")

    def relations(self) -> list[str]:
        """Common table expressions of their own; they read those of the scans."""
        return [f"{name} as ({sql})" for name, sql in self._relations.items()]

    def joins(self, profile_id: str) -> str:
        """Left joins of :meth:`relations` to the relation that has the profile ids."""
        return "".join(
            f' left join {name} on {name}."_profile_id" = {profile_id}' for name in self._relations
        )

    def _check(self, name: str, source: FieldFrom, kind: str) -> None:
        scan = self._scans.of(source.stream)
        scan.column(source.column)
        given = scan.stream.columns[source.column].type
        if given != kind:
            msg = (
                f"the field {name} is of type {kind} after its first source, but"
                f" {source.stream}.{source.column} is of type {given}; give both columns the same type"
            )
            raise ConfigurationError(msg)

    def _usable(self, scan: Scan, column: str) -> tuple[str, str]:
        """SQL of a source's value, and of whether it is one."""
        quoted = scan.column(column)
        text = scan.stream.columns[column].type == "string"
        return quoted, f"{quoted} is not null" + f" and {quoted} <> ''" * text

    def _most_frequent_sql(self, field: ProfileField) -> str:
        parts = []
        for place, source in enumerate(field.sources):
            scan = self._scans.of(source.stream)
            value, usable = self._usable(scan, source.column)
            parts.append(
                f'select "_profile_id", {value} as "_value", "_time", "_load_seq", {place} as "_source",'
                f' {scan.order} as "_place" from {scan.rows} where {usable}'
            )
        return (
            'select "_profile_id", "_value" from (select "_profile_id", "_value", row_number() over'
            ' (partition by "_profile_id" order by "_times" desc, "_time" desc nulls last, "_load_seq" desc,'
            ' "_source", "_place") as "_rank" from (select *, count(*) over'
            f' (partition by "_profile_id", "_value") as "_times" from ({" union all ".join(parts)}) u) c) r'
            ' where "_rank" = 1'
        )


class _Offer:
    """What one source offers for a field: its most recent value, or its oldest."""

    def __init__(self, scan: Scan, value: str, usable: str, *, oldest: bool) -> None:
        self._scan, self._usable, self._oldest = scan, usable, oldest
        self.value = self._picked(value)

    @property
    def time(self) -> str:
        """SQL of the time of the value's row, never null."""
        unknown = self._scan.params.bind(_UNKNOWN_TIME, "timestamp")
        return self._picked(f'coalesce("_time", {unknown})')

    @property
    def load_seq(self) -> str:
        """SQL of the arrival of the value's row."""
        return self._picked('"_load_seq"')

    def _picked(self, sql: str) -> str:
        pick = self._scan.params.warehouse.pick
        return self._scan.aggregate(pick(sql, self._scan.order, self._usable, largest=self._oldest))


def _winner(offers: list[_Offer], better: str) -> str:
    """SQL of the first offer's value that no other one beats."""
    cases = []
    for mine in offers:
        unbeaten = [
            f"({other.value} is null or {mine.time} {better} {other.time}"
            f" or ({mine.time} = {other.time} and {mine.load_seq} {better}= {other.load_seq}))"
            for other in offers
            if other is not mine
        ]
        cases.append(f"when {mine.value} is not null and {' and '.join(unbeaten)} then {mine.value}")
    return f"case {' '.join(cases)} end"
