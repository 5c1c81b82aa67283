"""A dataset that mimctr has prepared, as the log that every contestant reads.

    python export_dataset.py runs/demo/dataset log.npz [--target-and-history]

The same impressions in the same order, the same histories, the same split, and every categorical field of item, user,
query and context. What no peer's table can hold stays behind: the kind of a behavior, its time beside the target's,
and content.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from market import Log

from mimctr.batch import FIRST_INDEX
from mimctr.data.dataset import CtrDataset
from mimctr.ubm.embeddings import table_name, trained_rows


def export(dataset: CtrDataset) -> Log:
    """Return everything between the first training and the last test impression, and all behaviors."""
    impressions, behaviors, fields = dataset.impressions, dataset.behaviors, dataset.fields
    parts = [dataset.rows(part) for part in ("train", "validation", "test")]
    used = slice(parts[0].start, parts[-1].stop)
    users = impressions.user[used].astype(np.int64)
    sides = {"user": fields.user, "query": fields.query, "context": fields.context}
    sizes = {table_name(side, name): size for side, named in sides.items() for name, size in named.items()}
    (itself, _), *others = sizes.items()  # the first field of a user is the user
    assert itself == "user"
    return Log(
        users=users,
        items=impressions.target[used].astype(np.int64),
        times=np.array(impressions.time[used]),
        clicks=impressions.click[used].astype(np.int64),
        ends=impressions.end[used] - behaviors.offsets[users],
        bounds=np.array([0, *(part.stop - used.start for part in parts)]),
        item_fields=dataset.item_fields.astype(np.int64),
        item_names=np.array([table_name("item", name) for name in fields.item]),
        item_sizes=np.array(list(fields.item.values())),
        fields=np.concatenate(
            [
                impressions.user_fields[used, 1:],
                impressions.query_fields[used],
                impressions.context_fields[used],
            ],
            axis=1,
        ).astype(np.int64),
        names=np.array([name for name, _ in others], dtype=str),
        sizes=np.array([size for _, size in others], dtype=np.int64),
        known_items=_known(dataset.item_train_counts),
        known_users=_known(dataset.user_train_counts),
        offsets=np.array(behaviors.offsets),
        behaviors=behaviors.item.astype(np.int64),
        behavior_times=np.array(behaviors.time),
    )


def _known(counts: np.ndarray) -> np.ndarray:
    """Return the row of each index in a table, as our own embeddings take it: 1 for what training never showed."""
    assert len(counts) >= FIRST_INDEX
    return trained_rows(torch.tensor(counts), min_count=1).numpy()


if __name__ == "__main__":
    log = export(CtrDataset.open(Path(sys.argv[1])))
    (log.target_and_history() if "--target-and-history" in sys.argv[3:] else log).save(Path(sys.argv[2]))
