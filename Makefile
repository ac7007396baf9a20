# Two commands set everything up: `make quickstart` measures, `make test` tests. Both are safe to repeat.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python

.PHONY: quickstart test real contracts lint format docs bench-client bench-overhead bench-ceiling clean help

help:
	@echo "make quickstart      install, prepare the models and run scenarios/quickstart.yaml on llama.cpp"
	@echo "make test            install and run the tests (real llama.cpp included)"
	@echo "make real            the tests on every engine that runs on a CPU (installs several GB)"
	@echo "make contracts       ask the engines' own argument parsers about the golden deployments (installs several GB)"
	@echo "make lint            ruff, mypy, and which room may import which"
	@echo "make bench-client    how true the load generator's times are, and what they cost (needs a C compiler)"
	@echo "make bench-overhead  what the harness itself costs"
	@echo "make bench-ceiling   llama.cpp's decoding against what physics predicts (20 GB of disk, half an hour)"
	@echo "make docs            generate the reference pages in docs/ again"

quickstart: .venv/installed
	$(BIN)/bench engines install llamacpp
	$(BIN)/bench run scenarios/quickstart.yaml

test: .venv/installed-dev
	$(BIN)/bench engines install llamacpp
	$(BIN)/pytest $(PYTEST)

real: .venv/installed-dev
	$(BIN)/bench engines install llamacpp llamacpp:python transformers vllm:cpu mlx
	CI=1 $(BIN)/pytest -m real tests/real $(PYTEST)

contracts: .venv/installed-dev
	$(BIN)/python tests/contracts/run.py $(CONTRACTS)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-client: .venv/installed
	$(BIN)/python benchmarks/client.py --rivals --write docs/fidelity.md

bench-overhead: .venv/installed
	$(BIN)/python benchmarks/overhead.py

bench-ceiling: .venv/installed
	$(BIN)/bench engines install llamacpp
	$(BIN)/python benchmarks/ceiling.py $(or $(FOLDER),/tmp/enginebench-ceiling)
	$(BIN)/python benchmarks/predicted.py $(or $(FOLDER),/tmp/enginebench-ceiling)/measured.jsonl

docs: .venv/installed-dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The system's pip installs into .venv, which saves installing a second one there (5 s).
# --no-compile: Python writes the byte code of what is really imported, which halves the time of the installation.
.venv/installed: pyproject.toml constraints.txt hatch_build.py harness/enginebench/loadgen/transport/receive.c
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[dev,browser]'
	touch $@
