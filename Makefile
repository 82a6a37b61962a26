# The commands of the project; `make help` lists them.
#
#   PYTHON        the Python (3.11 or newer) that the environment is made with
#   ARGS          passed on: make exercise ARGS=--quick, make test ARGS="-k audio"
#   LLAMA_WHEELS  a folder or a page with built wheels of llama-cpp-python: nothing is compiled
#   CMAKE_ARGS    more switches for building llama.cpp, for instance -DGGML_CUDA=ON

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCK := requirements.lock
READY := $(VENV)/ready
NEEDED_GB := 4
ARGS ?=
LLAMA_WHEELS ?=

# One block of the lock file, `name==version` and its hashes.
locked = awk '/^[a-z]/ { wanted = /^$(1)==/ } wanted' $(LOCK)

# llama.cpp without what the course does not use: images, tools, tests, HTTPS, OpenMP. OpenMP,
# because the other two engines bring one each, and such pools in one process fight over the cores;
# llama.cpp's own threads do as well. Its `common` library serves only what is left out, and makes
# half of the build, but llama-cpp-python forces it on: a file included after that turns it off.
# Built for this very processor (GGML_NATIVE, llama.cpp's default) because that is faster, and the
# wheel stays in this machine's pip cache. After moving to another processor: make rebuild-llama.
LLAMA_SWITCHES := \
	-DLLAVA_BUILD=OFF \
	-DLLAMA_BUILD_TOOLS=OFF \
	-DLLAMA_BUILD_EXAMPLES=OFF \
	-DLLAMA_BUILD_TESTS=OFF \
	-DLLAMA_BUILD_SERVER=OFF \
	-DLLAMA_OPENSSL=OFF \
	-DGGML_OPENMP=OFF \
	-DCMAKE_PROJECT_INCLUDE="$(CURDIR)/$(VENV)/llama.cmake"

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: exercise
exercise: $(READY) ## set up, then run the latency exercise (make exercise ARGS=--quick)
	@$(BIN)/labkit exercise $(ARGS)

.PHONY: test
test: $(READY) ## set up, then style, types and the whole suite
	@$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/python -m pytest $(ARGS)

.PHONY: lab
lab: $(READY) ## open JupyterLab on notebooks/
	@$(BIN)/jupyter lab notebooks $(ARGS)

.PHONY: doctor
doctor: $(READY) ## say what this machine lacks, and the mend
	@$(BIN)/labkit doctor

.PHONY: lint
lint: $(READY) ## style only; puts the format right
	@$(BIN)/ruff format .
	$(BIN)/ruff check .

.PHONY: types
types: $(READY) ## types only
	@$(BIN)/mypy

.PHONY: models
models: $(READY) ## measure the embedded models against their bars
	@$(BIN)/labkit models verify $(ARGS)

.PHONY: lock
lock: ## resolve pyproject.toml anew into the lock file
	@tools=$$(mktemp -d)
	trap 'rm -rf "$$tools"' EXIT
	$(PYTHON) -m venv "$$tools"
	"$$tools/bin/python" -m pip install --quiet uv
	"$$tools/bin/uv" pip compile pyproject.toml --extra test --group setup --universal --upgrade \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--quiet --output-file $(LOCK)

.PHONY: setup
setup: $(READY) ## only set up

.PHONY: rebuild-llama
rebuild-llama: ## build llama.cpp again, for instance on another processor
	@if [ -x $(BIN)/python ]; then
		$(PIP) cache remove llama_cpp_python
		$(PIP) uninstall --yes llama-cpp-python
	fi
	rm -f $(READY)
	$(MAKE) setup

.PHONY: clean
clean: ## remove the environment and what the tools cached (not results/)
	@rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find labkit tests data -name __pycache__ -type d -prune -exec rm -rf {} +

# The one thing that all of the above wait for. It is remade when the lock file or pyproject.toml
# is newer; an interrupted set-up goes on where it stopped.
$(READY): $(LOCK) pyproject.toml
	@say() { printf '\033[1m%s\033[0m\n' "$$*"; }
	stop() { printf 'set-up stopped: %s\n' "$$*" >&2; exit 1; }
	command -v $(PYTHON) >/dev/null ||
		stop 'no $(PYTHON) here; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.12'
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
		stop "$$($(PYTHON) --version) is too old; name a Python 3.11 or newer: make PYTHON=/path/to/python3.12"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 15))' ||
		stop "$$($(PYTHON) --version) is too new for onnxruntime; name a Python from 3.11 to 3.14: make PYTHON=/path/to/python3.13"
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null ||
		stop 'this Python cannot make environments; install its venv module (Debian: apt install python3-venv)'
	free_gb=$$(( $$(df -Pk . | awk 'NR == 2 { print $$4 }') / 1048576 ))
	[ -x $(BIN)/labkit ] || [ "$$free_gb" -ge $(NEEDED_GB) ] ||
		stop "$$free_gb GB free on this disk, $(NEEDED_GB) GB are needed; make room and run it again"
	[ -x $(BIN)/python ] || { say 'Making the environment in $(VENV)'; $(PYTHON) -m venv $(VENV); }
	$(call locked,pip) > $(VENV)/pip.txt
	$(PIP) install --quiet --require-hashes --no-deps -r $(VENV)/pip.txt
	$(call locked,llama-cpp-python) > $(VENV)/llama.txt
	echo 'set(LLAMA_BUILD_COMMON OFF)' > $(VENV)/llama.cmake
	if [ -n "$(LLAMA_WHEELS)" ]; then
		say 'Installing a built llama-cpp-python from $(LLAMA_WHEELS)'
		$(PIP) install --only-binary llama-cpp-python --no-deps --no-index --find-links '$(LLAMA_WHEELS)' \
			"$$(awk 'NR == 1 { print $$1 }' $(VENV)/llama.txt)"
	elif ! $(BIN)/python -c 'import importlib.metadata as m; m.version("llama-cpp-python")' 2>/dev/null; then
		command -v "$${CXX:-c++}" >/dev/null ||
			stop 'no C++ compiler; install one (Debian: apt install g++, macOS: xcode-select --install)'
		say 'Building llama.cpp; the first time takes minutes, later ones use the wheel in the cache of pip'
		CMAKE_ARGS='$(LLAMA_SWITCHES)'" $${CMAKE_ARGS:-}" \
			$(PIP) install --verbose --require-hashes --no-deps -r $(VENV)/llama.txt 2>&1 |
			tee $(VENV)/llama.log | awk '
				match($$0, /^ *\[[0-9]+\/[0-9]+\]/) {
					split(substr($$0, RSTART, RLENGTH), part, /[^0-9]+/)
					tenth = int(10 * part[2] / part[3])
					if (tenth > shown) { shown = tenth; print "  " 10 * tenth " %"; fflush() }
				}' || { tail -30 $(VENV)/llama.log; stop 'llama.cpp did not build; all it said is in $(VENV)/llama.log'; }
	fi
	say 'Installing the locked packages'
	$(PIP) install --require-hashes -r $(LOCK)
	$(PIP) install --quiet --no-build-isolation --no-deps --editable .
	touch $(READY)
	say 'Ready'
