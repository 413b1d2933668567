# SPDX-License-Identifier: Apache-2.0
"""Whose data may go to a destination: suppression and consent, checked in the warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cdp_provider.core.project.activation import Consent
    from cdp_provider.core.warehouse import Warehouse


def withheld_sql(
    warehouse: Warehouse, consent: Consent, purposes: Collection[str], values: dict[str, str]
) -> str:
    """SQL expression over ``profiles p``: why a profile's data stay here; null where they may go.

    Only true is a yes. A purpose that `consent` does not map is agreed to by nobody.

    :param purposes: that the destination needs, all of them.
    :param values: gets what the expression binds.
    """
    cases = []
    for number, column in enumerate(consent.suppressed):
        values[f"suppressed_{number}"] = f"suppressed by {column}"
        cases.append(f"when p.{warehouse.quote(column)} then cast(:suppressed_{number} as varchar)")
    for number, purpose in enumerate(sorted(purposes)):
        values[f"purpose_{number}"] = f"no consent to {purpose}"
        asked = consent.purposes.get(purpose)
        agreed = f"coalesce(p.{warehouse.quote(asked)}, false)" if asked else "false"
        cases.append(f"when not {agreed} then cast(:purpose_{number} as varchar)")
    return f"case {' '.join(cases)} end" if cases else "cast(null as varchar)"


def check(sync: str, consent: Consent, purposes: Collection[str], types: Mapping[str, str]) -> None:
    """Refuse what could not decide.

    :param types: engine type of each column of ``profiles``, in lower case.
    :raises ConfigurationError: a column that has to decide is missing or no boolean.
    """
    mapped = [consent.purposes[purpose] for purpose in sorted(purposes) if purpose in consent.purposes]
    for column in (*consent.suppressed, *mapped):
        if types.get(column) != "boolean":
            found = f"is {types[column]} there" if column in types else "is missing"
            msg = (
                f"sync {sync} needs the column {column} of the table profiles to know who agreed, and it"
                f" {found}; map a boolean field or trait, and build the profiles with the present project"
            )
            raise ConfigurationError(msg)
