# The verbs of this project, for a person and for CI alike. `make demo` and `make test` do all set-up themselves.
SHELL := /bin/bash
VENV ?= .venv
PY := $(VENV)/bin/python
SEED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help setup demo test check unit e2e streams client lint typecheck fix clean

help:  ## this list
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | column -t -s "$$(printf '\t')"

setup: $(VENV)/.ready  ## a virtual environment with everything in it

$(VENV)/.ready: pyproject.toml constraints.txt .ci/setup.sh
	@.ci/setup.sh $(VENV)
	@touch $@

demo: setup  ## a working morning, a sleep, the next morning (SEED=n varies it)
	@$(VENV)/bin/npllm demo --seed $(SEED)

test: check unit e2e  ## everything CI runs

check: setup lint typecheck  ## style, types and the arrows between rooms

lint: setup
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports --no-cache > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

typecheck: setup
	@$(VENV)/bin/mypy

unit: setup  ## tests without the editor
	@# the long files first, so that no process waits for another at the end
	@$(PY) -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder tests/integration tests/unit

client: setup  ## the extension: types, tests, npllm.vsix
	@.ci/client.sh

e2e: setup client  ## a real VS Code drives the real server
	@tests/e2e/install.sh
	@$(PY) -m pytest -q tests/e2e

streams: setup client  ## record anew what a real VS Code says in each situation (tests/streams; about 12 minutes)
	@tests/e2e/install.sh
	@$(PY) -m tests.e2e.record

fix: setup  ## format and mend what can be mended
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:  ## everything that was made here, and root's databases whose data folders are gone
	rm -rf .demo
	@[ ! -x $(VENV)/bin/npllm ] || $(VENV)/bin/npllm doctor --prune || true
	rm -rf $(VENV) client-vscode/node_modules client-vscode/dist client-vscode/*.vsix
