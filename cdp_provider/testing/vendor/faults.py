# SPDX-License-Identifier: Apache-2.0
"""Troubles that a test orders the stand-in vendor to make."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One trouble for the requests under a path.

    Without ``acts`` the trouble comes before the vendor did anything; with it, the vendor applies the request
    first and then gets into trouble: the case in which a client cannot know whether its write was applied.
    A fault with nothing but ``delay`` answers properly, only late.

    :param path_prefix: requests whose path starts so are hit.
    :param times: how many requests are hit; None: all, until the faults are cleared.
    :param after: how many matching requests pass unharmed first.
    :param acts: whether the vendor applies the request before the trouble.
    :param delay: seconds to wait.
    :param status: answer this status instead.
    :param headers: headers of that answer, for example ``{"Retry-After": "2"}``.
    :param cut: reset the connection, without an answer.
    :param torn: send half of the proper answer's body, then hang up.
    :param malformed: answer 200 with a body that is broken JSON.
    :param html: answer 200 with a web page, as gateways do while they are being repaired.
    :param body_bytes: answer 200 with a JSON body of exactly this many bytes (at least 2).
    :param down: answer 503, as a dead vendor's gateway does.
    """

    path_prefix: str = "/"
    times: int | None = 1
    after: int = 0
    acts: bool = False
    delay: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    torn: bool = False
    malformed: bool = False
    html: bool = False
    body_bytes: int | None = None
    down: bool = False

    def __post_init__(self) -> None:
        troubles = ("status", "cut", "torn", "malformed", "html", "body_bytes", "down")
        answers = [name for name in troubles if getattr(self, name)]
        if len(answers) > 1:
            msg = (
                f"A fault makes one trouble, but {' and '.join(answers)} were given; inject them one by one."
            )
            raise ValueError(msg)
        if self.body_bytes is not None and self.body_bytes < 2:
            msg = f"body_bytes is {self.body_bytes}, but the shortest JSON text has 2 bytes."
            raise ValueError(msg)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """Read a fault from a JSON object; ValueError names unknown keys."""
        if unknown := given.keys() - {known.name for known in fields(cls)}:
            known_names = ", ".join(known.name for known in fields(cls))
            msg = f"Unknown key of a fault: {', '.join(sorted(unknown))}. Known: {known_names}."
            raise ValueError(msg)
        return cls(**given)

    @property
    def replaces_answer(self) -> bool:
        """Whether the client gets something else than the vendor's own answer."""
        return bool(self.cut or self.malformed or self.html or self.body_bytes or self.down or self.status)


@dataclass(slots=True)
class _Pending:
    fault: Fault
    to_pass: int
    to_hit: int | None


class Faults:
    """The troubles still to be made; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []

    def add(self, fault: Fault) -> None:
        """Queue a fault; of several that match a request the oldest is made."""
        with self._lock:
            self._pending.append(_Pending(fault, fault.after, fault.times))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._pending.clear()

    def pending(self) -> list[dict[str, Any]]:
        """Return the faults that are still to come, each with the number of requests ``left`` to hit."""
        with self._lock:
            return [{**asdict(pending.fault), "left": pending.to_hit} for pending in self._pending]

    def take(self, path: str) -> Fault | None:
        """Return the fault that this request must suffer, and count it."""
        with self._lock:
            for pending in self._pending:
                if not path.startswith(pending.fault.path_prefix):
                    continue
                if pending.to_pass:
                    pending.to_pass -= 1
                    return None
                if pending.to_hit is not None:
                    pending.to_hit -= 1
                    if pending.to_hit <= 0:
                        self._pending.remove(pending)
                return pending.fault
        return None
