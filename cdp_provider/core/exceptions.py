# SPDX-License-Identifier: Apache-2.0
"""Every error of the product, branched by how one recovers from it.

::

    CdpError
    ├── ConfigurationError     somebody has to change a file, a connection or a permission; never retried
    │   ├── ProjectError       cdp.yaml has faults: all of them, with file and line (core.project.faults)
    │   ├── AccessError        the other side refuses us (401, 403)
    │   └── NotFoundError      a path, endpoint, table or connection does not exist
    ├── DataError              the data breaks its contract; a retry would meet the same data
    ├── RetryableError         the same call may succeed later; carries ``retry_after`` seconds when known
    │   ├── RateLimitedError   a quota is used up (429)
    │   ├── UnavailableError   no answer, a cut connection or a 5xx
    │   └── WarehouseBusyError somebody else holds the warehouse
    └── DeliveryError          records of a sync were refused for good; the rest was delivered

Messages say what was given, why that is wrong and what to do. They hold no secret and no personal data:
they are written to the run ledger and to task logs.
"""

from __future__ import annotations


class CdpError(Exception):
    """Root of all errors that this product raises on purpose."""


class ConfigurationError(CdpError):
    """Wrong until somebody changes the project, a connection or a permission."""


class AccessError(ConfigurationError):
    """The other side refused our credentials (401, 403)."""


class NotFoundError(ConfigurationError):
    """A named path, endpoint, table or connection does not exist."""


class DataError(CdpError):
    """The data breaks its contract; trying again would meet the same data."""


class RetryableError(CdpError):
    """The same call may succeed later.

    :param retry_after: seconds to wait, where the other side said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(RetryableError):
    """A quota is used up for now."""


class UnavailableError(RetryableError):
    """No answer, a cut connection or a server error."""


class WarehouseBusyError(RetryableError):
    """Another process holds the warehouse."""


class DeliveryError(CdpError):
    """Some records of a sync were not delivered; the ledger names them."""
