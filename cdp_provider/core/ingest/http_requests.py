# SPDX-License-Identifier: Apache-2.0
"""What an HTTP source is sent: options, moments and the place in the paging made into one request."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core.ingest.dotted import put
from cdp_provider.core.ingest.http_options import SINCE, UNTIL

if TYPE_CHECKING:
    from cdp_provider.core.ingest.http_options import HttpOptions
    from cdp_provider.core.ingest.http_window import Stretch
    from cdp_provider.core.ingest.paging import Step


@dataclass(frozen=True)
class Asked:
    """A request, ready to be sent.

    :param path: below the base URL, or a whole address.
    :param parameters: of the query.
    :param body: sent as JSON, unless None.
    """

    path: str
    parameters: dict[str, Any]
    body: Any


class Requests:
    """The requests of one stretch.

    Texts of the options are filled and what is the same for all pages is put in place once.
    """

    def __init__(self, options: HttpOptions, stretch: Stretch) -> None:
        self._options = options
        # Only with GraphQL do parameters keep a number's type; a query is text.
        self._parameters = _filled(options.parameters, stretch)
        self._body = _filled(options.body, stretch)
        self._constants = _constants(options, stretch)

    def at(self, step: Step) -> Asked:
        """The request for the page that `step` leads to.

        :raises ConfigurationError: a place leads through something that is no mapping.
        """
        values = self._constants | dict(step.values)
        path = self._options.path if step.address is None else step.address
        if self._options.graphql is not None:
            variables = _placed(self._parameters, values)
            return Asked(path, {}, {"query": self._options.graphql, "variables": variables})
        parameters = self._parameters if step.address is None else {}
        if self._options.method == "POST":
            return Asked(path, parameters, _placed(self._body or {}, values))
        return Asked(path, {**parameters, **values} if step.address is None else {}, None)


def _constants(options: HttpOptions, stretch: Stretch) -> dict[str, Any]:
    """Place -> value, for all pages of a stretch."""
    places: dict[str | None, Any] = {}
    if options.page_size:
        places[options.page_size.parameter] = options.page_size.value
    if options.window:
        places |= {options.window.start: stretch.since, options.window.end: stretch.until}
    elif options.cursor:
        places[options.cursor.parameter] = stretch.since
    return {place: value for place, value in places.items() if place is not None and value is not None}


def _placed(whole: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    whole = copy.deepcopy(whole)
    for place, value in values.items():
        put(whole, place, value)
    return whole


def _filled(value: Any, stretch: Stretch) -> Any:
    """`value` with moments in the places of its texts; a text that is nothing else becomes the moment."""
    if isinstance(value, dict):
        return {key: _filled(item, stretch) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, stretch) for item in value]
    if isinstance(value, str):
        for place, moment in ((SINCE, stretch.since), (UNTIL, stretch.until)):
            if value == place:
                return moment
            value = value.replace(place, str(moment)) if place in value else value
    return value
