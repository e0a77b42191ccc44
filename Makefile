# make search   environment, build, and the main job on its defaults   (ARGS="--latency-budget 8ms" adds flags)
# make test     environment, build, and the tests                      (ARGS="tests/searching" picks some)
# make check    ruff and mypy
# make wheel    a wheel in dist/
# make clean    removes all that make made, and leaves results/
#
# PYTHON=python3.12 picks the interpreter, PIP_FLAGS="..." is handed to every pip install.

PYTHON ?= python3
PIP_FLAGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

# The environment is made anew when something that decides it changes: dependencies, native sources, or
# the set of package folders. Content counts, not dates, so a checkout that changes nothing rebuilds nothing.
NATIVE := find kernels -type f ! -name '*.py' ! -path '*/__pycache__/*'
FOLDERS := find autosparse kernels search_spaces -name '*.py' -exec dirname {} +
STATE := $(shell { cat pyproject.toml constraints.txt; $(NATIVE) | LC_ALL=C sort | xargs cat; \
	$(FOLDERS) | LC_ALL=C sort -u; } | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(STATE)

.PHONY: search test check wheel clean install
.DEFAULT_GOAL := test

search: $(STAMP)
	@code=0; $(BIN)/autosparse search --model resnet18 --latency-budget 5ms $(ARGS) || code=$$?; \
	case $$code in \
	0) ;; \
	3) echo "autosparse ended with exit code 3: the search is complete, and says above that this" \
		"machine cannot meet the budget and which one it can meet." >&2 ;; \
	6) echo "autosparse ended with exit code 6: stopped; make search continues." >&2 ;; \
	*) echo "autosparse ended with exit code $$code." >&2 ;; \
	esac; exit $$code

test: $(STAMP)
	$(BIN)/python -m pytest -q $(ARGS)

# kernels/ and search_spaces/ are parts of the package that live beside it; mypy has to see them inside.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/typing && mkdir -p build/typing/autosparse
	@ln -s $(CURDIR)/autosparse/* $(CURDIR)/kernels $(CURDIR)/search_spaces build/typing/autosparse/
	cd build/typing && $(CURDIR)/$(BIN)/mypy --strict --config-file $(CURDIR)/pyproject.toml -p autosparse

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

install: $(STAMP)

# torch goes first and alone, so that the version pinned here is settled before anything else asks for it.
$(STAMP): | $(BIN)/python
	@command -v $${CXX:-c++} >/dev/null || { echo "a C++17 compiler is needed, but $${CXX:-c++} is not" \
		"there; install g++ or clang++" >&2; exit 1; }
	@echo "installing into $(VENV): this takes a few minutes the first time" >&2
	$(PIP) torch
	$(PIP) -e '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is" \
		"needed, but $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make an environment; install" \
		"its venv package (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
