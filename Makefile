# Two commands from a fresh clone: `make demo` trains with every rule, `make test` runs the tests of every rule.
# `make test-all` runs those too that search long: sanitizers, mutants, many cases of one property.
# Both make their own environment in .venv; they need Python 3.11 or newer, make, and a C compiler.

PYTHON ?= python3
CC     ?= cc
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: demo test test-slow test-all coverage lint bench clean

demo: $(VENV)/.demo
	$(RUN) examples/demo.py

PYTEST := $(RUN) -m pytest --numprocesses auto $(PYTEST_FLAGS)

test: $(VENV)/.test
	$(PYTEST) --dist loadfile -m "not slow"

test-slow: $(VENV)/.test
	OPTGEN_SEARCH=long $(PYTEST) --dist worksteal -m "slow or searches"

test-all: $(VENV)/.test
	OPTGEN_SEARCH=long $(PYTEST) --dist worksteal

# What the tests of every run go through in optgen/, by line and branch; it takes twice as long as they do.
coverage: $(VENV)/.test
	$(RUN) -m pip install --quiet "pytest-cov>=5"
	$(PYTEST) --dist loadfile -m "not slow" --cov=optgen --cov-branch --cov-report=term:skip-covered --cov-fail-under=95

lint: $(VENV)/.lint
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: $(VENV)/.bench
	$(RUN) -m optgen bench
	$(RUN) -m benchmarks.chains

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One environment; each purpose adds its own packages to it.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.bench: $(VENV)/.%: $(VENV)/.made pyproject.toml build_hook.py
	@command -v $(firstword $(CC)) >/dev/null 2>&1 || { echo "optgen needs a C compiler, and there is no '$(CC)': install gcc (apt install gcc, dnf install gcc, xcode-select --install), or name yours: make CC=clang"; exit 1; }
	$(RUN) -m pip install --quiet --editable ".[$*]"
	@touch $@

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "optgen needs Python 3.11 or newer, and there is no '$(PYTHON)': install it, or name yours: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "optgen needs Python 3.11 or newer, and $(PYTHON) is older: name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "optgen needs Python's venv module to make its environment: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
