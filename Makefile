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

# Values reach the shell through the environment, where make puts what it was called with: a quote in one is no syntax.
words = $(if $(STUDY),--study "$$STUDY") $(if $(DEVICE),--device "$$DEVICE") $(if $(TIER),--tier "$$TIER") \
	$(if $(BUDGET),--budget "$$BUDGET") $(if $(MODEL),--model "$$MODEL") $(if $(IMPL),--impl "$$IMPL") \
	$(if $(RESUME),--resume "$$RESUME")

asked = $(if $(TOOL),--tool "$$TOOL") $(if $(RUN),--run "$$RUN") $(if $(DEVICE),--device "$$DEVICE") \
	$(if $(MODEL),--model "$$MODEL") $(if $(IMPL),--impl "$$IMPL") $(if $(LIMIT),--limit "$$LIMIT")

# Pages of what was measured, unless the request was refused or stopped; the status is the measurement's.
then_report = status=$$?; case $$status in 2|130) ;; *) $(MAKE) --no-print-directory report || exit $$?;; esac; exit $$status

# A page of its own, where plotly is; followed by its arguments.
drawn = $(PY) -c 'import plotly' 2>/dev/null && $(PY) -m reports.$(1)

.PHONY: help bench bench-ep balance ladder learn list test exact baseline gate gate-experiment doctor profile profile-all kernels compare history export import report keep serve lint clean

help: ## this list
	@echo "whalebench: what do DeepSeek's ideas buy, on this machine?"; echo
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 22
	@echo; echo "for bench and list: STUDY=attention  K='decode and mla' (bench only, pytest -k)  DEVICE=cpu|cuda  TIER=smoke|cpu|gpu|full"
	@echo "BUDGET=seconds  MODEL=v3 or config.json  IMPL=mine.py  RESUME=run  PYTHON=python3 (no .venv)"

bench: $(READY) ## measure, then write the report (RESUME= finishes a run)
	@if $(PY) -c 'import pytest' 2>/dev/null; then \
		$(PY) -m pytest benches -q -rfE -p no:cacheprovider --benchmark-quiet $(words) $(if $(K),-k "$$K"); \
	else \
		echo "pytest is not installed here: measuring without it (K= is not used)"; \
		$(PY) -m harness.run $(words); \
	fi; status=$$?; \
	if [ $$status -eq 5 ]; then echo "nothing matches K=$$K; make list shows the names"; fi; \
	case $$status in 4|5) ;; *) $(MAKE) --no-print-directory report || exit $$?;; esac; exit $$status

bench-ep: $(READY) ## experts over RANKS=2 processes, or GPUs: in order against EPLB (TOKENS= SKEW='0 1 recorded')
	@$(PY) -m benches.parallel --ranks "$${RANKS:-2}" $(if $(DEVICE),--device "$$DEVICE") \
		$(if $(BUDGET),--budget "$$BUDGET") $(if $(MODEL),--model "$$MODEL") \
		$(if $(TOKENS),--tokens "$$TOKENS") $(if $(SKEW),--skew $(SKEW)); $(then_report)

balance: $(READY) ## train a small model under five ways of balancing its experts, 8 minutes, 12 on a GPU (ARMS= STEPS= DATA=)
	@$(PY) -m benches.balance $(if $(ARMS),--arms "$$ARMS") $(if $(STEPS),--steps "$$STEPS") \
		$(if $(BUDGET),--budget "$$BUDGET") $(if $(DEVICE),--device "$$DEVICE") $(if $(DATA),--data "$$DATA") \
		$(if $(RESUME),--resume "$$RESUME"); $(then_report)

ladder: $(READY) ## train sixteen small models, four ideas each on or off, budget 8 minutes (STEPS= DATA= PRICE=an hour RESUME=)
	@$(PY) -m benches.ladder $(if $(STEPS),--steps "$$STEPS") $(if $(BUDGET),--budget "$$BUDGET") \
		$(if $(DEVICE),--device "$$DEVICE") $(if $(DATA),--data "$$DATA") $(if $(PRICE),--price "$$PRICE") \
		$(if $(RESUME),--resume "$$RESUME"); $(then_report)

learn: $(READY) ## a small policy learns sums from verdicts, GRPO, 11 minutes (ARMS=normalised,lambda-1 SEEDS=0,1 START= TASK= REWARD=mine.py)
	@$(PY) -m benches.learn $(if $(ARMS),--arms "$$ARMS") $(if $(SEEDS),--seeds "$$SEEDS") $(if $(STEPS),--steps "$$STEPS") \
		$(if $(BUDGET),--budget "$$BUDGET") $(if $(DEVICE),--device "$$DEVICE") $(if $(START),--start "$$START") \
		$(if $(TASK),--task "$$TASK") $(if $(DIFFICULTY),--difficulty "$$DIFFICULTY") \
		$(if $(REWARD),--reward "$$REWARD") $(if $(RESUME),--resume "$$RESUME"); $(then_report)

list: $(READY) ## cases, contenders, and why some cannot run here
	@$(PY) -m harness.run --list $(words)

test: $(READY) $(TOOLS) ## the test suite
	@$(PY) -m pytest tests

exact: $(READY) ## compare what has no noise with benches/baselines: results, bytes, operators, kernels (40 s)
	@$(PY) -m harness.exact $(if $(STUDY),--study "$$STUDY")

baseline: $(READY) ## rewrite benches/baselines (REASON='why facts change')
	@$(PY) -m harness.exact --write --reason "$$REASON"

gate: $(READY) ## BASE=origin/main against the working tree: make exact, then both timed in turn (ONLY= K= OUT= BASE_PYTHON=)
	@$(PY) -m harness.gate --base "$$BASE" $(if $(STUDY),--study "$$STUDY") $(if $(DEVICE),--device "$$DEVICE") \
		$(if $(BUDGET),--budget "$$BUDGET") $(if $(K),--match "$$K") $(if $(ONLY),--only "$$ONLY") $(if $(OUT),--out "$$OUT") \
		$(if $(BASE_PYTHON),--base-python "$$BASE_PYTHON")

gate-experiment: $(READY) ## how often the timing gate is wrong, quiet and beside busy neighbours, 45 minutes (N=40)
	@$(PY) -m harness.gate.experiment --runs "$${N:-40}" $(if $(K),--match "$$K") \
		$(if $(BUDGET),--budget "$$BUDGET") $(if $(OUT),--out "$$OUT")

doctor: $(READY) ## is this machine fit to benchmark; changes no setting (DEVICE= JSON=1)
	@$(PY) -m harness.doctor $(if $(DEVICE),--device "$$DEVICE") $(if $(JSON),--json)

profile: $(READY) ## why is this case slow (CASE= NAME=technique/implementation TOOL=torch|memory|host|ncu RUN= LIMIT=60)
	@test -n "$$CASE" || { echo "make profile CASE=attention.decode/v3/b128-s4096; make list shows the cases"; exit 2; }; \
	$(PY) -m harness.profiling --case "$$CASE" $(if $(NAME),--name "$$NAME") $(asked)

profile-all: $(READY) ## every case of a run below BELOW=0.3 of its floor (RUN= TOOL= LIMIT=)
	@$(PY) -m harness.profiling --below "$${BELOW:-0.3}" $(asked)

kernels: $(READY) ## Triton and Gluon kernels as machine code, no GPU needed (STUDY= K='mla/gluon' BASE=revision)
	@$(PY) -m harness.kernels $(if $(STUDY),--study "$$STUDY") $(if $(K),--match "$$K") $(if $(BASE),--base "$$BASE"); \
	status=$$?; case $$status in 0|1) $(call drawn,kernels) 2>/dev/null;; esac; exit $$status

compare: $(READY) ## two runs, record files or git revisions, a verdict each time (A= B= TOLERANCE=%  JSON=1)
	@test -n "$$A" -a -n "$$B" || { echo "make compare A=earlier B=later: run folders, record files or git revisions"; exit 2; }; \
	set -- "$$A" "$$B" $(if $(TOLERANCE),--tolerance "$$TOLERANCE") $(if $(HISTORY),--history "$$HISTORY"); \
	$(PY) -m harness.compare "$$@" $(if $(JSON),--json); status=$$?; \
	case $$status$(JSON) in [013456]) $(call drawn,compare) "$$@" 2>/dev/null;; esac; exit $$status

history: $(READY) ## add runs to the history and draw it (RUNS='runs folders histories', default all; HISTORY=file)
	@set -- $(if $(HISTORY),--history "$$HISTORY"); $(PY) -m harness.history "$$@" $(RUNS); status=$$?; \
	case $$status in 0|6) $(call drawn,history) "$$@" 2>/dev/null;; esac; exit $$status

export: $(READY) ## a run for other programs (RUN= FORMAT=pytest-benchmark|csv|parquet OUT=file)
	@test -n "$$RUN" || { echo "make export RUN=runs/... FORMAT=pytest-benchmark|csv|parquet"; exit 2; }; \
	$(PY) -m harness.interchange export "$$RUN" $(if $(FORMAT),--format "$$FORMAT") $(if $(OUT),--out "$$OUT")

import: $(READY) ## pytest-benchmark's JSON as a run that make report shows (FILE=)
	@test -n "$$FILE" || { echo "make import FILE=benchmark.json"; exit 2; }; \
	$(PY) -m harness.interchange import "$$FILE"

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
	rm -rf .venv reports/site reports/site-compare reports/site-history reports/site-kernels .pytest_cache .mypy_cache .ruff_cache .hypothesis
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
