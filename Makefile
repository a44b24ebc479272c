# Two commands do all the set-up: `make quickstart` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROOT ?= studies
POSTGRESQL = $(shell $(BIN)/python -c "from benchmarks.postgresql import PostgreSQL; print('--postgresql' * PostgreSQL.is_installed())")
NEW_ENOUGH := $(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
GPU ?= build/gpu
LOWEST ?= build/lowest
LATEST ?= build/latest
LOWEST_TESTS := tests/test_architecture.py tests/test_bounds.py tests/spaces tests/tcpa_core/test_golden.py \
  tests/tcpa_core/test_model.py tests/tcpa_core/test_cache.py tests/tcpa_core/test_data_decode.py \
  tests/tcpa_core/test_checkpoint.py tests/tcpa_core/test_backbone.py tests/reports/test_build.py \
  tests/search/test_launch.py tests/search/test_study.py tests/faults/test_kills.py tests/faults/test_hostile.py

.PHONY: quickstart test gpu faults lowest latest lint clean

quickstart: $(VENV)/.installed
	$(BIN)/tcpa quickstart --root $(ROOT)

# Tests that start neither Ray nor MLflow nor a browser run side by side by files, a thread each; the
# others have the machine for themselves.
test: $(VENV)/.installed-dev lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore=tests/faults -m "not integration and not faults" \
	  --numprocesses=2 --dist=loadfile
	$(BIN)/python -m pytest --ignore=tests/faults -m "integration and not faults"
	$(BIN)/python -m benchmarks.faults --short

# What a GPU does with this code, in 8 minutes; then look at $(GPU)/report.md. It needs these packages
# alone and takes the first interpreter that has them, PYTHON before all others: a machine without a
# network uses the torch that it has.
GPU_NEEDS := numpy>=1.26 pillow>=10.4 pydantic>=2.9 safetensors>=0.4.5 timm>=1.0.23 torch>=2.11 torchvision>=0.26
gpu:
	@for python in $(PYTHON) $(BIN)/python $(GPU)/venv/bin/python; do \
	  if $$python -c 'import tomllib, numpy, PIL, pydantic, safetensors, timm, torch, torchvision' 2>/dev/null; \
	  then echo "with $$python"; exec $$python -m benchmarks.gpu --out $(GPU) $(FLAGS); fi; \
	done; \
	$(NEW_ENOUGH) && $(PYTHON) -m venv --system-site-packages $(GPU)/venv && \
	$(GPU)/venv/bin/python -m pip install --quiet $(GPU_NEEDS:%='%') && \
	exec $(GPU)/venv/bin/python -m benchmarks.gpu --out $(GPU) $(FLAGS)

# What is promised about failures and scale, measured: an hour at most on two cores. Without
# PostgreSQL its tests are skipped and MLflow is on sqlite.
faults: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.soak --trials 300 --nodes 3 --minutes 20
	$(BIN)/python -m benchmarks.hostile
	$(BIN)/python -m benchmarks.overhead --trials 10000 --mlflow $(POSTGRESQL)
	$(BIN)/python -m benchmarks.simulation

# The lower bounds of pyproject.toml, proven in an environment of the oldest versions (gigabytes).
lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) scripts/lowest.py > $(LOWEST)/pins.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/pins.txt --editable '.[test]'
	$(LOWEST)/bin/python -m pytest $(LOWEST_TESTS)

# The newest versions, pre-releases too, in an environment of their own (gigabytes): what a new Ray,
# Optuna or MLflow has moved is told here before users meet it.
latest:
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --upgrade --pre --editable '.[test]'
	$(LATEST)/bin/python -m pip list
	$(LATEST)/bin/python -m pytest --ignore=tests/faults

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(NEW_ENOUGH)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
