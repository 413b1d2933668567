# SPDX-License-Identifier: Apache-2.0
"""What the runner of dlt found that somebody has to mend, as an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cdp_provider.core.exceptions import AccessError, ConfigurationError, DataError, NotFoundError

if TYPE_CHECKING:
    from cdp_provider.core.exceptions import CdpError


def told(found: dict[str, Any], what: str, resource: str, python: str) -> CdpError:
    """The error that a fault is.

    :param found: by :mod:`~cdp_provider.core.ingest.dlt_runner`.
    :param what: was run.
    """
    name = found.get("name")
    match found["fault"]:
        case "no dlt":
            msg = (
                f"{python} can't import {found['missing']!r}; install dlt into its environment: pip install"
                " 'dlt[parquet]>=1.31'"
            )
            return ConfigurationError(msg)
        case "no module":
            msg = f"there is no module {name!r} in the stream's `folder`, nor in {python}"
            return NotFoundError(msg)
        case "no attribute":
            return NotFoundError(f"{resource!r} names {name!r}, which that module has not")
        case "no resource":
            known = ", ".join(found["known"])
            msg = f"the source {resource!r} has no resource {name!r}; as `select`, name one of {known}"
            return NotFoundError(msg)
        case "no value":
            names = ", ".join(found["names"])
            msg = f"{what} lacks {names}; give it in `arguments`, `credentials` or the connection's extra"
            return ConfigurationError(msg)
        case "refused":
            msg = f"the other side refused {what} ({found['status']}); check the connection's credentials"
            return AccessError(msg)
        case _:
            place = f"{found['column']!r} in {found['table']!r}"
            msg = (
                f"the values of {place} are not of one type; declare it as a column of the stream, then each"
                " value is judged by itself"
            )
            return DataError(msg)
