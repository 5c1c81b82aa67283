"""Rows and comparisons of results.json against metrics computed one by one with scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mimctr.errors import DataError
from mimctr.evaluate.compare import Measurements, compare, measure_content_use
from mimctr.evaluate.contrasts import between_categories
from mimctr.evaluate.delong import delong
from mimctr.evaluate.placements import placements
from mimctr.evaluate.scoring import (
    Predictions,
    TestPart,
    measure_reliability,
    refuse_unusable,
    score,
    split_off_one_class,
)

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


def test_gauc_runs_over_queries_too_and_leaves_out_what_has_none():
    part = make_part()
    (newest,) = (row for row in score(part, [model(part, "base")]) if row.slice == "age:S1")
    logits, found, sizes = model(part, "base").logits, [], []
    queries = part.queries[:400]
    for query in set(queries.tolist()) - {0}:
        own = np.flatnonzero(queries == query)
        if 0 < part.clicks[own].sum() < len(own):
            found.append(roc_auc_score(part.clicks[own], logits[own]))
            sizes.append(len(own))
    assert newest.query_gauc == pytest.approx(np.average(found, weights=sizes))
    assert newest.query_gauc_unweighted == pytest.approx(np.mean(found))
    assert (newest.num_queries, newest.num_gauc_queries) == (len(set(queries.tolist())) - 1, len(found))
    assert newest.gauc != pytest.approx(newest.query_gauc, abs=1e-4)


def test_without_queries_there_is_no_gauc_over_them():
    part = make_part(queries=np.zeros(NUM_ROWS, dtype=np.int64))
    row = score(part, [model(part, "base")])[0]
    assert (row.query_gauc, row.query_gauc_unweighted) == (None, None)
    assert (row.num_queries, row.num_gauc_queries) == (0, 0)


def test_reliability_is_measured_where_scores_are_probabilities():
    part = make_part()
    models = [model(part, "base"), model(part, "untrained_cosine", encoder="csft", probabilistic=False)]
    (found,) = measure_reliability(models, part.clicks)
    assert (found.ubm, found.variant, found.seed) == ("din", "base", 0)
    assert found.num_impressions == [NUM_ROWS // 20] * 20
    lowest = np.argsort(models[0].logits)[: NUM_ROWS // 20]
    assert found.predicted[0] == pytest.approx((1 / (1 + np.exp(-models[0].logits[lowest]))).mean())
    assert found.observed[0] == pytest.approx(part.clicks[lowest].mean())


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
        refuse_unusable(part, [short])


def test_two_models_of_one_name_are_refused():
    part = make_part()
    with pytest.raises(DataError, match="two models are called"):
        refuse_unusable(part, [model(part, "base"), model(part, "base")])


@pytest.mark.parametrize("field", ["logits", "shuffled_logits"])
def test_a_model_that_diverged_is_named(field):
    part = make_part()
    one = model(part, "mim", 3, encoder="csft")
    values = one.logits.copy()
    values[[7, 300]] = np.nan
    with pytest.raises(
        DataError, match=r"\('din', 'mim', 'csft', 3\) predicts NaN for 2 of 1,200 impressions"
    ):
        refuse_unusable(part, [model(part, "base"), replace(one, **{field: values})])


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


GROUPS = between_categories(("A", "B"), ("C",))


def by_category(part, models, groups=GROUPS):
    measured = Measurements(part, models, num_resamples=20, seed=0)
    return find(compare(measured, by_category=groups), slice="category:A, B", minus_slice="category:C")


def test_the_contrast_of_two_groups_is_the_difference_of_their_mean_gains():
    places = np.arange(NUM_ROWS) % 4
    slices = {f"category:{name}": places == place for place, name in enumerate("ABC")}
    part = make_part(slices={"all": np.ones(NUM_ROWS, dtype=bool), **slices})
    models = [
        model(part, variant, seed, encoder=encoder, strength=strength)
        for seed in (0, 1)
        for variant, strength, encoder in [("base", 0.2, None), ("mim", 1.0, "csft")]
    ]
    (contrast,) = by_category(part, models)
    gain = {item.slice[-1]: item for item in compared(part, models) if item.slice.startswith("category:")}
    expected = (gain["A"].difference + gain["B"].difference) / 2 - gain["C"].difference
    assert contrast.difference == pytest.approx(expected)
    assert contrast.relative_improvement is None
    errors = [gain[name].delong_standard_error * share for name, share in (("A", 0.5), ("B", 0.5), ("C", 1))]
    assert contrast.delong_standard_error == pytest.approx(np.sqrt(np.square(errors).sum()))
    assert by_category(part, models, between_categories(("A", "B"), ("elsewhere",))) == []


def test_what_two_groups_share_drops_out_of_their_contrast():
    """The same users, clicks and scores in every category: the gains vary over users and seeds, their contrast not.

    Mutant: groups are resampled each for itself, as if they were independent.
    """
    half = make_part()
    slices = {
        f"category:{name}": np.arange(3 * NUM_ROWS) // NUM_ROWS == place for place, name in enumerate("ABC")
    }
    part = make_part(
        clicks=np.tile(half.clicks, 3),
        users=np.tile(half.users, 3),
        queries=np.tile(half.queries, 3),
        true_probability=np.tile(half.true_probability, 3),
        slices=slices,
    )
    models = [
        replace(one, logits=np.tile(one.logits, 3))
        for seed in (0, 1)
        for one in (model(half, "base", seed, strength=0.2), model(half, "mim", seed, encoder="csft"))
    ]
    (contrast,) = by_category(part, models)
    assert contrast.difference == pytest.approx(0)
    assert contrast.standard_error == pytest.approx(0)
    (alone,) = find(compared(part, models), slice="category:A", minus_slice=None)
    assert alone.standard_error > 0.005


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


def test_delong_stands_beside_the_bootstrap_for_the_same_difference():
    part = make_part()
    models = [
        model(part, variant, seed, ubm=ubm, strength=strength, encoder=encoder)
        for ubm in ("din", "mean")
        for seed in (0, 1)
        for variant, strength, encoder in [("base", 0.5, None), ("mim", 1.0, "csft")]
    ]
    found = {(item.ubm, item.slice, item.minus_slice): item for item in compared(part, models)}

    def expected(ubms, name):
        mask = part.slices[name]
        said = {
            (item.ubm, item.variant, item.seed): placements(part.clicks[mask], item.logits[mask])
            for item in models
        }
        return delong([(said[ubm, "mim", seed], said[ubm, "base", seed]) for ubm in ubms for seed in (0, 1)])

    for name, ubms in [("din", ["din"]), ("pooled", ["din", "mean"])]:
        newest, oldest = (expected(ubms, name) for name in ("age:S1", "age:S10"))
        alone, contrast = found[name, "age:S1", None], found[name, "age:S1", "age:S10"]
        assert alone.difference == pytest.approx(newest.difference)
        assert alone.delong_standard_error == pytest.approx(newest.standard_error)
        assert alone.delong_p_value == pytest.approx(newest.p_value)
        both = np.hypot(newest.standard_error, oldest.standard_error)
        assert contrast.delong_standard_error == pytest.approx(both)


def test_content_is_used_as_much_as_shuffled_vectors_cost():
    part = make_part()
    models = [model(part, "base"), *(model(part, "mim", seed, encoder="csft") for seed in (0, 1))]
    shuffled = {item.seed: model(part, "mim", 10 + item.seed, strength=0.3).logits for item in models[1:]}
    models[1:] = [replace(item, shuffled_logits=shuffled[item.seed]) for item in models[1:]]
    (found,) = measure_content_use(Measurements(part, models, num_resamples=50, seed=0))
    drops = [
        roc_auc_score(part.clicks, item.logits) - roc_auc_score(part.clicks, item.shuffled_logits)
        for item in models[1:]
    ]
    assert (found.ubm, found.variant, found.encoder, found.seeds) == ("din", "mim", "csft", [0, 1])
    assert found.drop == pytest.approx(np.mean(drops))
    assert found.drop == pytest.approx(found.auc - found.shuffled_auc)
    assert found.sd == pytest.approx(np.std(drops, ddof=1))
    assert found.low < found.drop < found.high


def test_a_model_that_does_not_look_at_its_vectors_loses_exactly_nothing():
    part = make_part()
    blind = model(part, "mim", encoder="csft")
    blind = replace(blind, shuffled_logits=blind.logits)
    (found,) = measure_content_use(Measurements(part, [blind], num_resamples=20, seed=0))
    assert (found.drop, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
