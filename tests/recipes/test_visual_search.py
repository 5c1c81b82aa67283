"""The AUC of the mean cosine, which C-SFT may stop early by, against a loop over impressions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mimctr.recipes.visual_search import cosine_auc


class Impressions:
    """Sixty impressions with random histories of eight items; the last thirty are the validation part."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.targets = rng.integers(2, 10, 60)
        self.clicks = rng.integers(0, 2, 60)
        self.histories = [rng.integers(2, 10, rng.integers(0, 6)) for _ in range(60)]

    def rows(self, part):
        assert part == "validation"
        return range(30, 60)

    def batch(self, rows, *, max_length):
        width = max(len(self.histories[row]) for row in rows)
        behaviors = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            behaviors[place, width - len(self.histories[row]) :] = self.histories[row]
        return SimpleNamespace(
            behaviors=torch.from_numpy(behaviors),
            mask=torch.from_numpy(behaviors > 0),
            target=torch.from_numpy(self.targets[rows]),
            clicks=torch.from_numpy(self.clicks[rows]),
        )


def test_cosine_auc_equals_a_loop_over_the_validation_part():
    data = Impressions()
    items = torch.randn(10, 4)
    unit = (items / items.norm(dim=1, keepdim=True)).numpy()
    scores = [
        np.mean([unit[item] @ unit[data.targets[row]] for item in data.histories[row]])
        if len(data.histories[row])
        else 0.0
        for row in range(30, 60)
    ]
    assert cosine_auc(data, items) == pytest.approx(roc_auc_score(data.clicks[30:], scores))
