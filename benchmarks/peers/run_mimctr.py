"""mimctr's side of bench_peers.py."""

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
from mimctr.train.memory import keep_freed_memory
from mimctr.train.run import Run

ROWS = {
    "din": {"ubm": "din", "din_activation": "sigmoid"},
    "din-dice": {"ubm": "din", "din_activation": "dice"},
    "din-best": {"ubm": "din", "din_activation": "sigmoid", "bf16": True},
    "dien": {"ubm": "dien", "auxiliary_weight": 0.0},
    "sim": {"ubm": "sim", "sim_num_heads": 2},
    "twin": {"ubm": "twin", "twin_num_heads": 4},
}
"""Settings of each row beside the shared ones; a new row is a line here and in the peers' files."""


def prepare(log: Log, folder: Path, settings: Settings) -> None:
    """Write raw tables and prepare them."""
    tables = folder / "tables"
    tables.mkdir()
    items = range(1, len(log.categories))
    pl.DataFrame({"item_id": items, "category": log.categories[1:]}).write_parquet(tables / "items.parquet")
    pl.DataFrame(
        {"user_id": log.users, "item_id": log.items, "time": log.times, "click": log.clicks}
    ).write_parquet(tables / "impressions.parquet")
    counts = torch.from_numpy(log.offsets).diff()
    users = torch.arange(1, len(log.offsets)).repeat_interleave(counts).numpy()
    pl.DataFrame({"user_id": users, "item_id": log.behaviors, "time": log.behavior_times}).with_columns(
        kind=pl.lit("click")
    ).write_parquet(tables / "behaviors.parquet")
    validation, test = (_days(log, part) for part in ("validation", "test"))
    prepare_tables(tables, folder / "dataset", split=SplitRule(test_days=test, validation_days=validation))


def train(folder: Path, settings: Settings, outcome: Outcome) -> None:
    """Train as ``mimctr train`` does; score the test part."""
    keep_freed_memory()
    config = Config(
        variant="base",
        seed=settings.seed,
        max_length=settings.length,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        schedule="constant",
        epochs=settings.epochs,
        evaluations_per_epoch=1,
        patience=settings.epochs,
        embedding_l2=0.0,
        unknown_rate=0.0,
        device="cpu",
        embedding_dim=settings.dim,
        field_dim=settings.dim,
        hidden_dims=tuple(settings.hidden_dims),
        sim_k=settings.k,
        twin_k=settings.k,
        **ROWS[settings.row],
    )
    with outcome.timed("open"):
        dataset = CtrDataset.open(folder / "dataset")
        task = Task(dataset=dataset, content=None, config=config, device=torch.device("cpu"))
        model = build_model(dataset, config, content_dim=None)
    start_alike(model, settings.seed)
    with tempfile.TemporaryDirectory(dir=folder) as run, outcome.timed("fit"):
        fit(model, Run(Path(run)), task)
    outcome.scores = predict(model, task, dataset.rows("test"))


def _days(log: Log, part: str) -> float:
    rows = log.rows(part)
    return (rows.stop - rows.start) * SECONDS_BETWEEN / DAY


if __name__ == "__main__":
    main(prepare, train, ("mimctr",))
