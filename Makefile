# Everything that a person or CI does with this repository. `make` alone lists it.
# Each target prepares what it needs; a second run finds that done and starts at once.

SHELL := /bin/sh
.DEFAULT_GOAL := help

BIN := .venv/bin
# Seconds that `make demo` runs; empty: until Ctrl-C.
DURATION ?=
# More arguments for the command behind test, bench and kafka.
ARGS ?=
# Data plane that `make test` tests: kernel or reference; empty: both.
PLANE ?=
# Seconds that `make fuzz` gives to each target.
FUZZ_SECONDS ?= 20

# Where rustup puts cargo, whether or not the shell was told.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: help setup setup-run demo test check fmt kernel fuzz bench kafka clean

help: ## List the targets.
	@echo "riverrun: make TARGET"
	@echo
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## Create .venv and install riverrun, its kernel and everything for its development.
	@sh scripts/setup.sh dev

# What a newcomer waits for before the demo: the runtime dependencies, and nothing else.
setup-run:
	@sh scripts/setup.sh run

demo: setup-run ## Run the main job in this terminal, no server needed (DURATION=20 ends it after 20 s).
	@$(BIN)/riverrun demo $(if $(DURATION),--duration $(DURATION)) $(ARGS)

test: setup ## Run all the tests on both data planes (PLANE=kernel: on one; ARGS="-k name" selects).
	@sh scripts/check_kafka_tools.sh
	@PLANE=$(PLANE) sh scripts/run_tests.sh $(ARGS)

check: setup ## Lint, formatting, import rules and types, without changing a file.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	sh scripts/kernel.sh check

fmt: setup ## Format the code and mend what the linter can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	sh scripts/kernel.sh fmt

kernel: setup-run ## Build the native kernel in place, after a change to kernel/.
	@sh scripts/kernel.sh build

fuzz: setup-run ## Feed hostile input to the kernel, FUZZ_SECONDS=20 for each target.
	@FUZZ_SECONDS=$(FUZZ_SECONDS) sh scripts/kernel.sh fuzz

bench: setup ## Measure riverrun, then beside other engines, Kafka to Kafka.
	@sh scripts/check_kafka_tools.sh
	$(BIN)/python -m benchmarks $(ARGS)
	$(if $(ARGS),,$(BIN)/python -m benchmarks --peers)

kafka: setup ## Run a Kafka broker in the foreground, to try things (Ctrl-C ends it).
	@sh scripts/check_kafka_tools.sh
	$(BIN)/python -m tests.kafka_broker $(ARGS)

clean: ## Remove what the other targets made: .venv, caches, builds.
	rm -rf .venv build dist .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf src/*.egg-info src/riverrun/_kernel*.so kernel/target kernel/fuzz/target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
