"""Visual search: where a query finds what was bought. The intermediate metric of encoders (MOON, arXiv:2511.11305)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

QUERIES_AT_ONCE = 512


def search_ranks(
    queries: Float[Tensor, "queries content"],
    items: Float[Tensor, "items content"],
    positives: Int[Tensor, "queries"],
    *,
    query_times: Int[Tensor, "queries"] | None = None,
    item_times: Int[Tensor, "items"] | None = None,
    shown: Int[Tensor, "queries"] | None = None,
    excluded: Bool[Tensor, "queries items"] | None = None,
) -> Float[Tensor, "queries"]:
    """Return the rank of each query's positive among all items by cosine; 1 is best, a tie counts one half.

    Args:
        queries: One vector a query.
        items: One vector an item.
        positives: Row in ``items`` of what was bought.
        query_times: When each query was made, seconds; with ``item_times``, later items do not compete.
        item_times: When each item was first seen, seconds.
        shown: Row in ``items`` of the item whose own picture is the query, which does not compete; -1 for none.
        excluded: True at other items that do not compete, since they would be right answers too.
    """
    queries, items = F.normalize(queries, dim=-1), F.normalize(items, dim=-1)
    ranks = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        chunk = slice(start, start + QUERIES_AT_ONCE)
        positive = positives[chunk].unsqueeze(1)  # (Q, 1)
        scores = queries[chunk] @ items.T  # (Q, I)
        own = scores.gather(1, positive)
        if query_times is not None and item_times is not None:
            scores = scores.masked_fill(item_times > query_times[chunk].unsqueeze(1), -torch.inf)
        if shown is not None:
            rows = torch.arange(len(scores), device=scores.device)
            there = shown[chunk] >= 0
            scores[rows[there], shown[chunk][there]] = -torch.inf
        if excluded is not None:
            scores = scores.masked_fill(excluded[chunk], -torch.inf)
        scores.scatter_(1, positive, -torch.inf)
        ranks.append(1.0 + (scores > own).sum(1) + 0.5 * (scores == own).sum(1))
    return torch.cat(ranks) if ranks else torch.zeros(0)


def search_metrics(
    ranks: Float[Tensor, "queries"], *, depths: tuple[int, ...] = (1, 10, 100)
) -> dict[str, float]:
    """Return ``recall@k`` (share of ranks up to k) and ``mrr`` (mean reciprocal rank)."""
    metrics = {f"recall@{depth}": float((ranks <= depth).double().mean()) for depth in depths}
    return {**metrics, "mrr": float(ranks.double().reciprocal().mean())}
