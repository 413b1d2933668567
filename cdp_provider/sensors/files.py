# SPDX-License-Identifier: Apache-2.0
"""Wait until files have arrived."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.bases.sensor import PokeReturnValue

from cdp_provider.core.exceptions import ConfigurationError, RetryableError
from cdp_provider.operators.base import CDP_RETRY_POLICY
from cdp_provider.triggers.files import Awaited, FilesTrigger, payload_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, RetryPolicy


class FilesSensor(BaseSensorOperator):
    """Waits until files match that no batch of the stream has taken yet; without a stream, until any match.

    While it waits it is deferred and holds no worker slot. Its XCom is a mapping: ``count``, ``bytes`` and
    the first hundred ``files``, each with ``name`` and ``size``.

    :param path: pattern below the folder, such as ``orders/*.csv``.
    :param source_conn_id: connection that names the folder; or
    :param root: a folder on every worker and triggerer.
    :param stream: the stream that lands these files, ``till.orders``; goes with `warehouse_conn_id`.
    :param warehouse_conn_id: connection of type ``duckdb`` or ``postgres``.
    :param schema: schema of the warehouse.
    :param at_least: so many files.
    :param settle: a file counts once two looks in a row found it the same, for storages where half a file can
        be seen. Only while deferred.
    :param deferrable: False keeps the worker slot and pokes.
    """

    template_fields: Sequence[str] = (
        "path",
        "source_conn_id",
        "root",
        "stream",
        "warehouse_conn_id",
        "schema",
    )

    def __init__(
        self,
        *,
        path: str,
        source_conn_id: str | None = None,
        root: str | None = None,
        stream: str | None = None,
        warehouse_conn_id: str | None = None,
        schema: str = "cdp",
        at_least: int = 1,
        settle: bool = False,
        deferrable: bool = True,
        retry_policy: RetryPolicy | None = CDP_RETRY_POLICY,
        **kwargs: Any,
    ) -> None:
        super().__init__(retry_policy=retry_policy, **kwargs)
        self.path = path
        self.source_conn_id = source_conn_id
        self.root = root
        self.stream = stream
        self.warehouse_conn_id = warehouse_conn_id
        self.schema = schema
        self.at_least = at_least
        self.settle = settle
        self.deferrable = deferrable

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Whether enough files are there right now."""
        try:
            files = self._awaited().look()
        except RetryableError as error:
            self.log.info("%s; looking again later", error)
            return PokeReturnValue(is_done=False)
        self.log.info("%d files wait, %d are needed", len(files), self.at_least)
        return PokeReturnValue(len(files) >= self.at_least, payload_of(files))

    def execute(self, context: Context) -> Any:
        if self.settle and not self.deferrable:
            msg = f"task {self.task_id} has settle, which only a deferrable sensor keeps; drop one of the two"
            raise ConfigurationError(msg)
        if not self.deferrable:
            return super().execute(context)
        if not self.settle and (looked := self.poke(context)):
            return looked.xcom_value
        self.defer(
            trigger=FilesTrigger(
                self.path,
                source_conn_id=self.source_conn_id,
                root=self.root,
                stream=self.stream,
                warehouse_conn_id=self.warehouse_conn_id,
                schema=self.schema,
                at_least=self.at_least,
                settle=self.settle,
                poll_interval=self.poke_interval,
            ),
            method_name=self.found.__name__,
            timeout=timedelta(seconds=self.timeout),
        )

    def found(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - as above
        """The trigger saw them."""
        self.log.info("%d files have arrived", event["count"])
        return event

    def _awaited(self) -> Awaited:
        return Awaited(
            self.path, self.source_conn_id, self.root, self.stream, self.warehouse_conn_id, self.schema
        )
