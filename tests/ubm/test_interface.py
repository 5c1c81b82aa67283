"""A task of a user behavior model's own."""

import math

import pytest
import torch

from mimctr.ubm.interface import Auxiliary


def test_without_labels_the_task_is_the_click():
    logits, clicks = torch.tensor([0.5, -2.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    expected = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-2.0)) + math.log1p(math.exp(1.0))) / 3
    assert Auxiliary(logits.unsqueeze(-1)).loss_share(clicks).item() == pytest.approx(expected, rel=1e-6)


def test_parts_are_summed_and_only_decisions_that_count_are_averaged():
    logits = torch.tensor([[[0.3, -0.1], [2.0, 1.0]], [[math.nan, math.nan], [0.0, 0.0]]], requires_grad=True)
    labels = torch.tensor([1.0, 0.0]).expand(2, 2, 2)
    mask = torch.tensor([[True, False], [False, True]])
    loss = Auxiliary(logits, labels, mask).loss_share(torch.zeros(2))
    first = math.log1p(math.exp(-0.3)) + math.log1p(math.exp(-0.1))
    assert loss.item() == pytest.approx((first + 2 * math.log(2)) / 2, rel=1e-6)
    loss.backward()
    assert torch.equal(logits.grad[~mask], torch.zeros(2, 2))
    assert (logits.grad[mask].abs() > 0).all()


def test_no_decision_is_no_loss():
    task = Auxiliary(torch.zeros(2, 3, 2), torch.zeros(2, 3, 2), torch.zeros(2, 3, dtype=torch.bool))
    assert task.loss_share(torch.zeros(2)) == 0
