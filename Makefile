# One virtual environment, made from pyproject.toml and constraints.txt, whatever else is installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check test-all docs bench gpu clean

demo: .venv/installed
	$(BIN)/pricer train
	$(BIN)/pricer eval --all-checkpoints
	$(BIN)/pricer pick
	$(BIN)/pricer eval --checkpoint best --split test
	$(BIN)/pricer report
	@echo "The run is in runs/, newest last. To train on your own data: README.md, \"Your own data\"."

# A process for each core; the tests of a file stay together, for what they share.
test: .venv/installed-dev
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

# Tests that need a GPU are a run of their own, since the others hide it; without one they skip themselves.
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

# Timings, side by side: nothing else that is heavy may run meanwhile. RUN=runs/NAME also times scoring that run's
# checkpoints, and HARNESS=PYTHON, one with lm_eval[hf] installed, against the lm-evaluation-harness.
bench: .venv/installed-dev
	$(BIN)/python benchmarks/uploads.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/pick.py
	$(BIN)/python benchmarks/report.py
ifdef RUN
	$(BIN)/python benchmarks/forward.py $(RUN)
	$(BIN)/python benchmarks/notebook.py $(RUN)
endif
ifdef HARNESS
	$(BIN)/python benchmarks/harness.py $(RUN) $(HARNESS)
endif

# Whether pricer is right on this machine's GPU, and how fast; on a tiny scale without one. EXPERIMENTS.md has what came
# out. Both parts run, whatever the first one finds. GPU_PYTHON=python3: with the packages that are there.
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
