# Needs make and Python 3.11 or newer with its venv module; everything else is installed into .venv.
# Without a GPU, PyTorch's smaller build without CUDA is enough:
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo reproduce reproduce-quick reproduce-full test test-avx2 soak soak-machines gpu-check lint format venv clean

# For example: make test ARGS='-k numbers -x'
ARGS ?=

# Torch's own kernels; oneDNN's, in torch and in CTranslate2; torch's 8-bit ones; CTranslate2's own; MKL's on Intel.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 FBGEMM_ENABLE_INSTRUCTIONS=AVX2 CT2_FORCE_CPU_ISA=AVX2 \
	MKL_ENABLE_INSTRUCTIONS=AVX2

REQUIREMENTS := setup.cfg constraints.txt pyproject.toml
PIP := .venv/bin/python -m pip --disable-pip-version-check
# On a terminal pip shows its progress; a log needs none of it.
QUIET := $$(test -t 2 || echo --quiet)

help: ## list these targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 22

demo: .venv/installed ## train a small translation model on a generated corpus, translate and evaluate (5 minutes)
	@bash examples/demo/run.sh

reproduce-quick: .venv/installed-report ## the study in small: everything works, nothing is decided (10 minutes)
	@bash examples/reproduction/run.sh quick

reproduce: .venv/installed-report ## the paper's core claims on Multi30k, or DATA=generated (82 minutes on two cores)
	@bash examples/reproduction/run.sh core

reproduce-full: .venv/installed-report ## the whole study: many hours; goes on where it was broken off
	@bash examples/reproduction/run.sh full

test: .venv/installed-dev ## run the tests; ARGS goes to pytest, NMT_ASYNC_DATA names a folder with real text
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 $(ARGS)

test-avx2: .venv/installed-dev ## run the numeric tests with the kernels of an x86 processor without AVX-512 and VNNI
	env $(AVX2) OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 -m numeric $(ARGS)

soak: .venv/installed-dev ## kill and damage runs at random for an hour and count what it costs; ARGS='--minutes 5'
	OMP_NUM_THREADS=1 PYTHONPATH=tests .venv/bin/python tests/faults/soak.py $(ARGS)

soak-machines: .venv/installed-dev ## kill machines that share a run at random moments and count what it costs; ARGS='--kills 30'
	OMP_NUM_THREADS=1 PYTHONPATH=tests .venv/bin/python tests/faults/machine_kills.py $(ARGS)

gpu-check: .venv/installed-dev ## test and measure on this machine's GPUs, into gpu-check.json (8 minutes at most)
	@OMP_NUM_THREADS=1 .venv/bin/python examples/gpu-check/check.py $(ARGS)

lint: .venv/installed-dev ## check style and types
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy nmt_async cli

format: .venv/installed-dev ## rewrite the code in its style
	.venv/bin/python -m ruff check --fix-only .
	.venv/bin/python -m ruff format .

venv: .venv/installed-dev ## make .venv with everything for development

clean: ## remove what these targets made: .venv, the demo's folder, caches
	rm -rf .venv demo build dist nmt_async.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A virtual environment that an interrupted run left broken is made anew.
define MAKE_VENV
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then \
	found=; \
	for python in python3 python3.13 python3.12 python3.11; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		found="$${found:-$$python}"; \
		if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
			echo "Making .venv with $$python"; \
			exec "$$python" -m venv --clear .venv; \
		fi; \
	done; \
	if [ -n "$$found" ]; then \
		package="$$("$$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; \
		echo "$$found has no venv module: run 'apt-get install $$package' as root, then make again." >&2; \
	else \
		echo "No Python 3.11 or newer found: run 'apt-get install python3 python3-venv' as root, then make again." >&2; \
	fi; \
	exit 1; \
fi
endef

.venv/installed: $(REQUIREMENTS)
	@$(MAKE_VENV)
	@echo "Installing nmt-async into .venv; the first time PyTorch is downloaded"
	@$(PIP) install $(QUIET) -c constraints.txt -e .
	@touch $@

.venv/installed-report: $(REQUIREMENTS)
	@$(MAKE_VENV)
	@echo "Installing nmt-async and what reports need into .venv; the first time PyTorch is downloaded"
	@$(PIP) install $(QUIET) -c constraints.txt -e '.[report]'
	@touch .venv/installed $@

.venv/installed-dev: $(REQUIREMENTS)
	@$(MAKE_VENV)
	@echo "Installing nmt-async and the development tools into .venv; the first time PyTorch is downloaded"
	@$(PIP) install $(QUIET) -c constraints.txt -e '.[dev]'
	@touch .venv/installed .venv/installed-report $@
