# Everything runs in .venv, which is made on first use from the pinned versions in requirements.lock.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
# Where DVC keeps its index, instead of /var/tmp; and the user's name, which it asks for and a container may not know.
export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.cache/dvc
export LOGNAME ?= $(shell id -u)

.PHONY: repro test test-gpu lint setup
.DEFAULT_GOAL := repro

repro: setup
	dvc repro
	h2h show

test: setup   # three at a time, also on two cores: tests of whole runs often wait
	python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not gpu"

test-gpu: setup
	python -m pytest -m gpu
	python -m pytest tests/test_kernels.py

lint: setup
	ruff check .
	mypy
	deptry src stages

setup: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 " + " ".join(sys.argv[1:]))' $(MAKECMDGOALS)
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
