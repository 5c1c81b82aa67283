"""Fusion of an item's image and title: tensor fusion (TFN, arXiv:1707.07250) and an MLP, MIM Eq. (3) and (4).

Two other ways to join them stand beside it: its low-rank form (LMF, arXiv:1806.00064), which never makes the products,
and plain concatenation, the ablation "w/o TFN" of Table 5. All three start as ``h^img + h^txt``.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mimctr.errors import ConfigError

FusionName = Literal["tensor", "low_rank", "concat"]


def tensor_fusion(
    image: Float[Tensor, "items image"], text: Float[Tensor, "items text"]
) -> Float[Tensor, "items products"]:
    """Eq. (3): ``z = [h^img; 1] ⊗ [h^txt; 1]``, flattened; entry (i, j) stands at ``i * (text + 1) + j``.

    The constants keep the unimodal terms: column ``text`` of z is ``h^img`` itself, row ``image`` is ``h^txt``.
    """
    left, right = _with_constant(image), _with_constant(text)
    return torch.einsum("ni,nj->nij", left, right).flatten(1)


class TensorFusion(nn.Module):
    """:func:`tensor_fusion` of two views of width C: (C + 1)² products.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.width = (dim + 1) ** 2

    def forward(
        self, image: Float[Tensor, "items content"], text: Float[Tensor, "items content"]
    ) -> Float[Tensor, "items width"]:
        """Return z."""
        return tensor_fusion(image, text)

    def sum_weights(self) -> Float[Tensor, "content width"]:
        """Return the matrix that reads ``h^img + h^txt`` out of z."""
        component = torch.arange(self.dim)
        weights = torch.zeros(self.dim, self.width)
        weights[component, component * (self.dim + 1) + self.dim] = 1.0  # h^img, column "dim" of z
        weights[component, self.dim * (self.dim + 1) + component] = 1.0  # h^txt, row "dim" of z
        return weights


class LowRankFusion(nn.Module):
    """``Σ_r (A_r [h^img; 1]) ∘ (B_r [h^txt; 1])``: what a linear map of the products can be, at rank R.

    Args:
        dim: C.
        rank: R, at least 2: the first two ranks start as ``h^img`` and ``h^txt``, the others at zero.
    """

    def __init__(self, dim: int, *, rank: int) -> None:
        super().__init__()
        if rank < 2:
            raise ConfigError(f"fusion_rank: must be at least 2, got {rank}.")
        self.dim = dim
        self.width = dim
        self.image = nn.Parameter(torch.randn(rank, dim + 1, dim) * dim**-0.5)
        self.text = nn.Parameter(torch.zeros(rank, dim + 1, dim))
        view, constant = torch.eye(dim + 1, dim), torch.zeros(dim + 1, dim)
        constant[dim] = 1.0
        with torch.no_grad():
            self.image[0], self.text[0] = view, constant
            self.image[1], self.text[1] = constant, view

    def forward(
        self, image: Float[Tensor, "items content"], text: Float[Tensor, "items content"]
    ) -> Float[Tensor, "items content"]:
        """Return z."""
        left = torch.einsum("ni,ric->nrc", _with_constant(image), self.image)
        right = torch.einsum("ni,ric->nrc", _with_constant(text), self.text)
        return (left * right).sum(dim=1)

    def sum_weights(self) -> Float[Tensor, "content width"]:
        """Return the matrix that reads ``h^img + h^txt`` out of z, as the ranks start."""
        return torch.eye(self.dim)


class Concatenation(nn.Module):
    """``[h^img; h^txt]``: no products.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.width = 2 * dim

    def forward(
        self, image: Float[Tensor, "items content"], text: Float[Tensor, "items content"]
    ) -> Float[Tensor, "items width"]:
        """Return z."""
        return torch.cat([image, text], dim=1)

    def sum_weights(self) -> Float[Tensor, "content width"]:
        """Return the matrix that reads ``h^img + h^txt`` out of z."""
        return torch.eye(self.dim).repeat(1, 2)


class FusionMLP(nn.Module):
    """Eq. (4): ``h^MM = MLP(z)``, a linear skip plus one hidden layer.

    At first the skip reads the unimodal entries of z and the hidden branch gives zero, so ``h^MM = h^img + h^txt``:
    fine-tuning starts from the towers' own geometry.

    Args:
        dim: Content dimension C of both inputs and of the output.
        kind: How image and title are joined to z. Paper: ``tensor``.
        rank: Of ``low_rank``.
        hidden: Width of the hidden layer.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(
        self,
        dim: int,
        *,
        kind: FusionName = "tensor",
        rank: int = 16,
        hidden: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.join = _join(kind, dim, rank)
        self.skip = nn.Linear(self.join.width, dim)
        self.branch = nn.Sequential(nn.Linear(self.join.width, hidden), nn.GELU(), nn.Dropout(dropout))
        self.out = nn.Linear(hidden, dim)
        with torch.no_grad():
            self.skip.weight.copy_(self.join.sum_weights())
            self.skip.bias.zero_()
            self.out.weight.zero_()
            self.out.bias.zero_()

    def forward(
        self, image: Float[Tensor, "items content"], text: Float[Tensor, "items content"]
    ) -> Float[Tensor, "items content"]:
        """Return ``h^MM``, not normalized to length one."""
        z = self.join(image, text)
        return self.skip(z) + self.out(self.branch(z))


def _join(kind: FusionName, dim: int, rank: int) -> TensorFusion | LowRankFusion | Concatenation:
    if kind == "tensor":
        return TensorFusion(dim)
    return LowRankFusion(dim, rank=rank) if kind == "low_rank" else Concatenation(dim)


def _with_constant(view: Float[Tensor, "items content"]) -> Float[Tensor, "items content_and_one"]:
    return F.pad(view, (0, 1), value=1.0)
