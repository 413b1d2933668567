# SPDX-License-Identifier: Apache-2.0
"""Hubs found by SQL, as ``hubs.py`` finds them in the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdp_provider.core.warehouse import Session

_ROUNDS = 1000


class PushedHubs:
    """What rows show of values of types with a hub limit.

    After :meth:`find` there are the tables `hubs` (``identifier``, ``since``, ``seen_with``) and `neighbours`
    (``identifier``, ``other``, ``seq``), what is kept of those that are no hubs.

    :param make: makes a temporary table of a name and a query; returns how SQL knows it.
    :param values: table of ``identifier``, ``kind``, ``value``.
    :param kinds: table of ``kind``, ``type``, ``hub``.
    """

    def __init__(self, make: Callable[[str, str], str], session: Session, values: str, kinds: str) -> None:
        self._make, self._session, self._values, self._kinds = make, session, values, kinds
        self.hubs = self.neighbours = ""

    def find(self, rows: str, limited: Sequence[bool], *, replay: bool) -> str:
        """Which identifiers are none, as a table of ``identifier`` and the run ``since`` which they are.

        :param rows: table of ``seq``, ``s0``, ``s1``, ...
        :param limited: per column, whether its type has a hub limit.
        :param replay: what earlier runs saw does not count.
        """
        both = [
            f"select r.s{mine} as identifier, r.s{other} as other, r.seq as seq from {rows} r"
            f" where r.s{mine} <> r.s{other}"
            for mine, is_limited in enumerate(limited)
            for other in range(len(limited))
            if is_limited and other != mine
        ]
        pairs = self._make(
            "met",
            "select p.identifier as identifier, p.other as other, min(p.seq) as seq"
            f" from ({' union all '.join(both)}) p group by p.identifier, p.other",
        )
        pairs, most = self._unseen(pairs, replay=replay)
        since = self._since(pairs, most)
        self._tell(pairs, since, most)
        return since

    def _unseen(self, pairs: str, *, replay: bool) -> tuple[str, str]:
        """The pairs that no earlier run saw; and how many of them each identifier may have (``most``)."""
        table = self._session.warehouse.table
        earlier = " where 1 = 0" if replay else ""
        same = self._session.warehouse.same_text("m.value", "n.value")
        seen = self._make(
            "seen",
            "select m.identifier as identifier, o.identifier as other from"
            f" (select v.identifier, v.value, k.type from {self._values} v"
            f" join {self._kinds} k on k.kind = v.kind"
            f" where v.identifier in (select p.identifier from {pairs} p)) m"
            f" join {table('neighbours')} n on {same} and n.type = m.type"
            f" left join {self._kinds} ok on ok.type = n.other_type"
            f" left join {self._values} o on o.kind = ok.kind and o.value = n.other_value{earlier}",
        )
        fresh = self._make(
            "fresh",
            f"select p.identifier as identifier, p.other as other, p.seq as seq from {pairs} p"
            f" left join {seen} s on s.identifier = p.identifier and s.other = p.other"
            " where s.identifier is null",
        )
        most = self._make(
            "most",
            "select v.identifier as identifier, k.hub - coalesce(s.before, 0) as most,"
            f" coalesce(s.before, 0) as before from {self._values} v join {self._kinds} k on k.kind = v.kind"
            f" left join (select identifier, count(*) as before from {seen} e group by identifier) s"
            " on s.identifier = v.identifier where k.hub is not null",
        )
        return fresh, most

    def _since(self, pairs: str, most: str) -> str:
        """Hubs, and the run of each one's first pair beyond what it may have.

        A pair whose other side had become a hub in an earlier run does not count, so it goes round until
        nothing changes.
        """
        none = f"select m.identifier as identifier, m.most as since from {most} m where 1 = 0"
        since = self._make("since_0", none)
        for turn in range(1, _ROUNDS):
            now = self._make(
                f"since_{turn % 2}",
                "select c.identifier as identifier, c.seq as since from"
                " (select p.identifier, p.seq, row_number() over (partition by p.identifier order by p.seq)"
                f" as place from {pairs} p left join {since} o on o.identifier = p.other"
                " where o.since is null or o.since >= p.seq) c"
                f" join {most} m on m.identifier = c.identifier where c.place = greatest(m.most, 0) + 1",
            )
            changed = self._session.scalar(
                f"select count(*) from {now} a full join {since} b on b.identifier = a.identifier"
                " where a.since is null or b.since is null or a.since <> b.since"
            )
            since = now
            if not changed:
                break
        return since

    def _tell(self, pairs: str, since: str, most: str) -> None:
        counts = (
            f"from {pairs} p left join {since} o on o.identifier = p.other"
            f" left join {since} m on m.identifier = p.identifier"
            " where (o.since is null or o.since >= p.seq)"
        )
        self.hubs = self._make(
            "hubs",
            "select s.identifier as identifier, s.since as since, b.before + coalesce(c.met, 0) as seen_with"
            f" from {since} s join {most} b on b.identifier = s.identifier left join"
            f" (select p.identifier, count(*) as met {counts} and p.seq <= m.since group by p.identifier) c"
            " on c.identifier = s.identifier",
        )
        self.neighbours = self._make(
            "neighbours",
            f"select p.identifier as identifier, p.other as other, p.seq as seq {counts} and m.since is null",
        )
