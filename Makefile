# SPDX-License-Identifier: Apache-2.0
#
# `make run` shows what NVI does; `make test` tests all that can be tested on this machine. Both install what they need.

SHELL := /bin/sh
PYTHON := .venv/bin/python
# Namespaces and interfaces need root.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# bmv2 or embedded; empty for the best on this machine.
TARGET ?=
HOST ?= bj1

.DEFAULT_GOAL := help
.PHONY: help setup run test lint ptf shell p4 bench matrix chaos scale fuzz clean

help:  ## list what make can do
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install Debian packages and make .venv (quick when all is there)
	@sh scripts/setup.sh

run: setup  ## bring up a farm and show what it does (TARGET=bmv2|embedded to choose)
	@$(SUDO) $(PYTHON) -m nvi.cli.tour $(if $(TARGET),--target $(TARGET))

test: setup lint  ## everything that this machine can test
	$(SUDO) $(PYTHON) -m pytest
	@for target in $$($(PYTHON) scripts/targets.py); do $(MAKE) --no-print-directory ptf TARGET=$$target || exit 1; done
	$(PYTHON) -m matrix
	@if $(PYTHON) scripts/targets.py | grep -q bmv2; then $(MAKE) --no-print-directory matrix TARGET=bmv2; fi

lint: setup  ## style, types, and who may import whom
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

ptf: setup  ## packets in, packets out, against a switch (TARGET=bmv2|embedded)
	$(SUDO) $(PYTHON) -m ptf_tests.run $(if $(TARGET),--target $(TARGET))

shell:  ## p4runtime-shell on a running host's switch (HOST=bj1), beside its agent
	@sh scripts/setup.sh shell
	@$(SUDO) .venv-shell/bin/python scripts/p4rt_shell.py $(HOST)

p4:  ## compile p4src/ (needs p4c); commit what it writes
	@sh scripts/compile_p4.sh

bench: setup  ## measure, each time against a peer in the same run
	@sh scripts/setup.sh openflow
	$(SUDO) $(PYTHON) -m bench

chaos: setup  ## kill agents, switches and NATS servers under traffic, and count what that costs (DURATION=120)
	$(SUDO) $(PYTHON) -m bench.chaos --duration $(or $(DURATION),120) $(if $(TARGET),--target $(TARGET)) $(CHAOS)

scale: setup  ## farms of 100 to 100,000 hosts, simulated: minutes, and some 14 GiB (WRITE=1 to keep what comes out)
	$(if $(WRITE),$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[picture]')
	$(PYTHON) -m bench.scale $(if $(WRITE),--write)

fuzz: setup  ## farms under faults, by seeds, against the invariants (SEEDS=1000; SEED=17 for one again, TRACE=1 to watch)
	$(PYTHON) -m fuzz $(if $(SEED),--seed $(SEED) $(if $(TRACE),--trace),--seeds $(or $(SEEDS),1000))

matrix: setup  ## every way times every kind of traffic, against docs/matrix.md (WRITE=1 to keep it; TARGET=bmv2|embedded)
	$(if $(TARGET),$(SUDO)) $(PYTHON) -m matrix $(if $(TARGET),--target $(TARGET)) $(if $(WRITE),--write)

clean:  ## remove what setup and the tools have made
	rm -rf .venv .venv-shell .venv-openflow build runtime/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
