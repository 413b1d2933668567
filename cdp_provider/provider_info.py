# SPDX-License-Identifier: Apache-2.0
"""What Airflow discovers; imported by every Airflow process, so it imports nothing."""

from __future__ import annotations

from typing import Any

_OPERATORS = (
    "approve",
    "check_contract",
    "explain",
    "fuzzy",
    "gate",
    "identity",
    "ingest",
    "profiles",
    "replay",
    "report",
    "review",
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
        "sensors": [
            {
                "integration-name": integration,
                "python-modules": [
                    f"cdp_provider.sensors.{name}" for name in ("files", "freshness", "replication")
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": integration,
                "python-modules": [
                    f"cdp_provider.triggers.{name}" for name in ("files", "freshness", "replication")
                ],
            }
        ],
    }


def _destination() -> dict[str, Any]:
    return {
        "connection-type": "cdp_destination",
        "hook-name": "CDP destination",
        "hook-class-name": "cdp_provider.hooks.destination.DestinationHook",
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port"],
            "relabeling": {
                "host": "Base URL",
                "password": "API token or client secret",
                "login": "User or client id",
            },
            "placeholders": {"host": "https://api.example.com/v3"},
        },
        "conn-fields": {
            "auth_scheme": {
                "label": "Authentication",
                "description": "How the token travels. Left empty, as the destination's vendor wants it.",
                "schema": {
                    "type": ["string", "null"],
                    "enum": ["bearer", "basic", "header", "client_credentials", "refresh_token", None],
                },
            },
            "auth_header": {
                "label": "Header name",
                "description": "Only for 'header'; the vendor's, or X-API-Key, when left empty.",
                "schema": {"type": ["string", "null"]},
            },
            "auth_prefix": {
                "label": "Header prefix",
                "description": "Only for 'header': what stands before the token, such as 'Token '.",
                "schema": {"type": ["string", "null"]},
            },
            "token_url": {
                "label": "Token URL",
                "description": "Only for 'client_credentials' and 'refresh_token' (OAuth 2.0), with the"
                " client id as user and the client secret as token: an address or a path below the base URL.",
                "schema": {"type": ["string", "null"]},
            },
            "token_auth": {
                "label": "Client secret in",
                "description": "Only for OAuth 2.0: whether id and secret travel in the header (as HTTP"
                " basic) or in the body.",
                "schema": {"type": ["string", "null"], "enum": ["header", "body", None]},
            },
            "scope": {
                "label": "Scope",
                "description": "Only for OAuth 2.0, where the token server asks for it.",
                "schema": {"type": ["string", "null"]},
            },
            "refresh_token": {
                "label": "Refresh token",
                "description": "Only for 'refresh_token' (OAuth 2.0).",
                "schema": {"type": ["string", "null"], "format": "password"},
            },
            "verify_tls": {
                "label": "Verify TLS",
                "description": "Leave it on, except against a test server of your own.",
                "schema": {"type": "boolean", "default": True},
            },
        },
    }
