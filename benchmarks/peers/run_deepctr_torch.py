"""DeepCTR-Torch's side of bench_peers.py and bench_peers_data.py.

Sizes, learning rate and activations are given. It prints and measures nothing while it trains (``verbose=0``), which is
faster than its default, and has no L2 penalty, as nobody here has one.
"""

from pathlib import Path

import numpy as np
import torch
from contest import Outcome, Settings, main, start_alike
from deepctr_torch.callbacks import EarlyStopping, ModelCheckpoint
from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DIN
from market import Log

ROWS = {"din": {"att_activation": "sigmoid"}, "din-dice": {"att_activation": "dice"}}
"""Settings of each row beside the shared ones."""
PARTS = ("train", "validation", "test")


def prepare(log: Log, folder: Path, settings: Settings) -> None:
    """Write the arrays that ``fit`` takes, by part."""
    items = {"item_id": (log.known_items, int(log.known_items.max()) + 1), **log.item_columns()}
    sizes = {"user_id": int(log.known_users.max()) + 1}
    sizes |= {name: size for name, (_, size) in log.field_columns(slice(0, 0)).items()}
    sizes |= {name: size for name, (_, size) in items.items()}
    np.savez(folder / "sizes.npz", **sizes)
    np.savez(folder / "history.npz", names=list(items))
    for part in PARTS:
        rows = log.rows(part)
        history, counts = log.newest(rows, settings.length)
        np.savez(
            folder / f"{part}.npz",
            clicks=log.clicks[rows],
            user_id=log.known_users[log.users[rows]],
            history_length=counts,
            **{name: values for name, (values, _) in log.field_columns(rows).items()},
            **{name: values[log.items[rows]] for name, (values, _) in items.items()},
            **{f"hist_{name}": values[history] for name, (values, _) in items.items()},
        )


def train(folder: Path, settings: Settings, outcome: Outcome) -> None:
    """Train with ``fit``; score the held-out parts."""
    with outcome.timed("open"):
        parts = {part: dict(np.load(folder / f"{part}.npz")) for part in PARTS}
        clicks = {part: arrays.pop("clicks") for part, arrays in parts.items()}
        model = DIN(
            feature_columns(folder, settings),
            history_names(folder),
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
    stop = EarlyStopping(monitor="val_auc", mode="max", patience=settings.patience)
    with outcome.timed("fit"):
        history = model.fit(
            parts["train"],
            clicks["train"],
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            verbose=0,
            callbacks=[best, stop],
            validation_data=(parts["validation"], clicks["validation"]),
        )
    model.load_state_dict(torch.load(folder / "best.pt"))
    outcome.epochs = len(history.epoch)
    outcome.scores = {
        part: model.predict(parts[part], batch_size=settings.batch_size).squeeze(1) for part in PARTS[1:]
    }


def history_names(folder: Path) -> list[str]:
    """Return the columns that target and history share."""
    with np.load(folder / "history.npz") as history:
        return history["names"].tolist()


def feature_columns(folder: Path, settings: Settings) -> list[SparseFeat | VarLenSparseFeat]:
    """Return the fields: user, impression, target and the history, which shares the target's tables."""
    shared = history_names(folder)
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
        if column.name in shared
    ]
    return columns + history


if __name__ == "__main__":
    main(prepare, train, ("deepctr-torch",))
