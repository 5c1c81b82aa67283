"""What a step of C-SFT trains on: pairs in order, their drawn negatives, and odd shops."""

import numpy as np
import polars as pl
import pytest
import torch

from csft.shop import NUM_ITEMS, open_shop, write_shop
from mimctr import distributed
from mimctr.errors import ConfigError
from mimctr.recipes import content, csft
from mimctr.recipes.csft_examples import Examples, cumulative_weights, weighted_batch
from mimctr.recipes.visual_search import Pairs


def bought_keys(data, user: int) -> set[int]:
    """Keys of what a user bought or asked with, from the table itself."""
    table = data.pairs.filter(part="train", kind="purchase", user=user)
    items = {*table["item"].to_list(), *table["query_item"].to_list()} - {0}
    return {int(data.item_keys[item]) for item in items}


def test_batches_hold_each_positive_with_a_hard_negative_of_its_category(shop, encoders, tmp_path):
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=10))
    triples = set(zip(pairs.picture.tolist(), pairs.item.tolist(), pairs.user.tolist(), strict=True))
    for step in range(20):
        batch = examples.batch(step)
        assert np.array_equal(batch.items, examples.batch(step).items)
        positives, negatives = batch.items[:10], batch.items[10:]
        users = batch.users.tolist()
        assert set(zip(batch.pictures.tolist(), positives.tolist(), users, strict=True)) <= triples
        assert (data.item_fields[positives, 0] == data.item_fields[negatives, 0]).all()
        assert (positives != negatives).all()
        assert np.array_equal(batch.item_keys, data.item_keys[batch.items])


@pytest.mark.parametrize("searches", [True, False])
def test_what_a_user_bought_or_asked_with_is_no_negative_of_any_of_its_queries(encoders, tmp_path, searches):
    """Mutants: only pairs that can be trained on count; what only ever asked does not."""
    folder = write_shop(tmp_path / "shop", searches=searches)
    data, _, catalogue, pairs = open_shop(folder, encoders, tmp_path)
    few = Pairs(*(column[::3] for column in pairs))
    examples = Examples(data, few, catalogue.has_content, csft.Config(batch_size=10))
    pool_keys = torch.from_numpy(data.item_keys[[5, 3, 9, 3, 12, 7, 20, 8]])
    for step in range(3):
        batch = examples.batch(step)
        rows, keys = examples.no_negatives(batch, pool_keys)
        found = sorted(zip(rows.tolist(), keys.tolist(), strict=True))
        assert found == sorted(
            (row, key)
            for row, user in enumerate(batch.users.tolist())
            for key in bought_keys(data, user) & set(pool_keys.tolist())
        )
        assert found
    unmasked = Examples(data, few, catalogue.has_content, csft.Config(batch_size=10, mask_bought=False))
    assert unmasked.no_negatives(batch, pool_keys) is None


def test_pairs_against_drawn_negatives_meet_one_of_the_category_and_one_of_any(shop, encoders, tmp_path):
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(
        data, pairs, catalogue.has_content, csft.Config(batch_size=10, objective="pair_cross_entropy")
    )
    others = 0
    for step in range(20):
        batch = examples.batch(step)
        assert len(batch.items) == examples.num_candidates == 30
        assert batch.category.tolist() == data.item_fields[batch.items, 0].tolist()
        assert (batch.items[:10] != batch.items[10:20]).all()
        assert (batch.items[:10] != batch.items[20:]).all()
        assert (batch.category[:10] == batch.category[10:20]).all()
        others += int((batch.category[:10] != batch.category[20:]).sum())
    assert others == pytest.approx(200 * 2 / 3, rel=0.25)  # three categories of eight items


def test_an_epoch_shows_every_pair_once(shop, encoders, tmp_path):
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path, kinds=())
    examples = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=5, hard_negatives=False))
    steps = len(pairs) // 5
    shown = np.concatenate([examples.batch(step).pictures for step in range(steps)])
    assert len(shown) == 5 * steps
    counts = dict(zip(*np.unique(pairs.picture, return_counts=True), strict=True))
    assert all(
        count <= counts[picture] for picture, count in zip(*np.unique(shown, return_counts=True), strict=True)
    )


def test_balanced_pairs_come_as_often_as_their_weights_say():
    users = np.repeat([5, 6, 7], [1, 4, 16])
    cumulative = cumulative_weights(users, balance=0.5)
    generator = np.random.default_rng(0)
    drawn = np.concatenate([weighted_batch(cumulative, 7, generator) for _ in range(3000)])
    share = np.bincount(users[drawn], minlength=8)[5:] / len(drawn)
    assert share == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=1e-3)  # one, two and four of seven equal shares
    assert np.bincount(drawn, minlength=21)[5:] / len(drawn) == pytest.approx(4 / 7 / 16, abs=0.004)
    assert np.diff(cumulative_weights(users, balance=0.0)) == pytest.approx(1 / 21)


def test_a_step_of_more_pairs_than_there_are_is_a_step_of_all(shop, encoders, tmp_path):
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=100_000))
    assert examples.num_candidates == 2 * len(pairs)
    for step in range(3):
        batch = examples.batch(step)
        positives = batch.items[: len(pairs)]
        assert sorted(zip(batch.pictures, positives, strict=True)) == sorted(
            zip(pairs.picture, pairs.item, strict=True)
        )
        assert (batch.items[len(pairs) :] != positives).all()


def test_an_item_alone_in_its_category_meets_any_other(encoders, tmp_path):
    """Mutant: draw from its own category all the same; the only item there is the positive itself."""
    alone = {"category": pl.format("c{}", pl.col("item_id"))}
    shop = write_shop(tmp_path / "shop", columns=alone)
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=10))
    drawn = set()
    for step in range(40):
        batch = examples.batch(step)
        positives, negatives = batch.items[:10], batch.items[10:]
        assert (positives != negatives).all()
        drawn |= set(negatives.tolist())
    assert (
        len(drawn) == NUM_ITEMS - 3
    )  # all but the two that arrive in the test part, and the one without content


@pytest.mark.parametrize("settings", [{}, {"objective": "pair_cross_entropy"}], ids=str)
def test_what_is_drawn_has_a_picture_or_a_title(shop, encoders, tmp_path, settings):
    """Mutant: draw any item that was known; item 102 has neither, and would be one more stand-in for both."""
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=100, **settings))
    drawn = {item for step in range(20) for item in examples.batch(step).items.tolist()}
    arrive_later = {NUM_ITEMS, NUM_ITEMS + 1}  # item_index counts from 2
    assert drawn == {index for index in range(2, NUM_ITEMS + 2) if index != 4} - arrive_later


def test_fewer_pairs_than_processes_are_refused(shop, encoders, tmp_path, monkeypatch):
    """Mutant: the size of a step is 0, and the first one divides by it."""
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    for module in (distributed, content):
        monkeypatch.setattr(module, "size", lambda: 4)
    few = Pairs(*(column[:3] for column in pairs))
    with pytest.raises(ConfigError, match=r"3 rows to train on: fewer than 4 processes\. Start fewer\."):
        Examples(data, few, catalogue.has_content, csft.Config(batch_size=8))
