# Every target sets up .venv by itself; pass options on with ARGS, as in `make test ARGS="-k queue"`.
.DEFAULT_GOAL := help
.PHONY: help setup demo up test fuzz fuzz-files lint bench clean

BIN := .venv/bin
READY := .venv/ready

help: ## List what can be done here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv (needs Python 3.11 or later)

demo: $(READY) ## Start the stack, send it a study and show its findings
	@$(BIN)/carina demo $(ARGS)

up: $(READY) ## Start the whole stack on this machine
	@$(BIN)/carina up $(ARGS)

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: $(READY) ## Send every route made-up requests (CASES=2000, ROUTES=all), and check every answer
	CASES=$(or $(CASES),2000) $(BIN)/python -m pytest --timeout 0 tests/integration/test_api_schema.py $(ARGS)

fuzz-files: $(READY) ## Send hostile files (CASES=20000, JOBS=1) on every way that files take, and check what they come to
	$(BIN)/python -m tests.fuzz --cases $(or $(CASES),20000) --jobs $(or $(JOBS),1) $(ARGS)

lint: $(READY) ## Check style, types, import rules and images
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint deploy/images/*.Dockerfile

bench: $(READY) ## Measure, as ratios within one run
	$(BIN)/python -m tests.bench $(ARGS)

clean: ## Remove caches and build output; never data
	rm -rf build dist *.egg-info .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find api workers trainer shared deploy tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml deploy/constraints.txt
	@echo "setting up .venv (the first time: several minutes, for PyTorch with CUDA is gigabytes)"
	@test -x $(BIN)/pip || { \
		for python in python3.11 python3.12 python3; do \
			if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
			then exec $$python -m venv .venv; fi; \
		done; \
		echo "Carina needs Python 3.11 or later with its venv module on PATH (Debian: apt install python3-venv)." >&2; \
		exit 1; }
	@$(BIN)/pip install -qq --disable-pip-version-check -c deploy/constraints.txt -e '.[all,dev]'
	@touch $@
