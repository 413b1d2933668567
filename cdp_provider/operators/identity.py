# SPDX-License-Identifier: Apache-2.0
"""Find out which rows speak of the same person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.identity.resolve import rebuild, resolve
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
    :param replay: go through all recorded history again, whether or not anything asks for it.
    """

    def __init__(
        self, *, identity: Identity, streams: Sequence[Stream], replay: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.identity = identity
        self.streams = streams
        self.replay = replay

    def execute(self, context: Context) -> dict[str, Any]:
        step = rebuild if self.replay else resolve
        return self.publish(context, step(self.warehouse, self.identity, self.streams, run_of(context)))
