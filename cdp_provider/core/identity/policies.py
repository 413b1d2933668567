# SPDX-License-Identifier: Apache-2.0
"""What happens to a link that a limit or a denied pair stands against: one policy, one class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.identity.graph import Eviction, Graph, Refusal
from cdp_provider.core.identity.limits import DENIED, NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cdp_provider.core.identity.graph import Start
    from cdp_provider.core.identity.limits import Limits


class Demote(Graph):
    """The row's weakest identifier is dropped, and the rest looked up again (Segment's policy).

    Sets only grow, so what was refused once stays refused.
    """

    def _place(self, row: int, identifiers: list[int]) -> bool:
        sets, parents, units, kinds = self._set, self._parents, self._limits.units, self._kinds
        whole = True
        while True:
            total = 0
            roots: set[int] = set()
            fresh: list[int] = []
            for identifier in identifiers:
                at = sets[identifier]
                if at < 0:
                    fresh.append(identifier)
                    total += units[kinds[identifier]]
                    continue
                while parents[at] != at:
                    parents[at] = at = parents[parents[at]]
                roots.add(at)
            if not fresh and len(roots) < 2:
                return whole
            for at in roots:
                total += self._counts[at]
            rule = self._conflict(row, total, roots, fresh)
            if rule is None:
                self._join(row, identifiers, roots, fresh)
                return whole
            self.refusals.append(Refusal(row, identifiers.pop(), rule))
            whole = False


class Refuse(Graph):
    """The row's strongest identifier links each of the others, one by one; a link that breaks a limit is not
    made (as in Zeotap's limit rules)."""

    def _place(self, row: int, identifiers: list[int]) -> bool:
        for identifier in identifiers:
            if self._set[identifier] < 0:
                self._join(row, (identifier,), set(), [identifier])
        return self._link(row, identifiers)

    def _link(self, row: int, identifiers: Sequence[int]) -> bool:
        whole = True
        for other in identifiers[1:]:
            # Both ends are looked up anew: a policy may have moved them meanwhile.
            roots = {self._find(self._set[identifiers[0]]), self._find(self._set[other])}
            if len(roots) == 2:
                total = sum(self._counts[at] for at in roots)
                rule = self._conflict(row, total, roots, ())
                if rule is None:
                    self._join(row, (identifiers[0], other), roots, [])
                else:
                    whole = False
                    if not self._refused(row, (identifiers[0], other), roots, rule, identifiers):
                        return self._place(row, [i for i in identifiers if i not in self.broken])
        return whole

    def _refused(
        self, row: int, ends: tuple[int, int], roots: set[int], rule: int, identifiers: Sequence[int]
    ) -> bool:
        """Deal with a link that a rule stands against; False when the row has to be linked anew."""
        self.refusals.append(Refusal(row, ends[1], rule))
        return True


class Evict(Refuse):
    """The link is made, and the oldest values of the limited type leave (as in Twilio's Conversation
    Memory)."""

    keeps_members = True
    settles = False

    def _refused(
        self, row: int, ends: tuple[int, int], roots: set[int], rule: int, identifiers: Sequence[int]
    ) -> bool:
        if rule == DENIED or self._is_denied(roots, ()):
            return super()._refused(row, ends, roots, DENIED, identifiers)
        parts = [self._counts[at] for at in roots]
        at = self._join(row, ends, roots, [])
        for kind in list(self._limits.grown(self._counts[at], parts)):
            oldest = sorted(
                (i for i in self._members[at] if self._kinds[i] == kind and i not in identifiers),
                key=self._nodes.__getitem__,
                reverse=True,
            )
            while oldest and self._is_over(at, kind):
                self._leave(row, at, oldest.pop())
        return True

    def _is_over(self, at: int, kind: int) -> bool:
        limits = self._limits
        if limits.windows[kind]:
            return limits.crowded(kind, self._times[at].get(kind, []))
        return limits.count(self._counts[at], kind) > limits.values[kind]

    def _leave(self, row: int, at: int, identifier: int) -> None:
        node, kind = self._nodes[identifier], self._kinds[identifier]
        self.evictions.append(Eviction(row, identifier, node, self.accepted_rows[identifier], at))
        self._members[at].remove(identifier)
        self._counts[at] -= self._limits.units[kind]
        if self._limits.windows[kind]:
            self._times[at][kind].remove(self._seen[identifier])
        if identifier in self._denied:
            self._marks[at].discard(identifier)
        self._set[identifier], self._nodes[identifier] = -1, 0


class Break(Refuse):
    """The identifier through which too many values would meet is none any more, from the beginning; all its
    links are cut (as in RudderStack's cardinality rules)."""

    keeps_members = True

    def __init__(self, start: Start, limits: Limits) -> None:
        super().__init__(start, limits)
        self._rows: dict[int, list[tuple[int, list[int]]]] = {}
        self._cutting = False
        self._row = -1
        self._logged = (0, 0)

    def _place(self, row: int, identifiers: list[int]) -> bool:
        if row != self._row:
            self._row, self._logged = row, (len(self.merges), len(self.refusals))
        identifiers = [identifier for identifier in identifiers if identifier not in self.broken]
        whole = super()._place(row, identifiers)
        left = [identifier for identifier in identifiers if identifier not in self.broken]
        if len(left) == len(identifiers) > 1:
            self._remember(row, left)
        return whole

    def _remember(self, row: int, identifiers: list[int]) -> None:
        """Keep what a row links, for the day when one of its identifiers breaks."""
        for at in {self._find(self._set[identifier]) for identifier in identifiers}:
            self._rows.setdefault(at, []).append((row, identifiers))

    def _hand_over(self, loser: int, winner: int) -> None:
        super()._hand_over(loser, winner)
        if loser in self._rows:
            fewer, more = sorted((self._rows.pop(loser), self._rows.pop(winner, [])), key=len)
            more.extend(fewer)
            self._rows[winner] = more

    def _refused(
        self, row: int, ends: tuple[int, int], roots: set[int], rule: int, identifiers: Sequence[int]
    ) -> bool:
        if rule == DENIED:
            return self._cutting or super()._refused(row, ends, roots, rule, identifiers)
        offender = ends[0] if self._kinds[ends[1]] == rule != self._kinds[ends[0]] else ends[1]
        self._take_back(cut=offender == ends[0])
        self.refusals.append(Refusal(row, offender, rule))
        self.broken[offender] = row
        self._cut(row, self._find(self._set[offender]))
        return False

    def _take_back(self, *, cut: bool) -> None:
        """Forget what the row's attempt put on record so far, but for what it broke: it starts again.

        :param cut: whether the links that it made are gone too.
        """
        merges, refusals = self._logged
        if cut:
            del self.merges[merges:]
        self.refusals[refusals:] = [r for r in self.refusals[refusals:] if r.identifier in self.broken]

    def _conflict(self, row: int, total: int, roots: Iterable[int], fresh: Iterable[int]) -> int | None:
        if self._cutting:  # what held before holds without the broken identifier
            return DENIED if self._denied and self._is_denied(roots, fresh) else None
        return super()._conflict(row, total, roots, fresh)

    def _cut(self, row: int, at: int) -> None:
        """Take a set apart and put together what holds without the broken identifiers."""
        members, rows = self._members.pop(at), self._rows.pop(at, [])
        self._times.pop(at, None)
        self._marks.pop(at, None)
        for identifier in members:
            part = self._set[identifier] = self._new_set(self._nodes[identifier])
            self._counts[part] = self._limits.units[self._kinds[identifier]]
            self._note(part, identifier, self._seen.get(identifier, NO_TIME))
        self._cutting = True
        for earlier, linked in sorted(dict(rows).items()):
            left = [identifier for identifier in linked if identifier not in self.broken]
            if len(left) > 1:
                self._link(earlier, left)
                self._remember(earlier, left)
        if self._allowed:
            self._allow(row, members)
        self._cutting = False

    def _record(self, row: int, loser: int, winner: int, identifiers: Sequence[int]) -> None:
        if not self._cutting:
            super()._record(row, loser, winner, identifiers)


POLICIES: Mapping[str, type[Graph]] = {
    "demote": Demote,
    "refuse": Refuse,
    "break": Break,
    "evict": Evict,
}
