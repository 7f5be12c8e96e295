# `make quickstart`, `make test` and `make docs` work on a fresh machine. PYTHON may name another interpreter (3.11 or 3.12).
# TORCH=newest takes another environment, .venv-newest, with the newest torch and Composer without its pins.
PYTHON ?= python3
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(TORCH),newest)
VENV := .venv-newest
PINS = newest
TRAIN := train-newest
else
VENV := .venv
PINS = $(VERSION)
TRAIN := train
endif
BIN := $(VENV)/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --durations 25
.PHONY: install quickstart test test-slow test-all kernels lint docs wheel constraints

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml $(wildcard constraints/*.txt)
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 13) else "Training needs Python 3.11 or 3.12: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints/$(PINS).txt --editable '.[$(TRAIN),test,dev]'
ifeq ($(TORCH),newest)
	$(BIN)/pip install --quiet --no-deps mosaicml==0.32.1 mosaicml-cli==0.7.5
endif
	touch $@

quickstart: install
	$(BIN)/clm-detour run quickstart

# Two processes with one thread each, since most tests are too small to use more.
test: install
	$(PYTEST) -m "not slow and not gpu and not study"

test-slow: install
	$(PYTEST) -m "slow and not gpu and not study"

test-all: test test-slow

# FlashAttention 4 without its requirements, as text: tests/model/test_kernel_signatures.py reads its arguments.
kernels: install
	$(BIN)/pip install --quiet --no-deps --target build/kernels --upgrade flash-attn-4==4.0.0b36

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	$(BIN)/pip install --quiet --constraint constraints/$(PINS).txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

wheel: install
	$(BIN)/python -m build --wheel

# Renew constraints/X.Y.txt for the Python that PYTHON names, or constraints/newest.txt with TORCH=newest. They pin
# every package that `make install` and `make docs` install.
constraints:
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade pip
	build/constraints/bin/python scripts/constraints.py $(TRAIN) $(PINS)
