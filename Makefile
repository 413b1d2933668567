# SPDX-License-Identifier: Apache-2.0
# Needs Python 3.11, 3.12 or 3.13 and make; everything else comes into .venv, pinned by constraints.txt.

VENV := .venv
BIN := $(VENV)/bin
# Newer than what it is made from: the environment is complete, and setting up costs nothing.
INSTALLED := $(VENV)/.installed
PORT ?= 8080

# Where it is set, every process of Airflow compiles all of Airflow anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo ui stop test test-deep lint format bench constraints clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## create .venv (every other target does it when needed)

$(INSTALLED): constraints.txt pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh $(VENV)
	@touch $@

demo: $(INSTALLED) ## run the example shop once in a real Airflow and print what it did
	@$(BIN)/python -m scripts.demo

ui: $(INSTALLED) ## leave the same Airflow running at http://127.0.0.1:8080 (PORT=... for another)
	@$(BIN)/python -m scripts.ui --port $(PORT)

stop: ## end whatever this checkout has running
	@if [ -e .airflow/running.json ]; then $(BIN)/python -m scripts.ui --stop; else echo "Nothing is running."; fi

test: $(INSTALLED) ## all tests, on DuckDB and on a PostgreSQL that they start themselves
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"
	@$(BIN)/python -m pytest -q -m alone

test-deep: $(INSTALLED) ## what is generated, twenty times as often; nightly
	@CDP_TEST_DEPTH=20 $(BIN)/python -m pytest tests/core/identity tests/core/activation tests/core/profiles \
		tests/core/segments tests/core/ingest tests/testing/test_connectors.py tests/factory/test_backfill.py \
		tests/test_survival_duckdb.py tests/test_survival_postgres.py

lint: $(INSTALLED) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(INSTALLED) ## let ruff put the code in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED) ## all benchmarks; bench-NAME runs one
	@$(BIN)/python -m benchmarks

bench-%: $(INSTALLED)
	@$(BIN)/python -m benchmarks $*

constraints: $(INSTALLED) ## pin everything anew, at today's versions
	@$(BIN)/uv --quiet pip compile --universal --python-version 3.11 --all-extras --upgrade \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--output-file constraints.txt pyproject.toml > /dev/null

clean: stop ## forget all runs: Airflow's home, the demo's data and warehouse, results, caches
	@rm -rf .airflow build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

distclean: clean ## also remove .venv
	@rm -rf $(VENV)
