# make search   environment, build for this machine, and the main job on its defaults   (ARGS="--latency-budget 8ms"
#               adds flags)
# make test     environment, build, and the tests                      (ARGS="tests/searching" picks some)
# make test-long         tests that take a quarter of a minute or more each, one after the other: some fifteen minutes
# make gpu-check         kernels and whole models on this host's GPU: built, verified and measured in some eight minutes, the
#               figures held to what is wanted of them; without a GPU it says what is missing
# make check    ruff and mypy
# make smoke    ruff, mypy and a selection of the tests over every folder, a small search among them: some 90 s
# make sanitize           native tests, a fuzzed loader and tests/kernels under AddressSanitizer and UndefinedBehaviorSanitizer
# make sanitize-threads   native tests under ThreadSanitizer
# make test-aarch64       native tests of a cross build under qemu-aarch64
#               (EVERY=8 takes each eighth kernel, PORTABLE=ON the portable baseline alone)
# make wheel    two wheels in dist/: the whole tool, and what runs exported models with numpy alone
# make test-wheel   both wheels in fresh environments without a compiler
# make clean    removes all that make made, and leaves results/
#
# PYTHON=python3.12 picks the interpreter, PIP_FLAGS="..." is handed to every pip install, and WORKERS=1 tests in one
# process; by default two share the files of tests out, where there are two cores.

PYTHON ?= python3
PIP_FLAGS ?=
ARGS ?=
EVERY ?= 1
WORKERS ?= $(shell test $$(nproc) -ge 2 && echo 2)
PORTABLE ?= OFF

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

# The environment is made anew when something that decides it changes: dependencies, native sources, or
# the set of package folders. Content counts, not dates, so a checkout that changes nothing rebuilds nothing.
NATIVE := find kernels -type f ! -name '*.py' ! -name '*.md' ! -name '.clang-format' ! -path '*/__pycache__/*' ! -path 'kernels/tests/*' ! -path 'kernels/gpu/*'
FOLDERS := find autosparse kernels search_spaces -name '*.py' -exec dirname {} +
STATE := $(shell { cat pyproject.toml constraints.txt; $(NATIVE) | LC_ALL=C sort | xargs cat; \
	$(FOLDERS) | LC_ALL=C sort -u; } | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(STATE)
# What a search needs: nothing to develop with, and kernels that this machine can run.
HOST_STAMP := $(VENV)/.installed-here-$(STATE)

.PHONY: search test test-long gpu-check check smoke sanitize sanitize-threads test-aarch64 run-aarch64 wheel test-wheel clean install
.DEFAULT_GOAL := test

search: $(or $(wildcard $(STAMP)),$(HOST_STAMP))
	@code=0; $(BIN)/autosparse search --model resnet18 --latency-budget 5ms $(ARGS) || code=$$?; \
	case $$code in \
	0) ;; \
	3) echo "autosparse ended with exit code 3: the search is complete, and says above that this" \
		"machine cannot meet the budget and which one it can meet." >&2 ;; \
	6) echo "autosparse ended with exit code 6: stopped; make search continues." >&2 ;; \
	*) echo "autosparse ended with exit code $$code." >&2 ;; \
	esac; exit $$code

test: $(STAMP)
	$(BIN)/python -m pytest -q $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0) $(ARGS)

test-long: $(STAMP)
	$(BIN)/python -m pytest -q -m long $(ARGS)

gpu-check: $(STAMP)
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)

smoke: check
	$(BIN)/python -m pytest -q -m smoke $(ARGS)

# kernels/ and search_spaces/ are parts of the package that live beside it; mypy has to see them inside.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/typing && mkdir -p build/typing/autosparse
	@ln -s $(CURDIR)/autosparse/* $(CURDIR)/kernels $(CURDIR)/search_spaces build/typing/autosparse/
	cd build/typing && $(CURDIR)/$(BIN)/mypy --strict --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache -p autosparse

# Builds of the portable baseline lie beside those of all instruction sets.
ONLY := $(if $(filter ON,$(PORTABLE)),-portable)

# The native library and its tests in build/$(1), with the CMake flags $(2).
define build_native
	@mkdir -p build
	@$(BIN)/cmake -S kernels -B build/$(1) -DAUTOSPARSE_TESTS=ON -DAUTOSPARSE_PORTABLE=$(PORTABLE) $(2) \
		> build/$(1).log 2>&1 || { cat build/$(1).log >&2; exit 1; }
	@$(BIN)/cmake --build build/$(1) --parallel $${CMAKE_BUILD_PARALLEL_LEVEL:-$$(nproc)} \
		> build/$(1).log 2>&1 || { cat build/$(1).log >&2; exit 1; }
endef

# The interpreter is not instrumented: the sanitizer's runtime and what it intercepts have to be there first.
runtime = $(shell $${CXX:-c++} -print-file-name=$(1))

# A forked child may find the locks of AddressSanitizer's own allocator held: forks are ThreadSanitizer's.
sanitize: $(STAMP)
	$(call build_native,sanitize$(ONLY),-DAUTOSPARSE_SANITIZE=address)
	build/sanitize$(ONLY)/tests/conformance --every $(EVERY)
	build/sanitize$(ONLY)/tests/threads --rounds 20 --no-fork
	build/sanitize$(ONLY)/tests/executor
	ARTIFACT_FUZZ=$(CURDIR)/build/sanitize$(ONLY)/tests/artifact_fuzz \
		$(BIN)/python -m pytest -q -p no:cacheprovider tests/deploy/test_fuzz.py
	NATIVE_LIBRARY=$(CURDIR)/build/sanitize$(ONLY)/_native.so ASAN_OPTIONS=detect_leaks=0 \
		LD_PRELOAD="$(call runtime,libasan.so) $(call runtime,libstdc++.so)" \
		$(BIN)/python -m pytest -q -p no:cacheprovider $(or $(ARGS),tests/kernels)

# Children of a process of several threads start threads of their own.
sanitize-threads: $(STAMP)
	$(call build_native,sanitize-threads$(ONLY),-DAUTOSPARSE_SANITIZE=thread)
	TSAN_OPTIONS=die_after_fork=0 build/sanitize-threads$(ONLY)/tests/threads --rounds 20
	build/sanitize-threads$(ONLY)/tests/executor
	build/sanitize-threads$(ONLY)/tests/conformance --every $(EVERY) --no-operators

test-aarch64: $(STAMP)
	@for tool in aarch64-linux-gnu-g++ qemu-aarch64; do command -v $$tool >/dev/null || { \
		echo "skipped: needs $$tool, but it is not installed; on Debian and Ubuntu:" \
		"apt install g++-aarch64-linux-gnu qemu-user"; exit 0; }; done; \
	$(MAKE) --no-print-directory run-aarch64

run-aarch64:
	$(call build_native,aarch64,-DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/kernels/tests/aarch64.cmake)
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/tests/conformance --every $(EVERY)
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/tests/threads --rounds 5 --no-fork
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/tests/executor

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist $(PIP_FLAGS) . ./runtime

test-wheel: wheel
	PIP_FLAGS="$(PIP_FLAGS)" tests/deploy/wheels.sh $(BIN)/python

install: $(STAMP)

$(STAMP): BUILD := -Ccmake.define.AUTOSPARSE_HOST=OFF
$(STAMP): EXTRA := dev
$(HOST_STAMP): BUILD := -Ccmake.define.AUTOSPARSE_HOST=ON
$(HOST_STAMP): EXTRA :=

# What it needs, a line each, with what an extra adds, which may name others of ours.
define LIST_NEEDS
import re, sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
def needs(extra):
    for line in project["optional-dependencies"][extra]:
        own = re.fullmatch(project["name"] + r"\[(.+)\]", line)
        yield from (need for name in own[1].split(",") for need in needs(name)) if own else [line]
print(*project["dependencies"], *(needs(sys.argv[1]) if sys.argv[1] else ()), sep="\n")
endef
export LIST_NEEDS

# The kernels are compiled while packages arrive. Of those, torch goes first and alone, so that the version pinned
# here is settled before anything else asks for it.
$(STAMP) $(HOST_STAMP): | $(BIN)/python
	@command -v $${CXX:-c++} >/dev/null || { echo "a C++17 compiler is needed, but $${CXX:-c++} is not" \
		"there; install g++ or clang++" >&2; exit 1; }
	@echo "installing into $(VENV): this takes a few minutes the first time" >&2
	@mkdir -p build
	@$(BIN)/python -c "$$LIST_NEEDS" "$(EXTRA)" > build/needs.txt
	@$(PIP) --no-deps -e . $(BUILD) > build/install.log 2>&1 & builds=$$!; \
	{ $(PIP) torch && $(PIP) -r build/needs.txt; }; needs=$$?; \
	wait $$builds || { cat build/install.log >&2; exit 1; }; exit $$needs
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
