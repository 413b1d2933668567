# SPDX-License-Identifier: Apache-2.0
"""What a sync would do, without doing it: a dry run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cdp_provider.core import tables
from cdp_provider.core.activation import diff
from cdp_provider.core.activation.batches import batch_size
from cdp_provider.core.activation.shape import Shape
from cdp_provider.core.activation.sync import kind_of, resync_of
from cdp_provider.core.project.activation import Consent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cdp_provider.core.activation.destinations import DestinationKind
    from cdp_provider.core.project.activation import Destination, Sync
    from cdp_provider.core.project.profiles import Profiles
    from cdp_provider.core.run import Run
    from cdp_provider.core.warehouse import Warehouse


@dataclass(frozen=True)
class Preview:
    """What a run would send.

    :param desired: profiles (or events) that the sync speaks of.
    :param creates: records that the destination does not hold yet; events too.
    :param updates: records that it holds with another payload.
    :param removals: records that it shall remove, archive or clear.
    :param acknowledged: records that it holds, by what it said.
    :param invalid: why profiles cannot be sent -> how many.
    :param withheld: why profiles must not be sent -> how many.
    :param needs_approval: the removals are more than the sync's ``approve_above``.
    :param requests: how many it takes, if none is refused; records split by their size make more.
    :param minutes: how long they take at the allowed rate; None where nothing limits it.
    """

    sync: str
    destination: str
    desired: int
    creates: int
    updates: int
    removals: int
    acknowledged: int
    invalid: Mapping[str, int]
    withheld: Mapping[str, int]
    needs_approval: bool
    requests: int
    minutes: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def sentences(self) -> Iterator[str]:
        """Readable lines."""
        yield (
            f"{self.sync} to {self.destination}: {self.creates} created, {self.updates} updated,"
            f" {self.removals} removed; of {self.desired} profiles that it speaks of, the destination holds"
            f" {self.acknowledged}"
        )
        for what, reasons in (("cannot be sent", self.invalid), ("must not be sent", self.withheld)):
            for reason, count in reasons.items():
                yield f"{count} {what}: {reason}"
        takes = "" if self.minutes is None else f", about {self.minutes:.1f} minutes at the allowed rate"
        yield f"{self.requests} requests{takes}"
        if self.needs_approval:
            yield "the removals need an approval"


def preview(
    warehouse: Warehouse,
    sync: Sync,
    destination: Destination,
    run: Run,
    *,
    profiles: Profiles,
    consent: Consent | None = None,
    resync: bool = False,
) -> Preview:
    """Say what :func:`~cdp_provider.core.activation.sync.sync` would send. Writes nothing, calls nobody.

    :param resync: everything anew.
    :raises ConfigurationError: the sync or its destination are wrong.
    :raises NotFoundError: there are no profiles yet.
    """
    kind = kind_of(sync, destination, profiles)
    with warehouse.session() as session:
        tables.ensure(session)
        shape = Shape.of(session, kind, consent or Consent())
        found = diff.preview(session, shape, run, resync=resync_of(run) if resync else None)
    records = (found.creates + found.updates, found.removals)
    requests = sum(-(-count // batch_size(kind)) for count in records)
    return Preview(
        sync=sync.name,
        destination=destination.name,
        requests=requests,
        minutes=_minutes(kind, requests, sum(records)),
        **{name: getattr(found, name) for name in diff.Preview.__dataclass_fields__},
    )


def _minutes(kind: DestinationKind, requests: int, records: int) -> float | None:
    """By the tightest of the limits; a quota is waited for as often as it is used up."""
    seconds = [
        (requests if rate.requests else records) / rate.amount * rate.per.total_seconds()
        for rate in kind.own_limits.rates
    ]
    return max(seconds) / 60 if seconds else None
