"""Rows and comparisons of results.json against metrics computed one by one with scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mimctr.errors import DataError
from mimctr.evaluate.compare import Measurements, compare
from mimctr.evaluate.scoring import Predictions, TestPart, score, split_off_one_class

NUM_ROWS = 1200


def make_part(**changed):
    generator = np.random.default_rng(0)
    probability = generator.uniform(0.05, 0.6, NUM_ROWS)
    values = {
        "dataset": "made-up",
        "clicks": generator.random(NUM_ROWS) < probability,
        "users": generator.integers(2, 60, NUM_ROWS),
        "queries": np.arange(NUM_ROWS) // 6 % 90,
        "true_probability": probability,
        "slices": {
            "all": np.ones(NUM_ROWS, dtype=bool),
            "age:S1": np.arange(NUM_ROWS) < 400,
            "age:S10": np.arange(NUM_ROWS) >= 800,
        },
    }
    return TestPart(**{**values, **changed})


def model(part, variant, seed=0, *, ubm="din", strength=1.0, encoder=None, probabilistic=True):
    generator = np.random.default_rng([seed, len(variant), len(ubm)])
    logits = strength * part.true_probability * 6 + generator.normal(size=NUM_ROWS)
    return Predictions(
        ubm=ubm, variant=variant, encoder=encoder, seed=seed, logits=logits, probabilistic=probabilistic
    )


def compared(part, models):
    return compare(Measurements(part, models, num_resamples=20, seed=0))


def find(comparisons, **wanted):
    return [
        item for item in comparisons if all(getattr(item, name) == value for name, value in wanted.items())
    ]


def test_every_model_has_a_row_on_every_slice_with_the_slices_own_numbers():
    part = make_part()
    models = [model(part, "base"), model(part, "mim", encoder="csft")]
    rows = score(part, models)
    assert [(row.variant, row.slice) for row in rows] == [
        (variant, name) for variant in ("base", "mim") for name in ("all", "age:S1", "age:S10")
    ]
    newest = rows[4]
    clicks, logits = part.clicks[:400], models[1].logits[:400]
    assert newest.num_impressions == 400
    assert newest.num_clicks == clicks.sum()
    assert newest.num_users == len(set(part.users[:400].tolist()))
    assert newest.auc == pytest.approx(roc_auc_score(clicks, logits))
    assert newest.ceiling_auc == pytest.approx(roc_auc_score(clicks, part.true_probability[:400]))
    assert newest.pcoc == pytest.approx((1 / (1 + np.exp(-logits))).sum() / clicks.sum())


def test_what_is_unknown_or_means_nothing_is_null():
    part = make_part(true_probability=None, users=np.arange(NUM_ROWS))
    logits = np.random.default_rng(0).normal(size=NUM_ROWS)
    cosine = Predictions(
        ubm="din", variant="untrained_cosine", encoder="csft", seed=0, logits=logits, probabilistic=False
    )
    row = score(part, [cosine])[0]
    assert row.ceiling_auc is None
    assert (row.gauc, row.gauc_unweighted, row.num_gauc_users) == (None, None, 0)
    assert (row.log_loss, row.pcoc, row.ece) == (None, None, None)
    assert row.auc == pytest.approx(roc_auc_score(part.clicks, logits))


def test_slices_of_one_class_are_set_aside_and_counted():
    clicks = np.array([True, False, True, True])
    slices = {
        "both": np.array([True, True, False, False]),
        "clicks": np.array([False, False, True, True]),
        "none": np.zeros(4, dtype=bool),
    }
    kept, skipped = split_off_one_class(slices, clicks)
    assert list(kept) == ["both"]
    assert [(item.slice, item.num_impressions, item.num_clicks) for item in skipped] == [
        ("clicks", 2, 2),
        ("none", 0, 0),
    ]


def test_predictions_of_another_test_part_are_refused():
    part = make_part()
    short = Predictions(
        ubm="din", variant="base", encoder=None, seed=0, logits=np.zeros(3), probabilistic=True
    )
    with pytest.raises(DataError, match=r"predicts \(3,\) rows but the test part has 1,200 impressions"):
        score(part, [short])


def test_two_models_of_one_name_are_refused():
    part = make_part()
    with pytest.raises(DataError, match="two models are called"):
        score(part, [model(part, "base"), model(part, "base")])


def test_a_comparison_is_the_mean_of_the_differences_of_equal_seeds():
    part = make_part()
    models = [model(part, "base", seed, strength=0.5) for seed in (0, 1, 2)]
    models += [model(part, "mim", seed, encoder="csft") for seed in (1, 2, 3)]
    (found,) = find(compared(part, models), slice="all")
    gains = [
        roc_auc_score(part.clicks, models[3 + place].logits)
        - roc_auc_score(part.clicks, models[1 + place].logits)
        for place in (0, 1)
    ]
    assert found.seeds == [1, 2]
    assert found.difference == pytest.approx(np.mean(gains))
    assert found.sd == pytest.approx(np.std(gains, ddof=1))
    assert found.low < found.difference < found.high
    base = np.mean([roc_auc_score(part.clicks, models[seed].logits) for seed in (1, 2)])
    assert found.relative_improvement == pytest.approx(found.difference / (base - 0.5))


def test_pooled_is_the_mean_over_user_behavior_models():
    part = make_part()
    models = [
        model(part, variant, ubm=ubm, strength=strength, encoder=encoder)
        for ubm in ("din", "mean")
        for variant, strength, encoder in [("base", 0.5, None), ("mim", 1.0, "csft")]
    ]
    found = find(compared(part, models), slice="age:S1", minus_slice=None)
    by_ubm = {item.ubm: item.difference for item in found}
    assert by_ubm["pooled"] == pytest.approx((by_ubm["din"] + by_ubm["mean"]) / 2)


def test_the_contrast_of_two_slices_is_the_difference_of_their_gains():
    part = make_part()
    models = [model(part, "base", strength=0.2), model(part, "mim", encoder="csft")]
    found = compared(part, models)
    (contrast,) = find(found, slice="age:S1", minus_slice="age:S10")
    (newest,) = find(found, slice="age:S1", minus_slice=None)
    (oldest,) = find(found, slice="age:S10")
    assert contrast.difference == pytest.approx(newest.difference - oldest.difference)
    assert contrast.relative_improvement is None


def test_the_untrained_cosine_meets_every_model_whatever_its_own_seed():
    part = make_part()
    cosine = model(part, "untrained_cosine", 7, ubm="none", encoder="csft", probabilistic=False)
    models = [cosine, *(model(part, "mim", seed, encoder="csft") for seed in (0, 1))]
    (found,) = find(compared(part, models), slice="all", against="untrained_cosine")
    expected = np.mean([roc_auc_score(part.clicks, item.logits) for item in models[1:]])
    assert found.difference == pytest.approx(expected - roc_auc_score(part.clicks, cosine.logits))
    assert (found.ubm, found.seeds) == ("din", [0, 1])


def test_encoders_are_compared_within_one_variant():
    part = make_part()
    models = [
        model(part, "mim", encoder="plain", strength=0.5),
        model(part, "mim", encoder="csft", strength=1.5),
    ]
    (found,) = find(compared(part, models), slice="all")
    assert (found.encoder, found.against, found.against_encoder) == ("csft", "mim", "plain")
    assert found.difference > 0


def test_nothing_is_compared_without_a_common_seed():
    part = make_part()
    models = [model(part, "base", 0), model(part, "mim", 1, encoder="csft")]
    assert compared(part, models) == []
