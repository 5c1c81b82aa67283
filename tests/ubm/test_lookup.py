"""Rows looked up once and copied, against indexing a table row by row."""

import pytest
import torch

from mimctr.ubm.lookup import distinct, spread

INDICES = [[[3, 1, 3], [0, 3, 1]], [[7]], [[5, 5, 5, 5]], [[]]]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_copies_and_their_gradient_are_those_of_indexing(index):
    # Mutant: the copies of a row are summed in the order of the batch.
    index = torch.tensor(index, dtype=torch.int64)
    table = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    where = distinct(index)
    copies = spread(table[where.values], where)
    torch.testing.assert_close(copies, table[index])
    weights = torch.randn_like(copies)
    (gradient,) = torch.autograd.grad((copies * weights).sum(), table)
    (expected,) = torch.autograd.grad((table[index] * weights).sum(), table)
    torch.testing.assert_close(gradient, expected)


def test_values_are_each_once_and_in_order():
    index = torch.randint(20, (50, 7))
    where = distinct(index)
    assert where.values.tolist() == sorted(set(index.flatten().tolist()))
    assert torch.equal(where.values[where.places], index)
