# make demo · make serve · make test · make check · make test-services · make docs · make bench · make audit
# TORCH_INDEX: an index of PyTorch's wheels to prefer, for example its CPU-only or a CUDA one.
PYTHON ?= python3.11
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export DO_NOT_TRACK := true

.PHONY: coverage demo serve test test-services test-long check docs audit bench clean

$(BIN)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what constraints.txt names into $(VENV); PyTorch alone may be gigabytes (see TORCH_INDEX)."
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(BIN)/.installed
	python -m flows.pipeline

serve: $(BIN)/.installed
	python -m flows.serve

# One thread a process: two processes share no core.
test: $(BIN)/.installed
	OMP_NUM_THREADS=1 python -m pytest -m "not services and not long" \
		--numprocesses logical --maxprocesses 4 --dist worksteal

test-services: $(BIN)/.installed
	OMP_NUM_THREADS=1 python -m pytest -m "services and not long" $$(grep -rl mark.services tests) \
		--numprocesses logical --maxprocesses 2 --dist worksteal

coverage: $(BIN)/.installed
	OMP_NUM_THREADS=1 python -m pytest -m "not services and not long" --cov vqmri \
		--cov-report term:skip-covered --numprocesses logical --maxprocesses 4 --dist worksteal

test-long: $(BIN)/.installed
	python -m pytest -m long

check: $(BIN)/.installed
	ruff format --check .
	ruff check .
	mypy
	lint-imports

# A dead link, or a page that the navigation does not name, is an error.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(BIN)/.installed
	mkdocs build --strict --quiet
	@echo "site/index.html"

# Asks the network for known weaknesses of the versions in constraints.txt; so it is not in CI.
# Nothing is resolved or installed: that file names every version.
audit: $(BIN)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[audit]'
	pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

# Hours: NAMES='sampling ingest' runs these alone.
bench: $(BIN)/.installed
	python -m benchmarks $(NAMES)

clean:
	vqmri clean
