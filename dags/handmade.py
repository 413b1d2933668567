# SPDX-License-Identifier: Apache-2.0
"""The steps as plain Airflow operators, without a project file, next to a task of one's own."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, task

from cdp_provider.core.ingest.files import FileOptions
from cdp_provider.core.project.identity import Identifier, Identity
from cdp_provider.core.project.profiles import Profiles, Trait
from cdp_provider.core.project.streams import Column, Stream
from cdp_provider.operators.check_contract import CheckContractOperator
from cdp_provider.operators.identity import ResolveIdentityOperator
from cdp_provider.operators.ingest import IngestOperator
from cdp_provider.operators.profiles import BuildProfilesOperator

WAREHOUSE = {"warehouse_conn_id": "cdp_warehouse", "schema": "handmade"}

ORDERS = Stream(
    source="till",
    name="orders",
    primary_key=("order_id",),
    time="ordered_at",
    columns={
        "order_id": Column(required=True),
        "email": Column(),
        "phone": Column(),
        "total": Column(type="decimal", required=True),
        "ordered_at": Column(type="timestamp", required=True),
    },
    identifiers={"email": "email", "phone": "phone"},
    options=FileOptions(path="orders/*.csv", format="csv"),
)
IDENTITY = Identity(
    identifiers={
        "email": Identifier(priority=1, normalize="email"),
        "phone": Identifier(priority=2, normalize="phone", region="DE"),
    }
)
PROFILES = Profiles(traits={"spent": Trait(type="sum", stream=ORDERS.ref, column="total")})


@task
def top_tenth() -> float:
    """What share of the revenue the best tenth of the customers brings."""
    from cdp_provider.hooks.warehouse import WarehouseHook

    warehouse = WarehouseHook(**WAREHOUSE).warehouse
    with warehouse.session() as session:
        query = f"select spent from {warehouse.table('profiles')}"  # noqa: S608 - table() quotes
        spent = session.arrow(query).to_pandas()["spent"]
    spent = spent.dropna().astype(float).sort_values(ascending=False)
    return round(float(spent.head(len(spent) // 10).sum() / spent.sum()), 3)


with DAG("handmade", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), max_active_runs=1):
    (
        IngestOperator(task_id="land", stream=ORDERS, source_conn_id="shop_files", **WAREHOUSE)
        >> CheckContractOperator(task_id="check", stream=ORDERS, **WAREHOUSE)
        >> ResolveIdentityOperator(task_id="resolve", identity=IDENTITY, streams=[ORDERS], **WAREHOUSE)
        >> BuildProfilesOperator(task_id="profiles", profiles=PROFILES, streams=[ORDERS], **WAREHOUSE)
        >> top_tenth()
    )
