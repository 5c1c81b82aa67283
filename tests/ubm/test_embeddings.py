"""The embedding half: which row an index gets, and what padding and unknown rows may do."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from mimctr.batch import CtrBatch
from mimctr.errors import ConfigError, DataError
from mimctr.ubm.embeddings import EmbeddingHalf, bucket_rows, table_name, trained_rows

from .conftest import MASK, make_embedding


def test_rare_entries_share_the_unknown_row_and_the_others_are_numbered_in_order():
    # Mutants: > instead of >=; the first kept entry at row 1 or 3; padding mapped to unknown.
    counts = torch.tensor([9, 9, 3, 0, 1, 2, 7])
    assert trained_rows(counts, min_count=2).tolist() == [0, 1, 2, 1, 1, 3, 4]
    assert trained_rows(counts, min_count=0).tolist() == [0, 1, 2, 1, 3, 4, 5]
    assert trained_rows(torch.zeros(4, dtype=torch.long), min_count=1).tolist() == [0, 1, 1, 1]


def test_a_row_is_the_item_with_its_fields(embedding: EmbeddingHalf, batch: CtrBatch):
    rows = embedding(batch)
    tables = {name: table.weight for name, table in embedding.tables.items()}
    for b, item in enumerate(batch.target.tolist()):
        category, brand = embedding.item_fields[item].tolist()
        expected = [
            tables["item"][embedding.item_rows[item]],
            tables["item_category"][category],
            tables["item_brand"][brand],
        ]
        torch.testing.assert_close(rows.target[b], torch.cat(expected))
    assert embedding.item_dim == rows.target.shape[1] == 4 + 2 + 2
    assert (rows.user.shape[1], rows.query.shape[1], rows.context.shape[1]) == (6, 4, 2)
    assert (embedding.user_dim, embedding.query_dim, embedding.context_dim) == (6, 4, 2)


def test_target_and_behaviors_share_their_tables(embedding: EmbeddingHalf, batch: CtrBatch):
    # Mutant: a second item table for the behaviors.
    with torch.no_grad():
        embedding.tables["behavior_kind"].weight.zero_()
    same = replace(batch, behaviors=batch.target.unsqueeze(1).expand(-1, MASK.shape[1]))
    rows = embedding(same)
    torch.testing.assert_close(rows.behaviors, rows.target.unsqueeze(1).expand_as(rows.behaviors))


def test_the_kind_of_a_behavior_is_part_of_its_row(embedding: EmbeddingHalf, batch: CtrBatch):
    other = replace(batch, kinds=batch.kinds.clone().masked_fill(batch.kinds == 2, 3))
    changed = (embedding(batch).behaviors - embedding(other).behaviors).abs().sum(dim=-1) > 0
    assert torch.equal(changed, batch.kinds == 2)


def test_a_model_that_takes_kinds_apart_gets_the_item_alone(batch: CtrBatch):
    embedding = make_embedding(kinds_apart=True)
    assert embedding.num_kinds == 4  # of which the model has a table of its own
    rows = embedding(replace(batch, behaviors=batch.target.unsqueeze(1) * MASK))
    expected = rows.target.unsqueeze(1) * MASK.unsqueeze(-1)
    torch.testing.assert_close(rows.behaviors * MASK.unsqueeze(-1), expected)
    assert torch.equal(rows.kinds, batch.kinds)


def test_negatives_are_other_items_that_training_knows_with_what_was_done(batch: CtrBatch):
    # Mutants: the behavior itself drawn; an item of the unknown row; the kind left out, which would tell them apart.
    torch.manual_seed(0)
    embedding = make_embedding(draws_negatives=True)
    items = embedding.tables["item"].weight
    known = items[2:]  # items 2 to 7, in order
    for item in range(2, 10):
        own = replace(batch, behaviors=torch.full_like(batch.behaviors, item))
        negatives = embedding(own).negatives
        kind = embedding.tables["behavior_kind"](batch.kinds)
        drawn = ((negatives - kind)[..., None, :4] - known).abs().sum(-1)  # (B, L, known)
        assert (drawn.amin(-1) < 1e-6).all()
        assert set(drawn.argmin(-1).unique().tolist()) == set(range(6)) - {item - 2}
    assert embedding.eval()(batch).negatives is None
    assert make_embedding()(batch).negatives is None


def test_nothing_can_be_drawn_beside_a_single_item():
    with pytest.raises(DataError, match="training knows 1 items"):
        make_embedding(draws_negatives=True, item_rows=torch.tensor([0, 1, 2, 1, 1, 1, 1, 1, 1, 1]))


def test_an_item_unseen_in_training_has_the_unknown_row_but_its_own_fields(
    embedding: EmbeddingHalf, batch: CtrBatch
):
    rows = embedding(replace(batch, target=torch.full_like(batch.target, 9)))
    torch.testing.assert_close(rows.target[0, :4], embedding.tables["item"].weight[1])
    torch.testing.assert_close(rows.target[0, 4:6], embedding.tables["item_category"].weight[3])


def test_padding_rows_are_zero_and_get_no_gradient(embedding: EmbeddingHalf, batch: CtrBatch):
    rows = embedding(batch)
    assert torch.equal(rows.behaviors[~MASK], torch.zeros_like(rows.behaviors[~MASK]))
    sum(part.sum() for part in rows[:5]).backward()
    for name, table in embedding.tables.items():
        assert torch.equal(table.weight[0], torch.zeros_like(table.weight[0])), name
        assert torch.equal(table.weight.grad[0], torch.zeros_like(table.weight[0])), name


def test_every_table_gets_a_gradient(embedding: EmbeddingHalf, batch: CtrBatch):
    sum(part.square().sum() for part in embedding(batch)[:5]).backward()
    assert all(table.weight.grad.abs().sum() > 0 for table in embedding.tables.values())


def test_same_category_is_a_known_category_shared_with_the_target(embedding: EmbeddingHalf, batch: CtrBatch):
    # Mutant: two items without a category count as of one category.
    batch = replace(
        batch, target=torch.tensor([2, 1, 4, 1, 9]), behaviors=batch.behaviors.masked_fill(MASK, 1)
    )
    batch = replace(
        batch, behaviors=torch.where(torch.arange(MASK.shape[1]) % 2 == 0, batch.behaviors, 4 * MASK)
    )
    found = embedding(batch).same_category
    category = embedding.item_fields[:, 0].tolist()
    for b in range(len(batch)):
        for i in range(MASK.shape[1]):
            target, behavior = category[batch.target[b]], category[batch.behaviors[b, i]]
            assert bool(found[b, i]) == bool(MASK[b, i] and behavior == target and behavior >= 2)


class TestUnknownRate:
    """Mutants: applied in evaluation; applied to padding; the rows kept but the index lost."""

    def test_a_share_of_users_targets_and_queries_is_forgotten_in_training(self, batch: CtrBatch):
        embedding = make_embedding(unknown_rate=0.3)
        unknown = {name: embedding.tables[name].weight[1] for name in ("item", "user", "query_text")}
        known = batch.query_fields[:, 0] > 1
        counts = torch.zeros(3)
        for _ in range(300):
            rows = embedding.train()(batch)
            counts[0] += (rows.target[:4, :4] == unknown["item"]).all(
                dim=1
            ).sum() / 4  # item 9 is always unknown
            trained = embedding.user_rows[batch.user_fields[:, 0]] > 1
            counts[1] += (rows.user[trained, :4] == unknown["user"]).all(dim=1).float().mean()
            counts[2] += (rows.query[known] == unknown["query_text"]).all(dim=1).float().mean()
            assert torch.equal(rows.query[1], torch.zeros(4))  # no query stays no query
        assert ((counts / 300 - 0.3).abs() < 0.06).all()

    def test_nothing_is_forgotten_in_evaluation(self, batch: CtrBatch):
        embedding = make_embedding(unknown_rate=0.9).eval()
        exact = make_embedding(unknown_rate=0.0)
        exact.load_state_dict(embedding.state_dict())
        for one, other in zip(embedding(batch)[:-1], exact(batch)[:-1], strict=True):
            assert torch.equal(one, other)


def test_a_width_can_be_set_by_table():
    embedding = EmbeddingHalf(
        item_rows=torch.tensor([0, 1, 2]),
        user_rows=torch.tensor([0, 1, 2]),
        item_fields=torch.zeros(3, 1, dtype=torch.int32),
        fields={"item": {"category": 3}, "user": {"user": 3}},
        embedding_dim=4,
        field_dim=2,
        dims={"item_category": 7},
    )
    assert embedding.item_dim == 4 + 7
    assert (embedding.query_dim, embedding.context_dim) == (0, 0)


class TestHashing:
    """Mutants: unknown or padding hashed too; the penalty's rows not hashed; categories compared by bucket."""

    BUCKETS: ClassVar[dict[str, int]] = {
        "item": 2,
        "user": 2,
        "query_text": 1,
        "item_category": 1,
        "user_age": 3,
    }

    def test_entries_share_rows_evenly_and_padding_and_unknown_keep_theirs(self):
        rows = bucket_rows(torch.arange(13), num_buckets=4)
        assert rows.tolist()[:2] == [0, 1]
        counts = rows[2:].bincount(minlength=6)
        assert counts[:2].tolist() == [0, 0]
        assert sorted(counts[2:].tolist()) == [2, 3, 3, 3]

    def test_it_is_a_model_in_which_the_rows_of_a_bucket_are_equal(self, batch: CtrBatch):
        hashed, plain = make_embedding(hash_buckets=self.BUCKETS), make_embedding()
        with torch.no_grad():
            for name, table in plain.tables.items():
                rows = torch.arange(len(table.weight))
                if name in self.BUCKETS:
                    rows = torch.tensor(
                        [r if r < 2 else 2 + (r - 2) % self.BUCKETS[name] for r in rows.tolist()]
                    )
                table.weight.copy_(hashed.tables[name].weight[rows])
        for one, other in zip(hashed(batch)[:-1], plain(batch)[:-1], strict=True):
            assert torch.equal(one, other)
        assert hashed(batch).same_category.any()

    def test_a_table_has_a_row_a_bucket_and_no_more_than_it_has_entries(self):
        tables = make_embedding(hash_buckets={"item": 3, "user": 100}).tables
        assert (len(tables["item"].weight), len(tables["user"].weight)) == (2 + 3, 2 + 3)

    def test_an_item_unseen_in_training_takes_no_other_items_row(self, batch: CtrBatch):
        embedding = make_embedding(hash_buckets=self.BUCKETS)
        rows = embedding(replace(batch, target=torch.full_like(batch.target, 9)))
        assert torch.equal(rows.target[0, :4], embedding.tables["item"].weight[1])

    def test_the_rows_that_are_named_are_those_that_learn(self, batch: CtrBatch):
        embedding = make_embedding(hash_buckets=self.BUCKETS)
        sum(part.square().sum() for part in embedding(batch)[:5]).backward()
        for name, rows in embedding.named_rows(batch).items():
            learning = embedding.tables[name].weight.grad.abs().sum(dim=1).nonzero().squeeze(1)
            assert set(learning.tolist()) == set(rows.unique().tolist()) - {0}, name

    def test_padding_stays_zero(self, batch: CtrBatch):
        embedding = make_embedding(hash_buckets=self.BUCKETS)
        rows = embedding(replace(batch, query_fields=torch.zeros_like(batch.query_fields)))
        assert torch.equal(rows.query, torch.zeros_like(rows.query))
        assert torch.equal(rows.behaviors[~MASK], torch.zeros_like(rows.behaviors[~MASK]))


@pytest.mark.parametrize("setting", ["dims", "hash_buckets"])
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("item_categry", "Did you mean 'item_category'?"),
        ("zzz", "Tables: item_category, item_brand, user, user_age, query_text, context_position, item."),
        # as wide as an item
        (
            "behavior_kind",
            "Tables: item_category, item_brand, user, user_age, query_text, context_position, item.",
        ),
    ],
)
def test_a_table_that_is_not_there_is_named(setting: str, name: str, advice: str):
    with pytest.raises(ConfigError) as caught:
        make_embedding(**{setting: {name: 3}})
    assert str(caught.value) == f"{setting}: '{name}' is no table of this model. {advice}"


def test_tables_are_named_after_side_and_field():
    names = [table_name("user", "user"), table_name("query", "query_text"), table_name("item", "category")]
    assert names == ["user", "query_text", "item_category"]
