# SPDX-License-Identifier: Apache-2.0
"""What is tried again, when, and what fails at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.sdk import RetryAction

from cdp_provider.core.exceptions import (
    AccessError,
    ConfigurationError,
    DataError,
    DeliveryError,
    RateLimitedError,
    UnavailableError,
)
from cdp_provider.retries import CdpRetryPolicy


@pytest.mark.parametrize(
    ("error", "action", "seconds"),
    [
        (ConfigurationError("x"), RetryAction.FAIL, None),
        (AccessError("x"), RetryAction.FAIL, None),
        (DataError("x"), RetryAction.FAIL, None),
        (DeliveryError("x"), RetryAction.FAIL, None),
        (RateLimitedError("x", retry_after=4), RetryAction.RETRY, 4),
        (RateLimitedError("x", retry_after=-1), RetryAction.RETRY, 0),
        (RateLimitedError("x", retry_after=1e9), RetryAction.RETRY, 86400),
        (UnavailableError("x"), RetryAction.RETRY, None),
        (OSError("x"), RetryAction.DEFAULT, None),
    ],
)
def test_decision(error: Exception, action: RetryAction, seconds: float | None) -> None:
    decision = CdpRetryPolicy().evaluate(error, 1, 3)
    assert decision.action is action
    assert decision.retry_delay == (None if seconds is None else timedelta(seconds=seconds))
    assert "x" not in (decision.reason or "").split()


def test_it_survives_serialization() -> None:
    policy = CdpRetryPolicy(timedelta(hours=1))
    assert CdpRetryPolicy.deserialize(policy.serialize()) == policy
