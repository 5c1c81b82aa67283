"""Multi-level InfoNCE: MIM Section 3.3, Eq. (5) and (6). Where the negatives come from is not the loss's business.

With several processes, queries are this process's and candidates those of all; losses are shares (mimctr.distributed).
"""

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mimctr.distributed import mean_share

BLOCK = 2048
"""Candidates whose logits exist at one time."""


class Candidates(NamedTuple):
    """Items in all their views."""

    item_keys: Int[Tensor, "candidates"]
    fused: Float[Tensor, "candidates content"]
    """``h^MM``."""
    image: Float[Tensor, "candidates content"]
    """``h^img``."""
    text: Float[Tensor, "candidates content"]
    """``h^txt``."""
    has_image: Bool[Tensor, "candidates"]
    has_text: Bool[Tensor, "candidates"]


class Pool:
    """What every query is compared with: rows of this step and remembered ones, which are not copied together.

    The first rows of this step are the queries' positives; any other row is a negative, unless excluded.

    Args:
        fresh: Of this step, from all processes. Gradients reach the rows that carry them.
        remembered: Of earlier steps; no gradient reaches them.
    """

    def __init__(self, fresh: Candidates, remembered: Candidates | None = None) -> None:
        self.fresh = fresh
        self.remembered = remembered
        parts = [fresh] if remembered is None else [fresh, remembered]
        self.item_keys = torch.cat([part.item_keys for part in parts])
        self.has_image = torch.cat([part.has_image for part in parts])
        self.has_text = torch.cat([part.has_text for part in parts])

    def __len__(self) -> int:
        return len(self.item_keys)


class Exclusions:
    """Which candidates are no negatives of a query although they are not its positive's row.

    Those are other rows with the positive's item (bought by two users of the batch, drawn as a hard negative, or
    still in the negative memory) and all rows of the items that are told to be none. They are held as places, row and
    column, and spread out for a block of candidates at a time: with a full memory the whole would be as large as the
    logits.

    Args:
        pool: Holds the positives of the queries, in their order.
        num_queries: Queries of this process.
        first: Row of the first query's positive: the queries of the processes before this one.
        known: What else is no negative: rows of queries and the item keys that they exclude, in any order.
    """

    _missing: Bool[Tensor, "candidates"] | None = None

    def __init__(
        self,
        pool: Pool,
        num_queries: int,
        *,
        first: int = 0,
        known: tuple[Int[Tensor, "known"], Int[Tensor, "known"]] | None = None,
    ) -> None:
        self.num_queries = num_queries
        self.num_candidates = len(pool)
        self.positives = slice(first, first + num_queries)
        item_keys = pool.item_keys[self.positives]
        queries = torch.arange(num_queries, device=item_keys.device)
        if known is not None:
            queries, item_keys = torch.cat([queries, known[0]]), torch.cat([item_keys, known[1]])
        entry, columns = _places(item_keys, pool.item_keys)
        rows = queries[entry]
        others = columns != rows + first  # all but the positive itself
        self._rows, self._columns = rows[others], columns[others]

    def without(self, missing: Bool[Tensor, "candidates"]) -> "Exclusions":
        """Return these exclusions plus candidates that lack the view; a query whose positive lacks it takes no part."""
        more = copy(self)
        more._missing = missing
        return more

    def usable(self) -> Bool[Tensor, "batch"]:
        """Return which queries take part: those whose positive has the view."""
        if self._missing is None:
            return torch.ones(self.num_queries, dtype=torch.bool, device=self._rows.device)
        return ~self._missing[self.positives]

    def block(self, start: int, stop: int) -> Bool[Tensor, "batch block"]:
        """Return what is excluded among the candidates ``start`` to ``stop``."""
        width = stop - start
        inside = (self._columns >= start) & (self._columns < stop)
        outside = self.num_queries * width  # one more place, for the columns of other blocks
        flat = torch.zeros(outside + 1, dtype=torch.bool, device=inside.device)
        flat[torch.where(inside, self._rows * width + self._columns - start, outside)] = True
        excluded = flat[:outside].view(self.num_queries, width)
        return excluded if self._missing is None else excluded | self._missing[start:stop]

    def at(self, columns: Int[Tensor, "batch"]) -> Bool[Tensor, "batch"]:
        """Return whether each query excludes the one candidate that ``columns`` names for it."""
        excluded = torch.zeros(self.num_queries, dtype=torch.bool, device=columns.device)
        excluded[self._rows[self._columns == columns[self._rows]]] = True
        return excluded if self._missing is None else excluded | self._missing[columns]

    def whole(self) -> Bool[Tensor, "batch candidates"]:
        """Return what is excluded among all candidates."""
        return self.block(0, self.num_candidates)

    def count_negatives(self) -> float:
        """Return the mean number of real negatives a query: all candidates but its positive and the excluded ones.

        With everything distinct and the memory full, exactly ``2 N P (k + 1) - 1``: N pairs on each of P processes.
        """
        total = self.num_candidates
        excluded = sum(
            int(self.block(start, min(start + BLOCK, total)).sum()) for start in range(0, total, BLOCK)
        )
        return total - 1 - excluded / self.num_queries


def _places(
    wanted: Int[Tensor, "wanted"], item_keys: Int[Tensor, "candidates"]
) -> tuple[Int[Tensor, "places"], Int[Tensor, "places"]]:
    """Return where ``item_keys`` has a wanted key: which of ``wanted`` and in which column, a place for each pair."""
    ascending, order = item_keys.sort()
    low = torch.searchsorted(ascending, wanted)
    counts = torch.searchsorted(ascending, wanted, right=True) - low
    entry = torch.repeat_interleave(counts)  # (places,)
    within = torch.arange(len(entry), device=entry.device) - (counts.cumsum(0) - counts)[entry]
    return entry, order[low[entry] + within]


def info_nce(
    query: Float[Tensor, "batch content"],
    items: Float[Tensor, "fresh content"],
    exclusions: Exclusions,
    *,
    temperature: float | Float[Tensor, ""],
    remembered: Float[Tensor, "remembered content"] | None = None,
) -> Float[Tensor, ""]:
    """Mean of Eq. (5) over the batch, in nats; cosine similarity. 0 where no query takes part.

    Logits exist for one block of candidates at a time, in the forward pass and again in the backward pass, and
    remembered rows are normalized block by block: a large memory costs its own rows and little more.

    Args:
        query: ``h_q`` of this process's queries.
        items: One view of the candidates of this step.
        exclusions: Candidates that leave the denominator. A query whose own positive is missing leaves the mean.
        temperature: Divides the cosine. Eq. (5) prints none, which is 1.0; 0.07 is our choice (docs/departures.md).
        remembered: The same view of the candidates after them, which no gradient reaches.
    """
    usable = exclusions.usable()
    unit_query, unit_items = F.normalize(query, dim=-1), F.normalize(items, dim=-1)
    scale = 1 / torch.as_tensor(temperature, dtype=unit_query.dtype, device=query.device)
    positive = (unit_query * unit_items[exclusions.positives]).sum(-1) * scale  # (N,)
    losses = _LogSumExp.apply(unit_query, unit_items, scale, remembered, exclusions) - positive
    return mean_share(losses[usable].sum(), usable.sum())


class _LogSumExp(torch.autograd.Function):
    """Log of the sum over the candidates of ``exp(scale * query . item)``, block by block (online softmax)."""

    @staticmethod
    def forward(ctx, query, items, scale, remembered, exclusions):  # type: ignore[no-untyped-def]
        largest = query.new_full((len(query),), -torch.inf)
        total = query.new_zeros(len(query))
        for start, block in _blocks(items, remembered):
            excluded = exclusions.block(start, start + len(block))
            logits = (query @ block.T).mul_(scale).masked_fill_(excluded, -torch.inf)  # (N, block)
            highest = torch.maximum(largest, logits.amax(1))
            shift = highest.nan_to_num(neginf=0.0)  # a query that has met no candidate yet
            total = total * (largest - shift).exp() + logits.sub_(shift.unsqueeze(1)).exp_().sum(1)
            largest = highest
        result = largest + total.log()
        ctx.save_for_backward(query, items, scale, remembered, result)
        ctx.exclusions = exclusions
        return result

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        query, items, scale, remembered, result = ctx.saved_tensors
        of_query, of_items = torch.zeros_like(query), torch.zeros_like(items)
        of_scale = scale.new_zeros(())
        for start, block in _blocks(items, remembered):
            excluded = ctx.exclusions.block(start, start + len(block))
            cosines = query @ block.T  # (N, block)
            shares = (cosines * scale).sub_(result.unsqueeze(1)).masked_fill_(excluded, -torch.inf).exp_()
            shares.mul_(gradient.unsqueeze(1))
            of_query.addmm_(shares, block)
            if start < len(items):
                torch.mm(shares.T, query, out=of_items[start : start + len(block)])
            of_scale += (shares * cosines).sum()
        return of_query * scale, of_items * scale, of_scale, None, None


def _blocks(
    items: Float[Tensor, "fresh content"], remembered: Float[Tensor, "remembered content"] | None
) -> Iterator[tuple[int, Float[Tensor, "block content"]]]:
    """Yield unit rows, a block at a time, and the first one's row in the pool."""
    for start in range(0, len(items), BLOCK):
        yield start, items[start : start + BLOCK]
    if remembered is not None:
        for start in range(0, len(remembered), BLOCK):
            yield len(items) + start, F.normalize(remembered[start : start + BLOCK], dim=-1)


def multi_level_info_nce(
    query: Float[Tensor, "batch content"],
    pool: Pool,
    exclusions: Exclusions,
    *,
    text_weight: float = 0.5,
    image_weight: float = 0.5,
    temperature: float | Float[Tensor, ""] = 0.07,
) -> Float[Tensor, ""]:
    """Eq. (6): match the query image with the fused, the title and the image view of its item.

    A candidate without title (image) takes no part in the title (image) level.

    Args:
        query: ``h_q^img``.
        pool: What the queries are compared with.
        exclusions: Of this pool.
        text_weight: ``alpha``; the paper's grid search chose 0.5.
        image_weight: ``beta``; the paper's grid search chose 0.5.
        temperature: As in :func:`info_nce`.
    """

    def level(view: str, those: Exclusions) -> Float[Tensor, ""]:
        remembered = None if pool.remembered is None else getattr(pool.remembered, view)
        items = getattr(pool.fresh, view)
        return info_nce(query, items, those, temperature=temperature, remembered=remembered)

    loss = level("fused", exclusions)
    for weight, view, there in (
        (text_weight, "text", pool.has_text),
        (image_weight, "image", pool.has_image),
    ):
        if weight:
            loss = loss + weight * level(view, exclusions.without(~there))
    return loss
