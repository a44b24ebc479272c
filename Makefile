# Two commands do all the set-up: `make quickstart` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROOT ?= studies

.PHONY: quickstart test faults lint clean

quickstart: $(VENV)/.installed
	$(BIN)/tcpa quickstart --root $(ROOT)

test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest

# What is promised about failures and scale, measured: an hour at most on two cores.
faults: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.soak --trials 300 --nodes 3 --minutes 20
	$(BIN)/python -m benchmarks.hostile
	$(BIN)/python -m benchmarks.overhead --trials 10000
	$(BIN)/python -m benchmarks.simulation

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
