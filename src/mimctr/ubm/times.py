"""Time gaps as a feature: SIM's "time interval" (arXiv:2006.05639, Section 3.2), in buckets of the log of seconds."""

from jaxtyping import Float, Int
from torch import Tensor, nn


def time_buckets(time_gaps: Int[Tensor, "*shape"], num_buckets: int) -> Int[Tensor, "*shape"]:
    """Return ``1 + floor(log2(seconds))``, at most ``num_buckets - 1``; 0 for a gap below 1 second (padding).

    A bucket is twice as long as the one before: seconds are told apart in a session, months in a year. Above 2**24
    seconds (194 days) float32 may move an edge by a second.
    """
    logarithm = time_gaps.clamp(min=1).float().log2()
    return (1 + logarithm.long()).clamp(max=num_buckets - 1).masked_fill(time_gaps < 1, 0)


class TimeGapEmbedding(nn.Module):
    """A learned vector for each bucket of time gaps; zero at padding.

    Args:
        dim: Width of the vectors.
        num_buckets: Buckets, padding included; the last one is open. 30 reach 2**28 seconds, or eight years.
    """

    def __init__(self, dim: int, *, num_buckets: int = 30) -> None:
        super().__init__()
        self.num_buckets = num_buckets
        self.table = nn.Embedding(num_buckets, dim, padding_idx=0)
        nn.init.normal_(self.table.weight[1:], std=0.01)

    def forward(self, time_gaps: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length time_dim"]:
        """Return the vectors of gaps in seconds."""
        return self.table(time_buckets(time_gaps, self.num_buckets))
