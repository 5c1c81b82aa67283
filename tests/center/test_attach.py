"""Attached vectors are those of the batch's own items; missing ones are zero and say so."""

import numpy as np
import pytest
import torch

from mimctr.batch import CtrBatch
from mimctr.center import attach
from mimctr.center.attach import ContentTable
from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_snapshot

ITEM_KEYS = np.array([-1, -1, 50, 40, 30, 20, 10])  # by item_index; item 20 has no vector
GROUPS = np.array([0, 0, 2, 2, 3, 3, 2])


def vector(key):
    return np.array([key, 1.0, -key])


@pytest.fixture
def table(tmp_path):
    keys = np.array([10, 30, 40, 50])
    write_snapshot(tmp_path / "items", keys, np.stack([vector(k) for k in keys]), encoder="e")
    write_snapshot(tmp_path / "queries", np.array([2]), np.array([[7.0, 8.0, 9.0]]), encoder="e")
    return ContentTable.from_snapshots(
        ITEM_KEYS,
        Snapshot.open(tmp_path / "items", encoder="e"),
        num_queries=2,
        queries=Snapshot.open(tmp_path / "queries", encoder="e"),
    )


def batch(target, behaviors, mask, query):
    size, length = len(target), len(behaviors[0])
    none = torch.zeros(size, 0, dtype=torch.int64)
    zeros = torch.zeros(size, length, dtype=torch.int64)
    return CtrBatch(
        user_fields=none,
        query_fields=none,
        context_fields=none,
        query=torch.tensor(query),
        target=torch.tensor(target),
        behaviors=torch.tensor(behaviors),
        kinds=zeros,
        time_gaps=zeros,
        mask=torch.tensor(mask),
        clicks=torch.zeros(size),
    )


def test_each_index_gets_its_own_vector_and_a_missing_one_is_zero_and_unknown(table):
    targets, behaviors = [2, 5, 1, 6], [[0, 3], [4, 5], [1, 2], [6, 6]]
    content = table.attach(
        batch(targets, behaviors, [[False, True]] + [[True, True]] * 3, [0, 1, 2, 0])
    ).content
    for row, index in enumerate(targets):
        known = index in (2, 3, 4, 6)
        assert content.target_known[row] == known
        expected = vector(ITEM_KEYS[index]) if known else np.zeros(3)
        np.testing.assert_array_equal(content.target[row].numpy(), expected)
    np.testing.assert_array_equal(content.behavior_vectors()[1, 0].numpy(), vector(30))
    assert content.behaviors_known.tolist() == [[False, True], [True, False], [False, True], [True, True]]
    assert not content.behavior_vectors()[~content.behaviors_known].any()
    assert content.query_known.tolist() == [False, False, True, False]
    assert content.query[2].tolist() == [7.0, 8.0, 9.0]


def test_the_leak_control_moves_vectors_within_their_category_only(table):
    seen = set()
    for seed in range(20):
        rows = table.permuted(GROUPS, seed=seed).item_rows
        assert sorted(rows[[2, 3, 6]]) == sorted(table.item_rows[[2, 3, 6]])
        assert rows[4] == table.item_rows[4]
        assert rows[[0, 1, 5]].tolist() == [-1, -1, -1]
        seen.add(tuple(rows))
    assert len(seen) == 6  # every order of the three items of category 2


def test_int8_is_fetched_as_it_was_meant(tmp_path):
    """Every way to fetch multiplies a row with its own step."""
    vectors = np.random.default_rng(0).normal(size=(6, 4)) * np.logspace(-3, 3, 6)[:, None]
    write_snapshot(tmp_path / "small", np.arange(6), vectors, encoder="e", dtype="int8")
    table = ContentTable.from_snapshots(np.arange(-2, 6), Snapshot.open(tmp_path / "small", encoder="e"))
    lookup = attach._look_up(table.snapshot, table.item_rows, torch.tensor([[7, 0], [2, 4]]))
    wanted = np.stack([[vectors[5], np.zeros(4)], [vectors[0], vectors[2]]])
    for found in (
        lookup.fetch(),
        lookup[torch.tensor([1, 0])].fetch().flip(0),
        lookup.only(lookup.rows >= 0).fetch_any(),
    ):
        error = np.abs(found.numpy() - wanted) * np.array([[1, 0], [1, 1]])[:, :, None]
        assert (error <= np.abs(wanted).max(axis=-1, keepdims=True) / 254 + 1e-12).all()
    assert not lookup.fetch()[0, 1].any()
