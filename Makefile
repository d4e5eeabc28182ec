# NovaCron LLM. Every target sets .venv up first where that is needed; `make` lists them.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
ARGS ?=
PARALLEL := -n logical --maxprocesses 4 --dist loadfile  # each process with one thread of torch

.DEFAULT_GOAL := help
.PHONY: help setup serve test test-slow test-faults test-ray check format-check lint types imports bandit audit-packages fmt bench bench-peers chaos lock docs \
	runtime clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

runtime:
	@test -n "$(PYTHON)" || { echo "No Python found. Install Python 3.11, 3.12 or 3.13."; exit 1; }
	@$(PYTHON) tools/bootstrap.py

setup:  ## .venv with everything pinned, tools for tests included
	@test -n "$(PYTHON)" || { echo "No Python found. Install Python 3.11, 3.12 or 3.13."; exit 1; }
	@$(PYTHON) tools/bootstrap.py --dev

serve: runtime  ## serve the bundled model on 127.0.0.1:8080; ARGS="MODEL --port 9000 ..."
	@exec $(BIN)/novacron serve $(ARGS)

test: setup  ## the test suite, a process per core; no GPU and no network needed
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(ARGS)

test-slow: setup  ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow $(ARGS)

test-faults: setup  ## KV tiers under kill -9, power cuts and a server that fails: the long form
	@$(BIN)/python -m pytest tests/integration/test_kv_crashes.py tests/integration/test_kv_flaky_redis.py $(ARGS)

test-ray: setup  ## a Ray cluster on this machine, its nodes killed and cut off; minutes
	@$(BIN)/python -c "import ray" 2>/dev/null || $(BIN)/python -m pip install --quiet "ray>=2.60"
	@$(BIN)/python -m pytest -s -m slow tests/integration/test_ray_cluster.py tests/integration/test_links.py $(ARGS)

check: format-check lint types imports bandit audit-packages  ## format, lint, types, import directions, known weaknesses

format-check: setup
	@$(BIN)/ruff format --check

lint: setup
	@$(BIN)/ruff check

types: setup
	@$(BIN)/mypy

imports: setup
	@$(BIN)/lint-imports

bandit: setup  ## weaknesses of the code that bandit knows
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src tools

audit-packages: setup  ## known vulnerabilities of the packages in .venv; skipped where the database is out of reach
	@$(BIN)/python tools/audit_packages.py

fmt: setup  ## format the code and sort imports
	@$(BIN)/ruff check --fix-only --quiet && $(BIN)/ruff format

bench: setup  ## measure everything, about five minutes; or ARGS="serve --help" and so on
	@$(BIN)/novacron bench $(or $(ARGS),suite --output-dir benchmarks/results)

chaos: setup  ## kill and stop engines under streams, and compare every token; ARGS="--num-faults 500 --seed 1"
	@$(BIN)/novacron bench chaos --check $(ARGS)

bench-peers: setup  ## our engine beside llama.cpp, OpenVINO and transformers; ARGS="--quick" takes minutes
	@$(PYTHON) -m benchmarks.peers.install
	@$(BIN)/python -m benchmarks.peers $(ARGS)

docs: setup  ## write docs/configuration.md from the code, and benchmarks/results/README.md from the results
	@$(BIN)/python tools/configuration_doc.py
	@$(BIN)/python tools/results_page.py

lock: setup  ## pin the versions installed in .venv
	@$(BIN)/python tools/lock.py

clean:  ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
