# SPDX-License-Identifier: Apache-2.0
"""Google's Data Manager API: members of an audience of Google Ads or Display & Video 360.

https://developers.google.com/data-manager/api/reference/rest/v1/audienceMembers/ingest
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from urllib.parse import quote

import orjson
from pydantic import Field

from cdp_provider.core.activation import hashing
from cdp_provider.core.activation.destinations.answers import body_of, error_body, objects
from cdp_provider.core.activation.destinations.audience import Audience, AudienceOptions
from cdp_provider.core.activation.destinations.base import ACCEPTED, Limits, Outcome, Refused, Request
from cdp_provider.core.activation.destinations.jobs import finished
from cdp_provider.core.activation.encoding import encode
from cdp_provider.core.exceptions import ConfigurationError, DataError, RateLimitedError
from cdp_provider.core.project.activation import Rate
from cdp_provider.core.project.base import Duration  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cdp_provider.core.activation.destinations.audience import Action, Person
    from cdp_provider.core.activation.destinations.base import Line, State
    from cdp_provider.core.http import Response
    from cdp_provider.core.project.activation import Destination, Sync

AccountType = Literal["GOOGLE_ADS", "DISPLAY_VIDEO_PARTNER", "DISPLAY_VIDEO_ADVERTISER", "DATA_PARTNER"]

#: Google takes an address only with all of these.
_ADDRESS = ("givenName", "familyName", "regionCode", "postalCode")
_ENDED = frozenset({"SUCCESS", "PARTIAL_SUCCESS", "FAILED", "FAILURE"})
_REASON = "PROCESSING_ERROR_REASON_"
_OF_GOOGLE = frozenset({f"{_REASON}INTERNAL_ERROR"})
#: Reading and writing have quotas of their own, and of the same size.
_QUOTA = Limits(
    (
        Rate(requests=300, per=timedelta(minutes=1)),
        Rate(requests=100_000, per=timedelta(days=1), resets="America/Los_Angeles"),
    )
)


class GoogleDataManagerOptions(AudienceOptions):
    """An audience (user list) of a Google account.

    :param operating_account: id of the account that has the audience.
    :param operating_account_type: the product that the account is of.
    :param audience: id of the audience, such as ``{audience}``, which the sync's parameters fill.
    :param login_account: id of the manager account or partner whose access is used, if it is another one.
    :param login_account_type: the product of that account; `operating_account_type` when left out.
    :param key: the identifier that the sync's key is; ``none`` if it only names the record.
    :param region: country (two letters) of phone numbers without a country code.
    :param accept_terms: declare with each request that the Customer Match terms are accepted.
    :param wait: how long a worker waits for Google to say how each member fared. Google asks for half an
        hour; what is not known by then is sent again by the next try.
    :param confirm: ask how each member fared at all; without it, a request that Google took counts.
    """

    identifiers: ClassVar = ("emailAddress", "phoneNumber", *_ADDRESS)

    operating_account: str = Field(pattern=r"^(\d+|\{\w+\})$")
    operating_account_type: AccountType = "GOOGLE_ADS"
    audience: str = Field(pattern=r"^(\d+|\{\w+\})$")
    login_account: str | None = Field(default=None, pattern=r"^\d+$")
    login_account_type: AccountType | None = None
    key: Literal["emailAddress", "phoneNumber", "none"] = "emailAddress"
    region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    accept_terms: bool = False
    wait: Duration = timedelta(hours=2)
    confirm: bool = True


class GoogleDataManager(Audience):
    """A request is taken as a whole or not at all; how its members fared is asked for later."""

    options = GoogleDataManagerOptions
    base_url = "https://datamanager.googleapis.com"
    connection_types = ("google_cloud_platform", "http")
    limits: ClassVar[Mapping[str, Limits]] = {"": _QUOTA, "status": _QUOTA}
    limits_source = "https://developers.google.com/data-manager/api/devguides/limits"

    def __init__(self, destination: Destination, sync: Sync) -> None:
        super().__init__(destination, sync)
        self._options = cast("GoogleDataManagerOptions", destination.options)

    def person(self, values: Mapping[str, Any]) -> Person:
        person: Person = {}
        if text := hashing.email(str(values.get("emailAddress", "")), gmail=True):
            person["emailAddress"] = hashing.sha256(text)
        if text := hashing.phone(str(values.get("phoneNumber", "")), self._options.region):
            person["phoneNumber"] = hashing.sha256(text)
        given, family, region, code = (str(values.get(name, "")) for name in _ADDRESS)
        first, last = hashing.plain_name(given), hashing.plain_name(family)
        country = hashing.country(region)
        if first and last and country and code.strip():
            person["address"] = {
                "givenName": hashing.sha256(first),
                "familyName": hashing.sha256(last),
                "regionCode": country,
                "postalCode": code.strip(),
            }
        return person

    def written(self, action: Action, person: Person) -> list[Person]:
        return [{name: value} for name, value in person.items()]

    def remembered(self, item: bytes) -> str:
        return item.decode()

    def recalled(self, sent: str) -> Person:
        return {name: value for identifier in orjson.loads(sent) for name, value in identifier.items()}

    async def send(self, line: Line, action: Action, items: Sequence[bytes]) -> list[Outcome]:
        response = await line.send(self._request(action, items), records=len(items))
        request_id = body_of(response).get("requestId")
        if not isinstance(request_id, str):
            msg = f"{response.method} {response.path} answered {response.status} without a requestId"
            raise DataError(msg)
        if not self._options.confirm:
            return [ACCEPTED] * len(items)
        return await self._confirmed(line, request_id, len(items))

    def inspect(self, response: Response) -> None:
        if response.status < 400:
            return
        error = (error_body(response) or {}).get("error")
        details = objects(error, "details")
        what = f"{response.method} {response.path} answered {response.status}"
        if response.status == 429:
            delays = [str(detail.get("retryDelay", "")).removesuffix("s") for detail in details]
            seconds = [float(delay) for delay in delays if delay.replace(".", "", 1).isdecimal()]
            msg = f"{what}: the project's quota is used up"
            raise RateLimitedError(msg, retry_after=max(seconds, default=None))
        if response.status == 400:
            faults = [fault for detail in details for fault in objects(detail, "fieldViolations")]
            reasons = {str(detail["reason"]) for detail in details if "reason" in detail}
            told = ", ".join(
                sorted({f"{f.get('reason', 'wrong')} at {f.get('field')}" for f in faults} or reasons)
            )
            if faults and not any("member" in str(fault.get("field")).lower() for fault in faults):
                msg = f"{what}: {told}; check the options operating_account and audience"
                raise ConfigurationError(msg)
            raise Refused(told or "INVALID_ARGUMENT", response.status)

    def _request(self, action: Action, items: Sequence[bytes]) -> Request:
        around: dict[str, Any] = {"destinations": [self._destination()], "encoding": "HEX"}
        if action == "add":
            # Nobody comes this far who has not agreed to it; see Capabilities.purposes.
            around["consent"] = {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"}
            if self._options.accept_terms:
                around["termsOfService"] = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
        members = (
            b'{"userData":{"userIdentifiers":' + b'}},{"userData":{"userIdentifiers":'.join(items) + b"}}"
        )
        body = encode(around)[:-1] + b',"audienceMembers":[' + members + b"]}"
        call = "ingest" if action == "add" else "remove"
        return Request("POST", f"/v1/audienceMembers:{call}", body)

    def _destination(self) -> dict[str, Any]:
        options = self._options
        account = self.filled(options.operating_account)
        operating = {"accountType": options.operating_account_type, "accountId": account}
        destination: dict[str, Any] = {
            "operatingAccount": operating,
            "productDestinationId": self.filled(options.audience),
        }
        if options.login_account:
            kind = options.login_account_type or options.operating_account_type
            destination["loginAccount"] = {"accountType": kind, "accountId": options.login_account}
        return destination

    async def _confirmed(self, line: Line, request_id: str, size: int) -> list[Outcome]:
        """How each member of a request fared, once Google knows."""
        path = f"/v1/requestStatus:retrieve?requestId={quote(request_id, safe='')}"
        ask = Request("GET", path, limit="status")
        answer = await finished(line, ask, lambda body: _status(body) in _ENDED, self._options.wait)
        if answer is None:
            return [Outcome("ambiguous", "Google still works on it; raise the option wait")] * size
        errors = objects(objects(answer, "requestStatusPerDestination")[0].get("errorInfo"), "errorCounts")
        return _fared(errors, _status(answer), size)


def _status(answer: Mapping[str, Any]) -> str:
    """Of the request's only destination."""
    told = objects(answer, "requestStatusPerDestination")
    return str(told[0].get("requestStatus")) if told else "PROCESSING"


def _fared(errors: Sequence[Mapping[str, Any]], status: str, size: int) -> list[Outcome]:
    refused: dict[int, Outcome] = {}
    unnamed = 0
    for error in errors:
        reason, told = str(error.get("reason")), str(error.get("recordCount", 0))
        count = int(told) if told.isdecimal() else size
        state: State = "retryable" if reason in _OF_GOOGLE else "rejected"
        outcome = Outcome(state, f"Google refused it: {reason.removeprefix(_REASON)}")
        indices = error.get("recordIndices")
        places = indices if isinstance(indices, list) else range(size) if count >= size else ()
        refused |= dict.fromkeys(places, outcome)
        unnamed += 0 if places else count
    rest = ACCEPTED
    if unnamed or status in {"FAILED", "FAILURE"}:
        rest = Outcome("retryable", f"{status}: Google does not say which members it refused")
    return [refused.get(place, rest) for place in range(size)]
