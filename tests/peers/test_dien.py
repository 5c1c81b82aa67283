"""DIEN against FuxiCTR's, DeepCTR-Torch's and Torch-RecHub's, with copied weights."""

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mimctr.ubm.ciubm import DenseHalf
from mimctr.ubm.dien import DIEN
from mimctr.ubm.embeddings import Rows
from mimctr.ubm.interface import History, Interest

from .longctr import ITEM_DIM, NUM_ITEMS, longctr_inputs, make_longctr
from .padding import padded_right
from .weights import copy_gru, copy_linears, copy_network, copy_update_first, randomize, second_bias

pytestmark = pytest.mark.needs_peers

B, L, D = 6, 7, ITEM_DIM
LENGTHS = torch.tensor([3, 7, 1, 5, 2, 3])
MASK = torch.arange(L) >= L - LENGTHS[:, None]
NOTHING = torch.zeros(B, L, dtype=torch.long)
CLICKS = torch.zeros(B)


@pytest.fixture
def peer(tmp_path: Path) -> nn.Module:
    """FuxiCTR's DIEN, with its batch norm off."""
    model = make_longctr("DIEN", tmp_path, dnn_hidden_units=[8, 4], batch_norm=False)
    randomize(model)
    with torch.no_grad():
        model.attention_modules[0].W_kernel.normal_(std=0.5)
        second_bias(model.evolving_modules[0].gru_cell.h2h.bias).zero_()
    return model.eval()


def our_dien(theirs: nn.Module) -> DIEN:
    dien = DIEN(D)
    copy_gru(theirs.extraction_modules[0], dien.extractor)
    cell = theirs.evolving_modules[0].gru_cell
    copy_update_first(cell.x2h, cell.h2h, dien.evolution)
    with torch.no_grad():
        dien.relevance.weight.weight.copy_(theirs.attention_modules[0].W_kernel)
    return dien


def evolved(dien: DIEN, target: Tensor, behaviors: Tensor, negatives: Tensor | None = None) -> Interest:
    return dien(target, History(behaviors, MASK, NOTHING, MASK, NOTHING, negatives))


@pytest.fixture
def target() -> Tensor:
    return torch.randn(B, D, requires_grad=True)


@pytest.fixture
def behaviors() -> Tensor:
    return torch.randn(B, L, D, requires_grad=True)


def test_the_interest_and_its_gradients_are_fuxictr_s(peer: nn.Module, target: Tensor, behaviors: Tensor):
    """``model_zoo/LongCTR/DIEN/DIEN.py``: GRU, bilinear attention and AUGRU, over histories of many lengths that stand
    where it reads them, on the left.

    Mutants: no attention, a plain GRU; the update gate reversed; padding moves the state.
    """
    mask = padded_right(MASK.unsqueeze(-1), MASK).squeeze(-1).float()
    packed, states = peer.interest_extraction(0, padded_right(behaviors, MASK), mask)
    theirs = peer.interest_evolution(0, packed, states, target, mask)
    ours = evolved(our_dien(peer), target, behaviors).vector
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn(B, D)
    their_gradients = torch.autograd.grad((weights * theirs).sum(), [target, behaviors])
    our_gradients = torch.autograd.grad((weights * ours).sum(), [target, behaviors])
    torch.testing.assert_close(our_gradients, their_gradients)


def test_a_whole_model_predicts_what_fuxictr_s_predicts(peer: nn.Module):
    """``DIEN.forward``, from rows to probability, where no history has padding."""
    ours = DenseHalf(side_dim=0, dim=D, ubm=our_dien(peer), hidden_dims=(8, 4)).eval()
    copy_network(peer.dnn, ours, dim=D)
    inputs = longctr_inputs(torch.randint(1, NUM_ITEMS, (B,)), torch.randint(1, NUM_ITEMS, (B, L)))
    rows = peer.embedding_layer(inputs[1], flatten_emb=True).view(B, L + 1, D)
    none, real = torch.zeros(B, 0), torch.ones_like(MASK)
    logit = ours(Rows(none, none, none, rows[:, -1], rows[:, :-1], real, NOTHING, real, NOTHING)).logit
    torch.testing.assert_close(logit.sigmoid(), peer(inputs)["y_pred"].squeeze(1))


def test_fuxictr_s_gru_reads_padding_in_place_of_the_behaviors(peer: nn.Module):
    """``longctr_dataloader.py`` puts padding before the behaviors, unless told otherwise, and DIEN's
    ``interest_extraction`` packs the *first* positions, as many as there are behaviors: a history shorter than half the
    width is never read, and of a longer one the newest behaviors are not. Ours reads them all.

    Mutant: padding moves the state.
    """
    from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

    assert inspect.signature(LongCTRDataLoader).parameters["padding"].default == "pre"
    target, behaviors = torch.randint(1, NUM_ITEMS, (B,)), torch.randint(1, NUM_ITEMS - 1, (B, L)) * MASK
    others = behaviors.clone()
    others[:, -1] += 1  # another newest item
    with torch.no_grad():
        theirs = [
            peer(longctr_inputs(target, history))["y_pred"].squeeze(1) for history in (behaviors, others)
        ]
        rows = [
            peer.embedding_layer(longctr_inputs(target, history)[1], flatten_emb=True).view(B, L + 1, D)
            for history in (behaviors, others)
        ]
        ours = [evolved(our_dien(peer), of_one[:, -1], of_one[:, :-1]).vector for of_one in rows]
    unread = LENGTHS < L  # the newest behavior stands at the last position
    assert torch.equal(theirs[0][unread], theirs[1][unread])
    assert ((ours[0] - ours[1]).abs().amax(dim=1) > 1e-3).all()


def test_fuxictr_s_model_cannot_take_a_single_history(peer: nn.Module):
    """``interest_evolution`` returns ``h_out.squeeze()``: where one row of the batch has behaviors its axis is lost.
    Ours takes a batch of one, and zero is the interest of a user without history.

    Mutant: ``squeeze()`` that drops the batch axis.
    """
    target, behaviors = torch.randint(1, NUM_ITEMS, (3,)), torch.zeros(3, L, dtype=torch.long)
    behaviors[1] = 1
    with pytest.raises(RuntimeError, match="shape mismatch"):
        peer(longctr_inputs(target, behaviors))
    rows = peer.embedding_layer(longctr_inputs(target, behaviors)[1], flatten_emb=True).view(3, L + 1, D)
    nothing, mask = NOTHING[:3], behaviors > 0
    ours = our_dien(peer)(rows[:, -1], History(rows[:, :-1], mask, nothing, mask, nothing)).vector
    assert ours.shape == (3, D)
    assert torch.equal(ours[0], torch.zeros(D))
    assert ours[1].abs().sum() > 0


def test_the_states_and_the_auxiliary_loss_are_torch_rechub_s(target: Tensor, behaviors: Tensor):
    """Torch-RecHub ``models/ranking/dien.py``: ``AUGRU`` with its bilinear attention, and ``DIEN.auxiliary``, the
    paper's inner product, a mean over real steps.

    Mutants: pads counted in the auxiliary loss; the state's own behavior in place of the next.
    """
    from torch_rechub.models.ranking.dien import AUGRU
    from torch_rechub.models.ranking.dien import DIEN as Peer

    theirs, dien = AUGRU(D), DIEN(D)
    cell, evolution = theirs.augru_cell, dien.evolution
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.5)
        evolution.inputs.weight.copy_(torch.cat([cell.Wr, cell.Wu, cell.Wh], dim=1).T)
        evolution.inputs.bias.copy_(torch.cat([cell.br, cell.bu, cell.bh], dim=1).squeeze(0))
        evolution.gates.weight.copy_(torch.cat([cell.Ur, cell.Uu], dim=1).T)
        evolution.candidate.weight.copy_(cell.Uh.T)
        dien.relevance.weight.weight.copy_(theirs.Wa)
    randomize(dien.extractor)
    negatives = torch.randn(B, L, D)
    interest = evolved(dien, target, behaviors, negatives)
    real = behaviors * MASK.unsqueeze(-1)
    states = dien.extractor(real, torch.ones(B, L), MASK)
    expected = theirs(states, target, MASK)[1]
    # Its state moves at no padding either: attention is 0 there.
    torch.testing.assert_close(interest.vector, expected)

    peer = Peer.__new__(Peer)
    nn.Module.__init__(peer)
    peer.BCELoss = nn.BCELoss()
    loss = peer.auxiliary(states, real, negatives, MASK)
    torch.testing.assert_close(interest.auxiliary.loss_share(CLICKS), loss)
    ours = torch.autograd.grad(interest.auxiliary.loss_share(CLICKS), behaviors, retain_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad(loss, behaviors))


def test_the_authors_auxiliary_loss_is_twice_deepctr_torch_s(behaviors: Tensor):
    """DeepCTR-Torch ``models/dien.py::InterestExtractor``: an MLP over state and behavior. It averages the two
    decisions of a step, next behavior and negative, where the paper and we sum them.

    Mutant: pads counted in the auxiliary loss.
    """
    from deepctr_torch.models.dien import InterestExtractor

    theirs, dien = InterestExtractor(D, use_neg=True), DIEN(D, auxiliary="mlp")
    randomize(theirs)
    copy_gru(theirs.gru, dien.extractor)
    copy_linears(theirs.auxiliary_net, [part for part in dien.follows if isinstance(part, nn.Linear)])
    negatives = torch.randn(B, L, D)
    states, loss = theirs(padded_right(behaviors, MASK), LENGTHS, padded_right(negatives, MASK))
    ours = evolved(dien, torch.randn(B, D), behaviors, negatives).auxiliary.loss_share(CLICKS)
    torch.testing.assert_close(ours, 2 * loss)
    our_states = dien.extractor(behaviors * MASK.unsqueeze(-1), torch.ones(B, L), MASK)
    torch.testing.assert_close(padded_right(our_states, MASK), states)
