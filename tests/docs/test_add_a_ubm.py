"""The example of a user behavior model has every property that ours have, alone and inside a CTR model."""

import math

import pytest
import torch
from ubm import test_contract
from ubm.conftest import D, content, dense, history, rows, strengthened, variant  # noqa: F401 - fixtures

from mimctr.ubm.interface import History, UserBehaviorModel

from .examples import example

RecencyAttention = example("recency_ubm").RecencyAttention


@pytest.fixture
def ubm_name() -> str:
    return "recency"


@pytest.fixture
def ubm() -> UserBehaviorModel:
    return strengthened(RecencyAttention(D)).eval()


class TestRecencyInACtrModel(test_contract.TestDenseHalf):
    pass


class TestRecency:
    """The properties that do not name a paper's model."""

    test_no_history = test_contract.TestUserBehaviorModel.test_no_history_means_no_interest
    test_kept = test_contract.TestUserBehaviorModel.test_only_real_behaviors_are_kept
    test_width = test_contract.TestUserBehaviorModel.test_the_interest_has_the_promised_width
    test_kinds = test_contract.TestUserBehaviorModel.test_kinds_are_looked_at_by_models_that_take_them_apart
    test_negatives = test_contract.TestUserBehaviorModel.test_negatives_reach_the_auxiliary_task_alone
    test_content = test_contract.TestUserBehaviorModel.test_content_is_looked_at_by_models_that_ask_for_it


def test_after_one_half_life_a_behavior_counts_half():
    ubm = RecencyAttention(2, half_life_days=10.0)
    seen = History(
        behaviors=torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]]),
        mask=torch.tensor([[True, True, False]]),
        time_gaps=torch.tensor([[11 * 86_400, 86_400, 0]]),
        same_category=torch.zeros(1, 3, dtype=torch.bool),
        kinds=torch.zeros(1, 3, dtype=torch.long),
    )
    old, new = ubm(torch.zeros(1, 2), seen).vector[0].tolist()
    assert math.isclose(old, 1 / 3, rel_tol=1e-5)
    assert math.isclose(new, 2 / 3, rel_tol=1e-5)
