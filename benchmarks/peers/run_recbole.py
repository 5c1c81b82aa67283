"""RecBole's side of bench_peers.py and bench_peers_data.py.

Its DIN is always sigmoid in the attention and its own Dice (without statistics) behind batch norm in the deep network,
which sees neither the user nor any other field of the impression: the item's fields and the history are all it
reads, and there is no option for more. An item that training never showed keeps a row of its own, as it started, since
RecBole reads items from one table by their ids. It has one list of widths for both networks; the attention's are put in
here.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from contest import Outcome, Settings, main, start_alike
from market import Log
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.model.layers import SequenceAttLayer
from recbole.model.sequential_recommender import DIN
from recbole.trainer import Trainer
from recbole.utils import init_logger, init_seed

ROWS = {"din": DIN}
"""Model of each row."""
PARTS = ("train", "validation", "test")


def prepare(log: Log, folder: Path, settings: Settings) -> None:
    """Write RecBole's atomic files, already split."""
    (folder / "log").mkdir()
    longest = 1
    for part in PARTS:
        rows = log.rows(part)
        histories, counts = log.newest(rows, settings.length)
        longest = max(longest, int(counts.max(initial=0)))
        with open(folder / "log" / f"log.{part}.inter", "w", encoding="utf-8") as file:
            file.write("user_id:token\titem_id:token\tlabel:float\titem_id_list:token_seq\n")
            for user, item, click, history, count in zip(
                log.users[rows], log.items[rows], log.clicks[rows], histories.tolist(), counts, strict=True
            ):
                file.write(f"{user}\t{item}\t{click}\t{' '.join(map(str, history[:count]))}\n")
    with open(folder / "log" / "log.item", "w", encoding="utf-8") as file:
        file.write("\t".join(f"{name}:token" for name in ("item_id", *log.item_names)) + "\n")
        for item, values in enumerate(log.item_fields[1:].tolist(), start=1):
            file.write("\t".join(map(str, (item, *values))) + "\n")
    facts = {"item_names": log.item_names.tolist(), "longest": longest}
    (folder / "facts.json").write_text(json.dumps(facts))


def train(folder: Path, settings: Settings, outcome: Outcome) -> None:
    """Train with its Trainer, as ``quick_start.run_recbole`` does; score the held-out parts."""
    os.chdir(folder)  # its logs and checkpoints go to the working folder
    config = Config(model=ROWS[settings.row].__name__, dataset="log", config_dict=config_of(folder, settings))
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    with outcome.timed("open"):
        dataset = create_dataset(config)
        train_batches, validation_batches, test_batches = data_preparation(config, dataset)
        model = sized(config, train_batches._dataset, settings)
        trainer = Trainer(config, model)
    start_alike(model, settings.seed)
    with outcome.timed("fit"):
        trainer.fit(train_batches, validation_batches, verbose=False, show_progress=False)
    best = torch.load(trainer.saved_model_file, weights_only=False)  # it holds RecBole's configuration too
    model.load_state_dict(best["state_dict"])
    outcome.epochs = len(trainer.train_loss_dict)
    model.eval()
    with torch.no_grad():
        for part, batches in (("validation", validation_batches), ("test", test_batches)):
            outcome.scores[part] = np.concatenate([model.predict(batch[0]).numpy() for batch in batches])


def config_of(folder: Path, settings: Settings) -> dict[str, object]:
    """Return what a user of RecBole writes into a configuration file.

    Its masks are as long as it is told, its histories as the longest there is: where none is full, that has to be told.
    """
    facts = json.loads((folder / "facts.json").read_text())
    return {
        "data_path": str(folder),
        "benchmark_filename": list(PARTS),
        "load_col": {
            "inter": ["user_id", "item_id", "label", "item_id_list"],
            "item": ["item_id", *facts["item_names"]],
        },
        "alias_of_item_id": ["item_id_list"],
        "MAX_ITEM_LIST_LENGTH": facts["longest"],
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": "none", "order": "TO", "mode": "labeled"},
        "train_neg_sample_args": None,
        "metrics": ["AUC"],
        "valid_metric": "AUC",
        "epochs": settings.epochs,
        "stopping_step": settings.patience - 1,  # it stops one look later than it is told
        "train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "embedding_size": settings.dim,
        "mlp_hidden_size": settings.hidden_dims,
        "seed": settings.seed,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }


def sized(config: Config, dataset: Dataset, settings: Settings) -> DIN:
    """Return the model with the attention's own widths."""
    model = ROWS[settings.row](config, dataset)
    inputs = model.attention.att_hidden_size[0]
    model.attention = SequenceAttLayer(
        model.attention.mask_mat,
        [inputs, *settings.attention_dims],
        activation="Sigmoid",
        softmax_stag=False,
        return_seq_weight=False,
    )
    model.attention.apply(model._init_weights)
    return model


if __name__ == "__main__":
    main(prepare, train, ("recbole",))
