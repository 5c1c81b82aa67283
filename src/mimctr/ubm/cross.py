"""Cross layers of DCN-v2 (Wang et al., WWW 2021, arXiv:2008.13535), an option of the deep network."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mimctr.errors import ConfigError
from mimctr.ubm.linear import Linear

CrossStructure = Literal["stacked", "parallel"]
"""Where the cross layers stand: before the hidden layers, or beside them."""


class CrossNetwork(nn.Module):
    """Products of the inputs, one order more per layer.

        x_{l+1} = x_0 ∘ (W_l x_l + b_l) + x_l,    low rank: W_l = U_l V_lᵀ

    with ∘ entry by entry. The paper's mixture of several low-rank experts is not offered.

    Args:
        dim: Width of the input and of every layer.
        num_layers: The output has products of up to one input more.
        rank: Of W_l; None = full.

    Raises:
        ConfigError: the rank is above ``dim``.
    """

    def __init__(self, dim: int, *, num_layers: int, rank: int | None = None) -> None:
        super().__init__()
        if rank is not None and rank > dim:
            raise ConfigError(
                f"cross_rank: {rank} is above {dim}, the width of the deep network's input. "
                "Choose a lower one, or 0 for full rank."
            )
        self.layers = nn.ModuleList(_matrix(dim, rank) for _ in range(num_layers))

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch inputs"]:
        """Return ``x_L``, as wide as ``x``."""
        crossed = x
        for layer in self.layers:
            crossed = x * layer(crossed) + crossed
        return crossed


def _matrix(dim: int, rank: int | None) -> nn.Module:
    if rank is None:
        return Linear(dim, dim)
    return nn.Sequential(Linear(dim, rank, bias=False), Linear(rank, dim))
