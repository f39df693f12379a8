# One target per job. The first call makes .venv and installs into it; later calls only do the job.
#   make train ARGS="experiment=dcgan_fashion_mnist budget.minutes=2"
#   make test  ARGS="-k sample_grid"
#   WORKERS=4 make test                     so many processes; default: one per core
#   PYTHON=python3.12 make train            another Python, 3.11 or newer
#   make train PIP_ARGS="--index-url URL"   options for pip, such as for CPU-only wheels of torch

PYTHON ?= python3
PIP_ARGS ?=
WORKERS ?= auto
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
BENCHMARKS := start_up metric_memory training_speed
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
OFFLINE_TESTS := not slow and not reference_data and not gpu and not cluster and not long

.DEFAULT_GOAL := help
.PHONY: help install install-dev train test test-marked test-cluster test-long lint format wheel bench clean

help:
	@echo "make train        train the default experiment (ARGS=... for others)"
	@echo "make test         the offline tests"
	@echo "make test-marked  the slow tests, and those on the reference data in the folder LIT_AIGC_DATA"
	@echo "make test-cluster the tests on SLURM: for root, with slurm-wlm and munge installed"
	@echo "make test-long    the tests that take minutes: kills, time limits, launchers, more model families"
	@echo "make lint         ruff: rules and format"
	@echo "make format       let ruff fix what it can"
	@echo "make wheel        build dist/*.whl and dist/*.tar.gz"
	@echo "make bench        speed, start-up and memory, about 6 minutes"
	@echo "make clean        remove builds and caches (not .venv, not runs/)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old or missing: Python 3.11 or newer is needed, e.g. PYTHON=python3.12 make train"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The stamps are newer than pyproject.toml exactly when its dependencies are installed.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_ARGS) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install $(PIP_ARGS) --editable '.[dev]'
	@touch $@

install: $(VENV)/installed

install-dev: $(VENV)/installed-dev

train: install
	$(BIN)/python -m lit_aigc.train $(ARGS)

test: install-dev
	$(PYTEST) -m "$(OFFLINE_TESTS)" $(ARGS)

test-marked: install-dev
	$(PYTEST) -m "(slow or reference_data) and not gpu and not cluster and not long" $(ARGS)

test-cluster: install-dev
	$(BIN)/python -m pytest -m "cluster and not long" $(ARGS)

test-long: install-dev
	$(BIN)/python -m pytest -m "long and not gpu" $(ARGS)

lint: install-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

format: install-dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

wheel: install-dev
	$(BIN)/python -m build --no-isolation

bench: install-dev
	@set -e; for name in $(BENCHMARKS); do echo "$$name"; $(BIN)/python benchmarks/$$name.py; done

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find lit_aigc tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
