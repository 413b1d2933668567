# SPDX-License-Identifier: Apache-2.0
"""Nobody's data go where that person did not agree."""

from __future__ import annotations

import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.activation import Consent
from tests.core.activation.desk import sent
from tests.core.activation.scene import COLUMNS, person, put_profiles

ADVERTISING = Consent(purposes={"advertising": "consent"})


def keys(records):
    return [key.split("@")[0][-1] for _, key in sent(records)]


def test_only_true_is_a_yes(desk):
    desk.can(purposes=("advertising",))
    desk.consent = ADVERTISING
    put_profiles(desk.warehouse, [person(1, consent=True), person(2, consent=False), person(3)])
    plan = desk.plan(0)
    assert keys(desk.records(plan)) == ["1"]
    assert (plan.desired, plan.withheld, plan.invalid) == (3, 2, 0)
    logged = desk.rows("select record_key, profile_id, outcome, reason from {delivery_log} order by 1")
    reason = "no consent to advertising"
    assert logged == [(f"profile_id={n}", n, "withheld", reason) for n in (2, 3)]
    desk.plan(1)
    assert len(desk.rows("select * from {delivery_log}")) == 2, "told once"


def test_a_purpose_that_is_not_mapped_has_nobody_agreed_to(desk):
    desk.purposes = ("analytics",)
    desk.consent = ADVERTISING
    put_profiles(desk.warehouse, [person(1, consent=True)])
    plan = desk.plan(0)
    assert (plan.total, plan.withheld) == (0, 1)
    assert desk.preview(0).withheld == {"no consent to analytics": 1}
    desk.consent = Consent(purposes={"analytics": "consent"})
    assert keys(desk.day(1)) == ["1"]
    assert desk.states() == {person(1)["email"]: "accepted"}


def test_all_purposes_are_needed(desk):
    desk.purposes = ("analytics",)
    desk.can(purposes=("advertising",))
    desk.consent = Consent(purposes={"advertising": "consent", "analytics": "agreed"})
    put_profiles(desk.warehouse, [person(n, consent=True) for n in (1, 2)])
    with desk.warehouse.session() as session:
        session.execute(f"alter table {desk.warehouse.table('profiles')} add column agreed boolean")
        session.execute(f"update {desk.warehouse.table('profiles')} set agreed = (profile_id = 2)")
    assert keys(desk.day(0)) == ["2"]
    assert desk.preview(0).withheld == {"no consent to analytics": 1}


def test_a_purpose_that_the_destination_does_not_need_is_not_asked_for(desk):
    desk.consent = ADVERTISING
    put_profiles(desk.warehouse, [person(1, consent=False)])
    assert keys(desk.day(0)) == ["1"]


def test_a_suppressed_profile_goes_nowhere_and_leaves_a_mirror(desk):
    desk.consent = Consent(suppressed=("consent",))
    put_profiles(desk.warehouse, [person(1, consent=None), person(2, consent=False)])
    assert keys(desk.day(0)) == ["1", "2"]
    put_profiles(desk.warehouse, [person(1, consent=True), person(2, consent=False)])
    assert sent(desk.day(1)) == [("remove", person(1)["email"])]
    assert desk.states()["profile_id=1"] == "withheld"
    assert desk.day(2) == []
    put_profiles(desk.warehouse, [person(1), person(2)])
    assert sent(desk.day(3)) == [("upsert", person(1)["email"])]
    assert "profile_id=1" not in desk.states()


def test_the_next_profile_with_the_key_is_sent_instead_of_a_withheld_one(desk):
    desk.consent = Consent(suppressed=("consent",))
    put_profiles(desk.warehouse, [person(1, consent=True), person(2, email=person(1)["email"])])
    (record,) = desk.day(0)
    assert record.profile_id == 2


def test_another_reason_is_news(desk):
    desk.consent = Consent(suppressed=("consent",), purposes={})
    put_profiles(desk.warehouse, [person(1, consent=True), person(2, email=None)])
    desk.plan(0)
    put_profiles(desk.warehouse, [person(1, email=None), person(2, email=None, consent=True)])
    plan = desk.plan(1)
    assert (plan.invalid, plan.withheld) == (1, 1)
    logged = desk.rows("select profile_id, outcome, reason from {delivery_log} order by window_end, 1")
    withheld, invalid = ("withheld", "suppressed by consent"), ("invalid", "the key is empty")
    assert logged == [(1, *withheld), (2, *invalid), (1, *invalid), (2, *withheld)]


def test_what_shall_decide_has_to_be_there(desk):
    put_profiles(desk.warehouse, [person(1)])
    for column, found in (("agreed", "is missing"), ("orders", "is bigint there")):
        assert (column in COLUMNS) is (column == "orders")
        desk.consent = Consent(suppressed=(column,))
        with pytest.raises(ConfigurationError, match=f"column {column} of the table profiles.* {found}"):
            desk.plan(0)
