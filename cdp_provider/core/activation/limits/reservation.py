# SPDX-License-Identifier: Apache-2.0
"""How an account's moments are given out. Pure: the state goes in as text and comes out as text.

A reservation instead of a bucket: each request takes the next free moment and is told how long to wait for
it. Workers that merely asked whether there is room would starve each other or lose moments; and a bucket that
saves up what was not used lets through twice the limit in its first window.

- **Spaced**: of the limits of at most a minute, the tightest in time for requests, and for records. One
  moment keeps its distance from the next, and nothing is saved up.
- **Counted**: all others, and all limits on records, since batches differ in size. A window is cut into
  slices; what a slice holds counts until all of it is out of the window. So no span ever sees more than the
  limit, and less than 1 % of it is lost.

Moments only move forward, so a look back from each new one is enough.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import orjson

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cdp_provider.core.activation.destinations.base import Limits
    from cdp_provider.core.project.activation import Rate

#: Moments are whole microseconds, so that many small steps add up exactly.
_SECOND = 1_000_000
#: Slices of a counted window, at most: 1/120 of it may be lost.
_SLICES = 120
_SPACED_WITHIN = timedelta(minutes=1)

#: So much longer than a limit's interval the space between two moments is: the network brings requests to the
#: other side some milliseconds nearer to each other than they were sent, and its window may lie anywhere.
_SPARE = (203, 200)

#: So much of a limit's span a request may come late.
_LATE = 0.015

#: After a 429 the pace falls to this share of itself, once per window; it gains a tenth per quiet window.
_SLOWER, _SLOWEST, _REGAINED = 0.8, 0.1, 0.1
_QUIET = 10 * _SECOND
#: What the other side asks for beyond this is asked again then.
_LONGEST = 86_400.0

#: A worker that waits for a lease asks again within this, and loses its place in the line after ten times as
#: long.
_POLL = _SECOND // 20
_PLACE_KEPT = 10 * _POLL


class Lease(NamedTuple):
    """The right to have one of an account's simultaneous requests under way.

    :param holder: unlike any other's.
    :param seconds: after which it ends by itself, should its holder have died.
    """

    holder: str
    seconds: float


class Reservation(NamedTuple):
    """What a request was told.

    :param moment: when it may go, in seconds since the epoch.
    :param wait: seconds until then. Where nothing was taken: when to ask again.
    :param taken: whether the moment is the request's.
    :param cause: why it has to wait.
    :param following: when the next one may go.
    """

    moment: float
    wait: float
    taken: bool
    cause: str
    following: float = 0.0


def reserve(
    state: str | None,
    now: float,
    *,
    limits: Limits,
    records: int = 0,
    max_wait: float,
    lease: Lease | None = None,
    room: int = 1,
) -> tuple[str | None, Reservation]:
    """Take the next free moment for one request; nothing, when it is more than `max_wait` seconds away or all
    simultaneous requests are under way.

    :param records: how many records the request carries.
    :param lease: taken along where `limits` know a concurrency.
    :param room: how many intervals lie between this moment and the next: more than one for a request that may
        arrive late, because it has to open a connection first.
    :returns: the new state, None when it stays as it was.
    :raises ConfigurationError: a request of so many records is above a limit, however long it waits.
    """
    account = _Account.load(state, now)
    start = int(now * _SECOND)
    moment, cause = max(account.candidates(start, limits, records), key=lambda candidate: candidate[0])
    wait = (moment - start) / _SECOND
    if wait > max_wait:
        return None, Reservation(moment / _SECOND, wait, False, cause)
    if lease is not None and limits.concurrency is not None:
        asked_again = account.lease(start, moment, lease, limits.concurrency)
        if asked_again:
            cause = f"its {limits.concurrency} simultaneous requests are all under way"
            wait = asked_again / _SECOND
            return account.dump(), Reservation(now + wait, wait, False, cause)
    account.take(moment, limits, records, room)
    return account.dump(), Reservation(moment / _SECOND, wait, True, cause, account.free / _SECOND)


def block(state: str | None, now: float, *, seconds: float) -> tuple[str | None, None]:
    """Give out no moment within `seconds` from now, and go slower from then on: the other side said 429."""
    account = _Account.load(state, now)
    start = int(now * _SECOND)
    account.factor = account.pace(start)
    if start - account.lowered >= _QUIET:
        account.factor, account.lowered = max(_SLOWEST, account.factor * _SLOWER), start
    account.blocked = max(account.blocked, start + _span(seconds))
    account.quiet = max(start, account.blocked)
    return account.dump(), None


def heard(state: str | None, now: float, *, remaining: float, seconds_left: float) -> tuple[str | None, None]:
    """Make what the other side says is left last until its reset. Never allows more than before.

    One such word is kept, the strictest that still holds; every answer says it anew.
    """
    account = _Account.load(state, now)
    start, span = int(now * _SECOND), _span(seconds_left)
    if remaining <= 0:
        account.blocked = max(account.blocked, start + span)
    elif span / remaining > account.spacing:
        account.spacing, account.spacing_until = int(span / remaining), start + span
    else:
        return None, None
    return account.dump(), None


def release(state: str | None, now: float, *, holder: str) -> tuple[str | None, None]:
    """Give back a lease, or the place in the line for one."""
    account = _Account.load(state, now)
    account.leases.pop(holder, None)
    account.line.pop(holder, None)
    return account.dump(), None


def may_go(
    state: str | None, now: float, reserved: Reservation, *, limits: Limits, travelled: float = 0.0
) -> bool:
    """Whether a request that has slept until its moment may be sent: nobody was told to wait meanwhile, and
    it comes in time. Those of several workers that come late would come all at once; one that nobody comes
    after is in nobody's way.

    :param travelled: seconds that words to the store and back may take; nobody is late for that.
    """
    account = _Account.load(state, now)
    if account.blocked > now * _SECOND:
        return False
    spaced = _spaced(limits.rates)
    if not spaced or account.free / _SECOND <= reserved.following:
        return True
    late = max(_LATE * min(rate.per.total_seconds() for rate in spaced), spacing(limits))
    return now - reserved.moment <= late + travelled


def is_hindered(state: str | None, now: float) -> bool:
    """Whether anything that was heard from the other side is in force."""
    account = _Account.load(state, now)
    return account.blocked > now * _SECOND or account.spacing > 0


def spacing(limits: Limits, records: int = 0) -> float:
    """Seconds that lie between two requests, by the limits alone."""
    return max((_interval(rate, records) for rate in _spaced(limits.rates)), default=0) / _SECOND


@dataclass(slots=True)
class _Account:
    """The state. Times are microseconds since the epoch.

    :ivar free: the next moment, as far as spacing goes; the last one, where nothing is spaced.
    :ivar factor: share of the full pace, as of the moment `quiet`, from when on it grows again.
    :ivar lowered: when it was lowered last.
    :ivar spacing: between moments, until `spacing_until`: what was heard.
    :ivar leases: holder -> end.
    :ivar line: who waits for a lease, in order -> when they are forgotten.
    :ivar used: window -> end of a slice, in milliseconds -> what counts until then.
    """

    free: int = 0
    blocked: int = 0
    factor: float = 1.0
    lowered: int = 0
    quiet: int = 0
    spacing: int = 0
    spacing_until: int = 0
    leases: dict[str, int] = field(default_factory=dict)
    line: dict[str, int] = field(default_factory=dict)
    used: dict[str, dict[int, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, state: str | None, now: float) -> _Account:
        """Without what is over by now."""
        account = cls(**orjson.loads(state)) if state else cls()
        start = now * _SECOND
        account.leases = {holder: end for holder, end in account.leases.items() if end > start}
        account.line = {holder: end for holder, end in account.line.items() if end > start}
        account.used = {window: dict(_unpacked(slices)) for window, slices in account.used.items()}
        account.forget(start)
        if account.spacing_until <= start:
            account.spacing = 0
        return account

    def dump(self) -> str:
        parts = {name: getattr(self, name) for name in self.__slots__}
        parts["used"] = {window: list(_packed(slices)) for window, slices in self.used.items() if slices}
        return orjson.dumps(parts).decode()

    def forget(self, until: float) -> None:
        """Slices that end by then."""
        self.used = {
            window: {end: count for end, count in slices.items() if end * 1000 > until}
            for window, slices in self.used.items()
        }

    def pace(self, at: int) -> float:
        return min(1.0, self.factor + _REGAINED * max(0, (at - self.quiet) // _QUIET))

    def candidates(self, start: int, limits: Limits, records: int) -> Iterator[tuple[int, str]]:
        """Moments before which something forbids the request, and what does."""
        yield start, ""
        if self.spacing:
            yield self.free, "what the destination says is left has to last until its reset"
        else:
            spaced = " and ".join(map(_said, _spaced(limits.rates)))
            yield self.free, f"its {spaced or 'moments'} are taken by other requests"
        yield self.blocked, "the destination asked to wait (429, Retry-After, or nothing remaining)"
        for rate in limits.rates:
            if _cost(rate, records) > rate.amount:
                msg = (
                    f"one request carries {records} records, and the account allows {_said(rate)};"
                    f" lower the destination's batch to {rate.amount} or less"
                )
                raise ConfigurationError(msg)
        for rate in _counted(limits.rates):
            yield self.room(rate, _cost(rate, records)), f"its {_said(rate)} are used up"

    def room(self, rate: Rate, cost: int) -> int:
        """From when on the window has room for so many."""
        slices = self.used.get(_window(rate), {})
        used, moment = sum(slices.values()), 0
        for end, count in slices.items():
            if used + cost <= rate.amount:
                break
            used, moment = used - count, end * 1000
        return moment

    def lease(self, start: int, moment: int, lease: Lease, concurrency: int) -> int:
        """Take a lease, or a place in the line: then, how long until the next look."""
        if lease.holder not in self.leases:
            ahead = list(self.line)
            place = ahead.index(lease.holder) if lease.holder in self.line else len(ahead)
            if len(self.leases) + place >= concurrency:
                self.line[lease.holder] = start + _PLACE_KEPT
                return min([_POLL, *(end - start for end in self.leases.values())])
            self.line.pop(lease.holder, None)
        self.leases[lease.holder] = moment + int(lease.seconds * _SECOND)
        return 0

    def take(self, moment: int, limits: Limits, records: int, room: int) -> None:
        interval = max((_interval(rate, records) for rate in _spaced(limits.rates)), default=0) * room
        step = -int(-interval // self.pace(moment))
        if self.spacing:
            step = max(step, min(self.spacing, self.spacing_until - moment))
        self.free = moment + step
        for rate in _counted(limits.rates):
            if cost := _cost(rate, records):
                slices, end = self.used.setdefault(_window(rate), {}), _counts_until(rate, moment)
                slices[end] = slices.get(end, 0) + cost
        # No later request gets an earlier moment.
        self.forget(moment)


def _span(seconds: float) -> int:
    return int(min(seconds, _LONGEST) * _SECOND) if seconds > 0 else 0


def _spaced(rates: Iterable[Rate]) -> list[Rate]:
    """The tightest in time, for each unit."""
    short = [rate for rate in rates if rate.per <= _SPACED_WITHIN]
    units = ([rate for rate in short if rate.requests], [rate for rate in short if rate.records])
    return [min(unit, key=lambda rate: rate.per / rate.amount) for unit in units if unit]


def _counted(rates: Iterable[Rate]) -> list[Rate]:
    """One for each window."""
    spaced = _spaced(rates)
    counted = [rate for rate in rates if rate.records or rate not in spaced]
    largest_first = sorted(counted, key=lambda rate: -rate.amount)
    return list({_window(rate): rate for rate in largest_first}.values())


def _cost(rate: Rate, records: int) -> int:
    return records if rate.records else 1


def _interval(rate: Rate, records: int) -> int:
    """A little longer than the limit's own, so that a late request and the next do not meet in one window."""
    return -(-_microseconds(rate.per) * _SPARE[0] * _cost(rate, records) // (rate.amount * _SPARE[1]))


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _window(rate: Rate) -> str:
    """Names a window in the state; the same for another amount, so that what is used stays used."""
    unit = "records" if rate.records else "requests"
    return f"{unit}/{rate.resets or int(rate.per.total_seconds())}"


def _counts_until(rate: Rate, moment: int) -> int:
    """The end of the slice, in milliseconds, that a moment belongs to."""
    if rate.resets:
        zone = ZoneInfo(rate.resets)
        day = datetime.fromtimestamp(moment // _SECOND, zone).date() + timedelta(days=1)
        return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000
    per = _microseconds(rate.per)
    width = -(-per // (_SLICES * 1000))
    return -(-(moment + per) // (width * 1000)) * width


def _packed(slices: dict[int, int]) -> Iterator[int]:
    """Each end as the distance to the one before, which is short."""
    before = 0
    for end, count in slices.items():
        yield from (end - before, count)
        before = end


def _unpacked(flat: Iterable[int]) -> Iterator[tuple[int, int]]:
    end, numbers = 0, iter(flat)
    for distance, count in zip(numbers, numbers, strict=True):
        end += distance
        yield end, count


def _said(rate: Rate) -> str:
    unit = ("record" if rate.records else "request") + "s" * (rate.amount > 1)
    if rate.resets:
        return f"{rate.amount} {unit} per day ({rate.resets})"
    seconds = int(rate.per.total_seconds())
    name, size = next(
        (name, size)
        for name, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
        if seconds % size == 0
    )
    many = seconds // size
    return f"{rate.amount} {unit} per {name}" if many == 1 else f"{rate.amount} {unit} per {many} {name}s"


def utc(moment: float) -> str:
    """``2026-11-22 08:00:00 UTC``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
