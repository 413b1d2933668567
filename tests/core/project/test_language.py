# SPDX-License-Identifier: Apache-2.0
"""Profiles and segments: what is right is taken, each fault is told once, at its place."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from tests.core.project.example import check_one_fault, faults, load_text
from tests.core.project.language import LANGUAGE

HERE = Path(__file__).parent
FAULTS = yaml.safe_load((HERE / "language_faults.yaml").read_text())
IMPOSSIBLE = yaml.safe_load((HERE / "impossible.yaml").read_text())


def test_all_of_the_language_is_taken():
    assert [*map(str, faults(LANGUAGE))] == []


@pytest.mark.parametrize(("old", "new", "pointed", "path", "message"), FAULTS)
def test_one_fault_at_its_place(old: str, new: str, pointed: str, path: str, message: str):
    check_one_fault(LANGUAGE, old, new, pointed, path, message)


def segment(where: str) -> list[tuple[str, str]]:
    """Path below the condition, and message, of all faults of a segment with this condition."""
    found = faults(LANGUAGE.replace("segments:\n", f"segments:\n  tried: {{where: {where}}}\n", 1))
    return [(fault.path.removeprefix("segments.tried.where."), fault.message) for fault in found]


@pytest.mark.parametrize(("where", "path", "words"), IMPOSSIBLE)
def test_what_nobody_can_fulfil_is_refused(where: str, path: str, words: str):
    ((found, message),) = segment(where)
    assert found == path
    assert words in message


@pytest.mark.parametrize(
    "where",
    [
        "{all: [{trait: visits, at_least: 5}, {trait: visits, less_than: 6}]}",
        "{any: [{trait: visits, at_least: 5}, {trait: visits, less_than: 3}]}",
        "{all: [{trait: idle, exists: false}, {none: [{trait: idle, is: 5}]}]}",
        "{all: [{trait: spent, more_than: 5}, {trait: spent, less_than: 6}]}",
        "{all: [{trait: country, is: DE}, {trait: country, starts_with: d}]}",
        "{all: [{trait: country, is: de, ignore_case: true}, {trait: country, is: DE}]}",
        "{all: [{trait: country, exists: false}, {trait: country, none_of: [DE]}]}",
        "{all: [{trait: consent, is_not: true}, {trait: consent, is_not: false}]}",
        "{all: [{trait: emails, contains: a}, {trait: emails, contains: b}]}",
        "{all: [{trait: last_seen, is: 2026-03-29}, {trait: last_seen, after: 2026-03-29}]}",
        "{all: [{trait: last_seen, at_most: 2026-03-29}, {trait: last_seen, after: 2026-03-29T21:59:59Z}]}",
        "{all: [{trait: last_seen, today: true}, {trait: last_seen, before_last: 1 day}]}",
        "{all: [{trait: last_seen, today: false}, {trait: last_seen, within_next: 1 hour}]}",
        "{all: [{stream: web.events}, {stream: web.events, within_last: 1 day, exactly: 0}]}",
        "{all: [{split: spring, group: mail}, {none: [{split: spring, group: letter}]}]}",
        "{all: [{segment: careful}, {none: [{segment: abandoned}]}]}",
        "{trait: last_seen, at_least: 2026-03-29, at_most: 2026-03-29}",
        "{trait: last_seen, between: [2026-03-29T12:00:00Z, 2026-03-29]}",
        "{trait: country, is: DE, matches: 'D.'}",
        "{stream: web.events, max: price, exactly: 9.99}",
        "{stream: web.events, at_least: 0}",
    ],
)
def test_what_somebody_can_fulfil_is_taken(where: str):
    assert segment(where) == []


def test_all_faults_of_the_language_come_at_once():
    text = LANGUAGE
    for old, new in {
        "timezone: Europe/Berlin": "timezone: 5",
        "history: [spent, email]": "history: [spend]",
        "keep: list, limit: 5": "keep: lst",
        "{type: quantile, of: spent": "{type: quantile, on: spent",
        "revenue: {type: sum, of: spent}": "revenue: {type: sum}",
        "reachable: {type: any, of: consent}": "reachable: {type: any, of: born}",
        "{trait: emails, contains:": "{trait: emials, contains:",
        "groups: {holdout: 10 %,": "groups: {holdout: much,",
        "offers: [abandoned, careful]": "offers: [abandoned, 5]\n  more: [nearby, nobody]",
        "suppression: [staff]": "suppression: [stuff]",
    }.items():
        assert old in text
        text = text.replace(old, new)
    assert [fault.path for fault in faults(text)] == [
        "profiles.timezone",
        "profiles.history[0]",
        "profiles.fields.emails.keep",
        "profiles.traits.decile.on",
        "profiles.accounts.traits.revenue",
        "profiles.accounts.traits.reachable.of",
        "segments.vip.where.all[2].trait",
        "splits.spring.groups.holdout",
        "exclusive.offers[1]",
        "exclusive.more[1]",
        "suppression[0]",
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("splits:\n", "splts:\n"),
        ("  accounts:\n", "  acounts:\n"),
        ("  accounts:\n    key", "  accounts: 5\n  old:\n    key"),
        ("  spring:\n", "  spring: 5\n  old:\n"),
    ],
)
def test_nothing_is_said_of_what_is_lost(old: str, new: str):
    for fault in faults(LANGUAGE.replace(old, new, 1)):
        assert "no split" not in fault.message
        assert "no accounts" not in fault.message


def test_accounts_are_asked_for_only_where_there_are_some():
    start, end = LANGUAGE.index("  accounts:\n"), LANGUAGE.index("segments:\n")
    found = faults(LANGUAGE[:start] + LANGUAGE[end:])
    assert [fault.path for fault in found] == [
        "segments.accounts.where.all[0].account",
        "segments.accounts.where.all[1].members",
    ]
    assert "add 'accounts: {key: ...}'" in found[0].hint


def test_sections_of_the_language_may_stand_empty():
    text = LANGUAGE[: LANGUAGE.index("segments:\n")] + "segments:\nsplits:\nexclusive:\nsuppression:\n"
    assert faults(text.replace("history: [spent, email]", "history:")) == ()
    assert (
        faults(text[: text.index("    key: country")].removesuffix("  accounts:\n") + "  accounts:\n") == ()
    )


def test_hints():
    assert (
        faults(LANGUAGE.replace("{split: spring, g", "{splt: spring, g"))[0].hint == "did you mean 'split'?"
    )
    assert (
        faults(LANGUAGE.replace("{account: revenue,", "{account: revnue,"))[0].hint
        == "did you mean 'revenue'?"
    )
    unlinked = LANGUAGE.replace("        identifiers: {email: owner}\n", "").replace(
        ", web.products.owner", ""
    )
    unlinked = unlinked.replace(
        "    title: {type: first, stream: web.products, column: title, default: none}\n", ""
    )
    assert faults(unlinked) == ()
    (fault,) = faults(
        unlinked.replace("related: web.products, on: {title: country}", "related: web.products")
    )
    assert fault.hint.startswith("add 'on: {<its column>: <a field or trait>}'")


def test_objects_are_nested_six_levels_deep_at_most():
    inner = "{related: web.products, on: {sku: sku}}"
    for _ in range(4):
        inner = f"{{related: web.products, on: {{sku: sku}}, having: [{inner}]}}"
    assert segment(f"{{related: web.products, having: [{inner}]}}") == []
    deeper = f"{{related: web.products, on: {{sku: sku}}, having: [{inner}]}}"
    ((path, message),) = segment(f"{{related: web.products, having: [{deeper}]}}")
    assert path.count("having") == 6
    assert "deeper than 6 levels" in message


def test_constants_take_the_type_of_what_they_are_held_against():
    project = load_text(LANGUAGE)
    vip = project.segments["vip"].where.all
    assert vip[5].between == (date(2026, 1, 1), date(2026, 3, 29))
    assert vip[6].any[1].where["price"].between == (Decimal(1), Decimal("99.5"))
    assert project.segments["careful"].where.where["price"].more_than == Decimal(1)
    assert project.segments["accounts"].where.all[0].at_least == Decimal(1000)
    assert type(project.profiles.traits["spent"].default) is Decimal
    assert type(project.profiles.traits["basket"].default) is float
    text = LANGUAGE.replace("event: View}", "event: View, where: {at: {after: 2026-01-01T00:00:00+01:00}}}")
    after = load_text(text).segments["abandoned"].where.funnel[0].where["at"].after
    assert after == datetime(2025, 12, 31, 23, tzinfo=UTC)
