# `make quickstart`, `make test` and `make docs` work on a fresh machine. PYTHON may name another interpreter (3.11 or 3.12).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --durations 25
.PHONY: install quickstart test test-slow test-all kernels lint docs wheel constraints

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml $(wildcard constraints/*.txt)
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 13) else "Training needs Python 3.11 or 3.12: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints/$(VERSION).txt --editable '.[train,test,dev]'
	touch $@

quickstart: install
	$(BIN)/clm-detour run configs/quickstart.yaml

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
	$(BIN)/pip install --quiet --constraint constraints/$(VERSION).txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

wheel: install
	$(BIN)/python -m build --wheel

# Renew constraints/X.Y.txt, which pins every package that `make install` and `make docs` install, for the Python that PYTHON names.
constraints:
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade pip
	build/constraints/bin/python scripts/constraints.py
