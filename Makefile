# make help lists what can be made. Nothing else has to be run before.

CONFIG ?= configs/atari_local.py
WORKDIR ?= runs/pong
ARGS ?=
ACCELERATOR ?= cpu
VENV ?= .venv

PYTHON_BIN := $(VENV)/bin/python
READY := $(VENV)/.complete-$(ACCELERATOR)
UV ?= uv

# Another project's settings must not leak into this one's processes.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help setup train test lint format doctor benchmark lock docker-check \
  clean

help:  ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' \
	  $(MAKEFILE_LIST)

setup: $(READY)  ## sets up the locked environment (the others do it, too)

# The script writes the stamp last: what was interrupted is done again.
$(READY): requirements.lock $(wildcard requirements-$(ACCELERATOR).lock) \
  setup.py scripts/setup.sh scripts/probe_python.py
	@ACCELERATOR=$(ACCELERATOR) scripts/setup.sh $(VENV)

train: $(READY)  ## trains: CONFIG=..., WORKDIR=..., ARGS='--config.field=value'
	@$(PYTHON_BIN) -m bmg train --config=$(CONFIG) --workdir=$(WORKDIR) \
	  $(ARGS)

# A worker for each file, whose tests share what takes long to make.
test: lint  ## checks the style and the types, runs all tests: ARGS='-k replay'
	$(PYTHON_BIN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  $(ARGS)

# The rooms are packages of bmg, which mypy has to be shown: see pyproject.toml.
ROOMS := $(filter-out bmg,$(patsubst %/__init__.py,%,$(wildcard */__init__.py)))

lint: $(READY)  ## checks style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@rm -rf build/rooms && mkdir -p build/rooms/bmg
	@ln -s $(addprefix $(CURDIR)/,$(ROOMS) $(wildcard bmg/*.py)) build/rooms/bmg
	$(VENV)/bin/mypy

format: $(READY)  ## formats all files, mends what can be mended
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

doctor: $(READY)  ## checks this machine and the environment, names the cures
	@$(PYTHON_BIN) -m bmg doctor

benchmark: $(READY)  ## measures the parts and the whole: CONFIG=..., ARGS=...
	@$(PYTHON_BIN) -m bmg.benchmarks.throughput --config=$(CONFIG) $(ARGS)

# libtpu is published for glibc 2.31 and newer only, the rest for older ones.
COMPILE := $(UV) pip compile setup.py --python-version 3.10 --quiet \
  --generate-hashes --no-annotate --no-emit-index-url \
  --custom-compile-command 'make lock' $(ARGS) --python-platform

lock:  ## makes the lock files from setup.py (needs uv; ARGS=--upgrade)
	$(COMPILE) x86_64-manylinux_2_28 --extra dev -o requirements.lock
	$(COMPILE) x86_64-manylinux_2_28 -c requirements.lock \
	  -o requirements-cpu.lock
	$(COMPILE) x86_64-manylinux_2_28 -c requirements.lock --extra cuda \
	  -o requirements-cuda.lock
	$(COMPILE) x86_64-manylinux_2_31 -c requirements.lock --extra tpu \
	  -o requirements-tpu.lock

docker-check: $(READY)  ## lints the Dockerfile, runs its steps in a clean folder
	$(PYTHON_BIN) scripts/check_dockerfile.py

clean:  ## removes the environment and the caches, keeps the runs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache bmg.egg-info build
	find . -path ./runs -prune -o -name __pycache__ -type d -prune \
	  -exec rm -rf {} +
