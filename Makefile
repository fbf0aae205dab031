# Needs make, Python 3.11 to 3.13 and a C compiler; everything else is installed into .venv.
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
# Where setup.cfg leaves dm_control out (Python 3.13, see there), it is installed without the requirement that has no wheel.
INSTALL_DM_CONTROL = @$(BIN)/python -c 'import dm_control' 2>/dev/null \
	|| $(PIP) --no-deps "$$(sed -n 's/^ *\(dm_control==[^;]*\);.*/\1/p' setup.cfg)"

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint clean

help:
	@echo "make demo      from the first real step to C on an emulated Cortex-M4"
	@echo "make test      lint and the test suite"
	@echo "make lint      ruff and mypy"
	@echo "make test-all  the slow tests too, properties with new examples"
	@echo "make clean     remove $(VENV) and caches"

demo: $(VENV)/.installed-demo
	$(BIN)/sindyrl demo

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: lint
	$(BIN)/python -m pytest -m "slow or not slow" --hypothesis-profile=search $(PYTEST_ARGS)

# The first interpreter of a supported version that can make environments; PYTHON=... chooses another.
$(BIN)/python:
	@set -eu; found=""; old=""; \
	for candidate in $${PYTHON:-python3.12 python3.11 python3.13 python3 python}; do \
	  command -v "$$candidate" >/dev/null 2>&1 || continue; \
	  "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	    || { old="$$old $$candidate"; continue; }; \
	  "$$candidate" -c 'import ensurepip, venv' 2>/dev/null \
	    || { found="$$candidate"; continue; }; \
	  echo "Setting up $(VENV) with $$candidate"; \
	  exec "$$candidate" -m venv "$(VENV)"; \
	done; \
	if [ -n "$$found" ]; then \
	  echo "$$found cannot create environments: its 'venv' and 'ensurepip' modules are missing." >&2; \
	  echo "Install them (on Debian and Ubuntu: apt install python3-venv), or say make PYTHON=/path/to/python3.12 ..." >&2; \
	else \
	  echo "No Python 3.11, 3.12 or 3.13 was found$${old:+ (tried$$old)}." >&2; \
	  echo "Install one, or say make PYTHON=/path/to/python3.12 ..." >&2; \
	fi; \
	exit 1

# The stamps are older than setup.cfg after a change of the requirements, and then pip runs again.
$(VENV)/.installed-dev: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[dev]"
	$(INSTALL_DM_CONTROL)
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-demo: setup.cfg pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[envs,embedded]"
	$(INSTALL_DM_CONTROL)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find sindyrl controllers tests -name __pycache__ -type d -prune -exec rm -rf {} +
