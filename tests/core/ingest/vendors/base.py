# SPDX-License-Identifier: Apache-2.0
"""Vendors to read from, as far as their documentation of lists and searches goes: who may ask, which filters
and page sizes they take, how their pages hang together."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from cdp_provider.testing.destinations.fake import FakeAnswer, FakeRequest, FakeService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Record = Callable[[int, datetime], dict[str, Any]]

SECRET = "a-secret"


def iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix(at: datetime) -> int:
    return int(at.timestamp())


class Refused(Exception):  # noqa: N818 - an answer, no error of the test
    """The vendor answers 400, as it does to what it does not know."""


class Vendor(FakeService):
    """Lists of records by stream, newest last.

    :ivar lists: stream -> number of the record -> the record.
    :ivar served: how many records went out.
    :ivar url: where it is reached; addresses of next pages begin with it.
    """

    name: ClassVar[str]
    #: Stream -> what makes a record of it.
    records: ClassVar[Mapping[str, Record]]
    #: Header -> what must stand there.
    needs: ClassVar[Mapping[str, str]]

    def __init__(self) -> None:
        self.lists: dict[str, dict[int, dict[str, Any]]] = {stream: {} for stream in self.records}
        self.served = 0
        self.url = ""
        self.refusals: list[str] = []

    def put(self, stream: str, number: int, at: datetime, **members: Any) -> None:
        """Create or change a record at a moment."""
        self.lists[stream].pop(number, None)
        self.lists[stream][number] = {**self.records[stream](number, at), **members}

    def answer(self, request: FakeRequest) -> FakeAnswer:
        if any(request.headers.get(name) != value for name, value in self.needs.items()):
            return FakeAnswer(401, {"error": "who are you?"})
        try:
            return FakeAnswer(200, self.listed(request), self.gives)
        except Refused as refusal:
            self.refusals.append(str(refusal))
            return FakeAnswer(400, {"error": str(refusal)})

    gives: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def listed(self, request: FakeRequest) -> dict[str, Any]:
        """The answer to a request that came from whom we know."""

    def page(
        self, found: list[dict[str, Any]], start: int, size: int
    ) -> tuple[list[dict[str, Any]], int | None]:
        """A page, and where the next one begins."""
        shown = found[start : start + size]
        self.served += len(shown)
        return shown, start + size if start + size < len(found) else None


def refuse(why: str) -> NoReturn:
    """Answer 400."""
    raise Refused(why)


def only(given: Iterable[str], *known: str) -> None:
    if unknown := set(given) - set(known):
        refuse(f"unknown: {sorted(unknown)}")


def size_of(value: Any, default: int, most: int) -> int:
    size = default if value is None else int(value)
    if not 1 <= size <= most:
        refuse(f"a page of {size}; at most {most}")
    return size


def seconds(value: str | int) -> datetime:
    return datetime.fromtimestamp(int(value), UTC)
