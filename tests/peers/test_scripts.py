"""The scripts that train the peers, from an exported log to scores: histories that are never full, and full ones."""

import sys
from pathlib import Path

import numpy as np
import pytest
from data.conftest import make_tables, write_tables

from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables

pytestmark = pytest.mark.needs_peers

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "peers"
TINY = {
    "row": "din",
    "seed": 0,
    "threads": 1,
    "epochs": 1,
    "patience": 1,
    "batch_size": 64,
    "dim": 4,
    "attention_dims": [4],
    "hidden_dims": [8],
    "k": 2,
    "learning_rate": 0.01,
}


@pytest.mark.parametrize("length", [5, 500])
@pytest.mark.parametrize("library", ["fuxictr", "deepctr_torch", "recbole"])
def test_a_peer_scores_every_held_out_impression(library, length, tmp_path, monkeypatch):
    """Mutant: RecBole's masks are as long as asked, its histories as the longest that there is."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from export_dataset import export
    from start import run_task

    prepare_tables(write_tables(tmp_path / "tables", make_tables()), tmp_path / "dataset")
    data = CtrDataset.open(tmp_path / "dataset")
    export(data).save(tmp_path / "log.npz")
    settings = TINY | {"length": length}
    run_task(library, "prepare", tmp_path, settings, peers=Path(sys.executable))
    run_task(library, "train", tmp_path, settings, peers=Path(sys.executable))
    with np.load(tmp_path / library / "scores.npz") as scores:
        for part in ("validation", "test"):
            assert scores[part].shape == (len(data.rows(part)),)
            assert np.isfinite(scores[part]).all()
