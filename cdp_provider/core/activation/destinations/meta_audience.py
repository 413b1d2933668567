# SPDX-License-Identifier: Apache-2.0
"""Meta's custom audiences, for ads on Facebook and Instagram.

https://developers.facebook.com/docs/marketing-api/reference/custom-audience/users
"""

from __future__ import annotations

from datetime import date, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import orjson
from pydantic import Field

from cdp_provider.core.activation import hashing
from cdp_provider.core.activation.destinations.answers import body_of, error_body
from cdp_provider.core.activation.destinations.audience import Audience, AudienceOptions
from cdp_provider.core.activation.destinations.base import ACCEPTED, Limits, Outcome, Refused, Request
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    RateLimitedError,
    UnavailableError,
)
from cdp_provider.core.project.activation import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cdp_provider.core.activation.destinations.audience import Action, Person
    from cdp_provider.core.activation.destinations.base import Line
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync

#: Each of these alone tells who a person is; the others only together.
_TELLING = ("EMAIL", "PHONE", "EXTERN_ID", "MADID")
_DETAILS = "details"
_UNHASHED = frozenset({"EXTERN_ID", "MADID"})

#: https://developers.facebook.com/docs/graph-api/guides/error-handling and .../overview/rate-limiting
_THROTTLED = frozenset({4, 17, 32, 613, *range(80_000, 80_015)})
_PASSING = frozenset({1, 2})
_ACCESS = frozenset({3, 10, 102, 190, 294, *range(200, 300)})
#: Subcodes of 100: no such audience, or not ours; its use is restricted.
_AUDIENCE = frozenset({33, 1_713_230})


class MetaAudienceOptions(AudienceOptions):
    """A custom audience of a Meta ad account.

    :param audience: id of the audience, such as ``{audience}``, which the sync's parameters fill.
    :param version: version of the Graph API.
    :param key: the identifier that the sync's key is; ``none`` if it only names the record.
    :param region: country (two letters) of phone numbers without a country code.
    """

    identifiers: ClassVar = (
        *_TELLING,
        *("GEN", "DOBY", "DOBM", "DOBD", "LN", "FN", "FI", "CT", "ST", "ZIP", "COUNTRY"),
    )

    audience: str = Field(pattern=r"^(\d+|\{\w+\})$")
    version: str = Field(default="v25.0", pattern=r"^v\d+\.\d$")
    key: Literal["EMAIL", "PHONE", "EXTERN_ID", "MADID", "none"] = "EMAIL"
    region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")


class MetaAudience(Audience):
    """Rows of hashes under a schema. Meta counts the rows that it finds wrong and does not say which; such a
    batch is halved, which does no harm: a person is in an audience once."""

    options = MetaAudienceOptions
    base_url = "https://graph.facebook.com"
    limits: ClassVar[Mapping[str, Limits]] = {"": Limits((Rate(requests=190_000, per=timedelta(hours=1)),))}
    limits_source = "https://developers.facebook.com/docs/marketing-api/overview/rate-limiting"

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        options = cast("MetaAudienceOptions", destination.options)
        self._region = options.region
        named = {options.key, *sync.fields}
        self._added = tuple(name for name in MetaAudienceOptions.identifiers if name in named)
        self._path = f"/{options.version}/{self.filled(options.audience)}/users"

    def person(self, values: Mapping[str, Any]) -> Person:
        found = {name: text for name, value in values.items() if (text := self._normal(name, value))}
        hashed = {
            name: text if name in _UNHASHED else hashing.sha256(text) for name, text in sorted(found.items())
        }
        return _grouped(hashed)

    def written(self, action: Action, person: Person) -> list[str]:
        cells = {**person, **person.get(_DETAILS, {})}
        return [cells.get(name, "") for name in self._schema(action)]

    def remembered(self, item: bytes) -> str:
        return f'{{"schema":{encode(self._schema("add")).decode()},"row":{item.decode()}}}'

    def recalled(self, sent: str) -> Person:
        kept = orjson.loads(sent)
        return _grouped({name: cell for name, cell in zip(kept["schema"], kept["row"], strict=True) if cell})

    async def send(self, line: Line, action: Action, items: Sequence[bytes]) -> list[Outcome]:
        request = self._request(action, items, line.idempotency_key)
        response = await line.send(request, records=len(items))
        body = body_of(response)
        received, wrong = body.get("num_received"), body.get("num_invalid_entries")
        if not isinstance(received, int) or not isinstance(wrong, int):
            msg = f"{response.method} {response.path} answered {response.status} without num_received"
            raise DataError(msg)
        if wrong or received < len(items):
            msg = f"Meta refused {wrong} of {received} rows (num_invalid_entries)"
            raise Refused(msg, response.status)
        return [ACCEPTED] * len(items)

    def inspect(self, response: Response) -> None:
        error = (error_body(response) or {}).get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if not isinstance(error, dict) or not isinstance(code, int):
            return
        subcode = error.get("error_subcode")
        told = f"{response.method} {response.path} answered {response.status}: error {code}"
        told += f", subcode {subcode}" if subcode is not None else ""
        if code in _THROTTLED or response.status == 429:
            msg = f"{told}: the ad account's limit is used up"
            raise RateLimitedError(msg, retry_after=_regain(response))
        if code in _PASSING or error.get("is_transient") or response.status >= 500:
            msg = f"{told}: Meta has trouble of its own"
            raise UnavailableError(msg)
        if code in _ACCESS:
            msg = f"{told}: check the token and its right ads_management"
            raise AccessError(msg)
        if subcode in _AUDIENCE:
            msg = f"{told}: look at the audience in Meta's Audience Manager; does the option name it?"
            raise ConfigurationError(msg)
        raise Refused(told.partition(": ")[2], response.status)

    def _normal(self, name: str, value: Any) -> str | None:
        if isinstance(value, date) and name in _PART_OF_BIRTH:
            return format(value, _PART_OF_BIRTH[name])
        text = str(value)
        if name == "PHONE":
            number = hashing.phone(text, self._region)
            return number and number.removeprefix("+")
        return _NORMAL[name](text)

    def _schema(self, action: Action) -> tuple[str, ...]:
        """Names of a row's cells. What is taken out may have been sent when the sync mapped other fields."""
        return self._added if action == "add" else MetaAudienceOptions.identifiers

    def _request(self, action: Action, items: Sequence[bytes], key: str) -> Request:
        session = {
            "session_id": int.from_bytes(sha256(f"{action} {key}".encode()).digest()[:8]) >> 1,
            "batch_seq": 1,
            "last_batch_flag": True,
            "estimated_num_total": len(items),
        }
        around = encode({"session": session, "payload": {"schema": self._schema(action)}})
        body = around[:-2] + b',"data":[' + b",".join(items) + b"]}}"
        return Request("POST" if action == "add" else "DELETE", self._path, body)


def _grouped(cells: dict[str, str]) -> Person:
    """Those that tell who a person is one by one, the others together; empty if that is nobody."""
    person: Person = {name: cells[name] for name in _TELLING if name in cells}
    details = {name: cell for name, cell in cells.items() if name not in _TELLING}
    if details and (person or {"FN", "LN"} <= details.keys()):
        person[_DETAILS] = details
    return person


def _digits(length: int) -> Callable[[str], str | None]:
    def normal(text: str) -> str | None:
        text = text.strip().removesuffix(".0")
        return text.zfill(length) if text.isascii() and text.isdecimal() and len(text) <= length else None

    return normal


_PART_OF_BIRTH = {"DOBY": "%Y", "DOBM": "%m", "DOBD": "%d"}
_NORMAL: Mapping[str, Callable[[str], str | None]] = {
    "EMAIL": hashing.email,
    "EXTERN_ID": lambda text: text.strip() or None,
    "MADID": lambda text: text.strip().lower() or None,
    "GEN": hashing.gender,
    "DOBY": _digits(4),
    "DOBM": _digits(2),
    "DOBD": _digits(2),
    **dict.fromkeys(("LN", "FN", "CT", "ST"), hashing.name),
    "FI": lambda text: (hashing.name(text) or "")[:1] or None,
    "ZIP": hashing.postcode,
    "COUNTRY": lambda text: (code := hashing.country(text)) and code.lower(),
}


def _regain(response: Response) -> float | None:
    """Seconds until the account may go on, where the header says so; it counts in minutes."""
    try:
        usage = orjson.loads(response.headers.get("x-business-use-case-usage", ""))
        minutes = [use.get("estimated_time_to_regain_access", 0) for uses in usage.values() for use in uses]
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return None
    return max(minutes, default=0) * 60.0 or None
