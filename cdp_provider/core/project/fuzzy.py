# SPDX-License-Identifier: Apache-2.0
"""Fuzzy matching: which fields of profiles are compared, how, and from which score on two are one person."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cdp_provider.core.project.base import Model, Name, Whole
from cdp_provider.core.project.problems import Problem, Problems

#: Ways to compare -> column types of the fields they suit.
COMPARABLE: dict[str, tuple[str, ...]] = {
    "exact": ("string", "integer", "number", "decimal", "boolean", "date", "timestamp"),
    "name": ("string",),
    "email": ("string",),
    "date": ("date",),
    "text": ("string",),
    "code": ("string", "integer"),
}


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Fields = Annotated[
    tuple[Name, ...],
    BeforeValidator(_listed, json_schema_input_type=Name | tuple[Name, ...]),
    Field(min_length=1),
]


class Fuzzy(Model):
    """Pairs of profiles that look like one person though they share no identifier.

    A score is the probability that two profiles are one person, between 0 and 1.

    :param compare: profile field -> how two of its values are held against each other: ``exact`` equal or
        not; ``name`` and ``text`` by Jaro-Winkler similarity, names with finer steps; ``email`` whole, then
        what stands before the ``@``; ``date`` as dates of birth, with slips of the keyboard and distances;
        ``code`` by transposed, missing and wrong characters (post codes, numbers of documents).
    :param block_on: only profiles that are equal in all fields of one of these lists are compared. Each list
        is a round of training too, which learns about the fields that are not in it.
    :param threshold: pairs from this score on are proposed.
    :param accept_from: pairs from this score on are taken in without a review; None: none are.
    :param duplicates: how many doubles a profile has on average, as far as one knows; scores rise with it.
    :param seed: of the sample of pairs that training looks at.
    """

    compare: dict[Name, Literal["exact", "name", "email", "date", "text", "code"]] = Field(min_length=2)
    block_on: tuple[Fields, ...] = Field(min_length=1)
    threshold: float = Field(default=0.9, gt=0, lt=1)
    accept_from: float | None = Field(default=None, gt=0, le=1)
    duplicates: float = Field(default=0.1, gt=0)
    seed: Whole = Field(default=1, ge=0)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse an order of the thresholds that cannot be meant, and fields that no round learns about."""
        problems = []
        if self.accept_from is not None and self.accept_from < self.threshold:
            message = (
                f"{self.accept_from} is below the threshold {self.threshold}, so nothing is proposed there"
            )
            problems.append(Problem(("accept_from",), message, "raise it, or lower the threshold"))
        for name in self.compare:
            if all(name in fields for fields in self.block_on):
                message = f"{name!r} is in every list of block_on, so no round of training learns about it"
                problems.append(Problem(("compare", name), message, "add a list to block_on without it"))
        if problems:
            raise Problems(problems)

    def fields(self) -> list[str]:
        """Every profile field that is looked at, each once; those compared come first."""
        lists = (name for fields in self.block_on for name in fields)
        return list(dict.fromkeys([*self.compare, *lists]))
