# make demo, make test: everything on a fresh machine with Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint format docs bench validate clean

demo: $(STAMP)
	$(BIN)/bayesrec demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow --timeout 3600

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, without a single warning, into site/; then every python block and link, and every public name.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest tests/test_docs.py

bench: $(STAMP)
	$(BIN)/python benchmarks/douban_rivals.py
	$(BIN)/python benchmarks/placebo.py
	$(BIN)/python benchmarks/few_ratings.py
	$(BIN)/python benchmarks/movielens.py
	$(BIN)/python benchmarks/svi_vs_gibbs.py

# Hours: docs/validation.md. Ctrl-C and the same command again goes on; BAYESREC_DATA names the data of the placebo.
validate: $(STAMP)
	$(BIN)/python benchmarks/validate.py --jobs 2 --write

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) bayesrec-demo .pytest_cache .mypy_cache .ruff_cache
