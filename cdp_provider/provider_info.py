# SPDX-License-Identifier: Apache-2.0
"""What Airflow discovers; imported by every Airflow process, so it imports nothing."""

from __future__ import annotations

from typing import Any

_OPERATORS = (
    "check_contract",
    "explain",
    "fuzzy",
    "gate",
    "identity",
    "ingest",
    "profiles",
    "report",
    "segments",
    "sync",
)


def get_provider_info() -> dict[str, Any]:
    """The provider's description, in the shape that Airflow's ``provider_info`` schema demands."""
    integration = "Customer data platform"
    return {
        "package-name": "airflow-provider-cdp",
        "name": "Customer data platform",
        "description": "A customer data platform that runs inside Airflow, in your own warehouse.",
        "versions": ["0.1.0"],
        "integrations": [{"integration-name": integration, "tags": ["service"]}],
        "connection-types": [_destination()],
        "hooks": [
            {
                "integration-name": integration,
                "python-modules": [f"cdp_provider.hooks.{n}" for n in ("destination", "source", "warehouse")],
            }
        ],
        "operators": [
            {
                "integration-name": integration,
                "python-modules": [f"cdp_provider.operators.{name}" for name in _OPERATORS],
            }
        ],
        "sensors": [{"integration-name": integration, "python-modules": ["cdp_provider.sensors.freshness"]}],
        "triggers": [
            {"integration-name": integration, "python-modules": ["cdp_provider.triggers.freshness"]}
        ],
    }


def _destination() -> dict[str, Any]:
    return {
        "connection-type": "cdp_destination",
        "hook-name": "CDP destination",
        "hook-class-name": "cdp_provider.hooks.destination.DestinationHook",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port"],
            "relabeling": {"host": "Base URL", "password": "API token", "login": "User (basic only)"},
            "placeholders": {"host": "https://api.example.com/v3"},
        },
        "conn-fields": {
            "auth_scheme": {
                "label": "Authentication",
                "description": "How the token travels: Authorization: Bearer, user and token as HTTP basic,"
                " or a header of its own.",
                "schema": {"type": "string", "enum": ["bearer", "basic", "header"], "default": "bearer"},
            },
            "auth_header": {
                "label": "Header name",
                "description": "Only for the authentication 'header'; X-API-Key when left empty.",
                "schema": {"type": ["string", "null"]},
            },
            "verify_tls": {
                "label": "Verify TLS",
                "description": "Leave it on, except against a test server of your own.",
                "schema": {"type": "boolean", "default": True},
            },
        },
    }
