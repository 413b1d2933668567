# SPDX-License-Identifier: Apache-2.0
"""Identity rules: which identifiers make two rows one person, and where that ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cdp_provider.core.project.base import Model, Name, Whole


class Identifier(Model):
    """Rules for one type of identifier.

    :param priority: 1 is the strongest; types without one rank after those with one, by name.
    :param limit: at most so many values of this type per profile.
    :param normalize: how a raw value becomes comparable: ``trim`` is always done; ``lower`` folds case;
        ``email`` folds case and refuses what is no address; ``phone`` gives E.164; ``digits`` keeps digits.
    :param region: two-letter country of phone numbers without an international prefix.
    :param region_column: column of the row that holds that country, tried before `region`.
    :param block: values that identify nobody, compared after normalising.
    :param block_patterns: regular expressions; a value that one matches whole identifies nobody.
    """

    priority: Whole | None = Field(default=None, ge=1)
    limit: Whole = Field(default=5, ge=1)
    normalize: Literal["trim", "lower", "email", "phone", "digits"] = "trim"
    region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    region_column: str | None = None
    block: tuple[str, ...] = ()
    block_patterns: tuple[str, ...] = (r"[0\-]*", r"-1", r"(?i:null|none|undefined|unknown|anonymous|n/a)")


class Identity(Model):
    """Rules of the whole project.

    :param over_limit: what happens when a row would give a profile too many values of a type: ``demote``
        drops the row's lowest-priority identifier and looks again.
    """

    identifiers: dict[Name, Identifier] = Field(default_factory=dict)
    over_limit: Literal["demote"] = "demote"

    def ranked(self) -> list[str]:
        """Identifier types, strongest first."""
        unranked = float("inf")
        return sorted(self.identifiers, key=lambda n: (self.identifiers[n].priority or unranked, n))
