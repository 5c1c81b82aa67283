"""The example inside another library, on a small shop whose clicks depend on nothing but what items look like."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recipes.test_train import NUM_STYLES, write_shop

from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.recipes.embed import ITEMS, QUERIES

pytestmark = pytest.mark.needs_peers

EXAMPLE = Path(__file__).parents[2] / "examples" / "deepctr_torch_din.py"


@pytest.mark.parametrize("missing", ["dataset", "content"])
def test_a_missing_folder_is_one_line(missing: str, tmp_path: Path):
    if missing == "content":
        write_shop(tmp_path / "tables")
        prepare_tables(tmp_path / "tables", tmp_path / "dataset")
    command = [sys.executable, EXAMPLE, tmp_path / "dataset", tmp_path / "content"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{tmp_path / missing}" in done.stderr.splitlines()[-1]
    assert done.stderr.rstrip().endswith("first.")


@pytest.mark.parametrize("told", [True, False], ids=["vectors of the items", "vectors of other items"])
def test_content_tells_deepctr_torch_s_din_of_items_that_it_never_saw(told: bool, tmp_path: Path):
    # Mutants: the content vectors of other items; content that does not reach the network.
    styles = write_shop(tmp_path / "tables")
    prepare_tables(tmp_path / "tables", tmp_path / "dataset")
    items = CtrDataset.open(tmp_path / "dataset").items
    if not told:
        styles = np.random.default_rng(1).permutation(styles)
    vectors = np.eye(NUM_STYLES, dtype=np.float32)[styles[items["item_id"].to_numpy()]]
    keys = items["item_key"].to_numpy()
    write_snapshot(tmp_path / "content" / ITEMS, keys[5:], vectors[5:], encoder="styles")  # five have none
    nothing = np.zeros((0, NUM_STYLES), dtype=np.float32)
    write_snapshot(tmp_path / "content" / QUERIES, keys[:0], nothing, encoder="styles")

    command = [sys.executable, EXAMPLE, tmp_path / "dataset", tmp_path / "content"]
    command += ["--max-length", "10", "--epochs", "12"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    own, aware = (float(line.split()[-1]) for line in printed.splitlines() if "test AUC" in line)
    gain = next(float(line.split()[-1]) for line in printed.splitlines() if line.startswith("gain"))
    assert gain == pytest.approx(aware - own, abs=2e-4)
    assert 0.42 < own < 0.58
    assert (aware > 0.75) if told else (aware < 0.58)
