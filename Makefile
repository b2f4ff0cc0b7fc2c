# make demo: own environment, then the human-activity scenario across real processes
# make pilot-demo: own environment, then three organisations and a coordinator from empty folders to a result
# make test: own environment, then lint, types, import contracts and the tests
# make test-all: the same, with whole trials and rare combinations too: before a release
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROOMS := core strategies scenarios client server federation lab cli
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start many processes, none of which should have to compile the code anew.
export PYTHONDONTWRITEBYTECODE :=
# Tests write and sync thousands of ledgers: in memory, where a file system in memory has room for them.
ROOM := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 { print "/dev/shm" }')
PYTEST := $(if $(ROOM),PYTEST_DEBUG_TEMPROOT=$(ROOM) )$(BIN)/pytest -q -n auto --dist worksteal -o tmp_path_retention_policy=failed

.PHONY: help install demo pilot-demo test test-all lint types contracts tests docs clean

help:
	@grep -E '^# make' Makefile | sed 's/^# //'
	@echo 'make install: the environment alone'

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python: got %d.%d; want 3.11 or newer (make PYTHON=python3.11 ...)" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@echo 'installing PyTorch (the largest part) ...'
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	@echo 'installing statfed and its tools ...'
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,ray,postgres,he,mpc,link]'
	@touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/statfed run time-use --engine processes --fresh

pilot-demo: install
	$(BIN)/python -P -m statfed.lab.pilot.demo

test: install lint types contracts tests

test-all: install lint types contracts
	HYPOTHESIS_PROFILE=search $(PYTEST) -m ''
	$(BIN)/python -P -m statfed.lab.pilot.demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: install
	$(BIN)/lint-imports

tests: install
	$(PYTEST)

docs: install
	$(BIN)/python docs/make_reference.py

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
