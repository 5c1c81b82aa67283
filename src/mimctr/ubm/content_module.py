"""Content interest as a module that any CTR model can add to its own user behavior model (MIM Section 3.4)."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.batch import Content
from mimctr.errors import ConfigError
from mimctr.ubm.content_interest import (
    ContentScope,
    InterestName,
    concatenate_interests,
    content_interest,
    cosine,
)
from mimctr.ubm.extensions import ContentTensors, Extensions
from mimctr.ubm.interface import Interest, Relevance
from mimctr.ubm.masking import zero_padding

MissingTarget = Literal["learned", "zero"]


class Compared(NamedTuple):
    """The content vectors of targets and behaviors, compared."""

    target: Float[Tensor, "batch content"]
    """``h_t^MM``, or what takes its place."""
    has_content: Bool[Tensor, "batch"]
    """Whether the target has a vector of its own."""
    cosine: Float[Tensor, "batch length"]
    """``a_{t,i}^MM`` of each real behavior that has a vector; 0 elsewhere."""
    counted: Bool[Tensor, "#batch length"]
    """True at such a behavior."""

    @property
    def relevance(self) -> Relevance:
        """What a user behavior model may look at: nothing of a vector that takes the place of a missing one."""
        known = self.counted & self.has_content.unsqueeze(1)
        return Relevance(self.cosine.masked_fill(~known, 0.0), known)


class ContentAware(NamedTuple):
    """What content adds to an impression."""

    interest: Float[Tensor, "batch interest"]
    """``h_B`` of Eq. (9)."""
    features: Float[Tensor, "batch features"]
    """Whether the target has a vector, then the features of MIM+, if any."""
    scalars: Float[Tensor, "batch scalars"]
    """Those of the features that go to the logit directly as well; none without MIM+."""


class ContentAwareInterest(nn.Module):
    """Join an ID interest with the content and the fusion interest, Eq. (7) to (9).

    A behavior without a vector drops out. A target without one gets a learned *unknown* vector and a flag; some
    targets lose theirs in training, so that this vector is trained.

    Args:
        id_width: Width of the ID interest.
        dim: Width D of an item's row.
        content_dim: Width C of a content vector (paper.md: 64).
        interests: The parts of Eq. (9) that are kept; all but in an ablation (Table 5).
        scope: ``all`` behaviors, or only those that the user behavior model's search ``retrieved``.
        missing_target: A target without a vector: a ``learned`` one, or ``zero`` interests.
        drop_rate: Share of targets that lose their vector in training.
        content_width: Width that a learned matrix brings the content interest to, where it is wider; None = as it is
            (the paper).
        extensions: MIM+; None = exactly the paper.
    """

    def __init__(
        self,
        *,
        id_width: int,
        dim: int,
        content_dim: int,
        interests: tuple[InterestName, ...] = ("id", "content", "fusion"),
        scope: ContentScope = "all",
        missing_target: MissingTarget = "learned",
        drop_rate: float = 0.03,
        content_width: int | None = None,
        extensions: Extensions | None = None,
    ) -> None:
        super().__init__()
        if not interests:
            raise ConfigError("interests: none is left. Keep at least one of id, content, fusion.")
        self.content_dim = content_dim
        self.interests = interests
        self.scope = scope
        self.drop_rate = drop_rate
        self.extensions = extensions
        learned = missing_target == "learned"
        self.unknown_target = nn.Parameter(torch.randn(content_dim) * content_dim**-0.5) if learned else None
        self.narrow = None
        if content_width is not None and content_width < content_dim and "content" in interests:
            self.narrow = nn.Linear(content_dim, content_width, bias=False)
        content = content_dim if self.narrow is None else self.narrow.out_features
        widths = {"id": id_width, "content": content, "fusion": dim}
        self.width = sum(width for name, width in widths.items() if name in interests)
        self.feature_width = 1 + (extensions.width if extensions is not None else 0)
        self.num_scalars = extensions.num_scalars if extensions is not None else 0

    def forward(
        self,
        interest: Interest,
        behaviors: Float[Tensor, "#batch length dim"],
        mask: Bool[Tensor, "#batch length"],
        content: Content,
        compared: Compared | None = None,
    ) -> ContentAware:
        """Return what content adds.

        Args:
            interest: From the user behavior model.
            behaviors: ``h_i^ID``, as the user behavior model got them.
            mask: True at a real behavior.
            content: Content vectors of the same impressions.
            compared: From :meth:`compare`, where the user behavior model had to see it first.

        Raises:
            ConfigError: the vectors have another width than ``content_dim``.
        """
        in_scope = mask if self.scope == "all" else interest.kept & mask
        counted = in_scope & content.behaviors_known
        target, has_content = self._target(content) if compared is None else compared[:2]
        added = content_interest(
            target_content=target,
            behaviors_content=content.behaviors,
            behaviors=behaviors,
            mask=counted,
            real=mask,
            learned=None if self.unknown_target is None else ~has_content,
            relevance=None if compared is None else compared.cosine,
        )
        if self.narrow is not None:
            added = added._replace(content=self.narrow(added.content))
        whole = concatenate_interests(interest.vector, added, interests=self.interests)
        flag = has_content.to(whole.dtype).unsqueeze(-1)
        if self.extensions is None:
            return ContentAware(whole, flag, flag[:, :0])
        tensors = ContentTensors(
            target=target,
            behaviors=zero_padding(content.behavior_vectors(), counted),
            query=content.query.masked_fill(~content.query_known.unsqueeze(-1), 0.0),
            query_known=content.query_known,
            rows=behaviors,
            relevance=added.relevance,
            mask=counted,
        )
        features, scalars = self.extensions(tensors)
        return ContentAware(whole, torch.cat([flag, features], dim=-1), scalars)

    def compare(self, mask: Bool[Tensor, "#batch length"], content: Content) -> Compared:
        """Return the cosines of the targets with all their behaviors.

        Args:
            mask: True at a real behavior.
            content: Content vectors of the impressions.

        Raises:
            ConfigError: the vectors have another width than ``content_dim``.
        """
        target, has_content = self._target(content)
        counted = mask & content.behaviors_known
        return Compared(
            target, has_content, cosine(target, zero_padding(content.behavior_vectors(), counted)), counted
        )

    def _target(self, content: Content) -> tuple[Float[Tensor, "batch content"], Bool[Tensor, "batch"]]:
        if content.target.shape[-1] != self.content_dim:
            raise ConfigError(
                f"content: vectors are {content.target.shape[-1]} wide, the model was made for {self.content_dim}. "
                f"Set content_dim to {content.target.shape[-1]}, or attach the snapshot it was trained with."
            )
        known = content.target_known
        if self.training and self.drop_rate > 0:
            known = known & (torch.rand(len(known), device=known.device) >= self.drop_rate)
        vector = content.target.masked_fill(~known.unsqueeze(-1), 0.0)
        if self.unknown_target is not None:
            vector = torch.where(known.unsqueeze(-1), vector, self.unknown_target)
        return vector, known
