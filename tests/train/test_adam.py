"""Lazy Adam against PyTorch's SparseAdam and Adam."""

import pytest
import torch
from torch import nn

from mimctr.train.adam import LazyAdam, clip_gradients

ROWS, DIM = 12, 3
BATCHES = [[1, 4, 4], [4], [0, 7, 11, 1], [4, 1]]


def tables():
    table = nn.Embedding(ROWS, DIM, sparse=True)
    return table, nn.Embedding(ROWS, DIM, _weight=table.weight.detach().clone(), sparse=True)


def train(table, optimizer, batches, target):
    for batch in batches:
        optimizer.zero_grad()
        (table(torch.tensor(batch)) - target).square().sum().backward()
        optimizer.step()


def test_without_a_penalty_it_is_sparse_adam():
    # Mutant: averages of rows that are not in the gradient decay.
    one, other = tables()
    train(one, LazyAdam(one.parameters(), lr=0.1), BATCHES, 1.0)
    train(other, torch.optim.SparseAdam(other.parameters(), lr=0.1), BATCHES, 1.0)
    torch.testing.assert_close(one.weight, other.weight)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_where_every_row_is_in_every_batch_it_is_adam(penalty):
    one, other = tables()
    other.sparse = False
    batches = [list(range(ROWS))] * 5
    train(one, LazyAdam(one.parameters(), lr=0.1, weight_decay=penalty), batches, 1.0)
    train(other, torch.optim.Adam(other.parameters(), lr=0.1, weight_decay=penalty), batches, 1.0)
    torch.testing.assert_close(one.weight, other.weight)


def test_a_row_that_no_batch_names_stays_as_it_is():
    table, _ = tables()
    before = table.weight.detach().clone()
    train(table, LazyAdam(table.parameters(), lr=0.1, weight_decay=0.3), BATCHES, 1.0)
    named = sorted({row for batch in BATCHES for row in batch})
    others = [row for row in range(ROWS) if row not in named]
    assert torch.equal(table.weight[others], before[others])
    assert (table.weight[named] != before[named]).all()


def test_dense_parameters_beside_sparse_ones_are_adam_s():
    table, _ = tables()
    layer = nn.Linear(DIM, 1)
    copy = nn.Linear(DIM, 1)
    copy.load_state_dict(layer.state_dict())
    rows = torch.tensor([1, 2])
    fixed = table(rows).detach()
    optimizer = LazyAdam([*table.parameters(), *layer.parameters()], lr=0.1, fused=True)
    layer(table(rows)).sum().backward()
    optimizer.step()
    plain = torch.optim.Adam(copy.parameters(), lr=0.1)
    copy(fixed).sum().backward()
    plain.step()
    torch.testing.assert_close(layer.weight, copy.weight)


def test_it_goes_on_from_its_state():
    one, other = tables()
    whole = LazyAdam(one.parameters(), lr=0.1, weight_decay=0.1)
    train(one, whole, BATCHES, 1.0)
    first = LazyAdam(other.parameters(), lr=0.1, weight_decay=0.1)
    train(other, first, BATCHES[:2], 1.0)
    second = LazyAdam(other.parameters(), lr=0.1, weight_decay=0.1)
    second.load_state_dict(first.state_dict())
    train(other, second, BATCHES[2:], 1.0)
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_sparse_gradients_are_clipped_with_the_dense_ones(max_norm):
    table, plain = tables()
    plain.sparse = False
    layers = [nn.Linear(DIM, 1), nn.Linear(DIM, 1)]
    layers[1].load_state_dict(layers[0].state_dict())
    for one, layer in zip((table, plain), layers, strict=True):
        layer(one(torch.tensor([1, 4, 4]))).square().sum().backward()
    clip_gradients([*table.parameters(), *layers[0].parameters()], max_norm)
    nn.utils.clip_grad_norm_([*plain.parameters(), *layers[1].parameters()], max_norm)
    torch.testing.assert_close(table.weight.grad.to_dense(), plain.weight.grad)
    torch.testing.assert_close(layers[0].weight.grad, layers[1].weight.grad)
