# SPDX-License-Identifier: Apache-2.0
"""An account's limits, shared by every worker that uses the account: what one delivery sees of them.

What a moment is and who gets it is :mod:`cdp_provider.core.activation.limits.reservation`; where workers meet
is a store of :mod:`cdp_provider.core.activation.limits`, whose clock is the only one that counts.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cdp_provider.core.activation.destinations.base import Limits
from cdp_provider.core.activation.limits import (
    LimitStore,
    PostgresLimits,
    SqliteLimits,
    limits_of,
    reservation,
)
from cdp_provider.core.activation.limits.reservation import Lease, Reservation
from cdp_provider.core.exceptions import RateLimitedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from cdp_provider.core.activation.destinations.base import DestinationKind

__all__ = ["LimitStore", "Limiter", "PostgresLimits", "SqliteLimits", "limits_of"]

T = TypeVar("T")

#: Seconds after which a lease of a worker that died is free again; longer than any request takes.
_LEASE = 120.0
#: Seconds until a lease is asked for again by who waited for one in vain.
_LEASED_AGAIN = 10.0
#: A worker's first requests open connections, and arrive late: what comes after them keeps away.
_OPENING = 2
#: How old, in seconds, what is known of an account without limits may be.
_FRESH = 0.2


@dataclass
class _Lane:
    """One endpoint class, as this worker sees it. Times are the event loop's.

    :ivar turn: one reservation at a time, first come, first served: so workers share an account evenly.
    :ivar blocked: until when this worker itself was told to wait.
    :ivar free: until when nobody needs to be asked; only where there are no limits.
    :ivar spacing: what was heard last and was worth passing on, until `spacing_until`.
    :ivar released: a lease of this worker's has come back.
    :ivar admitted: requests so far.
    """

    key: str
    limits: Limits
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    blocked: float = 0.0
    free: float = 0.0
    spacing: float = 0.0
    spacing_until: float = 0.0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    admitted: int = 0


class Limiter:
    """Admits the requests of one delivery. Belongs to one event loop.

    :param store: used from a thread of the limiter's own, and closed with it.
    :param account: whoever uses the same text shares the limits.
    :param classes: endpoint class -> its limits; others have none of their own, but obey what the other side
        says.
    :param max_wait: seconds; a longer wait is not slept through but raised, so that a worker's slot becomes
        free.
    """

    def __init__(
        self, store: LimitStore, account: str, classes: Mapping[str, Limits], max_wait: float
    ) -> None:
        self._store = store
        self._account = account
        self._max_wait = max_wait
        self._classes = classes
        self._lanes: dict[str, _Lane] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="limits")
        self._holder = secrets.token_hex(6)
        self._leases = 0

    @classmethod
    def of(cls, kind: DestinationKind, store: LimitStore, max_wait: float) -> Limiter:
        """The limits that hold for a destination."""
        account = kind.destination.account or kind.destination.connection
        return cls(store, account, {**kind.limits, "": kind.own_limits}, max_wait)

    @asynccontextmanager
    async def admit(self, limit_class: str = "", records: int = 0) -> AsyncIterator[None]:
        """Wait until a request may be sent; send it inside.

        :param records: how many it carries.
        :raises RateLimitedError: that is more than `max_wait` seconds away; carries the seconds.
        :raises ConfigurationError: so many records are above a limit, however long one waits.
        :raises UnavailableError: the store cannot be reached.
        """
        lane = self._lane(limit_class)
        lease = None
        if lane.limits.concurrency is not None:
            self._leases += 1
            lease = Lease(f"{self._holder}{self._leases}", _LEASE)
        try:
            async with lane.turn:
                await self._moment(lane, records, lease)
            yield
        finally:
            if lease is not None:
                self._release(lane, lease)

    async def blocked(self, limit_class: str, seconds: float) -> None:
        """The other side said 429: no worker sends within `seconds` from now, and all go slower for a while.

        :raises UnavailableError: the store cannot be reached.
        """
        lane = self._lane(limit_class)
        lane.blocked = max(lane.blocked, asyncio.get_running_loop().time() + seconds)
        lane.free = 0.0
        await self._transact(lane, partial(reservation.block, seconds=seconds))

    async def heard(self, limit_class: str, remaining: float, seconds_left: float) -> None:
        """The other side said how many requests are left until its reset. Only ever lowers the rate.

        Never raises for the store: it is called with an answer in hand that must not be lost.
        """
        lane, now = self._lane(limit_class), asyncio.get_running_loop().time()
        if remaining > 0:
            told = seconds_left / remaining
            known = lane.spacing if now < lane.spacing_until else 0.0
            if told <= max(known, reservation.spacing(lane.limits)):
                return
            lane.spacing, lane.spacing_until = told, now + seconds_left
        lane.free = 0.0
        change = partial(reservation.heard, remaining=remaining, seconds_left=seconds_left)
        self._thread.submit(self._store.transact, lane.key, change)

    async def close(self) -> None:
        """Give back the store's connection, once what is under way has reached it."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()

    def _lane(self, limit_class: str) -> _Lane:
        limits = self._classes.get(limit_class, Limits())
        return self._lanes.setdefault(limit_class, _Lane(f"{self._account}/{limit_class}", limits))

    async def _moment(self, lane: _Lane, records: int, lease: Lease | None) -> None:
        """Sleep until this worker's next moment, whose request may then be sent at once."""
        loop = asyncio.get_running_loop()
        patience = loop.time() + self._max_wait
        reserve = partial(
            reservation.reserve,
            limits=lane.limits,
            records=records,
            max_wait=self._max_wait,
            lease=lease,
            room=2 if lane.admitted < _OPENING else 1,
        )
        lane.admitted += 1
        while not await self._is_free(lane):
            lane.released.clear()
            asked = loop.time()
            reserved = await self._transact(lane, reserve)
            travelled = loop.time() - asked
            if reserved.taken:
                await asyncio.sleep(reserved.wait)
                if not reserved.wait or await self._may_go(lane, reserved, travelled):
                    told = lane.blocked - loop.time()
                    if told <= 0:
                        return
                    # The store is being told just now.
                    await asyncio.sleep(min(told, _FRESH))
            elif reserved.wait > self._max_wait or loop.time() >= patience:
                raise self._busy(lane, reserved)
            else:
                # Not all at the same time; and at once, where the lease that comes back is this worker's.
                with suppress(TimeoutError):
                    pause = reserved.wait * random.uniform(0.5, 1.0)  # noqa: S311 - keeps no secret
                    await asyncio.wait_for(lane.released.wait(), pause)

    async def _is_free(self, lane: _Lane) -> bool:
        """Whether nothing limits the lane; seldom asks the store."""
        if lane.limits.rates or lane.limits.concurrency is not None:
            return False
        loop = asyncio.get_running_loop()
        if loop.time() < lane.free:
            return True
        asked = loop.time()
        state, now = await self._call(self._store.read, lane.key)
        if reservation.is_hindered(state, now) or asked < lane.blocked:
            return False
        lane.free = asked + _FRESH
        return True

    async def _may_go(self, lane: _Lane, reserved: Reservation, travelled: float) -> bool:
        state, now = await self._call(self._store.read, lane.key)
        return reservation.may_go(state, now, reserved, limits=lane.limits, travelled=travelled)

    def _busy(self, lane: _Lane, reserved: Reservation) -> RateLimitedError:
        wait = max(reserved.wait, min(_LEASED_AGAIN, self._max_wait))
        until = reservation.utc(reserved.moment + wait - reserved.wait)
        msg = (
            f"the account {lane.key.removesuffix('/')} is busy until {until}, in {wait:.0f} s:"
            f" {reserved.cause}. A worker waits {self._max_wait:.0f} s at most; try again then"
        )
        return RateLimitedError(msg, retry_after=wait)

    def _release(self, lane: _Lane, lease: Lease) -> None:
        """Not waited for, and no trouble to the request that is done: a lease also ends by itself."""
        loop = asyncio.get_running_loop()
        change = partial(reservation.release, holder=lease.holder)
        done = self._thread.submit(self._store.transact, lane.key, change)
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(lane.released.set))

    async def _transact(self, lane: _Lane, change: Callable[..., tuple[str | None, T]]) -> T:
        return await self._call(self._store.transact, lane.key, change)

    async def _call(self, function: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *values)
