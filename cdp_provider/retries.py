# SPDX-License-Identifier: Apache-2.0
"""When a failed step is worth another try."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from cdp_provider.core.exceptions import CdpError, RetryableError

if TYPE_CHECKING:
    from typing import Self

    from airflow.sdk import Context


class CdpRetryPolicy(RetryPolicy):
    """Retries what may succeed later, when the other side said it may; fails at once what needs a human.

    :class:`RetryableError` is retried after its ``retry_after``, or after the task's own delay where it has
    none; every other :class:`CdpError` fails the task at its first try; of errors that are not ours the
    task's ``retries`` decide. No policy goes past ``retries``.

    :param longest: a longer ``retry_after`` is cut down to it.
    """

    def __init__(self, longest: timedelta = timedelta(hours=24)) -> None:
        self.longest = longest

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        kind = type(exception).__name__
        if isinstance(exception, RetryableError):
            if exception.retry_after is None:
                return RetryDecision.retry(reason=f"{kind}: may succeed later")
            delay = min(timedelta(seconds=max(exception.retry_after, 0.0)), self.longest)
            return RetryDecision.retry(delay, f"{kind}: asked to wait {delay.total_seconds():.0f} s")
        if isinstance(exception, CdpError):
            return RetryDecision.fail(f"{kind}: another try would meet the same fault")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        return {"longest": self.longest.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Self:
        return cls(timedelta(seconds=data["longest"]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(longest={self.longest!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CdpRetryPolicy) and self.longest == other.longest

    def __hash__(self) -> int:
        return hash(self.longest)
