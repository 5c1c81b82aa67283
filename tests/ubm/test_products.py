"""Inner products and weighted sums against einsum, their gradients against autograd's."""

import pytest
import torch

from mimctr.ubm.products import dots, weighted_sum

SHAPES = [(3, 5, 4), (1, 1, 1), (2, 0, 3), (0, 4, 3)]


@pytest.fixture(params=SHAPES, ids=str)
def tensors(request):
    size, length, dim = request.param
    shapes = [(size, dim), (size, length), (size, length, dim)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def test_they_are_the_einsum(tensors):
    one, weights, many = tensors
    torch.testing.assert_close(dots(one, many), torch.einsum("bd,bld->bl", one, many))
    torch.testing.assert_close(weighted_sum(weights, many), torch.einsum("bl,bld->bd", weights, many))


def test_gradients_are_those_of_finite_differences(tensors):
    one, weights, many = tensors
    if many.numel():
        assert torch.autograd.gradcheck(dots, (one, many))
        assert torch.autograd.gradcheck(weighted_sum, (weights, many))


@pytest.mark.parametrize("trained", [[], [2], [0, 3]], ids=str)
def test_weights_have_a_gradient_where_it_is_wanted(trained: list[int]):
    # Mutant: nowhere.
    weights, many = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5, 3, requires_grad=True)
    factors = torch.randn(4, 3)
    whole = torch.autograd.grad((torch.einsum("bl,bld->bd", weights, many) * factors).sum(), (weights, many))
    found = torch.autograd.grad(
        (weighted_sum(weights, many, torch.tensor(trained, dtype=torch.int64)) * factors).sum(),
        (weights, many),
    )
    expected = torch.zeros(4, 5)
    expected[trained] = whole[0][trained]
    torch.testing.assert_close(found, (expected, whole[1]))


@pytest.mark.parametrize("product", [dots, weighted_sum])
def test_a_factor_without_gradient_gets_none(product):
    first = torch.randn(3, 5 if product is weighted_sum else 4, requires_grad=True)
    many = torch.randn(3, 5, 4)
    product(first, many).sum().backward()
    assert first.grad.abs().sum() > 0
    assert many.grad is None


def test_under_autocast_they_stay_in_full_precision_and_gradients_come_in_the_dtype_of_their_tensor():
    one = torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True)
    many = torch.randn(3, 5, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = dots(one, many)
    assert product.dtype == torch.float32
    torch.testing.assert_close(product, torch.einsum("bd,bld->bl", one.float(), many))
    product.sum().backward()
    assert (one.grad.dtype, many.grad.dtype) == (torch.bfloat16, torch.float32)
