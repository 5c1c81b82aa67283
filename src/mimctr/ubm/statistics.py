"""What a batch is normalized with: mean and variance over the real rows of all processes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.distributed import sum_shares, total
from mimctr.ubm.parts import ROWS


class RunningStatistics(nn.Module):
    """Mean and variance of each column: of the batch in training, running ones in evaluation.

    Args:
        dim: Number of columns.
        momentum: Weight of the batch in the running statistics (PyTorch's convention).
        fewest: Of fewer real rows than these, over all processes, the running statistics are returned in training too.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int, *, momentum: float, fewest: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.momentum = momentum
        self.fewest = fewest

    def forward(
        self, rows: Float[Tensor, "rows dim"], mask: Bool[Tensor, "rows"] | None = None
    ) -> tuple[Float[Tensor, "dim"], Float[Tensor, "dim"]]:
        """Return mean and (biased) variance, with gradient where they are the batch's.

        Args:
            rows: This process's. Finite at padding too.
            mask: True at a real row; None = every row is real.
        """
        if not self.training:
            return self.mean, self.variance
        real = torch.ones_like(rows[:, :1]) if mask is None else mask.unsqueeze(1).to(rows.dtype)
        num_rows = total(real.sum())
        if num_rows < self.fewest:
            return self.mean, self.variance
        mean = sum_shares((real.T @ rows).squeeze(0) / num_rows.clamp(min=1))
        parts = zip(rows.split(ROWS), real.split(ROWS), strict=True)
        squares = sum((counts.T @ (part - mean).square()).squeeze(0) for part, counts in parts)
        variance = sum_shares(squares / num_rows.clamp(min=1))
        with torch.no_grad():
            weight = self.momentum * (num_rows > 0)
            unbiased = variance * num_rows / (num_rows - 1).clamp(min=1)
            self.mean.lerp_(mean.to(self.mean.dtype), weight)
            self.variance.lerp_(unbiased.to(self.variance.dtype), weight)
        return mean, variance
