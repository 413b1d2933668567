# SPDX-License-Identifier: Apache-2.0
"""Iterable: user profiles in bulk, and members of a static list.

https://api.iterable.com/api/docs
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
    Outcome,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.fit import operation_problems, parameter_problems
from cdp_provider.core.activation.destinations.jobs import part
from cdp_provider.core.auth import Auth
from cdp_provider.core.exceptions import DataError
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Options
from cdp_provider.core.project.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Operation, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync

#: What ``failedUpdates`` calls its lists, without ``Emails`` or ``UserIds`` -> reason.
_REASONS = {
    "invalid": "the identifier is malformed",
    "invalidData": "a field has a value of the wrong type",
    "conflict": "another user has this identifier",
    "forgotten": "the user was forgotten (GDPR)",
    "notFound": "there is no such user",
}

#: Who is not there is on no list.
_GONE = frozenset({"forgotten", "notFound"})

_LIMIT = Limits((Rate(requests=5, per=timedelta(seconds=1)),))


class IterableOptions(Options):
    """Users of a project.

    :param list: id of a static list: upserts subscribe to it, removals unsubscribe from it.
    :param identifier: what the sync's key is to Iterable.
    :param create_fields: whether fields that the project does not know are created; left out, the project's
        own setting holds.
    """

    needs_connection: ClassVar[bool] = True

    list: int | str | None = None
    identifier: Literal["email", "user_id"] = "email"
    create_fields: bool | None = None

    @property
    def operations(self) -> frozenset[Operation]:
        """What can be done: only lists let go of anybody."""
        return frozenset({"upsert"} if self.list is None else {"upsert", "remove"})

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that Iterable lacks, a removal without a list, a list that is no number."""
        yield from operation_problems(sync, self.operations)
        yield from parameter_problems(sync, self.places())
        texts = {name: sync.parameters[name] for name in self.places() & sync.parameters.keys()}
        if self.list is not None and not self.places():
            texts["list"] = str(self.list)
        for name, text in sorted(texts.items()):
            if not text.isdecimal():
                message = f"{name} is {text!r}, and the id of a list of Iterable is a whole number"
                place = ("parameters", name) if name in sync.parameters else ("destination",)
                yield Problem(place, message, "copy the id from the list's page in Iterable")


class IterableDestination(DestinationKind):
    """Users of Iterable: one request per batch, and its answer names those that failed."""

    options = IterableOptions
    auth = Auth("header", "Api-Key")
    base_url = "https://api.iterable.com"
    limits: ClassVar = {"": _LIMIT, "lists": _LIMIT}
    limits_source = "https://api.iterable.com/api/docs"

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("IterableOptions", destination.options)
        self._key = "email" if self._options.identifier == "email" else "userId"
        given = self._options.list
        self._list = None if given is None else int(self.filled(str(given)))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            self._options.operations,
            max_batch=1_000,
            max_bytes=4_000_000,
            folds_keys=self._key == "email",
        )

    def item(self, operation: Operation, record: Record) -> Any:
        item: dict[str, Any] = {self._key: str(record.key)}
        if operation == "remove":
            return item
        if record.fields:
            item["dataFields"] = record.fields
        if self._key == "userId":
            # Without it, a project that knows its users by e-mail creates nobody by id.
            item["preferUserId"] = True
        return item

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        users = b",".join(items)
        if self._list is not None:
            path = "/api/lists/unsubscribe" if operation == "remove" else "/api/lists/subscribe"
            return Request(
                "POST", path, b'{"listId":%d,"subscribers":[%b]}' % (self._list, users), limit="lists"
            )
        create = self._options.create_fields
        told = b"" if create is None else b'"createNewFields":%b,' % (b"true" if create else b"false")
        return Request("POST", "/api/users/bulkUpdate", b'{%b"users":[%b]}' % (told, users))

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        answer = body_of(response)
        failed = answer.get("failCount")
        if not isinstance(failed, int):
            msg = f"{response.method} {response.path} answered {response.status} without failCount"
            raise DataError(msg)
        reasons = self._reasons(part(answer, "failedUpdates"), records)
        if failed > sum(reason is not None for reason in reasons):
            msg = f"{failed} users failed, and the answer does not name all of them"
            raise Refused(msg, response.status)
        return [_outcome(operation, reason) for reason in reasons]

    def inspect(self, response: Response) -> None:
        if response.status == 400 and (body := error_body(response)) and "msg" in body:
            reason = f"{body.get('code')}: {body['msg']}"
            raise Refused(without_values(reason), response.status)

    def _reasons(self, lists: Mapping[str, Any], records: Sequence[Record]) -> list[str | None]:
        """What the lists of failures call the failure of each record; None for no failure."""
        suffix, fold = ("Emails", str.casefold) if self._key == "email" else ("UserIds", str)
        named: dict[str, str] = {}
        for why in _REASONS:
            found = lists.get(why + suffix)
            named |= {fold(str(key)): why for key in (found if isinstance(found, list) else ())}
        return [named.get(fold(str(record.key))) for record in records]


def _outcome(operation: Operation, why: str | None) -> Outcome:
    if why is None or (operation == "remove" and why in _GONE):
        return ACCEPTED
    return Outcome("rejected", f"refused as {why}: {_REASONS[why]}")
