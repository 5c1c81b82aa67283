"""Weights of Eq. (7) of stored vectors: how much of each behavior goes into the content interest of an impression."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mimctr.center.attach import ContentTable
from mimctr.data.dataset import CtrDataset
from mimctr.ubm.content_interest import cosine

CHUNK = 1024
"""Impressions whose behaviors' vectors are in memory at a time."""


class Relevances(NamedTuple):
    """The behaviors of some impressions, newest first, and their weights."""

    items: Int[ndarray, "rows length"]
    """``item_index``; 0 at padding."""
    mask: Bool[ndarray, "rows length"]
    """True at a real behavior."""
    relevance: Float[ndarray, "rows length"]
    """``a_{t,i}``; NaN at padding, and where behavior or target has no vector."""


def weigh(
    dataset: CtrDataset, table: ContentTable, rows: Int[ndarray, "rows"], *, max_length: int
) -> Relevances:
    """Return the weights of Eq. (7) of some impressions.

    Args:
        dataset: Whose impressions.
        table: Vectors of its items.
        rows: Of its impressions.
        max_length: Newest behaviors that are looked at.
    """
    chunks = [rows[start : start + CHUNK] for start in range(0, max(len(rows), 1), CHUNK)]
    parts = [_weigh(dataset, table, chunk, max_length=max_length) for chunk in chunks]
    length = max(part.mask.shape[1] for part in parts)
    widened = [
        [np.pad(array, [(0, 0), (0, length - array.shape[1])], constant_values=fill) for array in arrays]
        for arrays, fill in zip(zip(*parts, strict=True), (0, False, np.nan), strict=True)
    ]
    return Relevances(*map(np.concatenate, widened))


def _weigh(
    dataset: CtrDataset, table: ContentTable, rows: Int[ndarray, "rows"], *, max_length: int
) -> Relevances:
    batch = table.attach(dataset.batch(rows, max_length=max_length))
    content = batch.content
    assert content is not None, "attach puts it there"
    known = content.behaviors_known & content.target_known.unsqueeze(1)
    values = cosine(content.target, content.behavior_vectors()).masked_fill(~known, torch.nan)  # (B, L)
    newest_first = (batch.behaviors.numpy(), batch.mask.numpy(), values.numpy())
    return Relevances(*(array[:, ::-1] for array in newest_first))


class Alike(NamedTuple):
    """Behaviors of an item's impressions, and how like the item they are."""

    items: Int[ndarray, "items"]
    """Different ones, the most alike first, without the item itself."""
    relevance: Float[ndarray, "items"]


def most_alike(relevances: Relevances, target: int, *, num: int) -> Alike:
    """Return the ``num`` different behaviors that are most like ``target``, ties by index.

    Args:
        relevances: Of impressions of ``target``.
        target: ``item_index``; as its own behavior it is left out.
        num: At most so many.
    """
    known = ~np.isnan(relevances.relevance) & (relevances.items != target)
    items, first = np.unique(relevances.items[known], return_index=True)
    weights = relevances.relevance[known][first]  # one target: an item has one weight
    order = np.argsort(-weights, kind="stable")[:num]
    return Alike(items[order], weights[order])
