# Every target calls a script of the same name; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run check fix test test-long bench lock wheel clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## make .venv with the gateway in it (PYTHON=... chooses the interpreter)
	@scripts/setup

run: ## start the gateway with the example catalog (ADDR=host:port, default 127.0.0.1:4444)
	@scripts/run

check: ## locks, format, lint, types, import rules
	@scripts/check

fix: ## format, and mend what ruff can mend
	@scripts/fix

test: ## set up all the tests need, then check and test (at most 15 minutes)
	@scripts/test $(ARGS)

test-long: ## the long runs, each once per commit; ARGS=--page writes docs/long-runs.md
	@scripts/test-long $(ARGS)

bench: ## measure the gateway against nginx and against no gateway
	@scripts/bench $(ARGS)

lock: ## write requirements/**.txt anew from what asks for them (UPGRADE=1 takes newer releases)
	@scripts/lock

wheel: ## build dist/*.whl
	@scripts/build-wheel

clean: ## remove everything these targets made, but not the key in .run
	@scripts/clean
