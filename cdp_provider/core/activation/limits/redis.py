# SPDX-License-Identifier: Apache-2.0
"""Limits in Redis: for workers anywhere, and the quickest. Needs the extra ``redis``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from cdp_provider.core.exceptions import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cdp_provider.core.activation.limits.base import Change, T

_READ = "local t = redis.call('time') return {redis.call('get', KEYS[1]), t[1], t[2]}"
#: Sets the state where it is still the one that was read; an empty text stands for none.
_SET = """
if (redis.call('get', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[2])
return 1
"""


class RedisLimits:
    """One key per account, compared and set: two round trips, and two more whenever somebody else was faster.
    The clock is the server's.

    :param connect: makes a client.
    :param prefix: of the keys.
    """

    def __init__(self, connect: Callable[[], redis.Redis], prefix: str = "cdp:limits:") -> None:
        self._connect = connect
        self._prefix = prefix
        self._client: redis.Redis | None = None

    def transact(self, account: str, change: Change[T]) -> T:
        while True:
            old, now = self.read(account)
            new, answer = change(old, now)
            if new is None or new == old or self._run(_SET, account, old or "", new):
                return answer

    def read(self, account: str) -> tuple[str | None, float]:
        state, seconds, microseconds = self._run(_READ, account)
        return state and state.decode(), int(seconds) + int(microseconds) / 1_000_000

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run(self, script: str, account: str, *values: str) -> Any:
        with self._open() as client:
            return client.eval(script, 1, self._prefix + account, *values)

    @contextmanager
    def _open(self) -> Iterator[redis.Redis]:
        try:
            if self._client is None:
                self._client = self._connect()
            yield self._client
        except redis.RedisError as error:
            self.close()
            msg = (
                f"the accounts' limits in Redis cannot be used ({type(error).__name__}); see that the server"
                " answers and the connection is right; it is tried again with the task"
            )
            raise UnavailableError(msg) from error
