"""Products with a weight, as fast as the CPU at hand makes them.

PyTorch leaves a float32 product to MKL, which uses half of the vector unit of a processor that is not Intel's. oneDNN,
which PyTorch carries as well and leaves its bfloat16 products to, uses all of it: large products take half the time.
``torch.backends.mkldnn.enabled = False`` leaves them to MKL again.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this PyTorch carries oneDNN and the operator; it is private, and may go."""
FEWEST_MULTIPLICATIONS = 2**22
"""Below these a product takes less time than oneDNN needs to begin."""
LONGEST_SUM = 2048
"""Products whose entries are longer sums are left to MKL: oneDNN would make each in one thread."""


class Linear(nn.Linear):
    """PyTorch's linear layer, by :func:`linear`."""

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Return ``x W^T + b``."""
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*rows inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, "outputs"] | None = None,
) -> Float[Tensor, "*rows outputs"]:
    """Return ``x W^T + b``, with gradients."""
    if torch.is_autocast_enabled(x.device.type) or not _is_for_onednn(x, weight):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def product(
    x: Float[Tensor, "*rows inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, "outputs"] | None = None,
) -> Float[Tensor, "*rows outputs"]:
    """Return ``x W^T + b``, without gradients, outside of autocast."""
    if _is_for_onednn(x, weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        HAS_ONEDNN
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= FEWEST_MULTIPLICATIONS
        and x.shape[-1] <= LONGEST_SUM
        and bool(torch.backends.mkldnn.enabled)
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, gradients = x.flatten(0, -2), gradient.flatten(0, -2)
        return (
            product(gradients, weight.T).view(x.shape) if ctx.needs_input_grad[0] else None,
            product(gradients.T, rows.T) if ctx.needs_input_grad[1] else None,
            gradients.sum(dim=0) if ctx.needs_input_grad[2] else None,
        )
