# SPDX-License-Identifier: Apache-2.0
"""Customer.io: people and their events, through the batches of the Track API, version 2.

https://docs.customer.io/integrations/api/track/tag/track_v2/
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from cdp_provider.core.activation.destinations.answers import body_of, error_body, objects, without_values
from cdp_provider.core.activation.destinations.base import (
    ACCEPTED,
    Capabilities,
    DestinationKind,
    Limits,
    Refused,
    Request,
)
from cdp_provider.core.activation.destinations.fit import by_position, field_problems, operation_problems
from cdp_provider.core.auth import Auth
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cdp_provider.core.activation.destinations.base import Operation, Outcome, Record
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.problems import Problem

_OPERATIONS: frozenset[Operation] = frozenset({"upsert", "update", "remove", "event"})
_ACTIONS = {"upsert": "identify", "update": "identify", "remove": "delete", "event": "event"}

#: From Base32's digits to Crockford's, as ULIDs have it: https://github.com/ulid/spec
_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")


class CustomerioOptions(Options):
    """People of a workspace.

    :param key: what the sync's key is to Customer.io; all but ``id`` and ``cio_id`` have to be enabled as an
        identifier in the workspace.
    """

    key: Literal["id", "email", "phone", "cio_id"] = "id"

    def sync_problems(self, sync: Sync) -> Iterator[Problem]:
        """A mode that Customer.io does not know, a field in the key's place."""
        yield from operation_problems(sync, _OPERATIONS)
        if sync.mode != "event":
            yield from field_problems(sync, (self.key, "_update"))


class Customerio(DestinationKind):
    """People of Customer.io."""

    options = CustomerioOptions
    auth = Auth("basic")
    base_url = "https://track.customer.io"
    limits: ClassVar[Mapping[str, Limits]] = {"": Limits((Rate(requests=1000, per=timedelta(seconds=1)),))}
    limits_source = "https://docs.customer.io/integrations/api/track/"

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("CustomerioOptions", destination.options)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            _OPERATIONS,
            max_batch=1000,
            max_bytes=500_000,
            max_record_bytes=32_000,
            folds_keys=self._options.key == "email",
        )

    def item(self, operation: Operation, record: Record) -> Any:
        item: dict[str, Any] = {
            "type": "person",
            "identifiers": {self._options.key: str(record.key)},
            "action": _ACTIONS[operation],
        }
        if operation == "remove":
            return item
        attributes = _attributes(record.fields)
        if operation == "update":
            attributes["_update"] = True
        if operation == "event":
            time = record.time or record.intended
            item["name"] = self.sync.event or self.sync.segment
            item["id"] = _ulid(time, f"{self.sync.name}\x1f{record.record_key}\x1f{item['name']}")
            item["timestamp"] = int(time.timestamp())
        return {**item, "attributes": attributes}

    def request(self, operation: Operation, records: Sequence[Record], items: Sequence[bytes]) -> Request:
        return Request("POST", "/api/v2/batch", b'{"batch":[%s]}' % b",".join(items))

    def outcomes(self, operation: Operation, response: Response, records: Sequence[Record]) -> list[Outcome]:
        errors = body_of(response).get("errors") or []
        if response.status != 207 and not errors:
            return [ACCEPTED] * len(records)
        outcomes = by_position(errors, records, "batch_index", _reason)
        if not errors or outcomes is None:
            # People may be identified twice, and events carry an id, so the culprit is found by halving.
            msg = "answered 207 and does not say for which records"
            raise Refused(msg, response.status)
        return outcomes

    def inspect(self, response: Response) -> None:
        if response.status == 400 and (errors := objects(error_body(response), "errors")):
            raise Refused(without_values(_reason(errors[0])), response.status)


def _attributes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Timestamps as whole seconds since 1970, which is what Customer.io's date conditions understand."""
    return {
        name: int(value.timestamp()) if isinstance(value, datetime) else value
        for name, value in fields.items()
    }


def _ulid(time: datetime, text: str) -> str:
    """The same ULID for the same moment and text: Customer.io keeps one event of each."""
    number = int(time.timestamp() * 1000) << 80
    number |= int.from_bytes(hashlib.sha256(text.encode()).digest()[:10], "big")
    # 26 digits hold 130 bits, and Base32 is cut from whole groups of five bytes.
    return base64.b32encode((number << 30).to_bytes(20, "big"))[:26].translate(_CROCKFORD).decode()


def _reason(error: Mapping[str, Any]) -> str:
    """``invalid: attribute name too long (attributes)``."""
    said = ": ".join(str(error[key]) for key in ("reason", "message") if error.get(key))
    return f"{said} ({error['field']})" if error.get("field") else said
