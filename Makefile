# The commands of this project. `make demo` and `make test` set up all they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo demo-django test chaos conformance lint bench docs format constraints clean

help:  ## say what each command does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# One stamp a group: the demo needs no linters, the tests need no benchmark peers.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "strangle-mw needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --upgrade pip

$(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the '$*' dependencies into $(VENV) (once) ..."
	@$(PIP) install --quiet --constraint constraints.txt --build-constraint constraints.txt --group $* --editable '.[yaml,flask]'
	@touch $@

# httpbin asks for a greenlet below 3.0, which it does not use and gevent cannot live with.
$(VENV)/.httpbin: constraints.txt | $(VENV)/.test
	@$(PIP) install --quiet --constraint constraints.txt --no-deps httpbin
	@touch $@

demo: $(VENV)/.demo  ## a Flask monolith being strangled (ARGS=--once to exit after the replay)
	@$(BIN)/python examples/flask_app/demo.py $(ARGS)

demo-django: $(VENV)/.demo  ## a Django monolith whose orders move out, users and all (ARGS=--once as above)
	@$(BIN)/python examples/django_app/demo.py $(ARGS)

test: $(VENV)/.test $(VENV)/.httpbin  ## the whole test suite (ARGS="-k name" to choose)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

chaos: $(VENV)/.test  ## users go on while the modern side fails, for a minute or two (ARGS=--chaos-seed=N to repeat)
	@$(BIN)/python -m pytest -q -s tests/chaos --chaos-rounds=2 $(ARGS)

conformance: $(VENV)/.test  ## what each server keeps; writes the matrix in docs/servers.md
	@$(BIN)/python -m tests.conformance

lint: $(VENV)/.dev  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev  ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

bench: $(VENV)/.bench  ## measure beside the peers (needs wrk and nginx)
	@$(BIN)/python -m bench $(ARGS)

constraints: $(VENV)/.dev $(VENV)/.bench  ## write constraints.txt anew from what is installed
	@{ echo '# Every version used in development and CI. Update: make constraints'; \
	  $(PIP) freeze --exclude-editable --all; grep -E '^(hatchling|editables|pathspec|pluggy|trove-classifiers)==' constraints.txt; } \
	  | sort --unique --field-separator== --key=1,1 > constraints.tmp && mv constraints.tmp constraints.txt

clean:  ## remove what the commands above made
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis
