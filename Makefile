# One virtual environment, made from pyproject.toml and constraints.txt, independent of what else is installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check test-all docs bench bench-slow bench-quality gpu clean

demo: .venv/installed
	$(BIN)/pricer train
	$(BIN)/pricer eval --all-checkpoints
	$(BIN)/pricer pick
	$(BIN)/pricer eval --checkpoint best --split test
	$(BIN)/pricer report
	@echo "The run is in runs/, newest last. To train on your own data: README.md, \"Your own data\"."

# One process for each core. The tests of a file stay together, because they share fixtures, and the longest files start
# first (tests/conftest.py).
test: .venv/installed-dev
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

# Tests that need a GPU run separately, because the others hide it. Without a GPU they skip themselves.
test-all: .venv/installed-dev
	$(BIN)/python -m pytest -m "not gpu"
	$(BIN)/python -m pytest -m gpu

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The options of every command and all settings in docs/, from the code.
docs: .venv/installed
	$(BIN)/python -m tools.docs

# Timings, side by side, in less than half an hour; nothing else that is heavy may run meanwhile. SMOLLM2=FOLDER, with
# SmolLM2-135M, also compares its training with TRL's. RUN=runs/NAME also times the scoring of that run's checkpoints.
# HARNESS=PYTHON, a Python with lm_eval[hf] installed, compares it with the lm-evaluation-harness.
bench: .venv/installed-dev
	$(BIN)/python benchmarks/uploads.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/pick.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/data.py 100000
	$(BIN)/python benchmarks/training.py --steps 100 --learning-rate 2e-3
ifdef SMOLLM2
	$(BIN)/python benchmarks/training.py $(SMOLLM2)
endif
ifdef RUN
	$(BIN)/python benchmarks/forward.py $(RUN)
	$(BIN)/python benchmarks/notebook.py $(RUN)
endif
ifdef HARNESS
	$(BIN)/python benchmarks/harness_speed.py $(RUN) $(HARNESS) 618 3 64
endif

# The rest, which takes about as long again: ITEMS=FILE is a file of product descriptions for SMOLLM2.
bench-slow: .venv/installed-dev
	$(BIN)/python benchmarks/data.py
ifdef ITEMS
	$(BIN)/python benchmarks/training.py $(SMOLLM2) --source $(ITEMS) --max-length 256 --steps 5
endif
ifdef HARNESS
	$(BIN)/python benchmarks/harness.py $(RUN) $(HARNESS)
endif

# Which way of training prices best? Variants with three seeds each on the bundled data, for hours; OUT keeps what is done.
OUT ?= build/quality
bench-quality: .venv/installed-dev
	$(BIN)/python benchmarks/quality.py train --data demo --out $(OUT)
	$(BIN)/python benchmarks/quality.py compare $(OUT)

# Checks that pricer computes correctly on this machine's GPU, and times it; on a tiny scale without one. EXPERIMENTS.md
# has results. Both parts run, whatever the first one finds. GPU_PYTHON=python3 uses the packages that are installed.
GPU_PYTHON ?=
gpu: $(if $(GPU_PYTHON),,.venv/installed)
	@python=$(or $(GPU_PYTHON),$(BIN)/python); \
	$$python benchmarks/gpu.py right; right=$$?; \
	$$python benchmarks/gpu.py fast && exit $$right

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
