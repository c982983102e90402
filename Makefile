# PgM: `make demo` and `make test` are all a fresh clone needs; `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
FORMAT ?= zarr
WORKERS ?= 2
# Tests and benchmarks must not depend on what a user's machine would fetch.
export HF_HUB_DISABLE_TELEMETRY = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-lowest lint docs docs-serve wheel release extract train bench-cache bench-kills bench-object-store bench-extract bench-gpu bench-head bench-train bench-tables clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*## "} {printf "  make %-12s %s\n", $$1, $$2}'

# The bootstrap reruns when the dependencies change, and costs nothing otherwise.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "PgM needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# What the tests do not need is not installed for them.
.venv/docs .venv/release: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(@F)]'
	@touch $@

setup: .venv/installed ## create .venv and install PgM into it

demo: setup ## extract, train and evaluate on the embedded digits; ends with a table
	@$(BIN)/pgm demo

extract: setup ## run the frozen encoders: make extract DATASET=digits [ROOT=dir] [WORKERS=2] [FORMAT=zarr|hdf5] [ARGS=...]
	@test -n "$(DATASET)" || { echo "Which dataset? For example: make extract DATASET=digits" >&2; exit 2; }
	$(BIN)/pgm extract $(DATASET) --workers $(WORKERS) --format $(FORMAT) $(if $(ROOT),--root "$(ROOT)") $(ARGS)

train: setup ## train from the cache: make train [ARGS='--dataset digits --method concat']
	$(BIN)/pgm train --cached $(ARGS)

# In their order, slow files first: sorted by number of tests, the few long ones would come last, on one core.
test: setup ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-lowest: .venv/release ## run the tests with the oldest versions that pyproject.toml allows, in .venv-lowest
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-lowest
	$(BIN)/uv pip install --python .venv-lowest --resolution lowest-direct --editable '.[dev]'
	.venv-lowest/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --pythonwarnings default $(ARGS)

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# The root is the package `pgm`; mypy finds it through a folder that holds a link of that name.
	@mkdir -p .typing && ln -sfn .. .typing/pgm
	MYPYPATH=.typing $(BIN)/mypy -p pgm.cache -p pgm.doctor -p pgm.loaders -p pgm.pipeline -p pgm.trainer -m pgm -m pgm.cli -m pgm.console -m pgm.demo -m pgm.plugins -m pgm.workers

docs: .venv/docs ## build the site into build/site; a warning or a dead link fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-serve: .venv/docs ## the site at http://127.0.0.1:8000, built anew as it is written
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

wheel: .venv/release ## build the archives, check them, and use the wheel in an environment of its own
	rm -rf dist build/wheel
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt dist/*.whl
	cd build/wheel && bin/pgm extract digits --limit 60 --workers 1 && bin/pgm train --cached --method concat --epochs 1

release: wheel ## check version and changelog, and tag this commit; pushing the tag publishes it
	$(BIN)/python .github/release.py

bench-cache: setup ## the cache, every promise beside its bar; against memory and other libraries [ARGS=--quick]
	$(BIN)/python bench/cache.py $(ARGS)

bench-kills: setup ## kill -9 at random moments of extraction, import and compaction, 100 times each and format
	$(BIN)/python bench/kills.py $(ARGS)

bench-object-store: setup ## features in an object store: a warm mirror against a folder, a cold epoch against the wire
	$(BIN)/python bench/object_store.py $(ARGS)

bench-extract: setup ## the pipeline against a bare loop; one worker against two [ARGS="--simulate-device"]
	$(BIN)/python bench/extract.py $(ARGS)

bench-gpu: setup ## extraction, PgM's step and whole tables on a GPU; smaller sizes where there is none [ARGS=--write]
	$(BIN)/python bench/gpu.py $(ARGS)

bench-head: setup ## the PgM head against a plain transcription and the machine's GEMM rate
	$(BIN)/python bench/head.py $(ARGS)

bench-train: setup ## the feeds and the loop against DataLoader over HDF5
	$(BIN)/python bench/train.py $(ARGS)

bench-tables: setup ## the table runner: two workers against one, its overhead, a warm table, the paper's sizes
	$(BIN)/python bench/tables.py $(ARGS)

clean: ## remove the environment and what tools left behind
	rm -rf .venv .typing .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
