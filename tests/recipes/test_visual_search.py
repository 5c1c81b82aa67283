"""The mean cosine of target and behaviors, which C-SFT may stop early by, against a loop over impressions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mimctr.recipes.visual_search import mean_cosines


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


@pytest.mark.parametrize("without", [(), (4, 7)], ids=str)
def test_the_mean_cosine_equals_a_loop_over_the_validation_part(without):
    """Mutants: items without content count, as behaviors, in the mean's divisor, or as targets."""
    data = Impressions()
    items = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    has_content = np.array([index >= 2 and index not in without for index in range(10)])
    unit = (items / items.norm(dim=1, keepdim=True)).numpy()
    found = mean_cosines(data, items, has_content, "validation")
    assert found.row.tolist() == list(range(30, 60))
    assert found.click.tolist() == data.clicks[30:].tolist()
    for row, score in zip(found.row.tolist(), found.score.tolist(), strict=True):
        target = data.targets[row]
        there = [item for item in data.histories[row] if has_content[item] and has_content[target]]
        expected = sum(unit[item] @ unit[target] for item in there) / max(len(there), 1)
        assert score == pytest.approx(expected, abs=1e-6)
