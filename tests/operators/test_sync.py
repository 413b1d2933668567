# SPDX-License-Identifier: Apache-2.0
"""Long waits give the worker slot back, a killed task loses no answer, and people have a say in removals."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from cdp_provider.core.exceptions import ConfigurationError, NotFoundError, RateLimitedError, RetryableError
from cdp_provider.core.project.activation import Consent
from cdp_provider.operators.approve import ApproveRemovalsOperator, AskRemovalsOperator
from cdp_provider.operators.sync import SyncAudienceOperator
from cdp_provider.testing.vendor import VendorServer
from tests.airflow_env import context_of
from tests.core.activation.scene import PROFILES, mail, newsletter, person, put_profiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.warehouse import Warehouse

NOW = datetime(2026, 7, 2, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
YES = {"chosen_options": ["Approve"], "params_input": {}, "responded_by_user": {"id": "1", "name": "jo"}}
NO = {**YES, "chosen_options": ["Reject"]}


def build(operator: type[Any] = SyncAudienceOperator, *, batch: int = 1, **arguments: Any) -> Any:
    given = {"sync": newsletter(), "destination": mail(batch=batch), "profiles": PROFILES}
    return operator(task_id="t", warehouse_conn_id="wh", **{**given, **arguments})


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[VendorServer]:
    with VendorServer() as server:
        connection = {"conn_type": "cdp_destination", "host": server.url, "password": "shop-mail-token"}
        monkeypatch.setenv("AIRFLOW_CONN_SHOP_MAIL", json.dumps(connection))
        yield server


@pytest.fixture
def people(warehouse: Warehouse, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Three members of the segment."""
    monkeypatch.setattr("cdp_provider.operators.base.CdpOperator.warehouse", warehouse)
    put_profiles(warehouse, [person(1, consent=True), person(2, consent=False), person(3)])
    return warehouse


def emails(*numbers: int) -> set[str]:
    return {person(number)["email"] for number in numbers}


@pytest.mark.usefixtures("people")
def test_it_delivers_and_says_so(vendor: VendorServer) -> None:
    assert build().execute(context_of(NOW))["accepted"] == 3
    assert set(vendor.contacts("news")) == emails(1, 2, 3)
    sent = len(vendor.requests("/mail"))
    assert build().execute(context_of(NOW))["state"] == "ok"
    assert len(vendor.requests("/mail")) == sent


@pytest.mark.usefixtures("people")
def test_a_long_wait_defers_and_goes_on(vendor: VendorServer) -> None:
    operator = build()
    vendor.inject("/mail", status=429, headers={"Retry-After": "3600"}, times=3)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context_of(NOW))
    assert isinstance(deferred.value.trigger, DateTimeTrigger)
    assert deferred.value.kwargs == {"deferrals": 1}
    seen = len(vendor.requests("/mail"))
    with pytest.raises(TaskDeferred) as again:  # too early: the account is still blocked
        operator.resume_execution(
            deferred.value.method_name, {"deferrals": 1, "event": None}, context_of(NOW)
        )
    assert again.value.kwargs == {"deferrals": 2}
    assert len(vendor.requests("/mail")) == seen


@pytest.mark.usefixtures("people")
def test_it_does_not_wait_for_ever(vendor: VendorServer) -> None:
    operator = build()
    vendor.inject("/mail", status=429, headers={"Retry-After": "3600"}, times=3)
    with pytest.raises(RateLimitedError):
        operator.resume(context_of(NOW), deferrals=operator.max_deferrals)


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"destination_conn_id": "nowhere"}, "no Airflow connection 'nowhere', which is to be a destination"),
        ({"limits_conn_id": "nowhere"}, "no Airflow connection 'nowhere'"),
    ],
)
def test_connections_that_are_not_there(wrong: dict[str, str], message: str) -> None:
    with pytest.raises(NotFoundError, match=message):
        build(**wrong).execute(context_of(NOW))


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("name", ["only_preview", "full_resync"])
def test_what_is_neither_yes_nor_no(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is 'maybe'; give true or false"):
        build(**{name: "maybe"}).execute(context_of(NOW))


def test_a_preview_sends_nothing_and_its_asset_gets_no_event(people: Warehouse, vendor: VendorServer) -> None:
    operator = build(only_preview="True", outlets=[Asset("shop/syncs/newsletter")])
    found = operator.execute(context_of(NOW))
    assert found["creates"] == 3
    assert operator.outlets == []
    assert not vendor.requests("/mail")
    with people.session() as session:
        assert session.scalar(f"select count(*) from {people.table('sync_ledger')}") == 0
    json.dumps(found)
    assert build(only_preview=False).execute(context_of(NOW))["accepted"] == 3


@pytest.mark.usefixtures("people")
def test_a_full_resync_sends_what_has_not_changed(vendor: VendorServer) -> None:
    build(batch=100).execute(context_of(NOW))
    for given, more in (("False", 0), ("True", 1)):
        sent = len(vendor.requests("/mail"))
        operator = build(batch=100, full_resync=given)
        operator.execute(context_of(LATER, run_id=f"run-{given}"))
        assert len(vendor.requests("/mail")) == sent + more


@pytest.mark.usefixtures("people")
def test_a_preview_of_a_full_resync_counts_what_has_not_changed() -> None:
    build().execute(context_of(NOW))
    for given, more in (("False", 0), ("True", 3)):
        operator = build(only_preview="True", full_resync=given)
        assert operator.execute(context_of(LATER, run_id="resync"))["updates"] == more


@pytest.mark.usefixtures("people")
def test_consent_is_asked_for(vendor: VendorServer) -> None:
    destination = mail().model_copy(update={"purposes": ("newsletters",)})
    build(destination=destination, consent=Consent(purposes={"newsletters": "consent"})).execute(
        context_of(NOW)
    )
    assert set(vendor.contacts("news")) == emails(1)
    build(destination=destination).execute(context_of(LATER, run_id="later"))
    assert set(vendor.contacts("news")) == set()


def test_a_killed_task_has_the_answers_of_what_it_sent(
    warehouse: Warehouse, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdp_provider.operators.base.CdpOperator.warehouse", warehouse)
    put_profiles(warehouse, [person(number) for number in range(1, 201)])
    vendor.inject("/mail", delay=0.2, times=None)
    operator = build(destination=mail(batch=1, rate=100))

    def kill() -> None:
        until = time.monotonic() + 10
        while not vendor.requests("/mail") and time.monotonic() < until:
            time.sleep(0.02)
        operator.on_kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RetryableError):
        operator.execute(context_of(NOW))
    killer.join()
    arrived = len(vendor.contacts("news"))
    assert 0 < arrived < 200
    with warehouse.session() as session:
        ledger = warehouse.table("sync_ledger")
        assert session.scalar(f"select count(*) from {ledger} where state = 'accepted'") == arrived
    vendor.clear_faults()
    assert build(destination=mail(batch=100)).execute(context_of(NOW))["accepted"] == 200


class Removal:
    """A mirror that may remove a fifth by itself, of whose ten members five have left."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.sync = newsletter(approve_above=0.2)
        put_profiles(warehouse, [person(number) for number in range(1, 11)])
        build(sync=self.sync, batch=100).execute(context_of(NOW))
        changed = [person(number, out=number > 5) for number in range(1, 12)]
        put_profiles(warehouse, [*changed[:10], person(11)])

    def ask(self, **arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = build(AskRemovalsOperator, sync=self.sync, **arguments).execute(
            context_of(LATER, run_id="later")
        )
        return found

    def run(self, approval: Any) -> dict[str, Any]:
        operator = build(sync=self.sync, batch=100, approval=approval)
        report: dict[str, Any] = operator.execute(context_of(LATER, run_id="later"))
        return report


def test_many_removals_are_asked_about(people: Warehouse) -> None:
    found = Removal(people).ask()
    for words in ("would remove 5 of the 10 records", "`mail`", "(50.0%)", "More than 20.0%", "Reject"):
        assert words in found["review"]
    assert "@" not in json.dumps(found)
    with pytest.raises(AirflowSkipException):
        ApproveRemovalsOperator(task_id="a", proposed={**found, "review": ""}).execute(context_of(LATER))


def test_few_removals_and_previews_are_not(people: Warehouse) -> None:
    removal = Removal(people)
    assert removal.ask(only_preview="True") == {"review": ""}
    removal.sync = newsletter(approve_above=0.5)
    assert removal.ask()["review"] == ""


@pytest.mark.parametrize(
    ("approval", "left"),
    [(None, range(1, 12)), (NO, range(1, 12)), (YES, (1, 2, 3, 4, 5, 11))],
)
def test_removals_wait_for_an_approval_and_upserts_do_not(
    people: Warehouse, vendor: VendorServer, approval: Any, left: Any
) -> None:
    removal = Removal(people)
    removal.run(approval)
    assert set(vendor.contacts("news")) == emails(*left)
    removal.run(YES)
    assert set(vendor.contacts("news")) == emails(1, 2, 3, 4, 5, 11)


@pytest.mark.parametrize("operator", [SyncAudienceOperator, AskRemovalsOperator])
def test_template_fields_are_attributes(operator: Any) -> None:
    made = build(operator)
    assert [name for name in operator.template_fields if not hasattr(made, name)] == []
