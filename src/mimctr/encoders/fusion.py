"""Fusion of an item's image and title: tensor fusion (TFN, arXiv:1707.07250) and an MLP, MIM Eq. (3) and (4)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def tensor_fusion(
    image: Float[Tensor, "items image"], text: Float[Tensor, "items text"]
) -> Float[Tensor, "items products"]:
    """Eq. (3): ``z = [h^img; 1] ⊗ [h^txt; 1]``, flattened; entry (i, j) stands at ``i * (text + 1) + j``.

    The constants keep the unimodal terms: column ``text`` of z is ``h^img`` itself, row ``image`` is ``h^txt``.
    """
    left = F.pad(image, (0, 1), value=1.0)  # (items, image + 1)
    right = F.pad(text, (0, 1), value=1.0)  # (items, text + 1)
    return torch.einsum("ni,nj->nij", left, right).flatten(1)


class FusionMLP(nn.Module):
    """Eq. (4): ``h^MM = MLP(z)``, a linear skip plus one hidden layer.

    At first the skip picks the unimodal entries of z and the hidden branch gives zero, so ``h^MM = h^img + h^txt``:
    fine-tuning starts from the towers' own geometry.

    Args:
        dim: Content dimension C of both inputs and of the output.
        hidden: Width of the hidden layer.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, dim: int, *, hidden: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        products = (dim + 1) ** 2
        self.skip = nn.Linear(products, dim)
        self.branch = nn.Sequential(nn.Linear(products, hidden), nn.GELU(), nn.Dropout(dropout))
        self.out = nn.Linear(hidden, dim)
        component = torch.arange(dim)
        with torch.no_grad():
            self.skip.weight.zero_()
            self.skip.bias.zero_()
            self.skip.weight[component, component * (dim + 1) + dim] = 1.0  # h^img, column "dim" of z
            self.skip.weight[component, dim * (dim + 1) + component] = 1.0  # h^txt, row "dim" of z
            self.out.weight.zero_()
            self.out.bias.zero_()

    def forward(
        self, image: Float[Tensor, "items content"], text: Float[Tensor, "items content"]
    ) -> Float[Tensor, "items content"]:
        """Return ``h^MM``, not normalized to length one."""
        z = tensor_fusion(image, text)  # (items, (C + 1)^2)
        return self.skip(z) + self.out(self.branch(z))
