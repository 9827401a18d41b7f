# `make` alone shows what there is. Each target does all of its own set-up.

# --- start it -------------------------------------------------------------------------------------------

run: ## everything on one machine, at http://127.0.0.1:8000, until Ctrl-C
	@scripts/install requirements.txt
	@exec .venv/bin/python -m healthmon.run

demo: ## the same, and an outage to watch: start to finish within a minute
	@scripts/install requirements.txt
	@exec .venv/bin/python -m healthmon.run --demo

# --- change it ------------------------------------------------------------------------------------------

test: ## every test, on its own embedded servers
	@scripts/install requirements.txt requirements-dev.txt
	@exec .venv/bin/pytest $(TESTS)

check: ## format, lint, types, import contract, migrations up to date, deploy checks
	@scripts/install requirements.txt requirements-dev.txt
	@scripts/check

fuzz: ## ask the API whatever its schema allows, for FUZZ_SECONDS (900)
	@scripts/install requirements.txt requirements-dev.txt
	@exec env FUZZ_SECONDS=$(or $(FUZZ_SECONDS),900) .venv/bin/pytest -m fuzz -s tests/test_schema_fuzz.py

bench: ## the benchmarks: a table, and JSON under bench/results/ (BENCH="--quick pipeline" for a part)
	@scripts/install requirements.txt requirements-dev.txt
	@exec .venv/bin/python -m bench $(BENCH)

requirements: ## compile the pins out of requirements.in and requirements-dev.in
	@scripts/install requirements.txt requirements-dev.txt
	.venv/bin/pip-compile $(PIP_COMPILE) requirements.in
	.venv/bin/pip-compile $(PIP_COMPILE) requirements-dev.in

PIP_COMPILE = --quiet --upgrade --allow-unsafe --strip-extras \
	--no-emit-find-links --no-emit-index-url --no-emit-trusted-host

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' Makefile

.DEFAULT_GOAL = help
.PHONY: run demo test check fuzz bench requirements help
