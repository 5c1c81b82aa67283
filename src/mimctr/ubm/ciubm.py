"""The CTR model with content interest: MIM's third stage (Section 3.4), in two halves.

The embedding half turns indices into rows; the dense half turns rows, masks, times and content vectors into a logit.
Only the dense half is exported for serving, where the rows come from a parameter store.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.batch import Content, CtrBatch
from mimctr.errors import ConfigError
from mimctr.ubm.activations import ActivationName
from mimctr.ubm.content_module import Compared, ContentAwareInterest
from mimctr.ubm.cross import CrossNetwork, CrossStructure
from mimctr.ubm.embeddings import EmbeddingHalf, Rows
from mimctr.ubm.interface import Auxiliary, History, UserBehaviorModel
from mimctr.ubm.mlp import BatchNorm, Mlp

NormName = Literal["none", "batch", "layer"]


class CtrOutput(NamedTuple):
    """What a CTR model says about a batch of impressions."""

    logit: Float[Tensor, "batch"]
    """Of a click."""
    auxiliary: Auxiliary | None
    """The user behavior model's own task; None without one."""


class DenseHalf(nn.Module):
    """Rows and content vectors to logits.

    The deep network reads ``[user, query, context, target, h_B, h_B^ID ∘ target]``, as DIN's does; the product is
    there where the ID interest is as wide as an item's row. With content, ``h_B`` is Eq. (9), and nothing else changes.

    Args:
        side_dim: Width of user, query and context together.
        dim: Width D of an item's row.
        ubm: The user behavior model.
        content: Content interest; None = Base.
        hidden_dims: Widths of the deep network's hidden layers.
        activation: Of the deep network.
        dropout: Of the deep network.
        interest_norm: How ``h_B`` is normalized before the deep network.
        cross_layers: Cross layers of DCN-v2 in the deep network.
        cross_rank: Of their matrices; None = full.
        cross_structure: ``stacked``: the hidden layers read what the cross layers return; ``parallel``: both read the
            inputs, and the logit is linear in what both return.

    Raises:
        ConfigError: the user behavior model compares content vectors and there is no content.
    """

    def __init__(
        self,
        *,
        side_dim: int,
        dim: int,
        ubm: UserBehaviorModel,
        content: ContentAwareInterest | None = None,
        hidden_dims: tuple[int, ...] = (256, 128, 64),
        activation: ActivationName = "relu",
        dropout: float = 0.0,
        interest_norm: NormName = "none",
        cross_layers: int = 0,
        cross_rank: int | None = None,
        cross_structure: CrossStructure = "stacked",
    ) -> None:
        super().__init__()
        if content is None and ubm.needs_relevance:
            raise ConfigError(
                f"ubm: this {type(ubm).__name__} compares content vectors, and Base has none. "
                "Give it content, or leave out search='content' and attention_mix."
            )
        self.ubm = ubm
        self.content = content
        interest_width = ubm.width if content is None else content.width
        self.multiplies = ubm.width == dim and (content is None or "id" in content.interests)
        feature_width = 0 if content is None else content.feature_width
        self.norm = _norm(interest_norm, interest_width)
        inputs = side_dim + dim + interest_width + dim * self.multiplies + feature_width
        self.mlp = Mlp(inputs, hidden_dims=hidden_dims, activation=activation, dropout=dropout)
        self.cross = CrossNetwork(inputs, num_layers=cross_layers, rank=cross_rank) if cross_layers else None
        parallel = self.cross is not None and cross_structure == "parallel"
        self.cross_out = nn.Linear(inputs, 1, bias=False) if parallel else None
        num_scalars = 0 if content is None else content.num_scalars
        self.wide = nn.Linear(num_scalars, 1, bias=False) if num_scalars else None

    def forward(self, rows: Rows, content: Content | None = None) -> CtrOutput:
        """Return the logits.

        Args:
            rows: From an ``EmbeddingHalf``, or fetched from a parameter store.
            content: Content vectors of the same impressions, or shared as ``rows`` are; not looked at by Base.

        Raises:
            ConfigError: the model reads content and there is none.
        """
        if self.content is not None and content is None:
            raise ConfigError(
                "content: the batch carries no content vectors, but this model reads them. "
                "Attach a snapshot (mimctr.center.attach), or train the variant 'base'."
            )
        if content is not None and self.content is not None and self.content.extensions is not None:
            content = content.fetched()
        history, compared = self._compare(rows, content)
        interest = self.ubm(rows.target, history)
        size = rows.target.shape[0]
        interest = interest._replace(vector=interest.vector.expand(size, -1))
        parts = [part.expand(size, -1) for part in (rows.user, rows.query, rows.context, rows.target)]
        if self.multiplies:
            parts.append(interest.vector * rows.target)
        if self.content is None or content is None:  # Base
            return CtrOutput(
                self._deep(torch.cat([*parts, self.norm(interest.vector)], dim=-1)), interest.auxiliary
            )
        aware = self.content(interest, rows.behaviors, rows.mask, content, compared)
        logit = self._deep(torch.cat([*parts, self.norm(aware.interest), aware.features], dim=-1))
        if self.wide is not None:
            logit = logit + self.wide(aware.scalars).squeeze(-1)
        return CtrOutput(logit, interest.auxiliary)

    def _deep(self, inputs: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch"]:
        if self.cross is None:
            return self.mlp(inputs)
        if self.cross_out is None:
            return self.mlp(self.cross(inputs))
        return self.mlp(inputs) + self.cross_out(self.cross(inputs)).squeeze(-1)

    def _compare(self, rows: Rows, content: Content | None) -> tuple[History, Compared | None]:
        """Return what the user behavior model sees; where that includes content, also what it was taken from."""
        if self.content is None or content is None or not self.ubm.needs_relevance:
            return rows.history, None
        compared = self.content.compare(rows.mask, content)
        return rows.history._replace(relevance=compared.relevance), compared


class CiUBM(nn.Module):
    """Both halves: a batch of indices to logits.

    Args:
        embedding: Indices to rows.
        dense: Rows to logits.
    """

    def __init__(self, embedding: EmbeddingHalf, dense: DenseHalf) -> None:
        super().__init__()
        self.embedding = embedding
        self.dense = dense

    def forward(self, batch: CtrBatch) -> CtrOutput:
        """Return the logits of a batch."""
        return self.dense(self.embedding(batch), batch.content)


class ExportableDense(nn.Module):
    """The dense half with plain tensors in and a plain tensor out: what an exporter wants.

    Args:
        dense: In evaluation mode.
    """

    def __init__(self, dense: DenseHalf) -> None:
        super().__init__()
        self.dense = dense

    def forward(
        self,
        user: Float[Tensor, "#batch user"],
        query: Float[Tensor, "#batch query"],
        context: Float[Tensor, "#batch context"],
        target: Float[Tensor, "batch dim"],
        behaviors: Float[Tensor, "#batch length dim"],
        mask: Bool[Tensor, "#batch length"],
        time_gaps: Int[Tensor, "#batch length"],
        same_category: Bool[Tensor, "batch length"],
        kinds: Int[Tensor, "#batch length"],
        target_content: Float[Tensor, "batch content"] | None = None,
        target_known: Bool[Tensor, "batch"] | None = None,
        behaviors_content: Float[Tensor, "#batch length content"] | None = None,
        behaviors_known: Bool[Tensor, "#batch length"] | None = None,
        query_content: Float[Tensor, "#batch content"] | None = None,
        query_known: Bool[Tensor, "#batch"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """Return the logit; the arguments are those of ``Rows``, then those of ``Content``, all or none."""
        rows = Rows(user, query, context, target, behaviors, mask, time_gaps, same_category, kinds)
        if (
            target_content is None
            or target_known is None
            or behaviors_content is None
            or behaviors_known is None
            or query_content is None
            or query_known is None
        ):
            return self.dense(rows).logit
        content = Content(
            target=target_content,
            target_known=target_known,
            behaviors=behaviors_content,
            behaviors_known=behaviors_known,
            query=query_content,
            query_known=query_known,
        )
        return self.dense(rows, content).logit


def _norm(name: NormName, width: int) -> nn.Module:
    if name == "none":
        return nn.Identity()
    return BatchNorm(width) if name == "batch" else nn.LayerNorm(width)
