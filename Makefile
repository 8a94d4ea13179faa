# `make demo` and `make test` set everything up on a machine with Python 3.11 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One process a core, each with one thread; a file's tests stay in order in one process.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test test-all check format bench clean

help:
	@echo "make demo      tune a semantic API search on real data, save it, index it, search it"
	@echo "make test      set up and run the tests (under 10 minutes on 2 cores)"
	@echo "make test-all  the same with the tests marked slow"
	@echo "make check     lint, format, types, import contracts"
	@echo "make format    let ruff mend what it can"
	@echo "make bench     run the benchmarks that need no data of their own"
	@echo "make clean     remove the virtual environment, runs and caches"

# quaterion-models declares Python < 3.11 but runs on later ones; the compatibility tests use the real package.
$(STAMP): pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (Python packages, CPU build of torch; a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python quaterion-models==0.1.19
	@touch $(STAMP)

demo: $(STAMP)
	@echo "== the demo: find a function by describing it"
	HF_HUB_OFFLINE=1 $(BIN)/python examples/api_search/demo.py

test: $(STAMP)
	@echo "== running the tests"
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL)

test-all: $(STAMP)
	@echo "== running all tests, the slow ones too"
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) -m ""

check: $(STAMP)
	@echo "== lint, format, types, import contracts"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# benchmarks/cloud_faq.py needs data that is not part of the project: run it by hand with --data DIR.
bench: demo
	@echo "== benchmarks: the demo's task over three seeds, then exact evaluation"
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/api_search.py --json benchmarks/results/api_search.json
	$(BIN)/python benchmarks/evaluation/retrieval.py --json benchmarks/results/evaluation.json

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
