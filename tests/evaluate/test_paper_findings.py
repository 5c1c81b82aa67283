"""Verdicts against the normal distribution."""

import pytest
from scipy.stats import norm

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.findings import confidence, finding
from mimctr.evaluate.paper.lookup import is_sure


def estimate(mean: float, error: float) -> Estimate:
    p_value = 2 * norm.sf(abs(mean) / error)
    return Estimate(mean=mean, sd=None, low=mean - 1.96 * error, high=mean + 1.96 * error, p_value=p_value)


@pytest.mark.parametrize("mean", [-0.03, -0.01, -0.0001, 0.0, 0.0001, 0.01, 0.03])
def test_confidence_is_the_probability_of_a_true_difference_above_zero(mean):
    assert confidence(estimate(mean, 0.01)) == pytest.approx(norm.cdf(mean / 0.01))


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(0.0197, "held"), (0.0195, "undecided"), (-0.0195, "undecided"), (-0.0197, "not held")],
)
def test_a_verdict_is_where_the_95_percent_interval_lies(mean, verdict):
    difference = estimate(mean, 0.01)
    found = finding("k", source="Table 9", claim="c", difference=difference)
    assert found.verdict == verdict
    assert is_sure(difference) == (verdict != "undecided")


def test_what_was_not_run_and_what_has_no_error_are_not_judged():
    unknown = Estimate(mean=0.5, sd=None, low=None, high=None, p_value=None)
    assert finding("k", source="s", claim="c", difference=None).verdict == "not run"
    judged = finding("k", source="s", claim="c", difference=unknown)
    assert (judged.verdict, judged.confidence) == ("undecided", None)
