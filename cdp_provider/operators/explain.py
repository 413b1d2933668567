# SPDX-License-Identifier: Apache-2.0
"""Ask why two identifiers are one person, or what became of a profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.identity.explain import explain
from cdp_provider.core.identity.lineage import history_of
from cdp_provider.operators.base import CdpOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from cdp_provider.core.project.identity import Identity
    from cdp_provider.core.project.streams import Stream


class ExplainIdentityOperator(CdpOperator):
    """Explains two identifiers, or tells the past of a profile, as its XCom.

    The answer holds what was asked for, and identifiers are personal data: so do the XCom and the rendered
    fields of the task, for as long as Airflow keeps them. The log holds counts only.

    :param identity: the rules, as identity resolution has them; `streams` likewise.
    :param one: one ``type: value``, as a source writes it; `other` likewise.
    :param profile_id: any id that a profile ever had; instead of the two.
    """

    template_fields: Sequence[str] = (*CdpOperator.template_fields, "one", "other", "profile_id")

    def __init__(
        self,
        *,
        identity: Identity,
        streams: Sequence[Stream],
        one: Mapping[str, str] | None = None,
        other: Mapping[str, str] | None = None,
        profile_id: int | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.identity = identity
        self.streams = streams
        self.one = one
        self.other = other
        self.profile_id = profile_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - an answer belongs to no window
        if self.profile_id is not None and self.one is None and self.other is None:
            past = history_of(self.warehouse, whole(self.profile_id))
            self.log.info("The past of a profile in %d events", len(past.events))
            return past.as_dict()
        if self.profile_id is not None or self.one is None or self.other is None:
            msg = (
                "ExplainIdentityOperator takes either the two identifiers one and other, or a profile_id;"
                " give the one or the other"
            )
            raise ConfigurationError(msg)
        found = explain(self.warehouse, self.identity, self.streams, _pair(self.one), _pair(self.other))
        self.log.info(
            "%s: %d steps, %d obstacles",
            "One profile" if found.together else "Not one profile",
            len(found.steps),
            len(found.obstacles),
        )
        return found.as_dict()


def _pair(identifier: Mapping[str, str]) -> tuple[str, str]:
    if len(identifier) != 1:
        msg = (
            f"an identifier is one 'type: value', and {len(identifier)} were given: {', '.join(identifier)};"
            " ask for two at a time, as one and other"
        )
        raise ConfigurationError(msg)
    ((kind, value),) = identifier.items()
    return kind, str(value)


def whole(profile_id: int | str) -> int:
    """The id of a profile, as templates write it.

    :raises ConfigurationError: it is no whole number.
    """
    try:
        return int(profile_id)
    except ValueError:
        msg = "the profile_id is no whole number; give the id of a profile, such as 42"
        raise ConfigurationError(msg) from None
