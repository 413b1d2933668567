# SPDX-License-Identifier: Apache-2.0
"""How an HTTP API is asked for the next page."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urljoin

from pydantic import Field

from cdp_provider.core.exceptions import DataError
from cdp_provider.core.project.base import Model

#: A request that follows another: its path or URL, and its parameters.
Next: TypeAlias = tuple[str, dict[str, Any]]


def dig(value: Any, path: str) -> Any:
    """What stands at a dotted path; None where a part is missing. The empty path is the value itself."""
    for part in path.split(".") if path else ():
        value = value.get(part) if isinstance(value, dict) else None
    return value


class CursorPaging(Model):
    """The answer names a token for the next page.

    :param next: dotted path of the token; missing, null or empty means that this was the last page.
    :param parameter: query parameter that carries it.
    """

    type: Literal["cursor"]
    next: str
    parameter: str

    def first(self, path: str, parameters: dict[str, Any]) -> Next:
        return path, parameters

    def following(self, answer: Any, url: str, asked: Next, rows: int) -> Next | None:
        token = dig(answer, self.next)
        if token is None or token == "" or token is False:
            return None
        if not isinstance(token, str | int):
            msg = f"the paging token at {self.next!r} is {type(token).__name__}; correct paging.next"
            raise DataError(msg)
        return asked[0], {**asked[1], self.parameter: token}


class PagePaging(Model):
    """Pages are numbered; the first one without records is the end."""

    type: Literal["page"]
    parameter: str = "page"
    start: int = 1

    def first(self, path: str, parameters: dict[str, Any]) -> Next:
        return path, {**parameters, self.parameter: self.start}

    def following(self, answer: Any, url: str, asked: Next, rows: int) -> Next | None:
        if not rows:
            return None
        return asked[0], {**asked[1], self.parameter: asked[1][self.parameter] + 1}


class UrlPaging(Model):
    """The answer holds the address of the next page, on the same host.

    :param next: dotted path of the address; missing, null or empty means that this was the last page.
    """

    type: Literal["next_url"]
    next: str

    def first(self, path: str, parameters: dict[str, Any]) -> Next:
        return path, parameters

    def following(self, answer: Any, url: str, asked: Next, rows: int) -> Next | None:
        address = dig(answer, self.next)
        if not address:
            return None
        if not isinstance(address, str):
            msg = f"the next address at {self.next!r} is {type(address).__name__}; correct paging.next"
            raise DataError(msg)
        return urljoin(url, address), {}


class NoPaging(Model):
    """One answer holds everything."""

    type: Literal["none"] = "none"

    def first(self, path: str, parameters: dict[str, Any]) -> Next:
        return path, parameters

    def following(self, answer: Any, url: str, asked: Next, rows: int) -> Next | None:
        return None


Paging: TypeAlias = Annotated[CursorPaging | PagePaging | UrlPaging | NoPaging, Field(discriminator="type")]
