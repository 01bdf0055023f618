# One target a stage, each running only what is missing or stale. `make` alone lists them.
#
#   make demo
#   make train RECIPE=recipes/demo.toml [RUN=dir] [SET="key=value ..."]

SHELL := /bin/bash
BIN := .venv/bin
STAGES := problems traces verify filter dataset train arms eval report
OPTIONS = $(SET) $(if $(RUN),--run $(RUN))

.PHONY: help setup lock lint format test test-slow test-gpu demo nano r1-loop $(STAGES) publish clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## / { printf "  make %-12s%s\n", $$1, $$2 }' Makefile
	@echo '  Stages take RECIPE=recipes/NAME.toml [RUN=dir] [SET="key=value ..."]'

setup: ## make .venv from the lock for this machine (LOCK=cpu or LOCK=gpu to choose)
	@./setup.sh $(LOCK)

lock: ## rebuild requirements/*.txt (UPGRADE=1 newer versions, CPU_WHEELS=dir a folder with torch's CPU wheel)
	python3 -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
	$(call compile,gpu)
	$(call compile,cpu) $(if $(CPU_WHEELS),--find-links $(CPU_WHEELS),--torch-backend cpu)

compile = .venv-lock/bin/uv pip compile pyproject.toml --quiet --extra $(1) --extra dev --output-file requirements/$(1).txt \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --no-annotate $(if $(UPGRADE),--upgrade)

# checks

lint: setup ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup ## run the fast tests
	$(BIN)/pytest -m "not slow and not gpu" $(ARGS)

test-slow: setup ## run the slow tests
	$(BIN)/pytest -m slow $(ARGS)

test-gpu: setup ## run the tests that need a GPU
	$(BIN)/pytest -m gpu $(ARGS)

bench-%: setup ## measure one thing; the result goes to benchmarks/results/%.json
	$(BIN)/python -m benchmarks.$* $(ARGS)

# stages

demo: setup ## the whole pipeline on this machine, ending with the table of scores
	$(BIN)/retort run recipes/demo.toml $(OPTIONS)

r1-loop: setup ## R1's own loop in miniature: cold start, then its student as the next teacher
	$(BIN)/retort run recipes/r1-cold-start.toml
	$(BIN)/retort run recipes/r1-loop.toml $(OPTIONS)

nano: setup ## train the bundled teacher and student base from scratch (ARGS=--install puts them in place)
	$(BIN)/python -m students.nano.make $(ARGS)

problems: ## gather the problems
traces: ## sample the teacher
verify: ## judge every trace: correct, wrong or undecided
filter: ## keep the traces that are right and readable
dataset: ## select, decontaminate and mix the training set
train: ## fine-tune the student
arms: ## train the control arms and the other seeds
eval: ## benchmark the student beside its base
report: ## write the tables and figures

ifneq ($(filter $(STAGES) publish,$(MAKECMDGOALS)),)
$(if $(RECIPE),,$(error name a recipe: make $(firstword $(MAKECMDGOALS)) RECIPE=recipes/demo.toml))
endif

$(STAGES): setup
	$(BIN)/retort run $(RECIPE) $(OPTIONS) --until $@

publish: setup ## publish the dataset to the Hugging Face Hub (ARGS=--dry-run only says what would go)
	$(BIN)/retort publish $(RECIPE) $(OPTIONS) $(ARGS)

clean: ## remove caches and build products; runs/ and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . \( -path ./runs -o -path ./.venv -o -path ./.venv-lock -o -path ./.git \) -prune \
		-o -type d -name __pycache__ -exec rm -rf {} +
