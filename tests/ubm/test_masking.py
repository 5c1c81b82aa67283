"""Masked reductions against loops over the real values."""

import torch

from mimctr.ubm.masking import masked_max, masked_mean, masked_softmax, zero_padding

from .conftest import LENGTHS, MASK, B, L


def test_masked_softmax_is_the_softmax_of_the_real_scores_and_zero_elsewhere():
    scores = torch.randn(B, L).masked_fill(~MASK, float("nan"))
    weights = masked_softmax(scores, MASK)
    for b in range(B):
        real = scores[b, MASK[b]].double().exp()
        torch.testing.assert_close(weights[b, MASK[b]].double(), real / real.sum(), rtol=1e-5, atol=1e-6)
    assert torch.equal(weights[~MASK], torch.zeros(int((~MASK).sum())))


def test_masked_softmax_of_nothing_is_zero_with_a_finite_gradient():
    # Mutant: softmax over all -inf.
    scores = torch.randn(2, 3, requires_grad=True)
    weights = masked_softmax(scores, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(weights, torch.zeros(2, 3))
    weights.sum().backward()
    assert torch.equal(scores.grad, torch.zeros(2, 3))


def test_masked_mean_and_max_look_at_real_values_only():
    # All values negative: a padding of 0 would win the maximum.
    values = (-torch.rand(B, L) - 1).masked_fill(~MASK, float("nan"))
    mean, largest = masked_mean(values, MASK), masked_max(values, MASK)
    for b in range(B):
        real = [float(value) for value in values[b, MASK[b]]]
        expected = (sum(real) / len(real), max(real)) if LENGTHS[b] > 0 else (0.0, 0.0)
        torch.testing.assert_close(torch.stack([mean[b], largest[b]]), torch.tensor(expected))


def test_zero_padding_stops_nan_in_values_and_gradients():
    x = torch.full((B, L, 2), float("nan"), requires_grad=True)
    zero_padding(x, MASK & False).sum().backward()
    assert torch.equal(x.grad, torch.zeros(B, L, 2))
