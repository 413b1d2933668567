# SPDX-License-Identifier: Apache-2.0
"""A Kafka client's settings out of an Airflow connection, as Airflow's own provider reads it."""

from __future__ import annotations

from typing import Any

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.hooks.connections import find


def kafka_config(conn_id: str) -> dict[str, Any]:
    """The settings that a connection of type ``kafka`` has in its extra, callbacks resolved.

    :raises ConfigurationError: the provider is not installed, or the connection names no brokers.
    """
    connection = find(conn_id, ("kafka",), "a source of type kafka")
    try:
        from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook
    except ImportError as error:
        msg = (
            "a connection of type kafka needs Airflow's provider for Kafka, which is not installed:"
            " pip install 'airflow-provider-cdp[kafka]'"
        )
        raise ConfigurationError(msg) from error

    class Settings(KafkaBaseHook):  # type: ignore[misc, unused-ignore]
        """Builds the client's settings, and no client."""

        def _get_client(self, config: dict[str, Any]) -> dict[str, Any]:
            return config

    if not connection.extra_dejson.get("bootstrap.servers"):
        msg = (
            f"the Airflow connection {conn_id!r} is wrong: its extra names no bootstrap.servers; write"
            ' {"bootstrap.servers": "broker:9092"}'
        )
        raise ConfigurationError(msg)
    try:
        return dict(Settings(conn_id).get_conn)  # type: ignore[no-untyped-call]
    except ValueError as error:  # a callback that nobody has allowed
        msg = f"the Airflow connection {conn_id!r} is wrong: {error}"
        raise ConfigurationError(msg) from error
