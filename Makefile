# Every target works as the only command after a clone: .venv is made on demand.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
GOLDEN ?= tests/golden
TEST_ARGS ?= -n 2
STAMP  := $(VENV)/.installed
# torch's threads yield while they wait: on shared cores spinning costs a hundredfold (benchmarks/NOTES.md).
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage lint type format bench bench-gpu gpu-test parity clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## build .venv with pinned versions (PYTHON=python3.12 picks the interpreter, PIP_ARGS adds pip options)

$(STAMP): pyproject.toml o-voxel/pyproject.toml training/pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt torch
	$(PY) -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ./o-voxel -e '.[app,local,deploy,dev]' -e ./training
	touch $@

demo: $(STAMP) ## one example picture to a textured GLB and a video, in demo/
	$(PY) -m trellis2_modal demo

test: $(STAMP) ## lint, types and all tests, two files at a time (TEST_ARGS=tests/o_voxel: one folder)
	$(MAKE) --no-print-directory lint type
	$(PY) -m pytest $(TEST_ARGS)

coverage: $(STAMP) ## all tests, and what they do not reach
	$(PY) -m pytest --cov --cov-report=term:skip-covered

lint: $(STAMP) ## ruff: style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(STAMP) ## ruff: rewrite to the house style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

type: $(STAMP) ## mypy over the packages
	$(VENV)/bin/mypy

parity: $(STAMP) ## compare with the reference's golden files (GOLDEN=folder)
	$(PY) -m tests.parity $(GOLDEN)

bench: $(STAMP) ## CPU benchmarks; writes benchmarks/RESULTS.md
	$(PY) -m benchmarks

bench-gpu: $(STAMP) ## GPU benchmarks at full model size; skips without CUDA (BENCH_ARGS="--sections flows --budget 300")
	$(PY) -m benchmarks.gpu $(BENCH_ARGS)

gpu-test: $(STAMP) ## the numerical tests on CUDA; skips without CUDA
	$(PY) -m pytest -m gpu tests/o_voxel tests/trellis2

clean: ## remove the environment, caches and what the demo wrote
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage demo artifacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
