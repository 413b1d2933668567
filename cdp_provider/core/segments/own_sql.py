# SPDX-License-Identifier: Apache-2.0
"""Conditions that are somebody's own ``select`` of profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdp_provider.core.profiles.own_sql import own_sql
from cdp_provider.core.profiles.write import TABLE as PROFILES

if TYPE_CHECKING:
    from cdp_provider.core.profiles.facts import Facts
    from cdp_provider.core.project.conditions import Sql


def own_condition_sql(condition: Sql, facts: Facts) -> str:
    """SQL that is true or false for every profile, where :meth:`Facts.joins` are joined.

    :raises ConfigurationError: it is no single ``select``, or has a place for what is not there.
    """
    profiles = facts.params.warehouse.table(PROFILES)
    found = own_sql(condition.sql, facts, (), "a condition", profiles=profiles)
    relation = facts.relation(f'select distinct "_profile_id" from ({found}) found', (), always=True)
    return f'{relation}."_profile_id" is not null'
