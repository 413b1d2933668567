# SPDX-License-Identifier: Apache-2.0
"""How a token travels in a request."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Auth:
    """How a vendor wants its token, for connections whose extras don't say otherwise.

    :param scheme: ``bearer``, ``basic``, or ``header``: in a header of its own.
    :param header: that header's name.
    :param prefix: stands before the token in it.
    :param login: user name of basic authentication where the connection has none.
    """

    scheme: Literal["bearer", "basic", "header"] = "bearer"
    header: str = "Authorization"
    prefix: str = ""
    login: str = ""

    def headers(self, password: str, login: str = "") -> dict[str, str]:
        """What a request has to carry."""
        if self.scheme == "basic":
            pair = base64.b64encode(f"{login or self.login}:{password}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        if self.scheme == "bearer":
            return {"Authorization": f"Bearer {password}"}
        return {self.header: f"{self.prefix}{password}"}
