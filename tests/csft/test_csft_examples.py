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

CPU = torch.device("cpu")


def test_batches_hold_each_positive_with_a_hard_negative_of_its_category(shop, encoders, tmp_path):
    data, _, catalogue, pairs = open_shop(shop, encoders, tmp_path)
    examples = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=10))
    unmasked = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=10, mask_bought=False))
    assert unmasked.no_negatives(unmasked.batch(0), CPU) is None
    bought = set(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))
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
        rows, keys = examples.no_negatives(batch, CPU)
        found = sorted(zip(rows.tolist(), keys.tolist(), strict=True))
        of_user = [(row, item) for row, user in enumerate(users) for buyer, item in bought if buyer == user]
        assert found == sorted((row, int(data.item_keys[item])) for row, item in of_user)


def test_the_item_whose_picture_asks_is_no_negative_of_its_query(tmp_path, encoders):
    folder = write_shop(tmp_path / "shop", searches=False)
    data, _, catalogue, pairs = open_shop(folder, encoders, tmp_path)
    assert (pairs.query_item > 0).all()
    examples = Examples(data, pairs, catalogue.has_content, csft.Config(batch_size=len(pairs)))
    batch = examples.batch(0)
    rows, keys = examples.no_negatives(batch, CPU)
    known = set(zip(rows.tolist(), keys.tolist(), strict=True))
    asking = set(enumerate(data.item_keys[batch.query_items].tolist()))
    bought = set(zip(pairs.user.tolist(), data.item_keys[pairs.item].tolist(), strict=True))
    expected = {
        (row, key) for row, user in enumerate(batch.users.tolist()) for buyer, key in bought if buyer == user
    }
    assert known == expected | asking
    assert asking - expected


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
