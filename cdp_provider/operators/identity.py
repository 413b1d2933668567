# SPDX-License-Identifier: Apache-2.0
"""Find out which rows speak of the same person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.identity.resolve import resolve
from cdp_provider.operators.base import CdpOperator, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.project.streams import Stream


class ResolveIdentityOperator(CdpOperator):
    """Gives every identifier of newly landed rows its profile; merges profiles that turn out to be one.

    :param identity: the rules.
    :param streams: in the project's order, which decides between rows of the same moment.
    """

    def __init__(self, *, identity: Identity, streams: Sequence[Stream], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.identity = identity
        self.streams = streams

    def execute(self, context: Context) -> dict[str, Any]:
        return self.publish(context, resolve(self.warehouse, self.identity, self.streams, run_of(context)))
