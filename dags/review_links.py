# SPDX-License-Identifier: Apache-2.0
"""Customers with two accounts: splink proposes pairs, a person decides, identity resolution takes them in."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from cdp_provider.core.ingest.files import FileOptions
from cdp_provider.core.project.fuzzy import Fuzzy
from cdp_provider.core.project.identity import Identifier, Identity
from cdp_provider.core.project.profiles import ProfileField, Profiles
from cdp_provider.core.project.streams import Column, Stream
from cdp_provider.operators.check_contract import CheckContractOperator
from cdp_provider.operators.fuzzy import AcceptLinksOperator, ProposeLinksOperator, ReviewLinksOperator
from cdp_provider.operators.identity import ResolveIdentityOperator
from cdp_provider.operators.ingest import IngestOperator
from cdp_provider.operators.profiles import BuildProfilesOperator

WAREHOUSE = {"warehouse_conn_id": "cdp_warehouse", "schema": "accounts"}
COMPARED = ("first_name", "last_name", "country", "email", "phone")

ACCOUNTS = Stream(
    source="crm",
    name="accounts",
    primary_key=("customer_id",),
    columns={"customer_id": Column(required=True), **{name: Column() for name in COMPARED}},
    identifiers={"user_id": "customer_id"},
    options=FileOptions(path="crm/customers.ndjson", format="ndjson"),
)
IDENTITY = Identity(
    identifiers={"user_id": Identifier(limit=3)},
    fuzzy=Fuzzy(
        compare={
            **{"first_name": "name", "last_name": "name", "country": "exact"},
            **{"email": "exact", "phone": "code"},
        },
        block_on=("email", "phone", ("last_name", "first_name")),
        accept_from=0.99,
    ),
)
PROFILES = Profiles(
    fields={name: ProfileField(sources=(f"{ACCOUNTS.ref}.{name}",)) for name in COMPARED},
)

with DAG("review_links", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), max_active_runs=1):
    who = {"identity": IDENTITY, "streams": [ACCOUNTS], **WAREHOUSE}
    propose = ProposeLinksOperator(task_id="propose", identity=IDENTITY, **WAREHOUSE)
    review = ReviewLinksOperator(task_id="review", proposed=propose.output)
    accept = AcceptLinksOperator(
        task_id="accept", identity=IDENTITY, answer=review.output, trigger_rule="none_failed", **WAREHOUSE
    )
    (
        IngestOperator(task_id="land", stream=ACCOUNTS, source_conn_id="shop_files", **WAREHOUSE)
        >> CheckContractOperator(task_id="check", stream=ACCOUNTS, **WAREHOUSE)
        >> ResolveIdentityOperator(task_id="resolve", **who)
        >> BuildProfilesOperator(task_id="profiles", profiles=PROFILES, streams=[ACCOUNTS], **WAREHOUSE)
        >> propose
        >> review
        >> accept
        >> ResolveIdentityOperator(task_id="take_in", **who)
    )
