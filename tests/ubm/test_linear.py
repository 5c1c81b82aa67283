"""Products by oneDNN against PyTorch's own, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mimctr.ubm import linear as module
from mimctr.ubm.linear import FEWEST_MULTIPLICATIONS, LONGEST_SUM, Linear, linear, product

LARGE = (2048, 64, 48)
"""Rows, inputs and outputs of a product that is large enough for oneDNN, and so are those of its gradients."""


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the shapes that oneDNN's product is called with."""
    calls: list[tuple[int, ...]] = []
    real = torch.ops.mkldnn._linear_pointwise

    def watch(x: Tensor, weight: Tensor, *rest: object) -> Tensor:
        calls.append((*x.shape, len(weight)))
        return real(x, weight, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", watch)
    return calls


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return reproducible values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("leading", [(LARGE[0],), (32, LARGE[0] // 32)])
def test_value_and_gradients_are_those_of_a_linear_layer_in_float64(
    onednn: list, leading: tuple[int, ...], has_bias: bool
) -> None:
    _, inputs, outputs = LARGE
    tensors = [draw(*leading, inputs), draw(outputs, inputs, seed=1)] + [draw(outputs, seed=2)] * has_bias
    own = [tensor.clone().requires_grad_() for tensor in tensors]
    exact = [tensor.double().requires_grad_() for tensor in tensors]
    gradient = draw(*leading, outputs, seed=3)
    value, expected = linear(*own), F.linear(*exact)
    value.backward(gradient)
    expected.backward(gradient.double())
    assert len(onednn) == 3, "forward, gradient of x, gradient of the weight"
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-4)
    for mine, theirs in zip(own, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=0, atol=2e-3)


def test_only_what_is_asked_for_is_multiplied(onednn: list) -> None:
    rows, inputs, outputs = LARGE
    weight = draw(outputs, inputs).requires_grad_()
    linear(draw(rows, inputs), weight).sum().backward()
    assert len(onednn) == 2, "x wants no gradient"
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("rows", "inputs"),
    [(0, 64), (1, 64), (FEWEST_MULTIPLICATIONS // (64 * 48) - 1, 64), (64, LONGEST_SUM + 1)],
    ids=["no rows", "one row", "small", "long sums"],
)
def test_what_onednn_is_no_faster_at_stays_with_pytorch(onednn: list, rows: int, inputs: int) -> None:
    x, weight = draw(rows, inputs), draw(48, inputs, seed=1)
    assert torch.equal(product(x, weight), F.linear(x, weight))
    assert not onednn


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay_with_pytorch(onednn: list, dtype: torch.dtype) -> None:
    rows, inputs, outputs = LARGE
    x, weight = draw(rows, inputs).to(dtype), draw(outputs, inputs, seed=1).to(dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not onednn


def test_autocast_is_respected(onednn: list) -> None:
    rows, inputs, outputs = LARGE
    layer = Linear(inputs, outputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(draw(rows, inputs)).dtype == torch.bfloat16
    assert not onednn


@pytest.mark.parametrize(("place", "name"), [(module, "HAS_ONEDNN"), (torch.backends.mkldnn, "enabled")])
def test_without_onednn_the_product_is_the_same(
    onednn: list, monkeypatch: pytest.MonkeyPatch, place: object, name: str
) -> None:
    rows, inputs, outputs = LARGE
    layer, x = Linear(inputs, outputs), draw(rows, inputs)
    expected = layer(x)
    monkeypatch.setattr(place, name, False)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    assert len(onednn) == 1


def test_nan_stays_nan() -> None:
    rows, inputs, outputs = LARGE
    x = draw(rows, inputs)
    x[5] = float("nan")
    value = product(x, draw(outputs, inputs, seed=1))
    assert value[5].isnan().all()
    assert value[6].isfinite().all()
