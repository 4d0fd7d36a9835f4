# Every target works on a fresh machine that has Python 3.11 or later, pip and make.
# Portable to GNU make 3.81, which is what macOS ships.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
CODE := feature_store training recsvc loadtests tests

# The environment belongs to this folder: an active one, or a PYTHONPATH, must not leak in.
unexport VIRTUAL_ENV
unexport PYTHONPATH
unexport PYTHONHOME
# Without bytecode each of the hundred processes of a test run would compile 1,300 modules: half of what its start costs.
unexport PYTHONDONTWRITEBYTECODE

# Set on the command line, as in: make test PYTEST="-k fold", make demo DEMO="--port 8080"
PYTEST ?=
DEMO ?=
SERVE ?=
BENCH ?=
LOCK ?=

.PHONY: help setup demo serve test test-slow laws prove bench bench-items check format lint types lock clean clean-all

help: ## Show this list
	@echo 'recsvc: make demo, make test. All targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1#\2/p' Makefile | awk -F'#' '{printf "%-12s %s\n", $$1, $$2}'

# One stamp: good while the pins are older than it, and the environment was made in this very folder and still runs.
READY := .venv/.ready
ifneq ($(shell test -x .venv/bin/python && cat .venv/.folder 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
$(READY): requirements/dev.txt requirements/uv.txt requirements/install.sh pyproject.toml
	@requirements/install.sh

setup: $(READY) ## Make the environment in .venv/, or bring it up to date
	@echo "Ready: $$($(BIN)/python --version) in .venv/"

# exec: Ctrl-C reaches recsvc itself, and make waits until it has stopped what it started.
demo: $(READY) ## Load real purchases, train, evaluate, serve on port 8000
	@exec $(BIN)/recsvc demo $(DEMO)

serve: $(READY) ## Serve on port 8000
	@exec $(BIN)/recsvc serve $(SERVE)

# Two processes: most tests wait for real servers. A file's tests stay together and share what they started.
test: $(READY) ## Run the whole suite; the long runs are in test-slow
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' $(PYTEST)

test-slow: $(READY) ## Run the tests that are marked slow: real data at full size, long runs
	@exec $(BIN)/python -m pytest -m slow $(PYTEST)

# The suite sees the same examples everywhere; this looks for new ones, and remembers those that failed.
laws: $(READY) ## Look for counterexamples: every Hypothesis law with random examples, more of them
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile -m 'hypothesis' --hypothesis-profile random $(PYTEST)

# A million events from eight writers while everything is killed; 200 power cuts; merges killed half-way; reads beside both settings of fsync;
# 100,000 steps of customers whose word must hold.
prove: $(READY) ## Run the long proofs: nothing is lost, power cuts, the price of durability
	$(BIN)/python -m tests.proofs.nothing_lost --events 1000000 --writers 8
	$(BIN)/python -m tests.proofs.power_cut --copies 200
	$(BIN)/python -m tests.proofs.killed_merges --rounds 40
	$(BIN)/python -m tests.proofs.durability --seconds 20
	$(BIN)/python -m tests.proofs.erased --people 10000 --erase 1000
	$(BIN)/python -m tests.proofs.customers_word --steps 100000
	$(BIN)/python -m tests.proofs.customers_word --steps 100000 --opt-in --kills 50
	$(BIN)/python -m tests.proofs.steady_memory --minutes 10

bench: $(READY) ## Measure the service beside its floors; writes bench.json
	@exec $(BIN)/python loadtests/bench.py $(BENCH)

bench-items: $(READY) ## Measure a catalogue of a million items: import, memory of a second worker, live changes
	@folder=$$(mktemp -d) && $(BIN)/python -m tests.benchmarks.million_items --folder $$folder; status=$$?; rm -rf $$folder; exit $$status

check: lint types test ## What CI runs: format, lint, types, tests

format: $(READY) ## Format the code, fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY) ## Check format, code, Dockerfile and compose file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint --failure-threshold info Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

types: $(READY) ## Check the types
	$(BIN)/mypy

# --universal: one file for Linux and macOS, x86-64 and arm64, Python 3.11 and later. LOCK=--upgrade takes the newest.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK)
lock: $(READY) ## Pin requirements/*.txt again from pyproject.toml and requirements/*.in
	$(COMPILE) requirements/uv.in --output-file requirements/uv.txt
	$(COMPILE) pyproject.toml --all-extras --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --constraints requirements/dev.txt --output-file requirements/api.txt
	$(COMPILE) pyproject.toml --extra train --constraints requirements/dev.txt --output-file requirements/train.txt
	$(COMPILE) requirements/build.in --constraints requirements/dev.txt --output-file requirements/build.txt

clean: ## Remove caches and what builds leave behind
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist bench.json
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean ## Remove the environment and the demo's data too
	rm -rf .venv .recsvc
