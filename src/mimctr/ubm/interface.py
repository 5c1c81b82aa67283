"""What every user behavior model (UBM) takes and returns: the slot of MIM Section 3.4."""

import abc
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mimctr.distributed import mean_share
from mimctr.errors import ConfigError


class Relevance(NamedTuple):
    """What content says of the behaviors: ``a_{t,i}^MM``, the weights of Eq. (7)."""

    cosine: Float[Tensor, "batch length"]
    """Of the behavior's content vector and the target's; 0 where it is not known."""
    known: Bool[Tensor, "batch length"]
    """True where target and behavior have a vector each."""


class History(NamedTuple):
    """The behaviors that a batch of impressions may see, oldest first, the newest at the last position.

    Padding may hold anything, NaN included. Where all targets have one history, as a user's candidates do, what does
    not depend on the target may stand here once.
    """

    behaviors: Float[Tensor, "#batch length dim"]
    """An item with all its fields a row, from the tables of the targets; what was done is added to it, unless the user
    behavior model takes it apart (``UserBehaviorModel.takes_kinds_apart``)."""
    mask: Bool[Tensor, "#batch length"]
    """True at a real behavior."""
    time_gaps: Int[Tensor, "#batch length"]
    """Seconds from the behavior to the impression, at least 1."""
    same_category: Bool[Tensor, "batch length"]
    """True where the behavior's item has the target's category."""
    kinds: Int[Tensor, "#batch length"]
    """What was done: index in the vocabulary of kinds."""
    negatives: Float[Tensor, "batch length dim"] | None = None
    """For each behavior an item that the user did not turn to then (``UserBehaviorModel.needs_negatives``); None
    outside training."""
    relevance: Relevance | None = None
    """There for a user behavior model that asks for it (``UserBehaviorModel.needs_relevance``)."""

    def expanded(self) -> "History":
        """Return the same with everything there once for each target; nothing is copied. Not for negatives."""
        size = self.same_category.shape[0]
        return self._replace(
            behaviors=self.behaviors.expand(size, -1, -1),
            mask=self.mask.expand(size, -1),
            time_gaps=self.time_gaps.expand(size, -1),
            kinds=self.kinds.expand(size, -1),
        )

    @property
    def given_relevance(self) -> Relevance:
        """``relevance``, for a model that cannot do without.

        Raises:
            ConfigError: it is not there.
        """
        if self.relevance is None:
            raise ConfigError(
                "relevance: this user behavior model compares content vectors, and the history brings no cosines. "
                "Give it ContentAwareInterest.compare(...).relevance, as a DenseHalf with content does."
            )
        return self.relevance


class Auxiliary(NamedTuple):
    """Decisions that a user behavior model makes besides the click, trained by the log loss."""

    logits: Float[Tensor, "*decisions parts"]
    labels: Float[Tensor, "*decisions parts"] | None = None
    """1 or 0; None: each row of the batch decides about its click."""
    mask: Bool[Tensor, "*decisions"] | None = None
    """True at a decision that counts; None: all."""

    def loss_share(self, clicks: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
        """Return this process's share (mimctr.distributed) of the mean over the decisions that count, in nats.

        The parts of a decision are summed.
        """
        labels = clicks.unsqueeze(-1) if self.labels is None else self.labels
        mask = torch.ones_like(self.logits[..., 0], dtype=torch.bool) if self.mask is None else self.mask
        logits = self.logits.float().masked_fill(~mask.unsqueeze(-1), 0.0)
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)
        return mean_share(losses.masked_fill(~mask, 0.0).sum(), mask.sum())


class Interest(NamedTuple):
    """What a user behavior model found out about a batch of impressions."""

    vector: Float[Tensor, "#batch width"]
    """``h_B^ID`` of Eq. (1); exactly zero for an empty history."""
    kept: Bool[Tensor, "#batch length"]
    """True at the behaviors that were used: all real ones, or those that a search kept."""
    auxiliary: Auxiliary | None = None
    """A task of the model's own; None without one."""


class UserBehaviorModel(nn.Module, abc.ABC):
    """Turns a target and the behaviors of its user into an ID interest."""

    width: int
    """Width of the interest vector."""
    takes_kinds_apart = False
    """Whether ``History.behaviors`` is the item alone, and the model looks at ``History.kinds`` itself."""
    needs_negatives = False
    """Whether the model trains on ``History.negatives``."""
    any_length = False
    """Whether the model is the same operators at every length of the history, so that one export does for all."""
    unrolls = False
    """Whether the model has operators for each behavior, so that an export of a long history is large."""
    searches = False
    """Whether the model keeps some of the behaviors, by an order in which nearly equal ones may stand either way."""
    needs_relevance = False
    """Whether the model looks at ``History.relevance``: an extension, which Base cannot have."""

    @abc.abstractmethod
    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return the interest.

        Args:
            target: Embedding row of the item that is scored.
            history: What its user did before.
        """
