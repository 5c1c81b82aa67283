"""A shop to be served: trained tables of normal width, a center with a vector of nearly every item, and requests."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mimctr.center.center import Center
from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.recipes.bundle import main as export
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.embed import ITEMS, QUERIES
from mimctr.recipes.train import main as train

ENCODER, DAY, NOW = "bench", 86_400, 1_706_000_000
NUM_USERS, NUM_IMPRESSIONS, NUM_BEHAVIORS = 2_000, 40_000, 400_000
SHARE_WITHOUT_VECTOR = 0.02


def write_shop(folder: Path, *, num_items: int, content_dim: int) -> None:
    """Write tables, a dataset, a center, and the vectors that a model is trained on."""
    (folder / "tables").mkdir(parents=True)
    rng = np.random.default_rng(0)
    items = np.arange(num_items)
    pl.DataFrame(
        {
            "item_id": items,
            "title": [f"title {n}" for n in items],
            "category": [f"category{n % 300}" for n in items],
            "brand": [f"brand{n % 2_000}" for n in items],
        }
    ).write_parquet(folder / "tables" / "items.parquet")
    users = rng.integers(0, NUM_USERS, NUM_IMPRESSIONS)
    pl.DataFrame(
        {
            "user_id": users,
            "item_id": rng.integers(0, num_items, NUM_IMPRESSIONS),
            "time": np.sort(rng.integers(0, 60 * DAY, NUM_IMPRESSIONS)) + 1_700_000_000,
            "click": rng.integers(0, 2, NUM_IMPRESSIONS),
            "user_age": [("young", "old")[n % 2] for n in users],
            "context_hour": [f"{n}h" for n in rng.integers(0, 24, NUM_IMPRESSIONS)],
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    pl.DataFrame(
        {
            "user_id": rng.integers(0, NUM_USERS, NUM_BEHAVIORS),
            "item_id": rng.integers(0, num_items, NUM_BEHAVIORS),
            "time": np.sort(rng.integers(0, 60 * DAY, NUM_BEHAVIORS)) + 1_700_000_000,
            "kind": [("click", "cart", "purchase")[n] for n in rng.integers(0, 3, NUM_BEHAVIORS)],
        }
    ).write_parquet(folder / "tables" / "behaviors.parquet")
    prepare_tables(folder / "tables", folder / "dataset")
    keys = CtrDataset.open(folder / "dataset").items["item_key"].to_numpy()
    known = rng.random(num_items) >= SHARE_WITHOUT_VECTOR
    vectors = rng.normal(size=(num_items, content_dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_snapshot(folder / "content" / ITEMS, keys[known], vectors[known], encoder=ENCODER)
    write_snapshot(folder / "content" / QUERIES, keys[:0], vectors[:0], encoder=ENCODER)
    center = Center.create(folder / "center", num_partitions=8)
    number = center.adopt(Snapshot.open(folder / "content" / ITEMS, encoder=ENCODER)).number
    center.seal(number, {}, min_coverage=0.0)
    center.log.generations.activate(number)


def write_model(folder: Path, ubm: str, variant: str, *, max_length: int) -> Path:
    """Train a model of normal width and export it; return the bundle."""
    config = Config.model_validate(
        {"ubm": ubm, "variant": variant, "max_length": max_length, "device": "cpu", "epochs": 1}
    )
    name = f"{ubm}-{variant}"
    content = None if variant == "base" else folder / "content"
    train(folder / "dataset", content, folder / "models" / name, config)
    export(folder / "models" / name, folder / "dataset", folder / "bundles" / name)
    return folder / "bundles" / name


def draw_requests(
    number: int, *, num_items: int, candidates: int, history: int, seed: int = 1
) -> list[dict[str, Any]]:
    """Return bodies of ``POST /score``, each for another user."""
    rng = np.random.default_rng(seed)
    bodies = []
    for _ in range(number):
        times = np.sort(rng.integers(NOW - 60 * DAY, NOW, history)).tolist()
        behaviors = rng.integers(0, num_items, history).tolist()
        kinds = rng.choice(["click", "cart", "purchase"], history).tolist()
        bodies.append(
            {
                "user": int(rng.integers(NUM_USERS)),
                "candidates": rng.choice(num_items, candidates, replace=False).tolist(),
                "history": [
                    {"item_id": item, "time": time, "kind": kind}
                    for item, time, kind in zip(behaviors, times, kinds, strict=True)
                ],
                "time": NOW,
                "user_fields": {"user_age": "young"},
                "context_fields": {"context_hour": "7h"},
            }
        )
    return bodies
