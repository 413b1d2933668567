# SPDX-License-Identifier: Apache-2.0
"""A long wait for the destination gives the worker slot back, and nothing is sent twice."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.exceptions import TaskDeferred

from cdp_provider.core.activation.destinations import DESTINATIONS
from cdp_provider.core.exceptions import ConfigurationError, RateLimitedError
from cdp_provider.core.project.activation import Destination, Sync
from cdp_provider.core.project.profiles import ProfileField, Profiles
from cdp_provider.operators.sync import SyncAudienceOperator
from cdp_provider.testing.vendor import VendorServer
from tests.airflow_env import context_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdp_provider.core.warehouse import Warehouse

NOW = datetime(2026, 7, 2, tzinfo=UTC)
PROFILES = Profiles(fields={"email": ProfileField.model_validate({"from": ["crm.customers.email"]})})
SYNC = Sync(name="all_to_mail", destination="mail", key="email", parameters={"list": "news"})
MAIL = Destination(
    name="mail",
    type="http",
    connection="mail",
    rate={"requests": 20, "per": "1 second"},
    batch=1,
    options=DESTINATIONS["http"].options.model_validate(
        {
            "upsert": {"method": "POST", "path": "/mail/lists/{list}/members", "body": "members"},
            "key": "email",
            "fields": "fields",
            "answer": {
                "results": "results",
                "key": "email",
                "status": "status",
                "accepted": ["created", "updated"],
                "reason": "reason",
            },
        }
    ),
)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[VendorServer]:
    with VendorServer() as server:
        connection = {"conn_type": "cdp_destination", "host": server.url, "password": "shop-mail-token"}
        monkeypatch.setenv("AIRFLOW_CONN_MAIL", json.dumps(connection))
        yield server


@pytest.fixture
def operator(
    warehouse: Warehouse, vendor: VendorServer, monkeypatch: pytest.MonkeyPatch
) -> SyncAudienceOperator:
    table, text = warehouse.table("profiles"), warehouse.types["string"]
    with warehouse.session() as session:
        session.execute(f"create table {table} (profile_id bigint, email {text}, _as_of timestamp)")
        for number in (1, 2, 3):
            session.execute(
                f"insert into {table} (profile_id, email) values (:id, :email)",
                {"id": number, "email": f"p{number}@example.com"},
            )
    monkeypatch.setattr(SyncAudienceOperator, "warehouse", warehouse)
    return build()


def build(**arguments: Any) -> SyncAudienceOperator:
    return SyncAudienceOperator(
        task_id="t", warehouse_conn_id="wh", sync=SYNC, destination=MAIL, profiles=PROFILES, **arguments
    )


def test_it_delivers_and_says_so(operator: SyncAudienceOperator, vendor: VendorServer) -> None:
    assert operator.execute(context_of(NOW))["accepted"] == 3
    assert set(vendor.contacts("news")) == {"p1@example.com", "p2@example.com", "p3@example.com"}
    sent = len(vendor.requests("/mail"))
    assert operator.execute(context_of(NOW))["state"] == "ok"
    assert len(vendor.requests("/mail")) == sent


def test_a_long_wait_defers_and_goes_on(operator: SyncAudienceOperator, vendor: VendorServer) -> None:
    vendor.inject("/mail", status=429, headers={"Retry-After": "3600"}, times=1)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context_of(NOW))
    assert isinstance(deferred.value.trigger, DateTimeTrigger)
    assert deferred.value.kwargs == {"deferrals": 1}
    with pytest.raises(TaskDeferred) as again:  # too early: the account is still blocked
        operator.resume_execution(
            deferred.value.method_name, {"deferrals": 1, "event": None}, context_of(NOW)
        )
    assert again.value.kwargs == {"deferrals": 2}
    assert len(vendor.requests("/mail")) == 1


def test_it_does_not_wait_for_ever(operator: SyncAudienceOperator, vendor: VendorServer) -> None:
    vendor.inject("/mail", status=429, headers={"Retry-After": "3600"}, times=1)
    with pytest.raises(RateLimitedError):
        operator.resume(context_of(NOW), deferrals=operator.max_deferrals)


def test_a_destination_without_a_connection(operator: SyncAudienceOperator) -> None:
    operator = build(destination_conn_id="nowhere")
    with pytest.raises(
        ConfigurationError, match="no Airflow connection 'nowhere', which is to be a destination"
    ):
        operator.execute(context_of(NOW))
