# SPDX-License-Identifier: Apache-2.0
"""Splits: the same chance everywhere, shares as declared, and who moves when they change."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from fractions import Fraction
from itertools import accumulate

import pyarrow as pa
import pytest

from cdp_provider.core.exceptions import ConfigurationError
from cdp_provider.core.project.model import Segment, Segmentation, Split
from cdp_provider.core.segments.compile import segments_query
from tests.core.segments.ground import PROFILES, Ground, facts

PEOPLE = 20_000
COUNTRIES = {n: (None, "de", "at", "de", "ch", "de")[n % 6] for n in range(1, PEOPLE + 1)}
HALVES = {"a": "50 %", "b": "50 %"}


@pytest.fixture
def crowd(warehouse):
    """Many profiles, of which every sixth has no country."""
    ground = Ground({})
    ground.put(warehouse)
    numbers = list(COUNTRIES)
    rows = {
        "profile_id": pa.array(numbers, pa.int64()),
        "country": pa.array(list(COUNTRIES.values()), pa.string()),
        "whole": pa.array([n % 10 for n in numbers], pa.int64()),
    }
    with warehouse.session() as session:
        session.load(warehouse.table("profiles"), pa.table(rows))
    return ground, warehouse


def divided(crowd, *splits, segments=()):
    """For each split, profile -> group."""
    ground, warehouse = crowd
    asked = {f"{split.name}_{group}": (split.name, group) for split in splits for group in split.groups}
    wanted = [Segment(name=name, where={"split": s, "group": g}) for name, (s, g) in asked.items()]
    members = ground.members(warehouse, Segmentation(segments=(*segments, *wanted), splits=splits))
    found = [
        {profile: group for name, (s, group) in asked.items() if s == split.name for profile in members[name]}
        for split in splits
    ]
    for split, of in zip(splits, found, strict=True):  # nobody is in two groups
        assert len(of) == sum(len(members[name]) for name, (s, _) in asked.items() if s == split.name)
    return found


def drawn(text):
    return int(hashlib.md5(text.encode()).hexdigest()[:13], 16)  # noqa: S324 - no secret


def nearest(split, profile):
    """Weighted rendezvous, as the page of segments names it."""
    shares = {**split.groups, "": 1 - sum(split.groups.values())}
    salt = split.salt or split.name
    times = {
        group: -math.log((drawn(f"{salt}:{group}:{profile}") + 0.5) / 2**52) / float(share)
        for group, share in shares.items()
        if share
    }
    return min(times, key=times.__getitem__)


def test_every_profile_has_the_same_group_in_every_run_and_warehouse(crowd):
    split = Split(name="spring", groups={"holdout": "10 %", "mail": "45 %", "letter": "30 %"})
    (found,) = divided(crowd, split)
    expected = {profile: nearest(split, profile) for profile in COUNTRIES}
    assert found == {profile: group for profile, group in expected.items() if group}
    sizes = Counter(found.values())
    for group, share in split.groups.items():
        error = math.sqrt(PEOPLE * float(share) * (1 - float(share)))
        assert abs(sizes[group] - PEOPLE * float(share)) < 4 * error


def test_shares_of_all_leave_nobody_over(crowd):
    whole, halves, exact = divided(
        crowd,
        Split(name="whole", groups={"all": "100 %"}),
        Split(name="halves", groups=HALVES),
        Split(name="exact", groups=HALVES, stratify=["country"]),
    )
    assert set(whole) == set(halves) == set(exact) == set(COUNTRIES)


def test_when_a_share_shrinks_only_its_members_change_groups(crowd):
    before, after = divided(
        crowd,
        Split(name="before", salt="x", groups={"a": "40 %", "b": "30 %", "c": "20 %"}),
        Split(name="after", salt="x", groups={"a": "25 %", "b": "30 %", "c": "20 %"}),
    )
    moved = {(before.get(p), after.get(p)) for p in COUNTRIES if before.get(p) != after.get(p)}
    # What becomes nobody's part comes from everywhere; but no other group gets anybody except from "a".
    assert moved == {("a", "b"), ("a", "c"), ("a", None), ("b", None), ("c", None)}


def test_splits_with_one_salt_divide_alike_and_others_do_not(crowd):
    one, two, other = divided(
        crowd,
        Split(name="one", salt="x", groups=HALVES),
        Split(name="two", salt="x", groups=HALVES),
        Split(name="other", groups=HALVES),
    )
    assert one == two
    differing = sum(one[profile] != other[profile] for profile in COUNTRIES)
    assert abs(differing - PEOPLE / 2) < 4 * math.sqrt(PEOPLE / 4)


@pytest.mark.parametrize("stratify", [["country"], ["country", "whole"]])
def test_strata_have_exact_shares(crowd, stratify):
    split = Split(name="exact", groups={"a": "33.3 %", "b": "0.333333333", "c": "20 %"}, stratify=stratify)
    (found,) = divided(crowd, split)
    sums = [Fraction(share) for share in accumulate(split.groups.values())]
    strata = {p: (COUNTRIES[p], p % 10 if "whole" in stratify else 0) for p in COUNTRIES}
    sizes = Counter(strata.values())
    counted = Counter((strata[profile], group) for profile, group in found.items())
    for stratum, size in sizes.items():
        ends = [math.floor(size * share + Fraction(1, 2)) for share in sums]
        expected = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        assert [counted[stratum, group] for group in split.groups] == expected
    # The order within a stratum is that of the hash.
    of = [p for p in COUNTRIES if strata[p] == (None, 0 if "whole" not in stratify else 6)]
    of.sort(key=lambda p: (drawn(f"exact:{p}"), p))
    known = {"a": 0, "b": 1, "c": 2}
    places = [known.get(found.get(p), 3) for p in of]
    assert places == sorted(places)
    assert len(set(places)) == 4


def test_only_members_of_the_splits_segment_are_divided(crowd):
    some = Segment(name="some", where={"trait": "whole", "less_than": 4})
    plain, exact = divided(
        crowd,
        Split(name="plain", segment="some", groups=HALVES),
        Split(name="exact", segment="some", groups={"a": "25 %", "b": "25 %"}, stratify=["country"]),
        segments=[some],
    )
    members = {profile for profile in COUNTRIES if profile % 10 < 4}
    assert set(plain) == members
    assert set(exact) < members
    assert abs(len(exact) - len(members) / 2) < 4


def test_more_than_the_whole_is_refused(make_warehouse):
    warehouse = make_warehouse("duckdb")
    split = Split(name="s", groups={"a": "60 %", "b": "50 %"})
    segment = Segment(name="one", where={"split": "s", "group": "a"})
    with pytest.raises(ConfigurationError, match=r"the split s add up to 1\.1"):
        segments_query(
            warehouse, Segmentation(segments=(segment,), splits=(split,)), PROFILES, facts(warehouse)
        )
