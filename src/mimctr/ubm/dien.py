"""Deep Interest Evolution Network (Zhou et al., AAAI 2019, arXiv:1809.03672).

A first GRU turns behaviors into interest states, each of which must tell the next behavior from another item (auxiliary
loss). A second one, the AUGRU, follows the states as far as they matter for the target. Where the paper and the
authors' released code differ, both are here; the paper's form is the default.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimctr.ubm.activation_unit import ActivationUnit
from mimctr.ubm.interface import Auxiliary, History, Interest, UserBehaviorModel
from mimctr.ubm.linear import Linear
from mimctr.ubm.masking import masked_softmax, zero_padding
from mimctr.ubm.products import dots

CellName = Literal["paper", "authors"]
AttentionName = Literal["bilinear", "activation_unit"]
AuxiliaryName = Literal["inner_product", "mlp"]


class AUGRU(nn.Module):
    """GRU with attentional update gate (the paper's interest evolving layer).

    With ``u`` the update gate, ``r`` the reset gate, ``h̃`` the candidate and ``a`` the attention,

        paper:    h' = (1 - a u) ∘ h + a u ∘ h̃,              h̃ = tanh(W i + r ∘ (U h) + b)
        authors:  h' = (1 - a) v ∘ h + (1 - (1 - a) v) ∘ h̃,   h̃ = tanh(W i + U (r ∘ h) + b)

    where ``v = 1 - u`` is the gate of TensorFlow's GRU. So the authors' state moves by ``u + a (1 - u)``: where the
    attention is 0 it moves as that of a plain GRU does, the paper's stands still. With an attention of 1 the paper's
    form is a plain GRU, its interest extractor layer.

    Args:
        dim: Width of inputs and state.
        cell: Whose.
    """

    def __init__(self, dim: int, *, cell: CellName) -> None:
        super().__init__()
        self.cell = cell
        self.inputs = Linear(dim, 3 * dim)
        self.gates = nn.Linear(dim, 2 * dim, bias=False)
        self.candidate = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        inputs: Float[Tensor, "#batch length dim"],
        attention: Float[Tensor, "batch length"],
        mask: Bool[Tensor, "#batch length"],
    ) -> Float[Tensor, "batch length dim"]:
        """Return the states: zero before the first real input, and untouched by padding.

        Args:
            inputs: Finite at padding.
            attention: In [0, 1].
            mask: True at a real input.
        """
        dim = inputs.shape[-1]
        projected = self.inputs(inputs.transpose(0, 1))  # (L, B, 3D)
        of_gates, of_candidate = projected.split([2 * dim, dim], dim=-1)
        steps = zip(
            of_gates.unbind(0),
            of_candidate.unbind(0),
            attention.T.unsqueeze(-1).unbind(0),
            mask.T.unsqueeze(-1).unbind(0),
            strict=True,
        )
        states = [torch.zeros_like(inputs[:, 0])]
        for gates, candidate, a, real in steps:
            state = states[-1]
            reset, update = torch.sigmoid(gates + self.gates(state)).chunk(2, dim=-1)
            if self.cell == "paper":
                candidate = torch.tanh(candidate + reset * self.candidate(state))
                move = a * update
            else:
                candidate = torch.tanh(candidate + self.candidate(reset * state))
                move = 1 - (1 - a) * (1 - update)
            states.append(state + move.masked_fill(~real, 0.0) * (candidate - state))
        return torch.stack(states[1:], dim=1)


class BilinearRelevance(nn.Module):
    """The relevance of an interest state for the target, ``h_t W e_a``.

    Args:
        dim: Width of states and target.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        target: Float[Tensor, "batch dim"],
        states: Float[Tensor, "#batch length dim"],
        mask: Bool[Tensor, "#batch length"],
    ) -> Float[Tensor, "batch length"]:
        """Return the relevance; its value at padding is finite and means nothing."""
        return dots(self.weight(target), states)


class DIEN(UserBehaviorModel):
    """Interest evolution: the last state of the AUGRU.

    ``a_t = softmax_t(h_t W e_a)``; the auxiliary loss is the log loss of ``<h_t, e_{t+1}>`` against 1 and of
    ``<h_t, ê_{t+1}>`` against 0, their sum averaged over the steps between two real behaviors.

    Args:
        dim: Width D of an item's row, and of the states.
        cell: AUGRU of the ``paper`` or of the ``authors``' code.
        attention: ``bilinear`` as in the paper, or DIN's ``activation_unit`` as in the authors' code.
        auxiliary: Logit of the auxiliary loss: ``inner_product`` as in the paper, or an ``mlp`` of 100 and 50 sigmoids
            over state and behavior as in the authors' code.
    """

    needs_negatives = True
    unrolls = True

    def __init__(
        self,
        dim: int,
        *,
        cell: CellName = "paper",
        attention: AttentionName = "bilinear",
        auxiliary: AuxiliaryName = "inner_product",
    ) -> None:
        super().__init__()
        self.width = dim
        self.extractor = AUGRU(dim, cell="paper")
        self.evolution = AUGRU(dim, cell=cell)
        self.relevance = (
            BilinearRelevance(dim)
            if attention == "bilinear"
            else ActivationUnit(dim, hidden_dims=(80, 40), activation="sigmoid")
        )
        self.follows = _auxiliary_mlp(dim) if auxiliary == "mlp" else None

    def forward(self, target: Float[Tensor, "batch dim"], history: History) -> Interest:
        """Return the last state, and the auxiliary task where there are negatives."""
        mask = history.mask
        behaviors = zero_padding(history.behaviors, mask)
        states = self.extractor(behaviors, torch.ones_like(behaviors[..., 0]), mask)
        auxiliary = None
        if history.negatives is not None:
            auxiliary = self._auxiliary(states, behaviors, zero_padding(history.negatives, mask), mask)
        attention = masked_softmax(self.relevance(target, states, mask), mask)
        return Interest(self.evolution(states, attention, mask)[:, -1], kept=mask, auxiliary=auxiliary)

    def _auxiliary(
        self,
        states: Float[Tensor, "batch length dim"],
        behaviors: Float[Tensor, "batch length dim"],
        negatives: Float[Tensor, "batch length dim"],
        mask: Bool[Tensor, "batch length"],
    ) -> Auxiliary:
        before = states[:, :-1]
        logits = torch.stack(
            [self._follow(before, behaviors[:, 1:]), self._follow(before, negatives[:, 1:])], dim=-1
        )
        labels = torch.tensor([1.0, 0.0], device=logits.device).expand_as(logits)
        return Auxiliary(logits, labels, mask[:, :-1] & mask[:, 1:])

    def _follow(
        self, states: Float[Tensor, "batch steps dim"], items: Float[Tensor, "batch steps dim"]
    ) -> Float[Tensor, "batch steps"]:
        """Return the logit of each item to be what the user turned to next."""
        if self.follows is None:
            return (states * items).sum(dim=-1)
        return self.follows(torch.cat([states, items], dim=-1)).squeeze(-1)


def _auxiliary_mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * dim, 100), nn.Sigmoid(), nn.Linear(100, 50), nn.Sigmoid(), nn.Linear(50, 1)
    )
