"""The online experiment from gains that are known: the paper's numbers, findings, agreement with the AUC."""

from typing import NamedTuple

import pytest

from mimctr.errors import DataError
from mimctr.evaluate.contrasts import BY_SENSITIVITY
from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.machine import describe_machine
from mimctr.evaluate.online import (
    AS_LOGGED,
    TRUTH,
    Change,
    Online,
    Outcome,
    Policy,
    read_online,
    write_online,
)
from mimctr.evaluate.paper.online import agreement, offline_gain, online_findings, online_table
from mimctr.evaluate.paper.schema import Finding
from mimctr.evaluate.results import Comparison
from mimctr.evaluate.significance import two_sided

EARNED = {"base": 0.20, "mim": 0.22, AS_LOGGED: 0.18, TRUTH: 0.30}
"""Clicks per impression; a thousand impressions earn ten times as much."""
CATEGORIES = ("Clothes", "Home Decoration", "Toys", "Sports", "Pets", "Cars", "FMCG")
SENSITIVE = CATEGORIES[:3]
RANKINGS = ("probability", "revenue")


def sure(mean: float, error: float = 0.005) -> Estimate:
    low, high = mean - 1.96 * error, mean + 1.96 * error
    return Estimate(mean=mean, sd=0.001, low=low, high=high, p_value=two_sided(mean, error))


def outcome(policy: str, ranking: str, name: str, value: float) -> Outcome:
    return Outcome(
        policy=policy,
        ranking=ranking,
        slice=name,
        num_sessions=10,
        num_users=5,
        num_impressions=100,
        clicks=100 * value,
        expected_clicks=100 * value,
        revenue=value,
        expected_revenue=value,
        ctr=sure(value),
        rpm=sure(10 * value),
    )


def changes(
    policy: str, against: str, ranking: str, name: str, gain: float, minus: str | None = None
) -> list[Change]:
    """Revenue changes half as much as clicks."""
    return [
        Change(
            policy=policy,
            against=against,
            ranking=ranking,
            slice=name,
            minus_slice=minus,
            measure=measure,
            count="clicks",
            relative=sure(gain if measure == "ctr" else gain / 2),
        )
        for measure in ("ctr", "rpm")
    ]


def online(**changed: float) -> Online:
    """Return a test in which sensitive categories gain 15 %, others 5 %; ``changed`` replaces what a policy earns."""
    earned = EARNED | changed
    slices = ["all", *(f"category:{name}" for name in CATEGORIES)]
    outcomes, all_changes = [], []
    for ranking in RANKINGS:
        for name in slices:
            outcomes += [outcome(policy, ranking, name, value) for policy, value in earned.items()]
            for place, (policy, value) in enumerate(earned.items()):
                for against in list(earned)[:place]:
                    gain = value / earned[against] - 1
                    if (policy, against) == ("mim", "base") and name != "all":
                        gain = 0.15 if name.partition(":")[2] in SENSITIVE else 0.05
                    all_changes += changes(policy, against, ranking, name, gain)
        groups = (BY_SENSITIVITY.name, BY_SENSITIVITY.minus_name)
        all_changes += changes("mim", "base", ranking, groups[0], 0.10, groups[1])
    return Online(
        dataset="bazaar, tiny, seed 3",
        ubm="sim",
        base="base",
        policies=[Policy(name=name, seeds=[0, 1] if name in ("base", "mim") else []) for name in EARNED],
        start_time=0,
        end_time=1,
        num_sessions=10,
        num_users=5,
        candidates_per_session=31.4,
        shown_per_session=10.0,
        shared_with_base={"mim": 0.62},
        outcomes=outcomes,
        changes=all_changes,
        config={"click_seeds": [0, 1]},
        versions={},
        machine=describe_machine(),
    )


def offline(difference: float, *, p_value: float | None = 1e-6, **named: object) -> Comparison:
    values = {
        "dataset": "x",
        "ubm": "sim",
        "variant": "mim",
        "encoder": "csft",
        "against": "base",
        "against_encoder": None,
        "slice": "all",
        "minus_slice": None,
        "seeds": [0, 1],
        "difference": difference,
        "sd": 0.001,
        "standard_error": 0.001,
        "low": difference - 0.002,
        "high": difference + 0.002,
        "p_value": p_value,
        "relative_improvement": None,
    }
    return Comparison(**(values | named))


def rows(table):
    return {(row.group.partition(":")[0], row.label): row.cells for row in table.rows}


def test_the_papers_numbers_stand_beside_what_was_ranked_for():
    found = rows(online_table(online(), {"sim": "SIM"}))
    by_clicks, by_revenue = "ranked by probability of a click", "ranked by probability × bid"
    mim = found[by_clicks, "Base+MIM"]
    assert mim[0].ours.mean == pytest.approx(0.22)
    assert mim[1].ours.mean == pytest.approx(0.1)
    assert [cell.paper for cell in mim] == [None, pytest.approx(0.1414), None, None]
    assert found[by_revenue, "Base+MIM"][3].paper == pytest.approx(0.0412, abs=1e-4)
    assert found[by_revenue, "Base+MIM"][1].paper is None
    assert found[by_clicks, "Base"][1].ours is None
    assert found[by_clicks, "As logged"][1].ours.mean == pytest.approx(0.18 / 0.2 - 1)
    clothes = found["Base+MIM by category", "Clothes"]
    assert [cell.paper for cell in clothes] == [None, 0.0869, None, 0.0444]
    assert [clothes[place].ours.mean for place in (1, 3)] == [0.15, 0.075]


def test_a_table_says_how_it_was_measured_and_what_it_says():
    table = online_table(online(), {"sim": "SIM"})
    assert "10 sessions of 5 users in the test part of the bazaar, tiny, seed 3" in table.note
    assert "31 a session on average, and shows 10" in table.note
    assert "Models: SIM, seeds 0, 1" in table.note
    assert table.reading == [
        "Content changes clicks by +10.00 % where they are ranked for, and revenue by +5.00 % where that is.",
        "Of the clicks that knowing the true probabilities would add, content adds 20 %.",
        "62 % of what Base+MIM shows, Base shows too.",
    ]


def verdicts(found) -> dict[str, str]:
    return {one.key.partition(":")[2]: one.verdict for one in found}


def test_what_the_paper_claims_holds_where_content_gains():
    found = online_findings(online(), offline(0.02))
    assert set(verdicts(found).values()) == {"held"}
    by_key = {one.key: one.difference.mean for one in found}
    assert by_key["online:ctr"] == pytest.approx(0.1)
    assert by_key["online:rpm"] == pytest.approx(0.05)
    assert by_key["online:sensitive_categories"] == pytest.approx(0.10)
    assert by_key["online:ceiling_ctr"] == pytest.approx(0.30 / 0.22 - 1)  # over the best of the others


def test_the_papers_numbers_stand_only_beside_the_papers_categories():
    """Mutant: what the paper found in Clothes and Sports beside a shop's own groups."""

    def of_categories(made: Online) -> Finding:
        found = online_findings(made, None)
        return next(one for one in found if one.key == "online:sensitive_categories")

    papers = of_categories(online())
    assert (papers.paper, papers.ours) == ("+4.44 % to +8.69 % against +2.54 % to +3.48 %", False)
    changes = [
        one.model_copy(update={"slice": "category:Books", "minus_slice": "category:Tools"})
        if one.minus_slice
        else one
        for one in online().changes
    ]
    ours = of_categories(online().model_copy(update={"changes": changes}))
    assert (ours.claim, ours.paper, ours.ours) == ("Clicks grow more in Books than in Tools", "", True)
    assert ours.difference == papers.difference


def test_a_loss_is_told_as_one():
    found = verdicts(online_findings(online(mim=0.18), offline(0.02)))
    assert (found["ctr"], found["rpm"], found["agrees"]) == ("not held", "not held", "not held")
    assert found["ceiling_ctr"] == "held"
    beaten = verdicts(online_findings(online(**{TRUTH: 0.21}), offline(0.02)))
    assert (beaten["ceiling_ctr"], beaten["ceiling_rpm"]) == ("not held", "not held")


@pytest.mark.parametrize(
    ("clicks", "auc", "verdict"),
    [
        (sure(0.1), offline(0.02), "held"),
        (sure(-0.1), offline(-0.02), "held"),
        (sure(-0.1), offline(0.02), "not held"),
        (sure(0.1), offline(0.001, p_value=0.6), "undecided"),
        (sure(0.001), offline(0.02), "undecided"),
        (sure(0.001), offline(0.001, p_value=0.6), "undecided"),
        (sure(0.1), offline(0.02, p_value=None), "undecided"),
        (sure(0.1), None, "not run"),
        (None, offline(0.02), "not run"),
    ],
)
def test_clicks_agree_with_the_auc_where_both_are_sure_and_of_one_sign(clicks, auc, verdict):
    """Mutants: the offline sign is not looked at; one sure difference is enough."""
    assert agreement(clicks, auc).verdict == verdict


def test_agreement_is_as_sure_as_both_signs():
    """0.975 of each: 0.975² + 0.025²."""
    half_sure = sure(1.96 * 0.005)
    found = agreement(half_sure, offline(0.02, p_value=half_sure.p_value))
    assert found.confidence == pytest.approx(0.975**2 + 0.025**2, abs=1e-4)
    turned = agreement(sure(-0.1), offline(-0.02)).difference
    assert (turned.mean, turned.low, turned.high) == pytest.approx((0.1, 0.1 - 0.0098, 0.1 + 0.0098))


class Compared(NamedTuple):
    """What is looked at of results."""

    comparisons: list[Comparison]


def test_the_offline_gain_is_that_of_the_same_model_on_everything():
    wanted = offline(0.02)
    others = [
        offline(0.5, slice="age:S1"),
        offline(0.5, ubm="din"),
        offline(0.5, encoder="plain"),
        offline(0.5, variant="mim_plus"),
        offline(0.5, against="untrained_cosine", against_encoder="csft"),
        offline(0.5, minus_slice="age:S10"),
    ]
    assert offline_gain(Compared([*others, wanted]), "sim", "csft") == wanted
    assert offline_gain(Compared(others), "sim", "csft") is None


def test_what_is_written_is_read_and_another_schema_is_refused(tmp_path):
    made = online()
    write_online(tmp_path / "online.json", made)
    assert read_online(tmp_path / "online.json") == made
    (tmp_path / "online.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match=r"do not follow the schema of online\.json"):
        read_online(tmp_path / "online.json")
