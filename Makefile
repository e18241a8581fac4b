# whalebench. `make` alone lists the targets.
#
# PYTHON=python3 uses an environment that already has torch instead of preparing .venv (an offline GPU machine).
.DEFAULT_GOAL := help
.SUFFIXES:
SHELL := /bin/bash

GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
TORCH := $(if $(GPU),requirements/torch-cuda.txt,requirements/torch-cpu.txt)

ifdef PYTHON
PY := $(PYTHON)
READY :=
TOOLS :=
else
PY := .venv/bin/python
READY := .venv/ready
TOOLS := .venv/tools
endif

words = $(if $(STUDY),--study '$(STUDY)') $(if $(DEVICE),--device '$(DEVICE)') $(if $(TIER),--tier '$(TIER)') \
	$(if $(BUDGET),--budget '$(BUDGET)') $(if $(MODEL),--model '$(MODEL)') $(if $(IMPL),--impl '$(IMPL)') \
	$(if $(RESUME),--resume '$(RESUME)')

.PHONY: help bench list test report keep serve lint clean

help: ## this list
	@echo "whalebench: what do DeepSeek's ideas buy, on this machine?"; echo
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16
	@echo; echo "for bench and list: STUDY=attention  K='decode and mla' (pytest -k)  DEVICE=cpu|cuda  TIER=smoke|cpu|gpu|full"
	@echo "BUDGET=seconds  MODEL=v3 or config.json  IMPL=mine.py  RESUME=run  PYTHON=python3 (no .venv)"

bench: $(READY) ## measure, then write the report (RESUME= finishes a run)
	@if $(PY) -c 'import pytest' 2>/dev/null; then \
		$(PY) -m pytest benches -q -rfE -p no:cacheprovider --benchmark-quiet $(words) $(if $(K),-k '$(K)'); \
	else \
		echo "pytest is not installed here: measuring without it (K= is not used)"; \
		$(PY) -m harness.run $(words); \
	fi; status=$$?; \
	if [ $$status -eq 5 ]; then echo "nothing matches K='$(K)'; make list shows the names"; fi; \
	case $$status in 4|5) ;; *) $(MAKE) --no-print-directory report || exit $$?;; esac; exit $$status

list: $(READY) ## cases, contenders, and why some cannot run here
	@$(PY) -m harness.run --list $(words)

test: $(READY) $(TOOLS) ## the test suite
	@$(PY) -m pytest tests

report: $(READY) ## pages from the newest run and the recorded ones (RUNS='a b' for others)
	@if $(PY) -c 'import plotly, pandas' 2>/dev/null; then $(PY) -m reports $(RUNS); \
	else echo "plotly or pandas is not installed here: no pages written; copy the run's folder to a machine that has them"; fi

keep: $(READY) ## put a run under reports/recorded, thinned (RUN=runs/...)
	@$(PY) -m harness.keep $(RUN)

serve: $(READY) ## show the report at http://127.0.0.1:8000
	@$(PY) -m reports serve

lint: $(READY) $(TOOLS) ## formatting, lint and types
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy

clean: ## remove the report, caches and .venv; runs stay
	rm -rf .venv reports/site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

.venv/ready: requirements/base.txt $(TORCH)
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "whalebench needs Python 3.11 or newer"; exit 1; }
	@echo "preparing .venv (once)"
	@test -x .venv/bin/python || python3 -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $(TORCH)
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/base.txt
	@touch $@

.venv/tools: requirements/test.txt .venv/ready
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/test.txt
	@touch $@
