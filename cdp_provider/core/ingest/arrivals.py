# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder have arrived and are still waiting to be landed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.ingest.files import unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.ingest.base import FileKey
    from cdp_provider.core.ingest.folder import Entry


def waiting(listed: Sequence[Entry], taken: frozenset[FileKey]) -> list[Entry]:
    """The files that no batch has taken, as far as names, sizes and times tell: nothing is opened."""
    # Of files landed by an earlier version no time is known; only reading them could tell more.
    sizes = {key[:2] for key in taken if key.modified is None}
    return [entry for entry in unseen(listed, taken) if (entry.name, entry.size) not in sizes]
