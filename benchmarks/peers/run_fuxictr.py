"""FuxiCTR's side of bench_peers.py and bench_peers_data.py.

It trains the models of its ``model_zoo/LongCTR``, with that folder's own loader.

Sizes, learning rate and activations are given; everything else is the library's default, a loading process of its own
(``num_workers=1``) and gradient clipping included. What the options leave different from ours:

* DIEN: no auxiliary loss; ours has none here either. Its batch norm is off.
* SIM: besides the ``k`` behaviors found it attends to the newest ones, which ours has not: only to the newest one here,
  the least it takes. One width for search, query and key (ours: 16 for the search, 16 a head), an output projection, a
  network for the auxiliary task as large as the main one (ours: 32 units). No time gaps (ours: a bucket beside each
  behavior found). Padding that is found; there is none here.
* TWIN: that newest behavior too, and an output projection. Each head keeps ``k`` behaviors of its own (ours: ``k`` for
  all heads). Its cross features cannot be switched on (ours: the time gap).
"""

import json
from pathlib import Path

import model_zoo.LongCTR
import numpy as np
import pandas as pd
from contest import Outcome, Settings, main, start_alike
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything
from market import Log
from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

ROWS = {
    "din": ("DIN", {"attention_hidden_activations": "Sigmoid"}),
    "din-dice": ("DIN", {"attention_hidden_activations": "Dice"}),
    "din-best": ("DIN", {"attention_hidden_activations": "Sigmoid"}),
    "dien": ("DIEN", {"batch_norm": False}),
    "sim": ("SIM", {"num_heads": 2, "attention_dim": 32, "short_seq_len": 2}),
    "twin": ("TWIN", {"num_heads": 4, "attention_dim": 64, "short_seq_len": 2}),
}
"""Model and settings of each row beside the shared ones. ``short_seq_len`` of 2 means one behavior."""
FILES = {"train": "train.parquet", "validation": "valid.parquet", "test": "test.parquet"}


def prepare(log: Log, folder: Path, settings: Settings) -> None:
    """Write the files that ``LongCTRDataLoader`` reads: impressions by part, users' whole histories, items."""
    for part, name in FILES.items():
        rows = log.rows(part)
        pd.DataFrame(
            {
                "click": log.clicks[rows],
                "user_id": log.known_users[log.users[rows]],
                "user_index": log.users[rows],
                "item_index": log.items[rows],
                "seq_len": log.ends[rows],
                **{name: values for name, (values, _) in log.field_columns(rows).items()},
            }
        ).to_parquet(folder / name)
    histories = np.split(log.behaviors, log.offsets[1:-1])
    pd.DataFrame({"full_item_seq": histories}).to_parquet(folder / "users.parquet")
    items = {"item_id": (log.known_items, int(log.known_items.max()) + 1), **log.item_columns()}
    pd.DataFrame(
        {
            "item_index": np.arange(len(log.known_items)),
            **{name: values for name, (values, _) in items.items()},
        }
    ).to_parquet(folder / "items.parquet")
    impression = {"user_id": int(log.known_users.max()) + 1}
    impression |= {name: size for name, (_, size) in log.field_columns(slice(0, 0)).items()}
    sizes = {"user": impression, "item": {name: size for name, (_, size) in items.items()}}
    (folder / "sizes.json").write_text(json.dumps(sizes))


def train(folder: Path, settings: Settings, outcome: Outcome) -> None:
    """Train as ``model_zoo/LongCTR/run_expid.py`` does; score the held-out parts."""
    seed_everything(settings.seed)
    name, more = ROWS[settings.row]
    params = {
        "embedding_dim": settings.dim,
        "dnn_hidden_units": settings.hidden_dims,
        "attention_hidden_units": settings.attention_dims,
        "topk": settings.k,
        "learning_rate": settings.learning_rate,
        "batch_size": settings.batch_size,
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "metrics": ["AUC"],
        "model_root": str(folder),
        "early_stop_patience": settings.patience,
        "verbose": 0,
        "max_len": settings.length,
        "user_info": str(folder / "users.parquet"),
        "item_info": str(folder / "items.parquet"),
        "data_loader": LongCTRDataLoader,
        **{f"{part}_data": str(folder / FILES[name]) for part, name in PARTS.items()},
    }
    (folder / "log").mkdir(exist_ok=True)  # it keeps its weights in model_root/dataset_id
    with outcome.timed("open"):
        features = feature_map(folder, settings)
        model = getattr(model_zoo.LongCTR, name)(features, **params | more)
        train_batches, validation_batches = RankDataLoader(features, stage="train", **params)
    start_alike(model, settings.seed)
    with outcome.timed("fit"):
        model.fit(train_batches, epochs=settings.epochs, validation_data=validation_batches)
    outcome.epochs = model._epoch_index + 1
    for part, name in FILES.items():
        if part != "train":
            held_out = params | {"test_data": str(folder / name)}
            outcome.scores[part] = model.predict(RankDataLoader(features, stage="test", **held_out))


PARTS = {"train": "train", "valid": "validation", "test": "test"}


def feature_map(folder: Path, settings: Settings) -> FeatureMap:
    """Return what ``feature_map.json`` says in FuxiCTR's own preprocessing."""
    features = FeatureMap("log", str(folder))
    features.labels = ["click"]
    features.default_emb_dim = settings.dim
    features.features.update({name: {"type": "meta"} for name in ("user_index", "item_index", "seq_len")})
    for source, sizes in json.loads((folder / "sizes.json").read_text()).items():
        for name, size in sizes.items():
            features.features[name] = {
                "type": "categorical",
                "source": source,
                "padding_idx": 0,
                "vocab_size": size,
            }
    return features


if __name__ == "__main__":
    main(prepare, train, ("fuxictr",))
