# What a person types. Everything is installed into $(VENV); what is already there is not installed again.
#
#   make demo    a photograph and a recording through every family
#   make test    the tests            make test-all   with the slow ones
#   make bench   benchmarks           make lint       ruff, mypy
#   make docs    documentation        make doctest    every example in it and in the docstrings
#   make gpu     everything that a GPU has to prove, on this machine's
#   make test-cuda, make prove-cuda   what can be proven of the GPU's kernels without one
#
# PYTHON=/path/to/python chooses the interpreter, VENV=folder the environment, PYTEST_ARGS the tests.

VENV        ?= .venv
PYTEST_ARGS ?=
DOCS_OUT    ?= docs/_build
BENCH_OUT   ?= asv_bench/html
ASV_ARGS    ?= --quick
PY          := $(VENV)/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-all bench docs doctest lint gpu test-cuda prove-cuda clean FORCE

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

# An environment that was moved here with its folder, or whose Python is gone, is made anew.
ifneq ($(shell cat $(VENV)/.home 2>/dev/null),$(abspath $(VENV)))
STALE := FORCE
endif
ifeq ($(wildcard $(PY)),)
STALE := FORCE
endif

$(VENV)/.home: $(STALE)
	@set -e; seen=""; \
	for python in $(PYTHON) $(if $(PYTHON),,python3.13 python3.12 python3.11 python3.14 python3 python); do \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
		if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
			seen="$$seen $$python is $$version;"; continue; fi; \
		if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
			seen="$$seen $$python $$version lacks the venv module (Debian: apt install python$$version-venv);"; continue; fi; \
		echo "nconv: making $(VENV) with $$python ($$version)"; \
		"$$python" -m venv --clear $(VENV); \
		printf '%s\n' "$(abspath $(VENV))" > $@; \
		exit 0; \
	done; \
	echo "nconv: Python 3.11 or later with venv is missing:$${seen:- none of the usual names runs;} install one, or say make PYTHON=/path/to/python" >&2; \
	exit 1

# $(VENV)/.demo, .test, ...: the extra of that name is installed, as pyproject.toml has it now.
$(VENV)/.demo $(VENV)/.test $(VENV)/.docs $(VENV)/.lint $(VENV)/.bench $(VENV)/.dev $(VENV)/.cuda $(VENV)/.prove-cuda: $(VENV)/.%: pyproject.toml $(VENV)/.home
	@echo "nconv: installing nconv[$*] into $(VENV)"
	@$(PY) -m pip install -qq --disable-pip-version-check --editable ".[$*]" || { \
		echo "nconv: pip could not install nconv[$*]; the lines above say what is missing (no network?)" >&2; exit 1; }
	@touch $@

# Compiled kernels and calibration of a test run go into a folder of its own: what is tested is a cold start. Runs of
# one and the same code may share the kernels, in a new folder TEST_KERNELS.
define pytest
	@set -e; cache=$$(mktemp -d); trap 'rm -rf "$$cache"' EXIT; trap 'exit 130' INT TERM; \
	NUMBA_CACHE_DIR="$${TEST_KERNELS:-$$cache/numba}" NCONV_CACHE_DIR="$$cache/nconv" \
		$(PY) -m pytest -n 2 --dist worksteal $(1) $(PYTEST_ARGS)
endef

demo: $(VENV)/.demo
	@$(VENV)/bin/nconv demo

test: $(VENV)/.test $(VENV)/.demo
	$(call pytest,-m "not slow")

test-all: $(VENV)/.test $(VENV)/.demo
	$(call pytest,)

bench: $(VENV)/.bench
	@cd asv_bench && $(abspath $(PY)) -m asv machine --yes >/dev/null
	cd asv_bench && $(abspath $(PY)) -m asv run $(ASV_ARGS) --python=same --set-commit-hash "$$(git rev-parse HEAD)"
	cd asv_bench && $(abspath $(PY)) -m asv publish --html-dir "$(abspath $(BENCH_OUT))"
	@echo "nconv: the tables are in $(BENCH_OUT)"

docs: $(VENV)/.docs
	$(PY) -m sphinx -b html -E -W --keep-going -q docs $(DOCS_OUT)/html
	@echo "nconv: the documentation is in $(DOCS_OUT)/html/index.html"

doctest: $(VENV)/.test $(VENV)/.demo
	$(call pytest,--doctest-modules --doctest-glob='*.rst' --doctest-glob='README.md' nconv docs README.md)

gpu: $(VENV)/.cuda
	$(PY) -m nconv.bench.gpu

# In Numba's simulator of CUDA, which replaces the real one for the whole process.
test-cuda: $(VENV)/.cuda $(VENV)/.test
	NUMBA_ENABLE_CUDASIM=1 $(PY) -m pytest -n 2 --dist worksteal tests/cuda $(PYTEST_ARGS)

prove-cuda: $(VENV)/.prove-cuda
	$(PY) -m nconv.cuda.proof

lint: $(VENV)/.lint
	$(PY) -m ruff check .
	$(PY) -m mypy

clean:
	rm -rf $(VENV) $(DOCS_OUT) docs/gallery docs/api/generated build dist .pytest_cache .mypy_cache .ruff_cache
