# SPDX-License-Identifier: Apache-2.0
"""Braze: attributes and custom events of users, through ``/users/track`` and ``/users/delete``.

https://www.braze.com/docs/api/endpoints/user_data/post_user_track
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from cdp_provider.core.activation.destinations.answers import body_of, error_body, without_values
from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    Limits,
    RateHeaders,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.fit import by_position, field_problems, operation_problems
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Operation, Outcome, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

#: Where ``/users/delete`` wants the keys; it wants e-mail addresses with more around them.
_DELETED_BY = {"external_id": "external_ids", "braze_id": "braze_ids"}


class BrazeOptions(Options):
    """Users of a workspace.

    :param key: what the sync's key is to Braze.
    :param app_id: the app that events are told of.
    """

    key: Literal["external_id", "braze_id", "email", "phone"] = "external_id"
    app_id: str | None = None

    @property
    def operations(self) -> frozenset[Operation]:
        """What can be done to users that are named like this."""
        able: set[Operation] = {"upsert", "update", "event"}
        return frozenset(able | {"remove"} if self.key in _DELETED_BY else able)

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that Braze does not know, a field in the key's place."""
        yield from operation_problems(sync, self.operations)
        if sync.mode != "event":
            yield from field_problems(sync, (self.key, "_update_existing_only"))


class Braze(DestinationKind):
    """Users of Braze."""

    options = BrazeOptions
    limits: ClassVar[Mapping[str, Limits]] = {
        "": Limits((Rate(requests=3000, per=timedelta(seconds=3)),)),
        "delete": Limits((Rate(requests=20_000, per=timedelta(minutes=1)),)),
    }
    limits_source = "https://www.braze.com/docs/api/api_limits"
    rate_headers = RateHeaders(
        "X-RateLimit-Remaining", "X-RateLimit-Reset", "epoch", "X-RateLimit-Retry-After"
    )

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("BrazeOptions", destination.options)

    @property
    def capabilities(self) -> Capabilities:
        removes = self.sync.mode == "mirror" and self.sync.removal == "remove"
        return Capabilities(
            self._options.operations,
            max_batch=50 if removes else 75,
            folds_keys=self._options.key == "email",
            # Each event is one more, however often it is told.
            repeatable=self.sync.mode != "event",
        )

    def item(self, operation: Operation, record: Record) -> Any:
        key = str(record.key)
        if operation == "remove":
            return key
        user = {self._options.key: key}
        if operation != "event":
            known = {"_update_existing_only": True} if operation == "update" else {}
            return {**user, **known, **record.fields}
        app = {} if self._options.app_id is None else {"app_id": self._options.app_id}
        name = self.sync.event or self.sync.segment
        time = record.time or record.intended
        return {**user, **app, "name": name, "time": time, "properties": record.fields}

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        if operation == "remove":
            body = b'{"%s":[%s]}' % (_DELETED_BY[self._options.key].encode(), b",".join(items))
            return Request("POST", "/users/delete", body, limit="delete")
        array = b"events" if operation == "event" else b"attributes"
        return Request("POST", "/users/track", b'{"%s":[%s]}' % (array, b",".join(items)))

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        answer = body_of(response)
        if answer.get("message") != "success":
            msg = f"{response.method} {response.path} answered {response.status} without message: success"
            raise DataError(msg)
        errors = answer.get("errors") or []
        if operation == "remove" and not errors:
            return [ACCEPTED] * len(records)
        outcomes = by_position(errors, records, "index", _reason)
        if outcomes is not None:
            return outcomes
        if operation == "event" and len(records) > 1:
            msg = f"{response.method} {response.path} counts errors and does not say of which events"
            raise DataError(msg)
        # Attributes may be sent twice, so the culprit is found by halving.
        raise Refused(_reason(errors[0]), response.status)

    def inspect(self, response: Response) -> None:
        if response.status == 400 and (answer := error_body(response)) is not None:
            errors = answer.get("errors") or [answer.get("message") or "refused"]
            raise Refused(_reason(errors[0]), response.status)


def _reason(error: Any) -> str:
    said = error.get("type") if isinstance(error, dict) else error
    return without_values(str(said))
