# Two commands matter: `make demo` and `make test`. Everything they need, they install into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# What `make demo` passes to `fleetpulse up`, e.g. make demo ARGS="--replicas 500 --for 30 --json"
ARGS   ?=
# What `make test` passes to pytest.
PYTEST_ARGS ?= -n 2 --dist loadgroup

.PHONY: demo test lint bench bench-docs bench-once locks clean

demo: $(VENV)/.run
	@$(BIN)/fleetpulse up $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/hadolint Dockerfile

# Micro-benchmarks with their spread, then every goal beside floor and peers: three minutes.
# What is passed to the latter, e.g. make bench BENCH_ARGS="--only P1,P3"
BENCH_ARGS ?= --reduced
bench: $(VENV)/.dev
	$(BIN)/python -m pytest bench --benchmark-enable --benchmark-only -p no:randomly
	$(BIN)/python -m bench $(BENCH_ARGS)

# The same at full size, half an hour on a machine that does nothing else; writes what it found
# into docs/benchmarks.md, its plots, and README.
bench-docs: $(VENV)/.dev
	mkdir -p build
	$(BIN)/python -m bench --json > build/bench.json
	$(BIN)/python -m bench.report build/bench.json

# Runs every benchmark once: proves they still run, says nothing about speed.
bench-once: $(VENV)/.dev
	$(BIN)/python -m pytest bench -p no:randomly
	$(BIN)/python -m bench --smoke

# The chatter of installation goes to stderr: stdout belongs to the job (`make demo ARGS=--json`).
$(VENV)/.run: requirements/build.lock requirements/run.lock pyproject.toml
	@echo "setting up .venv (once)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(PIP) install --require-hashes -r requirements/build.lock -r requirements/run.lock >&2
	@$(PIP) install --no-deps --no-build-isolation -e . >&2
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	@echo "installing the development tools (once)" >&2
	@$(PIP) install --require-hashes -r requirements/dev.lock >&2
	@touch $@

# Needs uv on PATH. Locks carry hashes and no addresses, so any index or mirror serves them.
UV_COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
             --no-header --no-annotate --no-emit-index-url
locks:
	$(UV_COMPILE) pyproject.toml --extra controller --extra embedded -o requirements/run.lock
	$(UV_COMPILE) pyproject.toml --extra controller --extra embedded --group dev -o requirements/dev.lock
	$(UV_COMPILE) requirements/build.in -o requirements/build.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
