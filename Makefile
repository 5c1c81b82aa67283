# Two commands do everything on a bare machine with Python >= 3.11:  make demo  and  make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    ?= runs/demo
# The CPU build of PyTorch; a machine whose package index has none takes it from PyTorch's own.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test test-all check bench docs clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]" --constraint constraints.txt \
	  || $(BIN)/pip install --quiet --editable ".[dev]" --constraint constraints.txt --extra-index-url $(TORCH_INDEX)
	touch $@

demo: $(VENV)/installed
	$(BIN)/mimctr run recipes/demo.toml --out $(RUN)

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "slow"

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python benchmarks/bench_prepare.py

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
