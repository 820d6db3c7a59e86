PORT ?= 8000
PYTHON ?= python3
# Where pip finds PyTorch without CUDA; with an NVIDIA card: make run TORCH_INDEX=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check --quiet
# Two runs started at once install one after the other.
LOCK := $(shell command -v flock >/dev/null && echo flock .install.lock)

.PHONY: help run test test-full check audit format bench bench-import bench-search bench-latency bench-vectors bench-pieces

help: ## Lists these commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Installs what is missing and starts the service on 127.0.0.1:8000 (PORT=8001 for another port).
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/run.stamp
	@exec $(VENV)/bin/afterimage serve --port $(PORT)

test: check ## Runs all checks and tests.
	@$(VENV)/bin/pytest -n auto --maxprocesses 4 --dist worksteal

test-full: ## Runs the long tests in full: crashes, faults, load and odd input, for an hour or so.
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@FULL=1 $(VENV)/bin/pytest $(shell grep -rl --include='test_*.py' 'tests.effort import' tests)

check: ## Runs the checks: style, types, the direction of imports.
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@PYTHONPATH=. $(VENV)/bin/lint-imports --no-cache

audit: ## Looks the installed packages up among known vulnerabilities, at pypi.org; fails if one cannot be looked up.
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/pip freeze --exclude-editable | sed 's/+[A-Za-z0-9.]*$$//' >$(VENV)/audit.txt
	@$(VENV)/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off --requirement $(VENV)/audit.txt

format: ## Formats the code.
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

bench: ## Measures the service against its floor (ONLY=writers for a part; LARGE=1, PEERS=1 for more).
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/python -m tests.benchmarks $(addprefix --only ,$(ONLY)) $(if $(LARGE),--large) $(if $(PEERS),--peers)

bench-search: ## Measures search quality and time on both stores (BEIR=folder adds a labelled set of that form).
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/python -m tests.benchmarks.search $(addprefix --beir ,$(BEIR))

bench-latency: ## Measures search time over HTTP by kind of query, among 6,000 and 60,000 memories, on both stores.
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/python -m tests.benchmarks.latency

bench-vectors: ## Measures semantic search among 60,000 memories: recall, full pages, time.
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/python -m tests.benchmarks.vectors

bench-pieces: ## Measures what the pieces of long code bring to semantic search.
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/python -m tests.benchmarks.pieces

bench-import: ## Measures the import against AI-AfterImage's own (FILE=memory.db for a file of yours).
	@$(LOCK) $(MAKE) -s --no-print-directory $(VENV)/test.stamp
	@$(VENV)/bin/python -m tests.benchmarks.imports $(FILE)

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is older: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/torch.stamp: $(VENV)/bin/pip
	@echo "Installing PyTorch"
	@$(PIP) install --no-deps --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0
	@touch $@

$(VENV)/run.stamp: pyproject.toml $(VENV)/torch.stamp
	@echo "Installing the service"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@echo "Installing what the tests need"
	@$(PIP) install --editable '.[test]'
	@touch $@
