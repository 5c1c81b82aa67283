"""DeepCTR-Torch's side of bench_peers.py.

Sizes, learning rate and activations are given. It prints and measures nothing while it trains (``verbose=0``), which is
faster than its default, and has no L2 penalty, as nobody here has one.
"""

from pathlib import Path

import numpy as np
import torch
from contest import Outcome, Settings, main, start_alike
from deepctr_torch.callbacks import ModelCheckpoint
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DIN
from market import Log

ROWS = {"din": {"att_activation": "sigmoid"}, "din-dice": {"att_activation": "dice"}}
"""Settings of each row beside the shared ones."""
HISTORY = ("item_id", "category")


def prepare(log: Log, folder: Path, settings: Settings) -> None:
    """Write the arrays that ``fit`` takes, by part."""
    sizes = {
        "user_id": len(log.offsets),
        "item_id": len(log.categories),
        "category": log.categories.max() + 1,
    }
    np.savez(folder / "sizes.npz", **sizes)
    for part in ("train", "validation", "test"):
        rows = log.rows(part)
        history = log.newest(rows, settings.length)
        np.savez(
            folder / f"{part}.npz",
            clicks=log.clicks[rows],
            user_id=log.users[rows],
            item_id=log.items[rows],
            category=log.categories[log.items[rows]],
            hist_item_id=history,
            hist_category=log.categories[history],
            history_length=np.full(len(history), settings.length),
        )


def train(folder: Path, settings: Settings, outcome: Outcome) -> None:
    """Train with ``fit``; score the test part."""
    with outcome.timed("open"):
        parts = {part: dict(np.load(folder / f"{part}.npz")) for part in ("train", "validation", "test")}
        clicks = {part: arrays.pop("clicks") for part, arrays in parts.items()}
        model = DIN(
            feature_columns(folder, settings),
            list(HISTORY),
            dnn_hidden_units=settings.hidden_dims,
            att_hidden_size=settings.attention_dims,
            l2_reg_embedding=0.0,
            seed=settings.seed,
            **ROWS[settings.row],
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
        model.compile(optimizer, "binary_crossentropy", metrics=["auc"])
    start_alike(model, settings.seed)
    best = ModelCheckpoint(
        str(folder / "best.pt"), monitor="val_auc", save_best_only=True, save_weights_only=True, mode="max"
    )
    with outcome.timed("fit"):
        model.fit(
            parts["train"],
            clicks["train"],
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            verbose=0,
            callbacks=[best],
            validation_data=(parts["validation"], clicks["validation"]),
        )
    model.load_state_dict(torch.load(folder / "best.pt"))
    outcome.scores = model.predict(parts["test"], batch_size=settings.batch_size).squeeze(1)


def feature_columns(folder: Path, settings: Settings) -> list[SparseFeat | VarLenSparseFeat]:
    """Return the fields: user, target and the history, which shares the target's tables."""
    with np.load(folder / "sizes.npz") as sizes:
        columns = [SparseFeat(name, int(sizes[name]), embedding_dim=settings.dim) for name in sizes]
    history = [
        VarLenSparseFeat(
            SparseFeat(
                f"hist_{column.name}", column.vocabulary_size, settings.dim, embedding_name=column.name
            ),
            maxlen=settings.length,
            length_name="history_length",
        )
        for column in columns
        if column.name in HISTORY
    ]
    return columns + history


if __name__ == "__main__":
    main(prepare, train, ("deepctr-torch",))
