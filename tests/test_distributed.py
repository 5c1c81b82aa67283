"""What processes exchange, against one process that has all the rows."""

import pytest
import torch
import torch.nn.functional as F
from processes import run_in
from torch import nn

from mimctr import distributed
from mimctr.encoders.batch_norm import SharedBatchNorm2d
from mimctr.errors import ConfigError

ROWS = 6


def everything() -> torch.Tensor:
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss_of(queries: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """No row counts like another, so that a wrong order or a wrong scale shows."""
    weight = torch.arange(1.0, len(items) + 1, dtype=items.dtype)
    return (queries @ items.T).exp().mul(weight).sum()


def exchange() -> None:
    assert distributed.size() == 2
    whole = everything().requires_grad_()
    own = everything()[distributed.own_rows(ROWS)].requires_grad_()
    assert torch.equal(distributed.gather_rows(own), whole)
    loss_of(own, distributed.gather_rows(own)).backward()
    loss_of(whole, whole).backward()
    torch.testing.assert_close(own.grad, whole.grad[distributed.own_rows(ROWS)])

    own.grad = whole.grad = None
    mean = distributed.mean_rows(own[: 1 + distributed.rank()])  # one row here, two there
    torch.testing.assert_close(mean, whole[[0, 3, 4]].mean(0))
    (mean.square() * (1 + distributed.rank())).sum().backward()
    whole[[0, 3, 4]].mean(0).square().mul(3).sum().backward()
    torch.testing.assert_close(own.grad, whole.grad[distributed.own_rows(ROWS)])

    assert distributed.mean_rows(own[:0]).tolist() == [0, 0, 0]
    assert distributed.total(torch.tensor(distributed.rank() + 1)) == 3
    assert distributed.average({"a": float(distributed.rank())}) == {"a": 0.5}
    assert distributed.from_main(lambda: ["of", distributed.rank()]) == ["of", 0]
    with pytest.raises(ConfigError, match="batch of 7 rows: does not divide over 2 processes"):
        distributed.own_rows(7)
    with distributed.alone():
        assert distributed.own_rows(7) == slice(0, 7)
        assert distributed.gather_rows(own) is own


def gradients() -> None:
    """Buckets, a gradient that only one process has, and one that none has."""
    distributed.BUCKET = 5
    parameters = [nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (3,), (7,), (1,), ())]
    for number, parameter in enumerate(parameters[:4]):
        if number != 1 or distributed.rank() == 1:
            parameter.grad = torch.full_like(parameter, 10.0 * number + distributed.rank())
    distributed.sum_gradients(parameters)
    for parameter, expected in zip(parameters, (1, 11, 41, 61), strict=False):
        assert (parameter.grad == expected).all(), (parameter.shape, parameter.grad)
        assert parameter.grad.shape == parameter.shape
    assert parameters[4].grad is None


def sparse_gradients() -> None:
    """Rows that one process names twice, that both name, and a process that names none."""
    named = [[[4, 1, 4], [1, 6]], [[], [2]], [[], []]]
    for by_process in named:
        whole, own = nn.Embedding(7, 2), nn.Embedding(7, 2, sparse=True)
        for number, rows in enumerate(by_process):
            whole(torch.tensor(rows, dtype=torch.long)).mul(number + 1.0).sum().backward()
        rows = torch.tensor(by_process[distributed.rank()], dtype=torch.long)
        own(rows).mul(distributed.rank() + 1.0).sum().backward()
        distributed.sum_gradients(own.parameters())
        assert own.weight.grad.is_sparse
        assert own.weight.grad._nnz() == len({*by_process[0], *by_process[1]})
        assert torch.equal(own.weight.grad.to_dense(), whole.weight.grad)


def batch_norms() -> None:
    torch.manual_seed(0)
    plain, shared = nn.BatchNorm2d(3), SharedBatchNorm2d(3)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    shared.load_state_dict(plain.state_dict())
    whole = (torch.randn(4, 3, 5, 5) * 3 + 1).requires_grad_()
    own = whole.detach()[distributed.own_rows(4)].clone().requires_grad_()
    expected, found = plain(whole), shared(own)
    torch.testing.assert_close(found, expected[distributed.own_rows(4)], rtol=1e-4, atol=1e-5)
    found.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    torch.testing.assert_close(own.grad, whole.grad[distributed.own_rows(4)], rtol=1e-3, atol=1e-3)
    distributed.sum_gradients(shared.parameters())
    torch.testing.assert_close(shared.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-3)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(shared.eval()(own), plain.eval()(own))


def flat_batch_norms() -> None:
    """Channels far from zero that hardly vary, and one that does not: against PyTorch in double precision.

    Mutant: the variance as mean of the squares minus square of the mean, which rounds below zero.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.0, 0.05, 0.01]).view(3, 1, 1)
    whole = torch.randn(8, 3, 7, 7, generator=generator) * spread + torch.tensor([7.3, 10, -30]).view(3, 1, 1)
    weight = torch.randn(whole.shape, generator=generator)
    exact = whole.double().requires_grad_()
    plain, shared = nn.BatchNorm2d(3).double(), SharedBatchNorm2d(3)
    expected = plain(exact)
    (expected * weight).sum().backward()
    rows = distributed.own_rows(8)
    own = whole[rows].clone().requires_grad_()
    found = shared(own)
    torch.testing.assert_close(found.double(), expected[rows], rtol=1e-3, atol=2e-3)
    (found * weight[rows]).sum().backward()
    largest = exact.grad.abs().amax((0, 2, 3), keepdim=True)
    torch.testing.assert_close(own.grad / largest, (exact.grad / largest)[rows], rtol=0, atol=2e-3)
    torch.testing.assert_close(shared.running_var.double(), plain.running_var)


def batch_norms_without_pictures() -> None:
    """One process has none, then all: the others' statistics count, and nothing is learned from nothing."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(4, 3, 5, 5, generator=generator)
    plain, shared = nn.BatchNorm2d(3), SharedBatchNorm2d(3)
    expected = plain(whole)
    own = whole[: 4 * distributed.rank()].clone().requires_grad_()
    found = shared(own)
    torch.testing.assert_close(found, expected[: len(own)], rtol=1e-4, atol=1e-5)
    found.pow(3).sum().backward()
    assert shared(own[:0]).shape == (0, 3, 5, 5)
    torch.testing.assert_close(shared.running_mean, plain.running_mean)
    torch.testing.assert_close(shared.running_var, plain.running_var)


def everything_exchanged() -> None:
    exchange()
    gradients()
    sparse_gradients()
    batch_norms()
    flat_batch_norms()
    batch_norms_without_pictures()


def test_two_processes_exchange_what_one_has():
    run_in(2, everything_exchanged)


def test_one_process_is_left_as_it_is():
    rows = everything().requires_grad_()
    assert distributed.gather_rows(rows) is rows
    assert distributed.size() == 1
    assert distributed.is_main()
    torch.testing.assert_close(distributed.mean_rows(rows), rows.mean(0))
    pictures = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(
        SharedBatchNorm2d(3)(pictures), F.batch_norm(pictures, None, None, training=True)
    )
