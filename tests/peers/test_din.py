"""DIN's activation unit and Dice against FuxiCTR's, DeepCTR-Torch's and RecBole's, with copied weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mimctr.ubm.activations import ActivationName, Dice
from mimctr.ubm.ciubm import DenseHalf
from mimctr.ubm.din import DIN
from mimctr.ubm.embeddings import Rows
from mimctr.ubm.interface import History

from .longctr import ITEM_DIM, NUM_ITEMS, longctr_inputs, make_longctr
from .padding import padded_right
from .weights import copy_activation_unit, copy_dice, copy_network, randomize

pytestmark = pytest.mark.needs_peers

B, L, D = 6, 7, 5
HIDDEN = (8, 4)
LENGTHS = torch.tensor([3, 7, 1, 5, 2, 6])
MASK = torch.arange(L) >= L - LENGTHS[:, None]
Pool = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Target, behaviors, mask -> the pooled vectors."""


def fuxictr_unit(activation: ActivationName, *, softmax: bool) -> tuple[nn.Module, Pool]:
    from fuxictr.pytorch.layers import DIN_Attention

    names = {"sigmoid": "Sigmoid", "relu": "ReLU", "prelu": "PReLU", "dice": "Dice"}
    unit = DIN_Attention(D, list(HIDDEN), hidden_activations=names[activation], use_softmax=softmax)
    return unit, unit


def deepctr_torch_unit(activation: ActivationName, *, softmax: bool) -> tuple[nn.Module, Pool]:
    from deepctr_torch.layers.sequence import AttentionSequencePoolingLayer

    unit = AttentionSequencePoolingLayer(
        HIDDEN, att_activation=activation, weight_normalization=softmax, embedding_dim=D
    )

    def pool(target: Tensor, behaviors: Tensor, mask: Tensor) -> Tensor:
        return unit(target.unsqueeze(1), padded_right(behaviors, mask), mask.sum(1, keepdim=True)).squeeze(1)

    return unit, pool


def recbole_unit(activation: ActivationName, *, softmax: bool) -> tuple[nn.Module, Pool]:
    from recbole.model.layers import SequenceAttLayer

    positions = torch.arange(L).unsqueeze(0)
    unit = SequenceAttLayer(
        positions, [4 * D, *HIDDEN], activation=activation, softmax_stag=softmax, return_seq_weight=False
    )

    def pool(target: Tensor, behaviors: Tensor, mask: Tensor) -> Tensor:
        return unit(target, padded_right(behaviors, mask), mask.sum(dim=1)).squeeze(1)

    return unit, pool


UNITS = {"fuxictr": fuxictr_unit, "deepctr_torch": deepctr_torch_unit, "recbole": recbole_unit}


def our_din(unit: nn.Module, activation: ActivationName, *, softmax: bool, scale: bool) -> DIN:
    din = DIN(D, hidden_dims=HIDDEN, activation=activation, softmax=softmax, scale=scale)
    copy_activation_unit(unit, din.relevance)
    return din.eval()


def pooled(din: DIN, target: Tensor, behaviors: Tensor, mask: Tensor) -> Tensor:
    nothing = torch.zeros_like(mask, dtype=torch.long)
    return din(target, History(behaviors, mask, nothing, mask, nothing)).vector


@pytest.fixture
def target() -> Tensor:
    return torch.randn(B, D, requires_grad=True)


@pytest.fixture
def behaviors() -> Tensor:
    return torch.randn(B, L, D, requires_grad=True)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(
    ("peer", "activation"),
    [
        ("fuxictr", "sigmoid"),
        ("fuxictr", "relu"),
        ("fuxictr", "prelu"),
        ("fuxictr", "dice"),
        ("deepctr_torch", "sigmoid"),
        ("deepctr_torch", "relu"),
        ("deepctr_torch", "dice"),
        ("recbole", "sigmoid"),
        ("recbole", "relu"),
    ],
)
def test_pooled_vectors_and_gradients_are_the_peer_s(
    peer: str, activation: ActivationName, softmax: bool, target: Tensor, behaviors: Tensor
):
    """FuxiCTR ``layers/attentions/target_attention.py::DIN_Attention``, DeepCTR-Torch
    ``layers/sequence.py::AttentionSequencePoolingLayer``, RecBole ``model/layers.py::SequenceAttLayer``. RecBole
    divides by the square root of the width, as DIN's authors do and the others do not. Dice in evaluation mode.

    Mutants: wrong sign at W3; weights normalized by default; no scale.
    """
    unit, pool = UNITS[peer](activation, softmax=softmax)
    randomize(unit)
    unit.eval()
    din = our_din(unit, activation, softmax=softmax, scale=peer == "recbole")
    theirs, ours = pool(target, behaviors, MASK), pooled(din, target, behaviors, MASK)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(B, D)
    their_gradients = torch.autograd.grad((weights * theirs).sum(), [target, behaviors])
    our_gradients = torch.autograd.grad((weights * ours).sum(), [target, behaviors])
    torch.testing.assert_close(our_gradients, their_gradients)


@pytest.mark.parametrize("peer", UNITS)
def test_an_empty_history_is_zero_where_a_peer_s_softmax_makes_something_of_it(
    peer: str, target: Tensor, behaviors: Tensor
):
    """With nothing real the peers' softmax runs over padding alone: FuxiCTR (``-1e9 * (1 - mask)``) and DeepCTR-Torch
    (``-2 ** 32 + 1``) return the mean of the padding, RecBole (``-inf``) NaN.
    """
    empty = torch.zeros_like(MASK)
    unit, pool = UNITS[peer]("sigmoid", softmax=True)
    randomize(unit)
    theirs = pool(target, behaviors, empty)
    if peer == "recbole":
        assert theirs.isnan().all()
    else:
        torch.testing.assert_close(theirs, behaviors.mean(dim=1))
    ours = pooled(our_din(unit, "sigmoid", softmax=True, scale=True), target, behaviors, empty)
    assert torch.equal(ours, torch.zeros(B, D))


@pytest.mark.parametrize("peer", ["fuxictr", "deepctr_torch"])
def test_padding_moves_a_peer_s_dice_and_not_ours(peer: str, target: Tensor, behaviors: Tensor):
    """FuxiCTR ``DIN_Attention.forward`` flattens real and padded rows before ``activations.py::Dice``; DeepCTR-Torch
    ``layers/core.py::LocalActivationUnit`` hands all positions to ``activation.py::Dice``. Both take their batch
    statistics over padding too, so that in training a history's vector depends on how much padding the batch has.

    Mutant: statistics over padded rows.
    """
    unit, pool = UNITS[peer]("dice", softmax=False)
    randomize(unit)
    din = our_din(unit, "dice", softmax=False, scale=False).train()
    real = torch.ones_like(MASK)
    longer = torch.cat([torch.zeros(B, 2 * L, D), behaviors], dim=1)
    longer_mask = torch.cat([torch.zeros(B, 2 * L, dtype=torch.bool), real], dim=1)

    ours, theirs = pooled(din, target, behaviors, real), pool(target, behaviors, real)
    torch.testing.assert_close(ours, theirs)  # without padding all agree
    torch.testing.assert_close(pooled(din, target, longer, longer_mask), ours)
    assert (pool(target, longer, longer_mask) - theirs).abs().max() > 0.1


@pytest.mark.parametrize("peer", ["fuxictr", "deepctr_torch"])
def test_dice_and_its_running_statistics_are_the_peer_s_in_training(peer: str):
    """FuxiCTR ``layers/activations.py::Dice``, DeepCTR-Torch ``layers/activation.py::Dice``, on rows that are all real.
    DeepCTR-Torch's batch norm has PyTorch's momentum of 0.1, FuxiCTR's the authors' 0.01.
    """
    if peer == "fuxictr":
        from fuxictr.pytorch.layers import Dice as PeerDice
    else:
        from deepctr_torch.layers.activation import Dice as PeerDice
    theirs, ours = PeerDice(D), Dice(D)
    randomize(theirs)
    copy_dice(theirs, ours)
    assert ours.statistics.momentum == {"fuxictr": 0.01, "deepctr_torch": 0.1}[peer]
    for _ in range(3):
        x = torch.randn(50, D) * 3 + 1
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.statistics.mean, theirs.bn.running_mean)
    torch.testing.assert_close(ours.statistics.variance, theirs.bn.running_var)


def test_recbole_s_dice_adapts_to_no_data():
    """RecBole ``model/layers.py::Dice`` has neither E[s] nor Var[s] of Eq. (9), and ``alpha`` is no parameter: what it
    computes is ``s * sigmoid(s)``, whatever the distribution of ``s``. Ours knows shifted and stretched inputs again.
    """
    from recbole.model.layers import Dice as PeerDice

    theirs, ours = PeerDice(D), Dice(D).double()
    x = torch.randn(400, D, dtype=torch.float64)
    torch.testing.assert_close(theirs(x), torch.nn.functional.silu(x))
    assert not list(theirs.parameters())
    gate, shifted_gate = ours(x) / x, ours(10 * x + 3) / (10 * x + 3)  # alpha = 0: f(s) / s is p
    torch.testing.assert_close(shifted_gate, gate)
    assert (theirs(10 * x + 3) / (10 * x + 3) - theirs(x) / x).abs().max() > 0.3


def test_a_whole_model_predicts_what_fuxictr_s_predicts(tmp_path: Path):
    """``model_zoo/LongCTR/DIN/DIN.py::DIN.forward``, from rows to probability. Its network reads ``[target, h_B]``;
    ours also reads ``h_B * target``, as DIN's authors do.
    """
    theirs = make_longctr(
        "DIN",
        tmp_path,
        dnn_hidden_units=[8, 4],
        attention_hidden_units=list(HIDDEN),
        attention_hidden_activations="Sigmoid",
    )
    randomize(theirs)
    theirs.eval()
    din = DIN(ITEM_DIM, hidden_dims=HIDDEN)
    copy_activation_unit(theirs.attention_layers, din.relevance)
    ours = DenseHalf(side_dim=0, dim=ITEM_DIM, ubm=din, hidden_dims=(8, 4)).eval()
    copy_network(theirs.dnn, ours, dim=ITEM_DIM)
    inputs = longctr_inputs(torch.randint(1, NUM_ITEMS, (B,)), torch.randint(1, NUM_ITEMS, (B, L)) * MASK)
    rows = theirs.embedding_layer(inputs[1], flatten_emb=True).view(B, L + 1, ITEM_DIM)
    nothing = torch.zeros(B, L, dtype=torch.long)
    none = torch.zeros(B, 0)
    logit = ours(Rows(none, none, none, rows[:, -1], rows[:, :-1], MASK, nothing, MASK, nothing)).logit
    torch.testing.assert_close(logit.sigmoid(), theirs(inputs)["y_pred"].squeeze(1))
