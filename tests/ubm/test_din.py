"""DIN against its plain form, and Dice against PyTorch's batch norm on the real rows alone."""

import math

import pytest
import torch
from torch import nn

from mimctr.ubm.activations import Dice
from mimctr.ubm.din import DIN
from mimctr.ubm.embeddings import Rows
from mimctr.ubm.interface import History

from .conftest import LENGTHS, MASK, B, D, L

DICE_DIM = 4


def plain_relevance(din: DIN, rows: Rows) -> torch.Tensor:
    """The MLP on the concatenation ``[q, k, q - k, q * k]``, as the paper draws it."""
    unit = din.relevance
    target = rows.target.unsqueeze(1).expand(B, L, D)
    pair = torch.cat([target, rows.behaviors, target - rows.behaviors, target * rows.behaviors], dim=-1)
    layers = [unit.first, *unit.hidden]
    x = pair
    for layer in layers:
        x = torch.sigmoid(x @ layer.weight.T + layer.bias)
    return (x @ unit.out.weight.T + unit.out.bias).squeeze(-1)


def run(din: DIN, rows: Rows) -> torch.Tensor:
    return din(rows.target, rows.history).vector


def test_the_decomposed_first_layer_equals_the_plain_form(rows: Rows):
    # Mutant: a wrong sign at W3.
    din = DIN(D)
    weights = plain_relevance(din, rows) * MASK
    torch.testing.assert_close(run(din, rows), (weights.unsqueeze(-1) * rows.behaviors).sum(dim=1))


def test_the_decomposition_has_the_plain_form_s_gradient(rows: Rows):
    din = DIN(D)
    run(din, rows).square().sum().backward()
    decomposed = {name: parameter.grad.clone() for name, parameter in din.named_parameters()}
    din.zero_grad()
    weights = plain_relevance(din, rows) * MASK
    (weights.unsqueeze(-1) * rows.behaviors).sum(dim=1).square().sum().backward()
    for name, parameter in din.named_parameters():
        torch.testing.assert_close(decomposed[name], parameter.grad, msg=name)


def test_the_authors_form_is_a_softmax_of_scaled_relevance(rows: Rows):
    din = DIN(D, softmax=True, scale=True)
    scores = plain_relevance(din, rows) / math.sqrt(D)
    for b in range(B):
        start = L - int(LENGTHS[b])
        weights = scores[b, start:].exp() / scores[b, start:].exp().sum()
        expected = weights @ rows.behaviors[b, start:]
        torch.testing.assert_close(run(din, rows)[b], expected)


def test_without_softmax_a_repeated_history_is_a_stronger_interest(rows: Rows):
    # Mutant: weights normalized by default.
    din = DIN(D)
    twice = Rows(*rows[:4], *(torch.cat([tensor, tensor], dim=1) for tensor in rows[4:-1]))
    torch.testing.assert_close(run(din, twice), 2 * run(din, rows))


@pytest.mark.parametrize("training", [True, False])
def test_dice_equals_batch_norm_on_the_real_rows(training: bool):
    # Mutant: statistics over padded rows; biased running variance.
    dice, norm = Dice(DICE_DIM, epsilon=1e-5), nn.BatchNorm1d(DICE_DIM, affine=False, momentum=0.01)
    with torch.no_grad():
        dice.alpha.copy_(torch.randn(DICE_DIM))
    x = torch.randn(B, L, DICE_DIM) * 3 + 1
    dice.train(training), norm.train(training)
    for _ in range(2):
        real = x[MASK]
        gate = torch.sigmoid(norm(real))
        expected = gate * real + (1 - gate) * dice.alpha * real
        torch.testing.assert_close(dice(x, MASK)[MASK], expected)
    torch.testing.assert_close(dice.statistics.mean, norm.running_mean)
    torch.testing.assert_close(dice.statistics.variance, norm.running_var)


@pytest.mark.parametrize("num_rows", [1, 7, 4096, 5000])
def test_dice_has_the_gradient_of_batch_norm_on_the_real_rows(num_rows: int):
    # Mutant: the mean is taken for a constant.
    dice = Dice(DICE_DIM, epsilon=1e-5).double()
    alpha = torch.randn(DICE_DIM, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        dice.alpha.copy_(alpha)
    x = (torch.randn(num_rows, DICE_DIM, dtype=torch.float64) * 3 + 1).requires_grad_()
    mask = torch.rand(num_rows) < 0.6
    mask[0] = True
    weights = torch.randn(num_rows, DICE_DIM, dtype=torch.float64) * mask.unsqueeze(1)
    real = x[mask]
    scaled = (real - real.mean(dim=0)) * torch.rsqrt(real.var(dim=0, correction=0) + 1e-5)
    gate = torch.sigmoid(scaled)
    expected = torch.autograd.grad(((gate + (1 - gate) * alpha) * real * weights[mask]).sum(), [x, alpha])
    found = torch.autograd.grad((dice(x, mask) * weights).sum(), [x, dice.alpha])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_dice_without_a_mask_counts_every_row():
    dice = Dice(DICE_DIM)
    x = torch.randn(9, DICE_DIM)
    everything = torch.ones(9, dtype=torch.bool)
    torch.testing.assert_close(dice(x), dice(x, everything))


def test_dice_learns_nothing_from_a_batch_without_behaviors():
    dice = Dice(DICE_DIM)
    before = dice.statistics.variance.clone()
    assert dice(torch.randn(B, L, DICE_DIM), torch.zeros(B, L, dtype=torch.bool)).isfinite().all()
    assert torch.equal(dice.statistics.variance, before)


def test_dice_starts_at_the_slope_of_the_authors_code():
    # Mutant: PReLU's 0.25.
    dice = Dice(4)
    x = torch.randn(2, 4)
    gate = dice.eval()(x) / x
    assert torch.equal(dice.alpha, torch.zeros(4))
    torch.testing.assert_close(gate, torch.sigmoid(x / (1 + 1e-8) ** 0.5))


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "prelu", "dice"])
def test_a_process_without_impressions_has_gradients_of_zero(activation: str):
    din = DIN(D, activation=activation)
    target, behaviors = torch.zeros(0, D, requires_grad=True), torch.zeros(0, L, D, requires_grad=True)
    mask, nothing = torch.zeros(0, L, dtype=torch.bool), torch.zeros(0, L, dtype=torch.long)
    interest = din(target, History(behaviors, mask, nothing, mask, nothing)).vector
    assert interest.shape == (0, D)
    interest.sum().backward()
    assert all(not parameter.grad.any() for parameter in din.parameters() if parameter.grad is not None)
