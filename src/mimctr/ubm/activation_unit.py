"""DIN's activation unit (Zhou et al., KDD 2018, arXiv:1706.06978, Fig. 2): how relevant a behavior is for the target.

Almost all of the time of DIN is spent here, on one row per behavior. So its products and their gradients are written
out, over some impressions at a time: what a layer writes is still in the cache when the next one reads it.
"""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.ubm.activations import ActivationName, activate, make_activation
from mimctr.ubm.parts import parts

OF_THEIR_OUTPUT: dict[type[nn.Module], Any] = {
    nn.Sigmoid: (torch.Tensor.sigmoid_, torch.ops.aten.sigmoid_backward),
    nn.ReLU: (torch.Tensor.relu_, lambda gradient, y: gradient * (y > 0)),
}
"""Activations whose gradient follows from what they return, one by one: in place, and gradient."""


class ActivationUnit(nn.Module):
    """An MLP over ``[q, k, q - k, q ∘ k]``.

    The first layer is never applied to that concatenation. With its weight split as ``[W1 W2 W3 W4]``,

        [q, k, q - k, q ∘ k] W = q (W1 + W3) + k (W2 - W3 + diag(q) W4),

    which is one product per impression instead of one with inputs four times as wide per behavior.

    Args:
        dim: Width D of target and behavior.
        hidden_dims: Widths of the hidden layers (authors' code: 80 and 40).
        activation: Between the layers (authors' code: sigmoid; paper: Dice).
    """

    def __init__(self, dim: int, *, hidden_dims: tuple[int, ...], activation: ActivationName) -> None:
        super().__init__()
        widths = [4 * dim, *hidden_dims]
        self.first = nn.Linear(widths[0], widths[1])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths[1:]))
        self.activations = nn.ModuleList(make_activation(activation, width) for width in hidden_dims)
        self.out = nn.Linear(hidden_dims[-1], 1)

    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "batch length dim"],
        mask: Bool[Tensor, "batch length"],
    ) -> Float[Tensor, "batch length"]:
        """Return the relevance; its value at padding is finite and means nothing."""
        kind = type(self.activations[0])
        weights = [self.first.weight, self.first.bias]
        if torch.compiler.is_compiling():
            x = first_layer(target, behaviors, *weights)
        elif kind in OF_THEIR_OUTPUT:
            for layer in (*self.hidden, self.out):
                weights += [layer.weight, layer.bias]
            return _Relevance.apply(kind, target, behaviors, *weights)
        else:
            x = _FirstLayer.apply(target, behaviors, *weights)
        x = activate(self.activations[0], x, mask)  # (B, L, hidden)
        for layer, activation in zip(self.hidden, self.activations[1:], strict=True):
            x = activate(activation, layer(x), mask)
        return self.out(x).squeeze(-1)


def first_layer(
    target: Float[Tensor, "batch dim"],
    behaviors: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "hidden inputs"],
    bias: Float[Tensor, "hidden"],
    out: Tensor | None = None,
) -> Float[Tensor, "batch length hidden"]:
    """Return the first layer's value, before its activation."""
    w1, _, w3, _ = weight.T.chunk(4)  # (D, hidden) each
    constant = torch.addmm(bias, target, w1 + w3)  # (B, hidden)
    factor = _factor(target, weight)
    if out is None:
        return torch.baddbmm(constant.unsqueeze(1), behaviors, factor)
    return torch.baddbmm(constant.unsqueeze(1), behaviors, factor, out=out)


def _factor(target: Tensor, weight: Tensor) -> Float[Tensor, "batch dim hidden"]:
    _, w2, w3, w4 = weight.T.chunk(4)
    return torch.addcmul(w2 - w3, target.unsqueeze(-1), w4)


class _FirstLayerGradient:
    """Gradients of what the first layer reads, from that of its value, a part at a time."""

    def __init__(self, target: Tensor, behaviors: Tensor, weight: Tensor) -> None:
        self.target, self.behaviors, self.weight = target, behaviors, weight
        self.of_target, self.of_behaviors = torch.empty_like(target), torch.empty_like(behaviors)
        self.of_constant = target.new_empty(len(target), len(weight))
        self.of_sum = torch.zeros_like(weight.T[: target.shape[1]])  # of W2 - W3
        self.of_product = torch.zeros_like(self.of_sum)  # of W4

    def add(self, part: slice, gradient: Float[Tensor, "batch length hidden"]) -> None:
        """Take in the gradient of some impressions."""
        weight, dtype = self.weight.to(gradient.dtype), self.of_target.dtype
        target, behaviors = (x[part].to(gradient.dtype) for x in (self.target, self.behaviors))
        self.of_constant[part] = gradient.sum(dim=1)
        self.of_behaviors[part] = torch.bmm(gradient, _factor(target, weight).transpose(1, 2))
        of_factor = torch.bmm(behaviors.transpose(1, 2), gradient).to(dtype)  # (B, D, hidden)
        self.of_sum += of_factor.sum(dim=0)
        self.of_product += (of_factor * self.target[part].unsqueeze(-1)).sum(dim=0)
        self.of_target[part] = (of_factor * self.weight.T.chunk(4)[3]).sum(dim=-1)

    def total(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of target, behaviors, weight and bias."""
        w1, _, w3, _ = self.weight.T.chunk(4)
        of_constant = self.of_constant
        of_target = torch.addmm(self.of_target, of_constant, (w1 + w3).T)
        of_first = self.target.T @ of_constant  # of W1 + W3
        of_weight = torch.cat([of_first, self.of_sum, of_first - self.of_sum, self.of_product]).T
        return of_target, self.of_behaviors, of_weight, of_constant.sum(dim=0)


class _FirstLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, behaviors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(target, behaviors, weight)
        dtype = _compute_dtype(target)
        out = behaviors.new_empty(*behaviors.shape[:2], len(weight), dtype=dtype)
        with torch.autocast(target.device.type, enabled=False):
            for part in parts(behaviors.shape[0], behaviors.shape[1], target.device):
                some = target[part].to(dtype), behaviors[part].to(dtype)
                first_layer(*some, weight.to(dtype), bias.to(dtype), out=out[part])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        target, behaviors, weight = ctx.saved_tensors
        gradients = _FirstLayerGradient(target, behaviors, weight)
        for part in parts(behaviors.shape[0], behaviors.shape[1], target.device):
            gradients.add(part, gradient[part])
        return gradients.total()


class _Relevance(torch.autograd.Function):
    """The whole unit, where an activation's gradient follows from what it returns."""

    @staticmethod
    def forward(
        ctx: Any, activation: type[nn.Module], target: Tensor, behaviors: Tensor, *weights: Tensor
    ) -> Tensor:
        dtype = _compute_dtype(target)
        cast = [weight.to(dtype) for weight in weights]
        size, length = behaviors.shape[:2]
        values = [behaviors.new_empty(size, length, len(weight), dtype=dtype) for weight in cast[:-2:2]]
        relevance = behaviors.new_empty(size, length, dtype=dtype)
        activate_, _ = OF_THEIR_OUTPUT[activation]
        with torch.autocast(target.device.type, enabled=False):
            for part in parts(behaviors.shape[0], behaviors.shape[1], target.device):
                some = target[part].to(dtype), behaviors[part].to(dtype)
                first_layer(*some, cast[0], cast[1], out=values[0][part])
                x = activate_(_rows(values[0][part]))
                for value, weight, bias in zip(values[1:], cast[2:-2:2], cast[3:-2:2], strict=True):
                    x = activate_(torch.addmm(bias, x, weight.T, out=_rows(value[part])))
                torch.addmv(cast[-1], x, cast[-2][0], out=relevance[part].view(-1))
        ctx.activation = activation
        ctx.save_for_backward(target, behaviors, *weights, *values)
        return relevance.to(target.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        target, behaviors, *saved = ctx.saved_tensors
        num_layers = (len(saved) - 2) // 3
        weights, values = saved[: 2 * num_layers + 2], saved[2 * num_layers + 2 :]
        dtype = values[0].dtype
        matrices = [weight.to(dtype) for weight in weights[::2]]
        gradients = [torch.zeros_like(weight) for weight in weights]
        of_first = _FirstLayerGradient(target, behaviors, weights[0])
        _, of_activation = OF_THEIR_OUTPUT[ctx.activation]
        for part in parts(behaviors.shape[0], behaviors.shape[1], target.device):
            of_z = gradient[part].reshape(-1, 1).to(dtype)
            for number in range(num_layers, 0, -1):
                x = _rows(values[number - 1][part])
                gradients[2 * number] += of_z.T @ x
                gradients[2 * number + 1] += of_z.sum(dim=0)
                of_z = of_activation(of_z @ matrices[number], x)
            of_first.add(part, of_z.view(*behaviors[part].shape[:2], len(weights[0])))
        of_target, of_behaviors, *gradients[:2] = of_first.total()
        return None, of_target, of_behaviors, *gradients


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _rows(x: Float[Tensor, "batch length width"]) -> Float[Tensor, "rows width"]:
    return x.view(-1, x.shape[-1])
