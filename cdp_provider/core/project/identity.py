# SPDX-License-Identifier: Apache-2.0
"""Identity rules: which identifiers make two rows one person, and where that ends."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from cdp_provider.core.project.base import (
    DURATION_PATTERN,
    Duration,
    Model,
    Name,
    Size,
    Whole,
    parse_duration,
)
from cdp_provider.core.project.fuzzy import Fuzzy
from cdp_provider.core.project.problems import Problem, Problems, did_you_mean

TEXT_PATTERN = r"\S"
FUNCTION_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

_BuiltIn = Literal["trim", "lower", "email", "phone", "digits"]
_Window = Literal["weekly", "monthly", "annually"]
_WINDOWS = {"weekly": "7 days", "monthly": "30 days", "annually": "365 days"}

#: Types that rank before all others for which no priority is stated.
_FIRST = ("user_id", "email")


def _window(value: Any) -> Any:
    try:
        return parse_duration(_WINDOWS.get(value, value) if isinstance(value, str) else value)
    except ValueError:
        msg = f"{value!r} is no span of time; write weekly, monthly, annually or a duration such as '10 days'"
        raise ValueError(msg) from None


def _normalizer(value: Any) -> Any:
    known = get_args(_BuiltIn)
    if isinstance(value, str) and value not in known and not re.match(FUNCTION_PATTERN, value):
        message = f"{value!r} is not one of {', '.join(known)}, nor a function 'package.module:function'"
        raise Problems([Problem((), message, did_you_mean(value, known))])
    return value


class Identifier(Model):
    """Rules for one type of identifier.

    :param priority: 1 is the strongest. Types without one rank after those with one: ``user_id``, then
        ``email``, then the others by name.
    :param limit: at most so many values of this type per profile; left out, 1 for ``user_id``, else 5.
    :param within: the limit holds for values first seen within any such span of time; None: ever.
    :param hub: a value seen together with more than so many other identifiers stops linking.
    :param normalize: how a raw value becomes comparable: ``trim`` is always done; ``lower`` folds case;
        ``email`` folds case and refuses what is no address; ``phone`` gives E.164; ``digits`` keeps digits;
        ``package.module:function`` is the project's own. No normal form of Unicode is applied: an accent
        written as a character of its own makes another value.
    :param region: two-letter country of phone numbers without an international prefix.
    :param region_column: column of the row that holds that country, tried before `region`.
    :param block: values that identify nobody, compared after normalising.
    :param block_patterns: regular expressions (RE2); a value that one matches whole identifies nobody.
    """

    priority: Whole | None = Field(default=None, ge=1)
    limit: Whole = Field(default=5, ge=1)
    within: (
        Annotated[
            Duration,
            BeforeValidator(
                _window, json_schema_input_type=_Window | Annotated[str, Field(pattern=DURATION_PATTERN)]
            ),
        ]
        | None
    ) = None
    hub: Whole | None = Field(default=None, ge=1)
    normalize: Annotated[
        str,
        BeforeValidator(
            _normalizer, json_schema_input_type=_BuiltIn | Annotated[str, Field(pattern=FUNCTION_PATTERN)]
        ),
    ] = "trim"
    region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    region_column: str | None = None
    block: tuple[str, ...] = ()
    block_patterns: tuple[str, ...] = (r"[0\-]*", r"-1", r"(?i:null|none|undefined|unknown|anonymous|n/a)")


#: A value as its source writes it.
Text = Annotated[str, Field(pattern=TEXT_PATTERN)]


def _one(value: Any) -> Any:
    if isinstance(value, dict) and len(value) != 1:
        msg = f"an identifier is one 'type: value', and here stand {len(value)}"
        raise ValueError(msg)
    return value


def _two(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) != 2:
        msg = f"the rule takes two identifiers, each one 'type: value', and here stand {len(value)}"
        raise ValueError(msg)
    return value


One = Annotated[
    dict[Name, Text],
    BeforeValidator(
        _one, json_schema_input_type=Annotated[dict[Name, Text], Field(min_length=1, max_length=1)]
    ),
]
Two = Annotated[tuple[One, One], BeforeValidator(_two, json_schema_input_type=tuple[One, One])]


class Deny(Model):
    """Two identifiers that are never one person. Each side is one ``type: value``."""

    deny: Two


class Allow(Model):
    """Two identifiers that are one person, whatever the limits say. Each side is one ``type: value``."""

    allow: Two


def _parts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class ExcludedRow(Model):
    """A row of a stream.

    :param stream: ``source.name`` of the stream.
    :param key: its primary key, each part as text; one alone may be written as such.
    """

    stream: str
    key: Annotated[tuple[str, ...], BeforeValidator(_parts, json_schema_input_type=str | tuple[str, ...])] = (
        Field(min_length=1)
    )


def _excluded(value: Any) -> str | None:
    """A mapping that names a stream is a row."""
    if isinstance(value, ExcludedRow):
        return "row"
    if isinstance(value, dict):
        return "row" if "stream" in value else "value"
    return None


class Exclude(Model):
    """A value that identifies nobody (one ``type: value``), or a row that links nothing."""

    exclude: Annotated[
        Annotated[ExcludedRow, Tag("row")] | Annotated[One, Tag("value")],
        Discriminator(
            _excluded,
            custom_error_type="exclude",
            custom_error_message="exclude takes one 'type: value', or the stream and the key of a row",
        ),
    ]


RULES: dict[str, type[Model]] = {"deny": Deny, "allow": Allow, "exclude": Exclude}
RULE_KEYS = "a rule holds exactly one of the keys deny, allow and exclude"


def rule_key(value: Any) -> str | None:
    """Which rule a mapping is: the one whose key it holds; None when it holds none, or two."""
    if isinstance(value, Model):
        return next((key for key, rule in RULES.items() if isinstance(value, rule)), None)
    found = [key for key in RULES if key in value] if isinstance(value, dict) else []
    return found[0] if len(found) == 1 else None


Rule = Annotated[
    Annotated[Deny, Tag("deny")] | Annotated[Allow, Tag("allow")] | Annotated[Exclude, Tag("exclude")],
    Discriminator(rule_key, custom_error_type="rule", custom_error_message=RULE_KEYS),
]


def _with_limits(identifiers: dict[str, Identifier]) -> dict[str, Identifier]:
    """A person has one ``user_id``, unless its limit says otherwise."""
    known = identifiers.get("user_id")
    if known is None or "limit" in known.model_fields_set:
        return identifiers
    return {**identifiers, "user_id": known.model_copy(update={"limit": 1})}


class Identity(Model):
    """Rules of the whole project.

    :param over_limit: what happens to a link that would give a profile too many values of a type: ``demote``
        drops the row's weakest identifier and looks again; ``refuse`` leaves the link out; ``break`` cuts all
        links of the identifier through which they would meet; ``evict`` lets the oldest values go.
    :param rules: set by hand; they hold whatever the rows say.
    :param memory: bytes that a run may use for rows; above it the work is done by SQL in the warehouse.
    :param fuzzy: how profiles are compared that share no identifier.
    """

    identifiers: Annotated[dict[Name, Identifier], AfterValidator(_with_limits)] = Field(default_factory=dict)
    over_limit: Literal["demote", "refuse", "break", "evict"] = "demote"
    rules: tuple[Rule, ...] = ()
    memory: Size = 4_000_000_000
    fuzzy: Fuzzy | None = None

    def ranked(self) -> list[str]:
        """Identifier types, strongest first."""
        return sorted(self.identifiers, key=self._rank)

    def _rank(self, name: str) -> tuple[float, int, str]:
        priority = self.identifiers[name].priority
        return priority or float("inf"), _FIRST.index(name) if name in _FIRST else len(_FIRST), name
