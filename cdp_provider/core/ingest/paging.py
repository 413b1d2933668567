# SPDX-License-Identifier: Apache-2.0
"""How an HTTP API is asked for the next page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from urllib.parse import urljoin

from pydantic import Field

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.ingest.dotted import dig
from cdp_provider.core.project.base import Model

if TYPE_CHECKING:
    from collections.abc import Mapping

_LINK = re.compile(r'<([^<>]*)>((?:[^",<]|"[^"]*")*)')
_REL = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)


@dataclass(frozen=True)
class Step:
    """What tells the request for one page from those for the others.

    :param values: what is put into the request, by place.
    :param address: where it goes instead of the stream's path; it brings its own query.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    address: str | None = None


@dataclass(frozen=True)
class Page:
    """What was answered.

    :param url: that was asked, without its query.
    :param headers: by lower-case name.
    """

    step: Step
    url: str
    headers: Mapping[str, str]
    answer: Any
    records: list[Any]


class _Paging(Model):
    """What all kinds share."""

    def first(self) -> Step:
        """The request for the first page."""
        return Step()

    def following(self, page: Page) -> Step | None:
        """The request for the page after `page`; None when that was the last one.

        :raises DataError: the answer is not what the options say.
        """
        return self._next(page)

    def _next(self, page: Page) -> Step | None:
        raise NotImplementedError


class _Flagged(_Paging):
    """An answer may say that it is the last one.

    :param more: dotted path of a boolean; false ends the paging.
    :param done: dotted path of a boolean; true ends the paging.
    """

    more: str | None = None
    done: str | None = None

    def following(self, page: Page) -> Step | None:
        if self.done is not None and dig(page.answer, self.done) is True:
            return None
        more = dig(page.answer, self.more) if self.more is not None else True
        if more is False:
            return None
        following = self._next(page)
        # A misspelt path would end the reading after the first page, and nobody would know.
        if following is not None and more is not True:
            msg = (
                f"there is no boolean at {self.more!r} of the answer, but {_kind(more)}; correct paging.more"
            )
            raise DataError(msg)
        return following


class CursorPaging(_Flagged):
    """The answer names a token for the next page.

    :param next: dotted path of the token; missing, null or empty means that this was the last page.
    :param parameter: where the request carries it.
    """

    type: Literal["cursor"]
    next: str
    parameter: str

    def _next(self, page: Page) -> Step | None:
        token = dig(page.answer, self.next)
        if token is None or token == "" or token is False:
            return None
        if not isinstance(token, str | int):
            msg = f"the paging token at {self.next!r} is {_kind(token)}; correct paging.next"
            raise DataError(msg)
        return Step({self.parameter: token})


class LastRecordPaging(_Flagged):
    """The last record of a page is itself the token; a page without records is the end.

    :param field: dotted path of the token in a record.
    :param parameter: where the request carries it.
    """

    type: Literal["last_record"]
    field: str
    parameter: str

    def _next(self, page: Page) -> Step | None:
        if not page.records:
            return None
        token = dig(page.records[-1], self.field)
        if not isinstance(token, str | int) or isinstance(token, bool):
            msg = f"the last record's {self.field!r} is {_kind(token)}; correct paging.field"
            raise DataError(msg)
        return Step({self.parameter: token})


class PagePaging(_Flagged):
    """Pages are numbered; the first one without records is the end."""

    type: Literal["page"]
    parameter: str = "page"
    start: int = 1

    def first(self) -> Step:
        return Step({self.parameter: self.start})

    def _next(self, page: Page) -> Step | None:
        return Step({self.parameter: page.step.values[self.parameter] + 1}) if page.records else None


class OffsetPaging(_Flagged):
    """Records are numbered; a page without records is the end."""

    type: Literal["offset"]
    parameter: str = "offset"
    start: int = 0

    def first(self) -> Step:
        return Step({self.parameter: self.start})

    def _next(self, page: Page) -> Step | None:
        rows = len(page.records)
        return Step({self.parameter: page.step.values[self.parameter] + rows}) if rows else None


class UrlPaging(_Flagged):
    """The answer holds the address of the next page, on the same host.

    :param next: dotted path of the address; missing, null or empty means that this was the last page.
    """

    type: Literal["next_url"]
    next: str

    def _next(self, page: Page) -> Step | None:
        address = dig(page.answer, self.next)
        if not address:
            return None
        if not isinstance(address, str):
            msg = f"the next address at {self.next!r} is {_kind(address)}; correct paging.next"
            raise DataError(msg)
        return Step(address=urljoin(page.url, address))


class LinkPaging(_Paging):
    """The header ``Link`` holds the address of the next page (RFC 8288, ``rel="next"``), on the same host."""

    type: Literal["link"]

    def _next(self, page: Page) -> Step | None:
        for address, parameters in _LINK.findall(page.headers.get("link", "")):
            relation = _REL.search(parameters)
            if relation and "next" in (relation[1] or relation[2]).lower().split():
                return Step(address=urljoin(page.url, address))
        return None


class NoPaging(_Paging):
    """One answer holds everything."""

    type: Literal["none"] = "none"

    def _next(self, page: Page) -> Step | None:
        return None


Paging: TypeAlias = Annotated[
    CursorPaging | LastRecordPaging | PagePaging | OffsetPaging | LinkPaging | UrlPaging | NoPaging,
    Field(discriminator="type"),
]


def _kind(value: Any) -> str:
    return type(value).__name__
