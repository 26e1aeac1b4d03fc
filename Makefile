# Every target sets up .venv by itself; pass options on with ARGS, as in `make test ARGS="-k queue"`.
.DEFAULT_GOAL := help
.PHONY: help setup demo up test coverage fuzz fuzz-files lint lint-python lint-images lint-templates lint-shell lint-console format bench chaos
.PHONY: pins secrets digests clean runtime tools

BIN := .venv/bin
BIOME := node_modules/.bin/biome
# What sets up .venv listens to these.
export PYTHON TORCH_INDEX

help: ## List what can be done here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: runtime ## Install all that Carina needs into .venv (TORCH_INDEX=URL for PyTorch without CUDA)

demo: runtime ## Start the stack, send it a study and show its findings
	@$(BIN)/carina demo $(ARGS)

up: runtime ## Start the whole stack on this machine
	@$(BIN)/carina up $(ARGS)

test: tools ## Run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: tools ## Send every route made-up requests (CASES=2000, ROUTES=all), and check every answer
	CASES=$(or $(CASES),2000) $(BIN)/python -m pytest --timeout 0 tests/integration/http/test_schema.py $(ARGS)

fuzz-files: tools ## Send hostile files (CASES=20000, JOBS=1) on every way that files take, and check what they come to
	$(BIN)/python -m tests.fuzz --cases $(or $(CASES),20000) --jobs $(or $(JOBS),1) $(ARGS)

coverage: tools ## Report by branch what the tests of shared/queue and api/http cover
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --cov \
		$(or $(ARGS),tests/unit/api tests/integration/http tests/integration/access tests/integration/queue tests/integration/workers)

lint: lint-python lint-images lint-templates lint-shell lint-console ## Check all code: Python, images, templates, scripts, JavaScript and CSS

lint-python: tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lint-images: tools
	$(BIN)/hadolint deploy/images/*.Dockerfile

lint-templates: tools
	$(BIN)/djlint --quiet --lint $$(git ls-files '*.html' '*.html.j2')

lint-shell: tools
	PATH="$(CURDIR)/$(BIN):$$PATH" shellcheck .ci/run deploy/install.sh

lint-console: # needs npm; without it, CI fails and a developer's machine goes on
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory $(BIOME) && $(BIOME) lint --error-on-warnings; \
	else echo "npm is missing: the console's JavaScript and CSS are not checked (Debian: apt install npm)"; test -z "$$CI"; fi

$(BIOME): package-lock.json
	npm ci --no-audit --no-fund
	@touch $@

format: tools ## Format the Python code, and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	@if [ -x $(BIOME) ]; then $(BIOME) lint --write; fi

bench: tools ## Measure, as ratios within one run
	$(BIN)/python -m tests.bench $(ARGS)

chaos: tools ## Disturb a busy stack and check that nothing is lost (ARGS="--size hour --seed 1 --out FILE")
	$(BIN)/python -m tests.chaos $(ARGS)

clean: ## Remove caches and build output; never data
	rm -rf build dist *.egg-info .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* node_modules
	find api workers trainer shared deploy tests -name __pycache__ -prune -exec rm -rf {} +

pins: tools ## Check that each pinned dependency has wheels for every Python and machine
	@$(BIN)/python -m deploy.pins

secrets: ## Make the secrets of docker-compose.yml, each once (needs only Python)
	@python3 deploy/make_secrets.py

digests: ## Pin the images of docker-compose.yml by digest, in .env (needs Docker and the registries)
	@python3 deploy/digests.py

runtime:
	@sh deploy/install.sh all

tools:
	@sh deploy/install.sh all,dev
