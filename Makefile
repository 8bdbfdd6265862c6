# One environment, made once: .venv with the versions of constraints.txt. A second run of any target starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu lint clean distclean

help:
	@echo "make demo    train a small network on handwritten digits and show its curvature (demo-output/)"
	@echo "make test    check style and types, then run every test"
	@echo "make test-gpu  run the tests that need a CUDA device, with the packages of GPU_PYTHON (python3) as they are"
	@echo "make lint    check style and types only"
	@echo "make clean   remove what was built and written; make distclean removes the environment too"

demo: $(VENV)/.demo
	$(BIN)/python -m linop_spectra demo --out demo-output

# Two processes of one thread each, each with whole files: TensorFlow and the compilers of JAX and torch wait for one core only.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# On a machine with a GPU nothing is installed: the python at hand has CuPy or torch, NumPy, SciPy, tqdm and pytest. Options of
# pyproject.toml that belong to plugins which may be missing there are no errors.
test-gpu:
	$(or $(GPU_PYTHON),python3) -m pytest -m gpu -o addopts="-ra --strict-markers" -W "ignore::pytest.PytestConfigWarning"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamps are files in the environment, so that removing it removes them.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch $(VENV)/.demo $@

clean:
	rm -rf build dist *.egg-info demo-output spectrum-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find linop_spectra tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
