# Everyday commands. Each makes the environment that it needs first; the second run skips the installation.
#   make demo [ARGS='--json']   the whole product once, live        make test [ARGS='tests/unit']   the whole suite
#   make lint                   style, types, layers                make bench                      the figures
#   make check                  make lint and the unit tests
#   make web                    the page's bundle and API types     make install                  only the environment
#   make faults [SEED=1 RUNS=]  break the whole product over and over (tests/faults/sweep); RUNS: how many faults, default every kind once
#   make audit                  the code against our own rules (bandit, semgrep; audit/)

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -qq --constraint constraints.txt --editable
export RAY_USAGE_STATS_ENABLED := 0

ON_ALL := --numprocesses logical --maxprocesses 8 --dist loadfile
AUDIT := .venv-audit
AUDITED := qubix serve_app jobs_library migrations
SEMGREP := SEMGREP_SEND_METRICS=off SEMGREP_ENABLE_VERSION_CHECK=0 SEMGREP_SETTINGS_FILE=$(AUDIT)/settings.yml \
	SEMGREP_LOG_FILE=$(AUDIT)/log SEMGREP_VERSION_CACHE_PATH=$(AUDIT)/version PATH="$(CURDIR)/$(AUDIT)/bin:$$PATH" semgrep

.PHONY: install demo test test-together test-alone lint check audit bench web faults
.DELETE_ON_ERROR:

install: $(VENV)/.installed-run

demo: $(VENV)/.installed-run
	@$(BIN)/qubix demo $(ARGS)

test: $(VENV)/.installed-dev
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@$(MAKE) --no-print-directory --keep-going test-together test-alone
endif

test-together: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ON_ALL) -m "not alone"

test-alone: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m alone

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict qubix serve_app
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest $(ON_ALL) tests/unit

audit: $(AUDIT)/.installed
	$(AUDIT)/bin/bandit --quiet --configfile pyproject.toml --ignore-nosec --recursive $(AUDITED)
	$(SEMGREP) test audit/rules
	$(SEMGREP) scan --quiet --error --metrics=off --config audit/rules $(AUDITED)

bench: $(VENV)/.installed-dev
	@for program in benchmarks/[!_]*.py; do name=$${program##*/}; $(BIN)/python -m benchmarks.$${name%.py} $(ARGS) || exit 1; done

faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults.sweep $(if $(SEED),--seed $(SEED)) $(if $(RUNS),--runs $(RUNS)) $(ARGS)

web:
	@test -d serve_app/web || { echo "There is no page yet: it comes in a later step (README.md)."; exit 1; }
	cd serve_app/web && npm ci && npm run build

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Qubix needs Python 3.11 or newer with its venv module: install it, or name one with make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-run: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "installing Qubix and what it runs on into $(VENV) (once, some minutes)"
	$(INSTALL) '.[jobs]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "installing Qubix and what its tests need into $(VENV) (once, some minutes)"
	$(INSTALL) '.[jobs,dev]'
	@touch $@ $(VENV)/.installed-run

$(AUDIT)/.installed: audit/constraints.txt
	@test -n "$(PYTHON)" || { echo "Qubix needs Python 3.11 or newer with its venv module: install it, or name one with make PYTHON=/path/to/python3"; exit 1; }
	@echo "installing what make audit needs into $(AUDIT) (once)"
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --disable-pip-version-check -qq --no-deps --requirement audit/constraints.txt
	@touch $@
