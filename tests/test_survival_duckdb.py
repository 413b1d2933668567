# SPDX-License-Identifier: Apache-2.0
"""The road survives being killed, on DuckDB. A file of its own, so that both run at once."""

from __future__ import annotations

from tests.survival import killed_anywhere_and_retried_equals_undisturbed


def test_killed_anywhere_and_retried_equals_undisturbed(tmp_path, postgres_url):
    killed_anywhere_and_retried_equals_undisturbed("duckdb", tmp_path, postgres_url)
