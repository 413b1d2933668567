# SPDX-License-Identifier: Apache-2.0
"""A good project becomes typed models; each fault is told once, at its place, in plain words."""

from __future__ import annotations

import copy
import pickle
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cdp_provider.core.project.faults import ProjectError
from cdp_provider.core.project.loader import load
from tests.core.project.example import (
    GOOD,
    KINDS,
    ApiOptions,
    CursorPaging,
    MailOptions,
    check_one_fault,
    faults,
    load_text,
)


def test_a_good_project_has_no_faults():
    assert faults(GOOD) == ()


def test_names_options_and_shorthands_are_filled_in():
    project = load_text(GOOD)
    customers = project.sources["crm"].streams["customers"]
    assert (customers.source, customers.name, customers.ref) == ("crm", "customers", "crm.customers")
    assert customers.primary_key == ("customer_id",)
    assert customers.columns["email"].type == "string"
    expected = ApiOptions(
        path="/customers", paging=CursorPaging(type="cursor", next="next_cursor"), cursor="updated_at"
    )
    assert customers.options == expected
    assert project.destinations["mail"].name == "mail"
    assert project.destinations["mail"].rate[0].per == timedelta(seconds=1)
    assert project.syncs["vip_to_mail"].sources == ("spent", "born")
    assert project.consent.purposes == {"newsletters": "consent"}
    assert [stream.ref for stream in project.streams()] == ["crm.customers", "web.events", "web.products"]
    field = project.profiles.fields["email"].sources[1]
    assert (field.stream, field.column) == ("web.products", "owner")


def test_constants_take_the_type_of_what_they_are_compared_with():
    project = load_text(GOOD)
    reachable, spent, any_of, _ = project.segments["vip"].where.all
    born, last_seen, orders = any_of.any
    assert reachable.segment == "reachable"
    assert type(spent.at_least) is Decimal
    assert born.before == date(2000, 1, 1)
    assert last_seen.after == date(2026, 1, 1)
    assert orders.where["price"].between == (Decimal(1), Decimal("99.5"))
    assert type(project.profiles.traits["spent"].where["price"].more_than) is Decimal
    assert project.segments["reachable"].where.is_ is True


def test_sections_may_stand_empty_and_anchors_are_fine():
    text = GOOD[: GOOD.index("profiles:")] + "profiles:\nsegments:\nsyncs:\n"
    text = text.replace("email: {priority: 2,", "email: &mail {priority: 2,").replace(
        "    phone: {normalize", "    second_email: {<<: *mail, priority: 3}\n    phone: {normalize"
    )
    assert load_text(text).identity.identifiers["second_email"].normalize == "email"


MIRROR = "    mode: mirror\n    approve_above: 0.2\n"


def test_a_sync_may_omit_its_segment():
    assert faults(GOOD.replace("    segment: vip\n", "").replace(MIRROR, "    mode: upsert\n")) == ()


ONE_FAULT = yaml.safe_load((Path(__file__).parent / "one_fault.yaml").read_text())


@pytest.mark.parametrize(("old", "new", "pointed", "path", "message"), ONE_FAULT)
def test_one_fault_at_its_place(old: str, new: str, pointed: str, path: str, message: str):
    check_one_fault(GOOD, old, new, pointed, path, message)


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("        columns: {sku", "        colums: {sku", "did you mean 'columns'?"),
        ("format: ndjson", "fromat: ndjson", "did you mean 'format'?"),
        ("    type: api", "    type: apy", "did you mean 'api'?"),
        ("crm.customers.email,", "crm.customer.email,", "did you mean 'crm.customers'?"),
        ("{trait: spent, at", "{trait: spend, at", "did you mean 'spent'?"),
        ("    segment: vip\n", "    segment: vi\n", "did you mean 'vip'?"),
        ("destination: mail", "destination: crm", "known: mail"),
        ("path: products.csv", "pth: products.csv", "did you mean 'path'?"),
        ("normalize: email", "normalize: emial", "did you mean 'email'?"),
        ("    - deny:", "    - denny:", "did you mean 'deny'?"),
        ('{user_id: "17"}', '{user: "17"}', "did you mean 'user_id'?"),
        ('{user_id: "17"}', "{user_id: 17}", "put it in quotes if it is meant as text"),
        ("stream: crm.customers, key", "stream: crm.customer, key", "did you mean 'crm.customers'?"),
        ("stream: crm.customers, key", "straem: crm.customers, key", ""),
    ],
)
def test_hints(old: str, new: str, hint: str):
    found = faults(GOOD.replace(old, new, 1))
    assert [fault.hint for fault in found] == [hint]


def test_all_faults_come_at_once_and_without_consequences():
    # The streams, the trait and the segment that break here are all used elsewhere in the file.
    text = GOOD
    for old, new in {
        "time: updated_at": "tme: updated_at",
        "primary_key: sku": "primary_key: nope",
        "type: sum,": "type: summ,",
        "idle: {type": "idle: {typ",
        "consent, is: true": "consnt, is: true",
        "event: Order": "event: 7",
        "destination: mail": "destination: post",
    }.items():
        assert old in text
        text = text.replace(old, new)
    assert [fault.path for fault in faults(text)] == [
        "sources.crm.streams.customers.tme",
        "sources.web.streams.products.primary_key",
        "profiles.traits.spent.type",
        "profiles.traits.idle.typ",
        "segments.reachable.where.trait",
        "segments.vip.where.all[2].any[2].event",
        "syncs.vip_to_mail.destination",
    ]


def test_a_lost_section_is_one_fault():
    assert [fault.path for fault in faults(GOOD.replace("profiles:", "profile:"))] == ["profile"]
    assert [fault.path for fault in faults(GOOD.replace("sources:", "sorces:"))] == ["sorces"]
    assert [fault.path for fault in faults(GOOD.replace("  web:\n", "  web: 5\n  x:\n"))] == ["sources.web"]
    lost = GOOD.replace("segments:\n", "segments: all\nold:\n")
    assert [fault.path for fault in faults(lost)] == ["segments", "old"]


def test_purposes_of_the_kind_count_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MailOptions, "purposes", ("advertising", "newsletters"))
    (fault,) = faults(GOOD)
    assert fault.path == "syncs.vip_to_mail.destination"
    assert "needs consent to 'advertising'" in fault.message
    assert "nobody would ever be sent" in fault.message
    assert faults(GOOD.replace("newsletters: consent", "newsletters: consent, advertising: consent")) == ()


@pytest.mark.parametrize("broken", ["consent: 5\nold:", "consent:\n  purposes: 5\n  #", "consnt:"])
def test_nothing_is_said_of_purposes_where_consent_is_broken(broken: str):
    paths = [fault.path for fault in faults(GOOD.replace("consent:\n  purposes:", f"{broken}\n  purposes:"))]
    assert "syncs.vip_to_mail.destination" not in paths
    assert paths


@pytest.mark.parametrize("mode", ["archive", "event"])
def test_other_modes_that_need_a_segment(mode: str):
    text = GOOD.replace("    segment: vip\n", "").replace(MIRROR, f"    mode: {mode}\n")
    text = text.replace("write: if_empty, ", "")
    (fault,) = faults(text)
    assert (fault.path, "none is named" in fault.message) == ("syncs.vip_to_mail.mode", True)


def test_a_circle_names_its_members():
    text = GOOD.replace("where: {trait: consent, is: true}", "where: {none: [{segment: vip}]}")
    (fault,) = faults(text)
    assert fault.message == "segments refer to each other in a circle: reachable -> vip -> reachable"
    assert fault.path == "segments.reachable.where.none[0].segment"


def test_a_stream_without_identifiers_serves_no_profile():
    found = faults(GOOD.replace("        identifiers: {email: owner}\n", ""))
    assert [(fault.path, fault.hint) for fault in found] == [
        ("profiles.fields.email.from[1]", "add 'identifiers' to the stream web.products")
    ]


def test_a_fault_shows_its_line_and_survives_pickling():
    with pytest.raises(ProjectError) as caught:
        load_text(GOOD.replace("spent, at_least", "spend, at_least"))
    expected = (
        "1 fault in the project file\n"
        "cdp.yaml:67:18 segments.vip.where.all[1].trait: there is no field or trait 'spend'\n"
        "    67 |         - {trait: spend, at_least: 500}\n"
        "       |                   ^ did you mean 'spent'?"
    )
    assert str(caught.value) == expected.replace("67", str(caught.value.faults[0].line)).replace(
        ":18 ", ":19 "
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own bytes


def test_secrets_in_the_file_are_not_repeated():
    found = faults(GOOD.replace("    connection: crm_api", "    connection: crm_api\n    api_token: hunter2"))
    assert len(found) == 1
    assert "hunter2" not in str(found[0])
    assert "api_token: ***" in str(found[0])


def test_rules_set_by_hand_are_read_one_by_one_and_their_values_not_repeated():
    rules = """\
  rules:
    - deny: [{email: secret@example.com}, {email: 4711}]
    - allow: [{mail: secret@example.com}, {user_id: " "}]
    - deny: [{email: "secret@example.com "}, {user_id: "4711"}]
    - 4711
    - exclude: {stream: crm.customers, key: 4711}
    - exclude: {user_id: 4711, user_id: "4712"}
    - allow: [{user_id: "4711"}, {email: SECRET@example.com}]
profiles:
"""
    text = GOOD[: GOOD.index("  rules:\n")] + rules + GOOD[GOOD.index("profiles:\n") + len("profiles:\n") :]
    found = faults(text)
    assert [fault.path for fault in found] == [
        "identity.rules[0].deny[1].email",
        "identity.rules[1].allow[1].user_id",
        "identity.rules[3]",
        "identity.rules[4].exclude.key",
        "identity.rules[5].exclude.user_id",
        "identity.rules[6].allow",
    ]
    assert not any(value in str(fault) for fault in found for value in ("secret", "SECRET", "471"))


@pytest.mark.parametrize(
    ("rules", "paths"), [("", []), ("[]", []), ("{}", ["identity.rules"]), ("allow", ["identity.rules"])]
)
def test_rules_are_a_list_that_may_stand_empty(rules: str, paths: list[str]):
    start, end = GOOD.index("  rules:\n"), GOOD.index("profiles:\n")
    assert [fault.path for fault in faults(f"{GOOD[:start]}  rules: {rules}\n{GOOD[end:]}")] == paths


def test_a_rule_may_name_what_is_broken_elsewhere():
    for old, new, path in (
        ("primary_key: customer_id", "primary_key: nope", "sources.crm.streams.customers.primary_key"),
        ("user_id: {priority: 1}", "user_id: {priority: 0}", "identity.identifiers.user_id.priority"),
        ("  web:\n", "  web: 5\n  old:\n", "sources.web"),
    ):
        assert [fault.path for fault in faults(GOOD.replace(old, new, 1))] == [path]


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "latin.yaml").write_bytes("project: shop\nowner: Jürgen\n".encode("latin-1"))
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "comment.yaml").write_text("# later\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    for name, words in {
        "missing.yaml": "no such file",
        ".": "directory",
        "latin.yaml": "latin.yaml:2:9: the file is not UTF-8",
        "empty.yaml": "the file is empty",
        "comment.yaml": "the file is empty",
        "list.yaml": "not a mapping",
        "x" * 300: "cannot be read",
    }.items():
        with pytest.raises(ProjectError) as caught:
            load(tmp_path / name, KINDS)
        assert words in str(caught.value)


def test_a_file_with_a_byte_order_mark_loads(tmp_path: Path):
    (tmp_path / "cdp.yaml").write_text(GOOD, encoding="utf-8-sig")
    assert load(tmp_path / "cdp.yaml", KINDS).project == "shop"


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.dates(), st.datetimes(),
    st.just([]), st.just({}), st.just({"a": 1}), st.just(["vip"]), st.sampled_from(["email", "web.events"]),
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in _places(child, (*path, key)))][
        0 if path else 1 :
    ]


_TREE = yaml.safe_load(GOOD)
_PLACES = _places(_TREE)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(_PLACES), st.sampled_from("drop set rename".split()), _VALUES), max_size=4
    )
)
def test_whatever_is_changed_only_project_errors_come_out(changes: list[tuple[tuple[Any, ...], str, Any]]):
    tree = copy.deepcopy(_TREE)
    for path, change, value in changes:
        parent = tree
        try:
            for part in path[:-1]:
                parent = parent[part]
            parent[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        if isinstance(parent, str):
            continue
        if change == "set":
            parent[path[-1]] = value
        elif change == "drop" or isinstance(parent, list):
            del parent[path[-1]]
        else:
            parent[f"{path[-1]}x"] = parent.pop(path[-1])
    for fault in faults(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)):
        assert fault.message
        assert fault.line > 0
