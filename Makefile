# Two commands on a fresh machine: `make quickstart` and `make test`. PYTHON may name another interpreter (3.10 to 3.12).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
.PHONY: install quickstart test lint constraints

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml $(wildcard constraints/*.txt)
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info < (3, 13) else "Python 3.10, 3.11 or 3.12 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints/$(VERSION).txt --editable '.[test,dev]'
	touch $@

quickstart: install
	$(BIN)/clm-detour run configs/quickstart.yaml

# Two processes of one thread each: most tests are too small to use more.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Renews constraints/X.Y.txt, every version that the two commands install, for the Python that PYTHON names.
constraints:
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install --quiet --upgrade pip
	build/constraints/bin/python scripts/constraints.py
