# SPDX-License-Identifier: Apache-2.0
"""A stream that is made of another one: what a project may say, and where its tasks stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cdp_provider.core.project.faults import ProjectError
from cdp_provider.factory import CdpDag

if TYPE_CHECKING:
    from pathlib import Path

ITEMS = {
    "of": "crm.orders",
    "list": "items",
    "primary_key": ["order_id", "sku"],
    "columns": {"order_id": {"path": "_parent.order_id"}, "sku": "string", "parts": "json"},
}


def project_file(folder: Path, **parts: Any) -> Path:
    columns = {"order_id": "string", "email": "string", "items": "json"}
    orders = {"path": "o.csv", "format": "csv", "primary_key": "order_id", "columns": columns}
    project = {
        "project": "acme",
        "schedule": "@daily",
        "warehouse": {"connection": "wh"},
        "sources": {
            "crm": {
                "type": "files",
                "streams": {
                    "orders": {**orders, "identifiers": {"email": "email"}, **parts.pop("orders", {})}
                },
            },
            "nested": {"type": "nested", "streams": {"items": {**ITEMS, **parts}}},
        },
        "identity": {"identifiers": {"email": {"normalize": "email"}}},
        "profiles": {"fields": {"email": {"from": ["crm.orders.email"]}}},
    }
    path = folder / "cdp.yaml"
    path.write_text(yaml.safe_dump(project))
    return path


def test_a_stream_waits_for_the_one_it_is_made_of(tmp_path: Path) -> None:
    dag = CdpDag(project=project_file(tmp_path))
    assert dag.get_task("crm.check_orders").downstream_task_ids == {"gate", "nested.land_items"}
    assert dag.get_task("nested.land_items").upstream_task_ids == {"crm.check_orders"}
    assert dag.get_task("nested.land_items").stream.options.parent_key == ("order_id",)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"of": "crm.order"}, "there is no stream 'crm.order'"),
        ({"of": "orders"}, "of"),
        ({"list": "item"}, "has no column 'item'"),
        ({"list": "email"}, "is string; lists are of type json"),
        ({"parent_key": ["id"]}, "has no column 'id'"),
        ({"orders": {"optional": True}}, "crm.orders is optional"),
        ({"of": "nested.items", "list": "parts"}, "circle: nested.items -> nested.items"),
    ],
)
def test_what_a_project_may_not_say(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        CdpDag(project=project_file(tmp_path, **parts))
