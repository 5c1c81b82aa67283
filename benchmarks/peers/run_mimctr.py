"""mimctr's side of bench_peers.py and bench_peers_data.py."""

import math
import tempfile
from pathlib import Path

import polars as pl
import torch
from contest import Outcome, Settings, main, start_alike
from market import SECONDS_BETWEEN, Log

from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.data.split import DAY, SplitRule
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.ctr_fitting import Task, fit, predict
from mimctr.recipes.ctr_model import build_model
from mimctr.recipes.train import open_vectors
from mimctr.train.memory import keep_freed_memory
from mimctr.train.run import Run

ROWS = {
    "din": {"ubm": "din", "din_activation": "sigmoid"},
    "din-dice": {"ubm": "din", "din_activation": "dice"},
    "din-best": {"ubm": "din", "din_activation": "sigmoid", "bf16": True},
    "dien": {"ubm": "dien", "auxiliary_weight": 0.0},
    "sim": {"ubm": "sim", "sim_num_heads": 2},
    "twin": {"ubm": "twin", "twin_num_heads": 4},
    "bst": {"ubm": "bst"},
}
ROWS |= {f"{name}-mim": {**row, "variant": "mim"} for name, row in ROWS.items()}
"""Settings of each row beside the shared ones; a new row is a line here and in the peers' files."""


def prepare(log: Log, folder: Path, settings: Settings) -> None:
    """Write raw tables and prepare them; nothing where the dataset is there, as the log was taken from it."""
    if settings.dataset is not None:
        return
    tables = folder / "tables"
    tables.mkdir()
    items = range(1, len(log.item_fields))
    pl.DataFrame({"item_id": items, "category": log.item_fields[1:, 0]}).write_parquet(
        tables / "items.parquet"
    )
    pl.DataFrame(
        {"user_id": log.users, "item_id": log.items, "time": log.times, "click": log.clicks}
    ).write_parquet(tables / "impressions.parquet")
    counts = torch.from_numpy(log.offsets).diff()
    users = torch.arange(len(counts)).repeat_interleave(counts).numpy()
    pl.DataFrame({"user_id": users, "item_id": log.behaviors, "time": log.behavior_times}).with_columns(
        kind=pl.lit("click")
    ).write_parquet(tables / "behaviors.parquet")
    validation, test = (_days(log, part) for part in ("validation", "test"))
    prepare_tables(tables, folder / "dataset", split=SplitRule(test_days=test, validation_days=validation))


def train(folder: Path, settings: Settings, outcome: Outcome) -> None:
    """Train as ``mimctr train`` does; score the held-out parts."""
    keep_freed_memory()
    row = {"variant": "base"} | ROWS[settings.row]
    if settings.dataset is None:  # every item and user of the generated log is known
        row["unknown_rate"] = 0.0
    config = Config(
        seed=settings.seed,
        max_length=settings.length,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        schedule="constant",
        epochs=settings.epochs,
        evaluations_per_epoch=1,
        patience=settings.patience,
        embedding_l2=0.0,
        device="cpu",
        embedding_dim=settings.dim,
        field_dim=settings.dim,
        hidden_dims=tuple(settings.hidden_dims),
        sim_k=settings.k,
        twin_k=settings.k,
        **row,
    )
    with outcome.timed("open"):
        dataset = CtrDataset.open(Path(settings.dataset) if settings.dataset else folder / "dataset")
        content = open_vectors(dataset, Path(settings.content) if settings.content else None, config)
        task = Task(dataset=dataset, content=content, config=config, device=torch.device("cpu"))
        model = build_model(dataset, config, content_dim=None if content is None else content.dim)
    start_alike(model, settings.seed)
    with tempfile.TemporaryDirectory(dir=folder) as run, outcome.timed("fit"):
        progress = fit(model, Run(Path(run)), task)
    steps = math.ceil(len(dataset.rows("train")) / settings.batch_size)
    outcome.epochs = (progress.best_step + 1) // steps + progress.num_worse
    for part in ("validation", "test"):
        outcome.scores[part] = predict(model, task, dataset.rows(part))


def _days(log: Log, part: str) -> float:
    rows = log.rows(part)
    return (rows.stop - rows.start) * SECONDS_BETWEEN / DAY


if __name__ == "__main__":
    main(prepare, train, ("mimctr",))
