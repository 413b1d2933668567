# SPDX-License-Identifier: Apache-2.0
"""Splink at work: how likely two profiles are one person, by the fields they have.

The model is that of Fellegi and Sunter (1969), as splink 5 implements it: what is seen among random pairs (u)
is counted on a sample, what is seen among true pairs (m) is learnt by expectation maximisation. Nothing here
is left to chance: with the same rows and the same seed the scores are the same.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from cdp_provider.core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdp_provider.core.project.fuzzy import Fuzzy

log = logging.getLogger(__name__)

#: Pairs that the sample for u may have: all pairs of 1,400 profiles.
_SAMPLE = 1_000_000
#: Pairs that a round of expectation maximisation may look at.
_ROUND = 5_000_000
#: A Jaro-Winkler similarity of texts is looked at in these steps.
_TEXT_STEPS = (0.92, 0.8)
#: Digits of a score that count: the last ones depend on the order in which sums were made.
_DIGITS = 6
#: Of all pairs, at most so many are taken for true ones before their fields are looked at.
_LARGEST_SHARE = 0.5
_NO_NUMBER = re.compile(r'column "(nan|inf)" not found')


def score(profiles: pa.Table, fuzzy: Fuzzy) -> tuple[pa.Table, list[str]]:
    """Score the pairs of profiles that agree in one of the lists of ``block_on``.

    :param profiles: ``profile_id`` and :meth:`Fuzzy.fields`; texts in lower case, empty ones null.
    :returns: ``left``, ``right`` (profile ids, the smaller one left), ``score`` and ``evidence``, which says
        how each field compares (``birthday equal, city differs``) without its values, for each pair from the
        threshold on; and the lists of ``block_on`` that nothing could be learnt from.
    :raises ConfigurationError: splink is not installed.
    """
    if profiles.num_rows < 2:
        return _SCORED.empty_table(), []
    splink, library = _splink()
    names = ["profile_id" if name == "profile_id" else _column(name) for name in profiles.column_names]
    profiles = profiles.rename_columns(names)
    with tempfile.TemporaryDirectory(prefix="cdp-fuzzy-") as folder, duckdb.connect() as engine:
        engine.execute("set TimeZone = 'UTC'")
        engine.execute(f"set temp_directory = '{folder}'")
        engine.register("profiles", profiles)
        table = splink.DuckDBAPI(connection=engine).register(profiles)
        linker = splink.Linker(
            table, _settings(splink, library, fuzzy, len(profiles)), log_level=logging.ERROR
        )
        linker.training.estimate_u_using_random_sampling(max_pairs=_SAMPLE, seed=fuzzy.seed)
        sampled = linker.misc.save_model_to_json()
        rounds = [fields for fields in fuzzy.block_on if _has_pairs(engine, fields)]
        failed: tuple[str, ...] | None = ()
        while failed is not None:
            rounds = [fields for fields in rounds if fields != failed]
            linker = splink.Linker(table, sampled, log_level=logging.ERROR)
            failed = _train(linker, splink.block_on, rounds)
        pairs = linker.inference.predict(
            threshold_match_probability=fuzzy.threshold, warning_mode="never"
        ).as_duckdbpyrelation()
        evidence = ", ".join(_evidence(name) for name in fuzzy.compare)
        scored = pairs.query(
            "pairs",
            "select least(profile_id_l, profile_id_r) as left, greatest(profile_id_l, profile_id_r) as right,"
            f" round(match_probability, {_DIGITS}) as score, concat_ws(', ', {evidence}) as evidence"
            " from pairs order by 1, 2",
        ).to_arrow_table()
    return scored.cast(_SCORED), [", ".join(f) for f in fuzzy.block_on if f not in rounds]


_SCORED = pa.schema({"left": pa.int64(), "right": pa.int64(), "score": pa.float64(), "evidence": pa.string()})


def _splink() -> tuple[Any, Any]:
    try:
        import splink
        from splink import comparison_library
    except ImportError as error:
        msg = (
            "fuzzy matching is declared, and splink is not installed; install"
            " airflow-provider-cdp[fuzzy], or remove identity.fuzzy"
        )
        raise ConfigurationError(msg) from error
    return splink, comparison_library


def _settings(splink: Any, library: Any, fuzzy: Fuzzy, profiles: int) -> Any:
    """The model before training.

    The share of true pairs is declared rather than learnt: where identifiers have merged nearly all doubles,
    expectation maximisation sees them in whatever else pairs have in common.
    """
    return splink.SettingsCreator(
        link_type="dedupe_only",
        probability_two_random_records_match=min(fuzzy.duplicates / (profiles - 1), _LARGEST_SHARE),
        unique_id_column_name="profile_id",
        comparisons=[_comparison(library, _column(name), how) for name, how in fuzzy.compare.items()],
        blocking_rules_to_generate_predictions=[splink.block_on(*map(_column, f)) for f in fuzzy.block_on],
    )


def _comparison(library: Any, column: str, how: str) -> Any:
    """Splink's ready-made comparison. Of values that are equal, rare ones count for more."""
    if how == "name":
        return library.NameComparison(column)
    if how == "email":
        return library.EmailComparison(column)
    if how == "date":
        return library.DateOfBirthComparison(column, input_is_string=False)
    weighted = {"term_frequency_adjustments": True}
    if how == "text":
        return library.JaroWinklerAtThresholds(column, _TEXT_STEPS).configure(**weighted)
    if how == "code":
        return library.DamerauLevenshteinAtThresholds(column, (1, 2)).configure(**weighted)
    return library.ExactMatch(column).configure(**weighted)


def _has_pairs(engine: duckdb.DuckDBPyConnection, fields: Sequence[str]) -> bool:
    """Whether any two profiles are equal in these fields, so that there is something to learn from."""
    names = ", ".join(map(_column, fields))
    there = " and ".join(f"{_column(name)} is not null" for name in fields)
    shared = f"select 1 from profiles where {there} group by {names} having count(*) > 1 limit 1"
    return bool(engine.execute(shared).fetchall())


def _train(linker: Any, block_on: Any, rounds: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Learn what true pairs look like; what no round learns about keeps splink's defaults.

    :returns: a round that came to no result, after which the linker is of no use any more; None when all is
        well. Where hardly any pair of a round is one person, what it estimates may be no number in the end.
    """
    from splink.internals.exceptions import SplinkException

    for fields in rounds:
        try:
            linker.training.estimate_parameters_using_expectation_maximisation(
                block_on(*map(_column, fields)),
                max_pairs=_ROUND,
            )
            if not _is_sound(linker.misc.save_model_to_json()):
                return fields
        except SplinkException as error:
            # It writes NaN and infinity into its SQL as they stand, where they read as names of columns.
            if not _NO_NUMBER.search(str(error.__cause__)):
                raise
            return fields
        except ValueError:
            return fields
    return None


def _is_sound(model: Any) -> bool:
    """Whether all that a model estimates are numbers."""
    try:
        json.dumps(model, allow_nan=False)
    except ValueError:
        return False
    return True


def _column(name: str) -> str:
    """A field as splink sees it: it leaves names unquoted, and ``group`` or ``order`` would break it."""
    return f"field_{name}"


def _evidence(name: str) -> str:
    """SQL for how the field compares: equal, similar or differing; null where a value is missing."""
    column = _column(name)
    return (
        f"case when gamma_{column} < 0 then null when {column}_l = {column}_r then '{name} equal'"
        f" when gamma_{column} > 0 then '{name} similar' else '{name} differs' end"
    )
