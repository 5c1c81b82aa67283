"""DIN's activation unit (Zhou et al., KDD 2018, arXiv:1706.06978, Fig. 2): how relevant a behavior is for the target.

Almost all of the time of DIN is spent here, on one row per behavior. So its products and their gradients are written
out, over some impressions at a time: what a layer writes is still in the cache when the next one reads it.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.ubm.activations import ActivationName, activate, make_activation
from mimctr.ubm.linear import Linear, linear, product
from mimctr.ubm.parts import parts
from mimctr.ubm.products import is_shared

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
        self.hidden = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths[1:]))
        self.activations = nn.ModuleList(make_activation(activation, width) for width in hidden_dims)
        self.out = nn.Linear(hidden_dims[-1], 1)

    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "#batch length dim"],
        mask: Bool[Tensor, "#batch length"],
    ) -> Float[Tensor, "batch length"]:
        """Return the relevance; its value at padding is finite and means nothing."""
        if is_shared(behaviors, target):
            return self._of_shared(target, behaviors[0], mask[0])
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

    def _of_shared(
        self,
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "length dim"],
        mask: Bool[Tensor, "length"],
    ) -> Float[Tensor, "batch length"]:
        """Return the relevance of one history for several targets: the first layer is one product.

        Each column of its right factor is a unit as one target has it.
        """
        w1, w2, w3, w4 = self.first.weight.chunk(4, dim=1)  # (hidden, D) each
        constant = F.linear(target, w1 + w3, self.first.bias)  # (B, hidden)
        factor = torch.addcmul(w2 - w3, target.unsqueeze(1), w4)  # (B, hidden, D)
        size, (length, _) = target.shape[0], behaviors.shape
        whole = [slice(None)] if torch.compiler.is_compiling() else None
        found = []
        for part in whole or parts(length, size, behaviors.device):
            x = linear(behaviors[part], factor.flatten(0, 1), constant.flatten()).view(
                -1, len(self.first.bias)
            )
            every = mask[part].unsqueeze(1).expand(-1, size).flatten()
            x = activate(self.activations[0], x, every)
            for layer, activation in zip(self.hidden, self.activations[1:], strict=True):
                x = activate(activation, layer(x), every)
            found.append(self.out(x).view(-1, size))
        return torch.cat(found).T


def first_layer(
    target: Float[Tensor, "batch dim"],
    behaviors: Float[Tensor, "batch length dim"],
    weight: Float[Tensor, "hidden inputs"],
    bias: Float[Tensor, "hidden"],
    out: Tensor | None = None,
) -> Float[Tensor, "batch length hidden"]:
    """Return the first layer's value, before its activation."""
    w1, w2, w3, w4 = weight.T.chunk(4)  # (D, hidden) each
    constant = torch.addmm(bias, target, w1 + w3)  # (B, hidden)
    factor = torch.addcmul(w2 - w3, target.unsqueeze(-1), w4)  # (B, D, hidden)
    return torch.baddbmm(constant.unsqueeze(1), behaviors, factor, out=out)


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
        _, w2, w3, w4 = weight.T.chunk(4)
        self.of_constant[part] = gradient.sum(dim=1)
        of_both = product(gradient.flatten(0, 1), torch.cat([w2 - w3, w4]))  # of k and of q ∘ k: (rows, 2 D)
        alone, times_target = of_both.view(*behaviors.shape[:2], 2 * behaviors.shape[2]).chunk(2, dim=-1)
        self.of_behaviors[part] = torch.addcmul(alone, times_target, target.unsqueeze(1))
        self.of_target[part] = (behaviors * times_target).sum(dim=1)
        of_factor = torch.bmm(behaviors.transpose(1, 2), gradient).to(dtype)  # (B, D, hidden)
        self.of_sum += of_factor.sum(dim=0)
        self.of_product += (of_factor * self.target[part].unsqueeze(-1)).sum(dim=0)

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
        values = []
        relevance = behaviors.new_empty(size, length, dtype=dtype)
        activate_, _ = OF_THEIR_OUTPUT[activation]
        with torch.autocast(target.device.type, enabled=False):
            for part in parts(behaviors.shape[0], behaviors.shape[1], target.device):
                some = target[part].to(dtype), behaviors[part].to(dtype)
                values.append(activate_(first_layer(*some, *cast[:2]).flatten(0, 1)))
                for weight, bias in zip(cast[2:-2:2], cast[3:-2:2], strict=True):
                    values.append(activate_(product(values[-1], weight, bias)))
                torch.addmv(cast[-1], values[-1], cast[-2][0], out=relevance[part].view(-1))
        ctx.activation, ctx.dtype, ctx.num_layers = activation, dtype, len(weights) // 2 - 1
        ctx.save_for_backward(target, behaviors, *weights, *values)
        return relevance.to(target.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        target, behaviors, *saved = ctx.saved_tensors
        num_layers = ctx.num_layers
        weights, values = saved[: 2 * num_layers + 2], iter(saved[2 * num_layers + 2 :])
        dtype = ctx.dtype
        matrices = [weight.to(dtype) for weight in weights[::2]]
        gradients = [torch.zeros_like(weight) for weight in weights]
        of_first = _FirstLayerGradient(target, behaviors, weights[0])
        _, of_activation = OF_THEIR_OUTPUT[ctx.activation]
        for part in parts(behaviors.shape[0], behaviors.shape[1], target.device):
            of_z = gradient[part].reshape(-1, 1).to(dtype)
            layers = [next(values) for _ in range(num_layers)]
            for number, x in zip(range(num_layers, 0, -1), reversed(layers), strict=True):
                gradients[2 * number] += of_z.T @ x
                gradients[2 * number + 1] += of_z.sum(dim=0)
                of_z = of_activation(product(of_z, matrices[number].T), x)
            of_first.add(part, of_z.view(*behaviors[part].shape[:2], len(weights[0])))
        of_target, of_behaviors, *gradients[:2] = of_first.total()
        return None, of_target, of_behaviors, *gradients


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
