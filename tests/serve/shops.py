"""What is asked of a shop online, and what offline evaluation said."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from mimctr.center.center import Center
from mimctr.center.publish import bring_up_to_date
from mimctr.center.stores.local import LocalStore
from mimctr.data.keys import item_keys
from mimctr.recipes.bundle import main as export
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.ctr_model import load_model
from mimctr.recipes.train import main as train
from mimctr.serve.bundle import Bundle
from mimctr.serve.scorer import Behaviors, Request, Scorer
from mimctr.weights import load_tensors

TOKEN = {"Authorization": "Bearer secret"}
NUM_ITEMS, NUM_USERS, NUM_ROWS, DIM, DAY = 60, 20, 900, 5, 86_400
SMALL = {
    "embedding_dim": 4,
    "field_dim": 2,
    "hidden_dims": (16,),
    "batch_size": 256,
    "max_length": 8,
    "device": "cpu",
    "epochs": 1,
    "sim_k": 4,
    "twin_k": 4,
}


def open_scorer(shop: Path, out: Path, **settings: object) -> Scorer:
    """Train, export, and serve from the embedded store."""
    config = Config(**(SMALL | settings))
    content = None if config.variant == "base" else shop / "content"
    train(shop / "dataset", content, out / "model", config)
    export(out / "model", shop / "dataset", out / "bundle", onnx=False)
    return bind(shop, out / "bundle")


def bind(shop: Path, bundle: Path) -> Scorer:
    center, store = Center(shop / "center"), LocalStore()
    bring_up_to_date(center.log, store, 1, lambda: center.open_base(1))
    return Scorer(Bundle(bundle), load_model(bundle), space=center.log.generations.space(1), store=store)


class RawLog:
    """The raw tables, asked as an online caller knows them."""

    def __init__(self, shop: Path) -> None:
        self.impressions = pl.read_parquet(shop / "tables" / "impressions.parquet")
        self.behaviors = pl.read_parquet(shop / "tables" / "behaviors.parquet")

    def request(self, row: int, candidates: list | None = None) -> Request:
        one = self.impressions.row(row, named=True)
        mine = self.behaviors.filter(pl.col("user_id") == one["user_id"])
        wanted = pl.Series([one["item_id"]] if candidates is None else candidates)
        return Request(
            user=int(item_keys(pl.Series([one["user_id"]]))[0]),
            candidates=np.array([item_keys(pl.Series([name]))[0] for name in wanted]),
            behaviors=Behaviors(
                np.array([item_keys(pl.Series([name]))[0] for name in mine["item_id"]], dtype=np.int64),
                mine["time"].to_numpy(),
                mine["kind"].to_list(),
            ),
            time=one["time"],
            user_fields={"user_age": one["user_age"]},
            context_fields={"context_hour": one["context_hour"]},
            query_fields={"query_text": one["query_text"]},
        )


def offline(shop: Path, model: Path) -> dict[int, float]:
    """Return the evaluated probability of each raw row of the test part."""
    tensors, _ = load_tensors(model / "predictions.safetensors")
    return dict(zip(tensors["row"].tolist(), torch.sigmoid(tensors["logit"].double()).tolist(), strict=True))


def body(shop: Path, row: int, candidates: list | None = None) -> dict:
    """Return a raw row of the log as a caller asks."""
    log = RawLog(shop)
    one = log.impressions.row(row, named=True)
    mine = log.behaviors.filter(log.behaviors["user_id"] == one["user_id"])
    return {
        "user": one["user_id"],
        "candidates": [one["item_id"]] if candidates is None else candidates,
        "history": mine.select("item_id", "time", "kind").to_dicts(),
        "time": one["time"],
        "query": one["query_text"],
        "user_fields": {"user_age": one["user_age"]},
        "context_fields": {"context_hour": one["context_hour"]},
    }
