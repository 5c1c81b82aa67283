"""A run whose models rank: Base and Base+MIM of two seeds, tiny, on made-up vectors of most items."""

from pathlib import Path

import numpy as np

from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.recipes import ctr_config
from mimctr.recipes import train as train_recipe
from mimctr.recipes.embed import ITEMS, QUERIES

DIM, SEEDS = 6, (0, 1)
SMALL = {
    "ubm": "sim",
    "embedding_dim": 4,
    "field_dim": 2,
    "hidden_dims": (16,),
    "batch_size": 256,
    "max_length": 8,
    "sim_k": 4,
    "device": "cpu",
}


def fill_run(run: Path) -> None:
    """Write vectors and models beside the dataset of a run."""
    keys = np.sort(CtrDataset.open(run / "dataset").items["item_key"].to_numpy())
    vectors = np.random.default_rng(0).normal(size=(len(keys), DIM)).astype(np.float32)
    write_snapshot(run / "embed" / "csft" / ITEMS, keys[5:], vectors[5:], encoder="e")
    write_snapshot(run / "embed" / "csft" / QUERIES, keys[:0], vectors[:0], encoder="e")
    for seed in SEEDS:
        train(run, run / "train" / f"sim-base-seed{seed}", variant="base", seed=seed)
        train(run, run / "train" / f"sim-mim-csft-seed{seed}", variant="mim", seed=seed, encoder="csft")


def train(run: Path, out: Path, **settings: object) -> Path:
    """Train one model; ``settings`` are beside or above the tiny ones."""
    config = ctr_config.Config(**(SMALL | settings))
    content = None if config.variant == "base" else run / "embed" / "csft"
    train_recipe.main(run / "dataset", content, out, config)
    return out
