# SPDX-License-Identifier: Apache-2.0
"""The benchmark of accuracy counts pairs rightly, and says what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import bench_accuracy
from benchmarks.bench_accuracy import pairwise
from benchmarks.table import NotHere

if TYPE_CHECKING:
    from pathlib import Path


def test_pairs_are_counted_not_records() -> None:
    persons = {"a": "x", "b": "x", "c": "x", "d": "y"}
    # true: ab ac bc; found: ab cd
    assert pairwise(persons, {"a": 1, "b": 1, "c": 2, "d": 2}) == (1 / 2, 1 / 3, pytest.approx(2 / 5))
    assert pairwise(persons, {"a": 1, "b": 1, "c": 1, "d": 4}) == (1, 1, 1)
    assert pairwise(persons, {"a": 1, "b": 2, "c": 3, "d": 4}) == (1, 0, 0)
    assert pairwise(persons, {"a": 1, "b": 1, "c": 1, "d": 1}) == (1 / 2, 1, pytest.approx(2 / 3))


def test_records_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="2 records have a label and 1 a profile"):
        pairwise({"a": "x", "b": "x"}, {"a": 1})


def test_without_data_sets_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_accuracy, "FOLDER", tmp_path)
    with pytest.raises(NotHere, match=r"febrl/dataset1.csv, .* not part of this rep.* CDP_DATASETS"):
        bench_accuracy.run()
