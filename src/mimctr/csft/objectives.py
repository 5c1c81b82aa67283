"""What C-SFT minimizes: the paper's multi-level InfoNCE, and the cross-entropies of its Table 4 (paper.md, 2b).

Each objective is called with the queries and candidates of this process, the pool of all candidates (the batch's, of
all processes, then the remembered ones) and which of them are no negatives; it returns this process's share of the loss
(mimctr.distributed), and says of itself what a line of metrics shows.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mimctr.csft.loss import Candidates, Exclusions, Pool, multi_level_info_nce
from mimctr.distributed import mean_share, size

MIN_TEMPERATURE = 0.01


class MultiLevelInfoNCE(nn.Module):
    """v4, v5: Eq. (5) and (6) over the pool.

    Args:
        temperature: Divides the cosine.
        learn_temperature: Whether it is trained too, never below 0.01.
        text_weight: ``alpha``.
        image_weight: ``beta``.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learn_temperature: bool = False,
        text_weight: float = 0.5,
        image_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.text_weight = text_weight
        self.image_weight = image_weight
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(temperature)), requires_grad=learn_temperature
        )

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """Divides the cosine."""
        return self.log_temperature.exp()

    def forward(
        self,
        query: Float[Tensor, "batch content"],
        own: Candidates,
        pool: Pool,
        exclusions: Exclusions,
        category: Int[Tensor, "candidates"],
    ) -> Float[Tensor, ""]:
        """Return the share of the loss, in nats."""
        with torch.no_grad():
            self.log_temperature.clamp_(min=math.log(MIN_TEMPERATURE))
        return multi_level_info_nce(
            query,
            pool,
            exclusions,
            text_weight=self.text_weight,
            image_weight=self.image_weight,
            temperature=self.temperature,
        )

    def facts(self, exclusions: Exclusions) -> dict[str, float]:
        """Return the mean number of real negatives a query and the temperature."""
        return {"negatives": exclusions.count_negatives(), "temperature": self.temperature.item()}


class PairCrossEntropy(nn.Module):
    """v2, v3: is this the item that the query led to? Binary cross-entropy on a scaled cosine with a bias.

    Each query meets its positive and its drawn negatives (one of the positive's category, one of any), no other item.

    Args:
        temperature: The cosine is divided by it at first; scale and bias are trained.
        num_negatives: Drawn negatives a query.
    """

    def __init__(self, *, temperature: float = 0.07, num_negatives: int = 2) -> None:
        super().__init__()
        self.num_negatives = num_negatives
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(-math.log(num_negatives)))

    def forward(
        self,
        query: Float[Tensor, "batch content"],
        own: Candidates,
        pool: Pool,
        exclusions: Exclusions,
        category: Int[Tensor, "candidates"],
    ) -> Float[Tensor, ""]:
        """Return the share of the mean over pairs, in nats; excluded drawn negatives do not count.

        Args:
            query: ``h_q``.
            own: The positives in the order of the queries, then as many rows for each drawn negative.
            pool: Not looked at.
            exclusions: Says which drawn negatives are none.
            category: Not looked at.
        """
        unit = F.normalize(own.fused, dim=-1).unflatten(0, (1 + self.num_negatives, len(query)))
        cosines = (unit * F.normalize(query, dim=-1)).sum(-1)  # (1 + negatives, N)
        logits = cosines * self.log_scale.exp() + self.bias
        labels = torch.zeros_like(logits)
        labels[0] = 1.0
        first = torch.arange(len(query), device=query.device) + exclusions.positives.start
        sorts = range(1 + self.num_negatives)  # of all processes, one after the other
        counts = ~torch.stack([exclusions.at(first + sort * size() * len(query)) for sort in sorts])
        summed = F.binary_cross_entropy_with_logits(logits[counts], labels[counts], reduction="sum")
        return mean_share(summed, counts.sum())

    def facts(self, exclusions: Exclusions) -> dict[str, float]:
        """Return the trained scale and bias."""
        return {"scale": self.log_scale.exp().item(), "bias": self.bias.item()}


class CategoryCrossEntropy(nn.Module):
    """v1: which category is the item of? Softmax over all categories from ``h^MM``; queries play no part.

    Args:
        dim: Content dimension.
        num_categories: Size of the vocabulary, padding and unknown included.
        temperature: The cosine of item and category is divided by it at first; the scale is trained.
    """

    def __init__(self, dim: int, num_categories: int, *, temperature: float = 0.07) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.categories = nn.Parameter(torch.randn(num_categories, dim) * dim**-0.5)

    def forward(
        self,
        query: Float[Tensor, "batch content"],
        own: Candidates,
        pool: Pool,
        exclusions: Exclusions,
        category: Int[Tensor, "candidates"],
    ) -> Float[Tensor, ""]:
        """Return the share of the mean over items that have a category, in nats; 0 where none has.

        Args:
            query: Not looked at.
            own: Its ``fused`` view is.
            pool: Not looked at.
            exclusions: Not looked at.
            category: Index of each own candidate's category; 0 where it has none.
        """
        unit, centers = F.normalize(own.fused, dim=-1), F.normalize(self.categories, dim=-1)
        logits = unit @ centers.T * self.log_scale.exp()  # (candidates, categories)
        summed = F.cross_entropy(logits, category, ignore_index=0, reduction="sum")
        return mean_share(summed, (category != 0).sum())

    def facts(self, exclusions: Exclusions) -> dict[str, float]:
        """Return the trained scale."""
        return {"scale": self.log_scale.exp().item()}


Objective = MultiLevelInfoNCE | PairCrossEntropy | CategoryCrossEntropy
