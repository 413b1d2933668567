# SPDX-License-Identifier: Apache-2.0
"""What the DAG's page says of identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdp_provider.core.registry import load_project
from cdp_provider.factory import Node, docs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONE = "identifiers: {email: {normalize: email}}"
MANY = """
  over_limit: {policy}
  identifiers:
    phone: {{normalize: "shop.phones:number", limit: 3, within: weekly}}
    email: {{normalize: email, hub: 50, within: 36 hours}}
    user_id: {{within: 1 day}}
  rules:
    - deny: [{{email: eve@example.com}}, {{user_id: "4711"}}]
    - deny: [{{email: eve@example.com}}, {{user_id: "4712"}}]
    - exclude: {{stream: crm.customers, key: "4713"}}
"""


def test_identifiers_with_limits_windows_and_hubs_strongest_first(project_file: Callable[..., Path]):
    page = docs.of_dag(load_project(project_file((ONE, MANY.format(policy="evict")))))
    table = [line for line in page.splitlines() if line.startswith(("| user_id", "| email", "| phone"))]
    assert table == [
        "| user_id | 1 in 1 day | - | trim |",
        "| email | 5 in 129600 s | 50 others | email |",
        "| phone | 3 in 7 days | - | shop.phones:number |",
    ]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("demote", "dropped until"),
        ("refuse", "not made"),
        ("break", "cut off"),
        ("evict", "oldest ones leave"),
    ],
)
def test_each_policy_in_words(project_file: Callable[..., Path], policy: str, words: str):
    assert words in docs.of_dag(load_project(project_file((ONE, MANY.format(policy=policy)))))


def test_rules_set_by_hand_are_counted_and_never_quoted(project_file: Callable[..., Path]):
    page = docs.of_dag(load_project(project_file((ONE, MANY.format(policy="demote")))))
    assert "Rules set by hand: 2 deny, 1 exclude." in page
    assert not any(value in page for value in ("eve@", "471"))
    assert "by hand" not in docs.of_dag(load_project(project_file()))


def test_a_sync_says_its_limits_and_what_travels(project_file: Callable[..., Path]):
    rate = "rate: {requests: 20, per: 1 second}"
    daily = "rate: [{requests: 20, per: 1 second}, {records: 9000, per: 1 day, resets: Europe/Berlin}]"
    for changes, words in (
        ((), "At most 20 requests per 1 s."),
        (((rate, daily),), "20 requests per 1 s and 9000 records per 86400 s (a day in Europe/Berlin)."),
        (((f"    {rate}\n", ""),), "as many requests as the vendor documents"),
    ):
        project = load_project(project_file(*changes))
        page = docs.of_task(project, Node("sync", "known_to_mail"))
        assert words in page
        assert "`rows` from `rows`" in page


def test_consent_is_on_the_page(project_file: Callable[..., Path]):
    consent = ("consent: {purposes: {newsletters: agreed}, suppressed: [agreed]}\nsyncs:\n",)
    field = "traits: {rows:", "traits: {agreed: {type: exists, stream: crm.customers}, rows:"
    page = docs.of_dag(load_project(project_file(("syncs:\n", *consent), field)))
    assert "| newsletters | agreed |" in page
    assert "one of these is true: `agreed`." in page
    assert "Consent" not in docs.of_dag(load_project(project_file()))


def test_what_narrows_segments_and_who_is_divided_is_on_the_page(project_file: Callable[..., Path]):
    more = (
        "splits:\n  spring: {segment: known, groups: {mail: 12.5 %, none_of_it: 40 %}}\n"
        "exclusive: {one: [busy, known]}\nsuppression: [busy]\ndestinations:\n"
    )
    page = docs.of_dag(load_project(project_file(("destinations:\n", more))))
    assert "Members of these belong to no other segment: `busy`." in page
    assert "belongs to the first of them only: `busy`, `known`." in page
    assert "| spring | known | mail 12.5 %, none_of_it 40 % |" in page
    plain = docs.of_dag(load_project(project_file()))
    assert not any(words in plain for words in ("no other segment", "of them only", "by chance"))


def test_accounts_and_history_are_explained(project_file: Callable[..., Path]):
    more = "profiles:\n  accounts: {key: email, traits: {people: {type: count}}}\n  history: [rows]\n"
    page = docs.of_task(load_project(project_file(("profiles:\n", more))), Node("profiles"))
    assert "Accounts, by `email`: `people`." in page
    assert "Past values are kept of: `rows`." in page
    plain = docs.of_task(load_project(project_file()), Node("profiles"))
    assert "Accounts" not in plain
    assert "Past values" not in plain
