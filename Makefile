# The commands of the project; `make help` lists them.
#
#   PYTHON        the Python (3.11 or newer) that the environment is made with
#   ARGS          passed on: make exercise ARGS=--quick, make test ARGS="-k audio"
#   WORKERS       how many tests run at the same time; 0: one by one, in the process of pytest
#   LLAMA_WHEELS  a folder or a page with built wheels of llama-cpp-python: nothing is compiled
#   CMAKE_ARGS    more switches for building llama.cpp, for instance -DGGML_CUDA=ON

.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
WORKERS ?= 3
LLAMA_WHEELS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
LOCK := requirements.lock
# Three on two cores: a test that waits in real time leaves its core to another; with more of them
# the cores are busy all the time, and what is measured in real time comes late. One at a time goes
# to whoever is free, since some take minutes.
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --maxschedchunk=1

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: exercise
exercise: $(READY) ## set up, then run the latency exercise (make exercise ARGS=--quick)
	@$(BIN)/labkit exercise $(ARGS)

.PHONY: test
test: $(READY) ## set up, then style, types and the whole suite
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(PYTEST) $(ARGS)

# No file of that name is ever made; said before the environment is set up, not after.
not-root:
	@[ "$$(id -u)" != 0 ] || case "$(ARGS)" in *--allow-root*) ;; *) \
		echo "error: JupyterLab does not run as root unless it is told to: make lab ARGS=--allow-root" >&2; \
		exit 1;; esac

.PHONY: lab
lab: not-root $(READY) ## open JupyterLab on your own copies of the chapters, in mine/
	@$(BIN)/labkit lab $(ARGS)

.PHONY: doctor
doctor: $(READY) ## say what this machine lacks, and the mend
	@$(BIN)/labkit doctor

.PHONY: models
models: $(READY) ## measure the embedded models against their bars
	@$(BIN)/labkit models verify $(ARGS)

.PHONY: tiny
tiny: $(READY) ## add the public models of --models tiny (220 MB)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps \
		-r requirements-tiny.lock

.PHONY: lint
lint: $(READY) ## style only; puts the format right
	@$(BIN)/ruff format .
	@$(BIN)/ruff check .

.PHONY: types
types: $(READY) ## types only
	@$(BIN)/mypy

.PHONY: notebooks
notebooks: $(READY) ## make the notebooks from their masters
	@$(BIN)/python notebooks/masters/generate.py

.PHONY: check-course
check-course: $(READY) ## everything about the course, and each check on a hundred draws
	@LABKIT_REPEATS=100 $(PYTEST) tests/course tests/browser tests/test_notebooks.py $(ARGS)

.PHONY: protocol
protocol: $(READY) ## make the protocol's reference page from the code
	@$(BIN)/labkit protocol --out labkit/protocol/PROTOCOL.md

.PHONY: lock
lock: ## resolve pyproject.toml anew into the lock file
	@tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && $(PYTHON) -m venv "$$tools" && \
	"$$tools/bin/python" -m pip install --quiet uv && \
	"$$tools/bin/uv" pip compile pyproject.toml --extra test --group setup --universal --upgrade \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--quiet --output-file $(LOCK)

.PHONY: setup
setup: $(READY) ## only set up

.PHONY: rebuild-llama
rebuild-llama: ## build llama.cpp again, for instance on another processor
	@rm -f $(READY) $(VENV)/installed.lock
	@test ! -x $(BIN)/python || $(BIN)/python -m pip uninstall --yes llama-cpp-python
	@test ! -x $(BIN)/python || $(BIN)/python -m pip cache remove llama_cpp_python
	@$(MAKE) setup

.PHONY: clean
clean: ## remove the environment and what the tools cached (not results/ nor mine/)
	@rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find labkit tests data -name __pycache__ -type d -prune -exec rm -rf {} +

# What all of the above wait for; remade when the lock file or pyproject.toml is newer.
$(READY): $(LOCK) pyproject.toml
	@PYTHON='$(PYTHON)' LLAMA_WHEELS='$(LLAMA_WHEELS)' .ci/setup $(VENV)
	@touch $@
