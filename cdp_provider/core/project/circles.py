# SPDX-License-Identifier: Apache-2.0
"""Things that are defined by themselves, over however many others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


def circles(needs: Mapping[str, Collection[str]]) -> Iterator[list[str]]:
    """Names that need each other in a circle: ``[a, b, a]``. After one of them is broken there may be others.

    :param needs: name -> what it needs; a name without an entry needs nothing.
    """
    done: set[str] = set()
    for start in needs:
        if start in done:
            continue
        # A stack of its own: chains may be longer than Python's.
        trail, names = [(start, iter(needs[start]))], [start]
        while trail:
            name, rest = trail[-1]
            needed = next(rest, None)
            if needed is None:
                done.add(name)
                trail.pop()
                names.pop()
            elif needed in names:
                yield [*names[names.index(needed) :], needed]
            elif needed not in done:
                trail.append((needed, iter(needs.get(needed, ()))))
                names.append(needed)
