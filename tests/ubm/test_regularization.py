"""DIN's mini-batch aware regularization against a loop over impressions and rows."""

from dataclasses import replace

import pytest
import torch

from mimctr.batch import CtrBatch
from mimctr.ubm.embeddings import EmbeddingHalf
from mimctr.ubm.regularization import add_penalty, count_impressions

from .conftest import make_embedding

L2 = 0.3


def names_of(embedding: EmbeddingHalf, batch: CtrBatch, b: int) -> dict[str, set[int]]:
    """The rows of each table that impression ``b`` names."""
    items = [int(item) for item in (batch.target[b], *batch.behaviors[b]) if item != 0]
    fields = [embedding.item_fields[item].tolist() for item in items]
    named = {
        "item": {int(embedding.item_rows[item]) for item in items},
        "item_category": {category for category, _ in fields},
        "item_brand": {brand for _, brand in fields},
        "user": {int(embedding.user_rows[batch.user_fields[b, 0]])},
        "user_age": {int(batch.user_fields[b, 1])},
        "query_text": {int(batch.query_fields[b, 0])},
        "context_position": {int(batch.context_fields[b, 0])},
        "behavior_kind": {int(kind) for kind in batch.kinds[b]},
    }
    return {name: rows - {0} for name, rows in named.items()}


@pytest.fixture
def other(batch: CtrBatch) -> CtrBatch:
    """Another batch of the training part, with items that the first one lacks."""
    return replace(batch, target=torch.tensor([6, 6, 7, 8, 2]), behaviors=batch.behaviors.flip(0))


def test_an_impression_counts_once_for_every_row_that_it_names(batch: CtrBatch, other: CtrBatch):
    # Mutants: occurrences counted in place of impressions; item indices in place of rows.
    embedding = make_embedding()
    found = count_impressions(embedding, [batch, other])
    for name, counts in found.items():
        expected = torch.zeros_like(counts)
        for part in (batch, other):
            for b in range(len(part)):
                for row in names_of(embedding, part, b)[name]:
                    expected[row] += 1
        assert torch.equal(counts[1:], expected[1:]), name


@pytest.mark.parametrize("lazy_above", [0, 1_000_000])
def test_the_penalty_equals_a_loop_over_the_rows_of_the_batch(
    batch: CtrBatch, other: CtrBatch, lazy_above: int
):
    # Mutants: rows of other batches penalized; not divided by the count; divided by the count of the batch.
    embedding = make_embedding(unknown_rate=0.9, draws_negatives=True, lazy_above=lazy_above)
    counts = count_impressions(embedding, [batch, other])
    loss = embedding(batch).target.square().sum() + sum(part.sum() for part in embedding(batch)[:5])
    loss.backward()
    before = {name: table.weight.grad.to_dense().clone() for name, table in embedding.tables.items()}
    add_penalty(embedding, batch, counts, l2=L2)
    for name, table in embedding.tables.items():
        expected = before[name].clone()
        rows = set().union(*(names_of(embedding, batch, b)[name] for b in range(len(batch))))
        for row in rows:
            impressions = [
                names_of(embedding, part, b)[name] for part in (batch, other) for b in range(len(part))
            ]
            share = sum(row in named for named in impressions)
            expected[row] += L2 / share * table.weight[row].detach()
        torch.testing.assert_close(table.weight.grad.to_dense(), expected, msg=name)
        assert len(rows) < len(table.weight) or name in ("user_age", "context_position")


def test_a_table_that_no_loss_comes_from_is_left_alone(batch: CtrBatch):
    # As that of kinds is by a model that reads content interest alone. Mutant: so are all tables after it.
    embedding = make_embedding()
    rows = embedding(batch)
    (rows.query.sum() + rows.context.sum()).backward()
    before = embedding.tables["query_text"].weight.grad.clone()
    add_penalty(embedding, batch, count_impressions(embedding, [batch]), l2=L2)
    assert embedding.tables["item"].weight.grad is None
    assert embedding.tables["behavior_kind"].weight.grad is None
    assert not torch.equal(embedding.tables["query_text"].weight.grad, before)


def test_what_is_forgotten_or_drawn_does_not_count(batch: CtrBatch):
    exact = make_embedding().named_rows(batch)
    random = make_embedding(unknown_rate=0.9, draws_negatives=True).train().named_rows(batch)
    assert all(torch.equal(exact[name], random[name]) for name in exact)


def test_a_model_that_takes_kinds_apart_has_no_table_of_kinds_to_penalize(batch: CtrBatch):
    assert "behavior_kind" not in make_embedding(kinds_apart=True).named_rows(batch)
