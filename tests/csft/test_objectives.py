import math

import pytest
import torch

from csft.test_interest_loss import known, make_candidates
from mimctr.csft.loss import Exclusions, Pool, multi_level_info_nce
from mimctr.csft.objectives import CategoryCrossEntropy, MultiLevelInfoNCE, PairCrossEntropy

DIM = 4
NO_CATEGORY = torch.zeros(6, dtype=torch.int64)


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def test_the_contrastive_objective_is_equation_6_over_the_pool():
    own = make_candidates([1, 2, 3, 4])
    pool = Pool(make_candidates([1, 2, 3, 4, 9, 8], seed=1))
    query = torch.randn(2, DIM)
    objective = MultiLevelInfoNCE(temperature=0.3, text_weight=0.2, image_weight=0.7)
    exclusions = Exclusions(pool, 2)
    expected = multi_level_info_nce(
        query, pool, exclusions, text_weight=0.2, image_weight=0.7, temperature=0.3
    )
    torch.testing.assert_close(objective(query, own, pool, exclusions, NO_CATEGORY), expected)
    assert objective.facts(exclusions) == {"negatives": 5.0, "temperature": pytest.approx(0.3)}


def test_the_temperature_is_fixed_unless_it_is_to_be_learned():
    own, query = make_candidates([1, 2, 3]), torch.randn(3, DIM)
    fixed = MultiLevelInfoNCE(temperature=0.1)
    assert fixed.temperature.item() == pytest.approx(0.1)
    assert not fixed.log_temperature.requires_grad
    learned = MultiLevelInfoNCE(temperature=0.1, learn_temperature=True)
    with torch.no_grad():
        learned.log_temperature.fill_(-20.0)
    learned(query, own, Pool(own), Exclusions(Pool(own), 3), NO_CATEGORY).backward()
    assert learned.temperature.item() == pytest.approx(0.01)
    assert learned.log_temperature.grad.abs() > 0


def test_pair_cross_entropy_equals_a_written_out_loop_without_what_the_user_bought():
    own = make_candidates([1, 2, 3, 4, 5, 6])
    pool = Pool(make_candidates([1, 2, 3, 4, 5, 6, 5, 6]))
    exclusions = Exclusions(
        pool, 2, known=known((1, 4), (1, 2))
    )  # its user bought query 1's first drawn negative
    query = torch.randn(2, DIM)
    objective = PairCrossEntropy(temperature=0.2)
    with torch.no_grad():
        objective.bias.fill_(-0.4)
    terms = []
    for row in range(6):
        if row == 3:
            continue
        logit = cosine(query[row % 2], own.fused[row]) / 0.2 - 0.4
        terms.append(math.log1p(math.exp(-logit if row < 2 else logit)))
    found = objective(query, own, pool, exclusions, NO_CATEGORY)
    assert found.item() == pytest.approx(sum(terms) / 5, rel=1e-5)
    found.backward()
    assert objective.log_scale.grad.abs() > 0
    assert objective.bias.grad.abs() > 0


def test_category_cross_entropy_equals_a_written_out_softmax_and_skips_items_without_one():
    own = make_candidates([1, 2, 3, 4], requires_grad=True)
    category = torch.tensor([2, 3, 0, 2])
    objective = CategoryCrossEntropy(DIM, 4, temperature=0.5)
    terms = []
    for row in (0, 1, 3):
        logits = [cosine(own.fused[row].detach(), center.detach()) / 0.5 for center in objective.categories]
        terms.append(math.log(sum(map(math.exp, logits))) - logits[category[row]])
    others = Exclusions(Pool(own), 2)
    found = objective(torch.randn(2, DIM), own, Pool(own), others, category)
    assert found.item() == pytest.approx(sum(terms) / 3, rel=1e-5)
    found.backward()
    assert (own.fused.grad.abs().sum(1) > 0).tolist() == [True, True, False, True]
    assert objective(torch.randn(2, DIM), own, Pool(own), others, torch.zeros_like(category)) == 0
