# SPDX-License-Identifier: Apache-2.0
"""Identity rules: which identifiers make two rows one person, and where that ends."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cdp_provider.core.project.base import Duration, Model, Name, Size, Whole, parse_duration

NORMALIZERS = ("trim", "lower", "email", "phone", "digits")
_CALLABLE_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
_WINDOWS = {"weekly": "7 days", "monthly": "30 days", "annually": "365 days"}


def _window(value: Any) -> Any:
    return parse_duration(_WINDOWS.get(value, value) if isinstance(value, str) else value)


class Identifier(Model):
    """Rules for one type of identifier.

    :param priority: 1 is the strongest; types without one rank after those with one, by name.
    :param limit: at most so many values of this type per profile.
    :param within: the limit holds for values first seen within any such span of time; None: ever.
    :param hub: a value seen together with more than so many other identifiers stops linking.
    :param normalize: how a raw value becomes comparable: ``trim`` is always done; ``lower`` folds case;
        ``email`` folds case and refuses what is no address; ``phone`` gives E.164; ``digits`` keeps digits;
        ``package.module:function`` is the project's own.
    :param region: two-letter country of phone numbers without an international prefix.
    :param region_column: column of the row that holds that country, tried before `region`.
    :param block: values that identify nobody, compared after normalising.
    :param block_patterns: regular expressions (RE2); a value that one matches whole identifies nobody.
    """

    priority: Whole | None = Field(default=None, ge=1)
    limit: Whole = Field(default=5, ge=1)
    within: Annotated[Duration, BeforeValidator(_window)] | None = None
    hub: Whole | None = Field(default=None, ge=1)
    normalize: (
        Literal["trim", "lower", "email", "phone", "digits"]
        | Annotated[str, Field(pattern=_CALLABLE_PATTERN)]
    ) = "trim"
    region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    region_column: str | None = None
    block: tuple[str, ...] = ()
    block_patterns: tuple[str, ...] = (r"[0\-]*", r"-1", r"(?i:null|none|undefined|unknown|anonymous|n/a)")


class Deny(Model):
    """Two identifiers that are never one person. Each side is one ``type: value``."""

    deny: tuple[dict[Name, str], dict[Name, str]]


class Allow(Model):
    """Two identifiers that are one person, whatever the limits say. Each side is one ``type: value``."""

    allow: tuple[dict[Name, str], dict[Name, str]]


class ExcludedRow(Model):
    """A row of a stream, by its primary key."""

    stream: str
    key: tuple[str, ...]


class Exclude(Model):
    """A value that identifies nobody (one ``type: value``), or a row that links nothing."""

    exclude: ExcludedRow | dict[Name, str]


Rule = Deny | Allow | Exclude


class Identity(Model):
    """Rules of the whole project.

    :param over_limit: what happens to a link that would give a profile too many values of a type: ``demote``
        drops the row's weakest identifier and looks again; ``refuse`` leaves the link out; ``break`` cuts all
        links of the identifier through which they would meet; ``evict`` lets the oldest values go.
    :param rules: set by hand; they hold whatever the rows say.
    :param memory: bytes that a run may use for rows; above it the work is done by SQL in the warehouse.
    """

    identifiers: dict[Name, Identifier] = Field(default_factory=dict)
    over_limit: Literal["demote", "refuse", "break", "evict"] = "demote"
    rules: tuple[Rule, ...] = ()
    memory: Size = 4_000_000_000

    def ranked(self) -> list[str]:
        """Identifier types, strongest first."""
        unranked = float("inf")
        return sorted(self.identifiers, key=lambda n: (self.identifiers[n].priority or unranked, n))
