"""What is said of a log with propensities, and why nothing is where nothing can be."""

import numpy as np
import pytest

from mimctr.evaluate.machine import describe_machine
from mimctr.evaluate.off_policy import AS_LOGGED, OffPolicy, Wrong
from mimctr.evaluate.off_policy_results import estimate_policies
from mimctr.evaluate.online import Policy
from mimctr.evaluate.paper.off_policy import off_policy_findings, off_policy_table
from mimctr.evaluate.reranking import Log, find_pages

NUM_PAGES = 600
SCORES = {"base": np.array([1.0, 0.0]), "mim": np.array([0.0, 1.0])}
"""Of the items 2 and 3."""


def pages_of_two(first: np.ndarray) -> Log:
    """Items 2 and 3 on every page; ``first`` stands on top, and item 3 is clicked there, item 2 on every third."""
    page = np.repeat(np.arange(NUM_PAGES), 2)
    place = np.tile([0, 1], NUM_PAGES)
    item = np.where(place == 0, first[page], 5 - first[page])
    click = (place == 0) & ((item == 3) | (page % 3 == 0))
    return Log(page % 40 + 2, page, 0 * page, item, place, np.full(len(page), 0.5), click.astype(int))


def random_log() -> Log:
    return pages_of_two(np.random.default_rng(0).integers(2, 4, NUM_PAGES))


def estimated(log: Log) -> OffPolicy:
    pages = find_pages(log)
    scores = {name: [own[log.item - 2], own[log.item - 2]] for name, own in SCORES.items()}
    found = estimate_policies(pages, scores, depths=[1], num_resamples=50, resample_seed=0)
    return OffPolicy(
        dataset="shop",
        ubm="sim",
        base="base",
        policies=[Policy(name=AS_LOGGED), *(Policy(name=name, seeds=[0, 1]) for name in SCORES)],
        num_pages=pages.num_pages,
        num_users=40,
        num_impressions=len(pages.row),
        left_out=pages.left_out,
        support=found.support,
        outcomes=found.outcomes,
        changes=found.changes,
        config={},
        versions={},
        machine=describe_machine(),
    )


def test_every_order_but_bases_own_is_compared_with_base():
    """Mutant: the log's own order comes first, so that nothing is said of it against Base."""
    log = random_log()
    rows = {row.label: row.cells for row in off_policy_table(estimated(log), {}).rows}
    top = log.position == 0
    rates = {
        "As logged": log.click[top].mean(),
        "Base": log.click[top & (log.item == 2)].mean(),
        "Base+MIM": log.click[top & (log.item == 3)].mean(),
    }
    assert list(rows) == list(rates)
    for label, rate in rates.items():
        clicks, over_base = rows[label][:2]
        assert clicks.ours.mean == pytest.approx(rate)
        if label != "Base":
            assert over_base.ours.mean == pytest.approx(rate / rates["Base"] - 1)
            assert over_base.ours.low < over_base.ours.mean < over_base.ours.high
    assert rows["Base"][1].ours is None


def test_propensities_of_half_their_true_value_are_told_as_wrong():
    """Mutant: the log never drew such orders, though it did on half of the pages."""
    log = random_log()
    found = estimated(log._replace(propensity=log.propensity / 2))
    means = [2 * 2 * np.mean(log.item[log.position == 0] == item) for item in (2, 3)]
    assert off_policy_table(found, {}).reading == [
        f"The log says nothing of {label}: its weights have the mean {mean:.2f} where true propensities give 1, so the "
        "propensities are wrong."
        for label, mean in zip(("Base", "Base+MIM"), means, strict=True)
    ]


def test_a_mean_weight_below_one_is_told_without_a_reason():
    log = random_log()
    reading = off_policy_table(estimated(log._replace(propensity=np.ones(len(log.item)))), {}).reading
    mean = np.mean(log.item[log.position == 0] == 2)
    assert reading[0] == (
        f"The log says nothing of Base: its weights have the mean {mean:.2f} where true propensities give 1."
    )


def test_only_orders_that_were_never_drawn_are_told_so():
    reading = off_policy_table(estimated(pages_of_two(np.full(NUM_PAGES, 2))), {}).reading
    assert reading == [
        "The log says nothing of Base: its weights have the mean 2.00 where true propensities give 1, so the "
        "propensities are wrong.",
        "The log says nothing of Base+MIM: it never drew such orders.",
    ]


def with_wrong(found: OffPolicy, wrong: Wrong) -> OffPolicy:
    """Let the log not support Base+MIM from a place on."""
    fits = [one for one in (1, None) if (one or 2) < wrong.place]
    changed = {"wrong": wrong, "supported": bool(fits)}
    return found.model_copy(
        update={
            "support": [
                one.model_copy(update=changed) if one.policy == "mim" else one for one in found.support
            ],
            "outcomes": [one for one in found.outcomes if one.policy != "mim" or one.depth in fits],
            "changes": [
                one for one in found.changes if "mim" not in (one.policy, one.against) or one.depth in fits
            ],
        }
    )


def test_from_which_place_on_the_log_says_nothing_is_told():
    """Mutants: a policy that is estimated in part has no reason; what is estimated of it is not read."""
    found = with_wrong(estimated(random_log()), Wrong(place=2, mean_weight=0.7))
    table = off_policy_table(found, {})
    assert table.reading[0] == (
        "The log says nothing of Base+MIM from place 2 on: its weights in place 2 have the mean 0.70 where true "
        "propensities give 1."
    )
    assert table.reading[1].startswith("Content changes clicks in the first place by +")
    assert not any("on the page" in sentence for sentence in table.reading)
    row = table.rows[2]
    assert (row.label, row.not_run) == ("Base+MIM", None)
    assert [cell.ours is None for cell in row.cells[:4]] == [False, False, True, True]
    first, whole, _ = off_policy_findings(found, None)
    assert (first.verdict, whole.verdict) == ("held", "not run")


@pytest.mark.parametrize(
    ("mean", "told"),
    [
        (0.6, "its weights in the first place have the mean 0.60 where true propensities give 1."),
        (0.0, "it never drew such orders."),
    ],
)
def test_a_first_place_without_support_is_the_reason_for_nothing(mean, told):
    table = off_policy_table(with_wrong(estimated(random_log()), Wrong(place=1, mean_weight=mean)), {})
    assert table.reading == [f"The log says nothing of Base+MIM: {told}"]
    assert table.rows[2].not_run == (
        "the log does not support this order: its weights in the first place have the mean "
        f"{mean:.2f}, where true propensities give 1"
    )
