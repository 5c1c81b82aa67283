"""The paper's tables from generated predictions: every number against scikit-learn, the paper's in their own place."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from mimctr.evaluate.cohorts import age_slices, category_slices, seen_slices, whole
from mimctr.evaluate.compare import BASE, MIM, MIM_PLUS, Contender, Measurements, compare
from mimctr.evaluate.contrasts import BY_SENSITIVITY
from mimctr.evaluate.encoder_results import EncoderResults, Estimate, Measure, RowResult
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.evaluate.paper import slices as paper_slices
from mimctr.evaluate.paper.calibration import calibration_table
from mimctr.evaluate.paper.encoder_findings import encoder_findings
from mimctr.evaluate.paper.encoders import Encoders, figure_5, figure_exchange, table_3, table_4, table_5
from mimctr.evaluate.paper.extensions import figure_pairs, table_extensions
from mimctr.evaluate.paper.lookup import NO_CONTENT, Lookup
from mimctr.evaluate.paper.slices import (
    figure_6,
    figure_6_findings,
    figure_support,
    figure_support_auc,
    table_7,
    table_7_findings,
)
from mimctr.evaluate.paper.ubms import table_2, table_2_by_category, ubm_findings
from mimctr.evaluate.results import DatasetFacts, Results
from mimctr.evaluate.scoring import Predictions, TestPart, score

NUM_ROWS, NUM_ITEMS, SEEDS = 3000, 200, (0, 1)
CATEGORIES = ("Clothes", "Home Decoration", "Sports", "Toys", "FMCG", "Pets", "Cars")
ROWS = {
    "plain": {3: "Plain FoM"},
    "dda": {3: "+DDA"},
    "dma": {3: "+DDA+DMA", 5: "w/o C-SFT"},
    "click_contrastive": {4: "v4: click, contrastive"},
    "mim": {3: "MIM", 4: "v5", 5: "MIM"},
    "pairs_50": {},
    "without_tfn": {5: "w/o TFN"},
}
KEPT_STEPS = {"click_contrastive": [0, 100], "mim": [200, 100], "without_tfn": [0, 0]}
STRENGTH = {row: 0.2 + 0.1 * place for place, row in enumerate(ROWS)}
NAMES = {"din": "DIN", "sim": "SIM", "pooled": "mean over UBMs"}


class Model(NamedTuple):
    ubm: str
    variant: str
    encoder: str | None
    strength: float


MODELS = [
    *(Model(ubm, BASE, None, 0.1) for ubm in ("din", "sim")),
    *(Model(ubm, MIM, MIM, STRENGTH[MIM]) for ubm in ("din", "sim")),
    *(Model("sim", MIM, row, STRENGTH[row]) for row in ROWS if row != MIM),
    *(Model("sim", f"{MIM}_without_{name}", MIM, 0.3) for name in ("id", "content", "fusion")),
    Model("sim", MIM_PLUS, MIM, 0.9),
    Model("sim", f"{MIM_PLUS}:SimTier", MIM, 0.8),
]


class Made(NamedTuple):
    part: TestPart
    logits: dict[tuple[str, str, str | None, int], np.ndarray]
    found: Lookup

    def auc(self, ubm, variant, encoder, name="all"):
        """Mean over seeds, by scikit-learn."""
        mask = self.part.slices[name]
        scores = [self.logits[ubm, variant, encoder, seed][mask] for seed in SEEDS]
        return np.mean([roc_auc_score(self.part.clicks[mask], one) for one in scores])


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    targets, taste = rng.integers(2, NUM_ITEMS + 2, NUM_ROWS), rng.normal(size=NUM_ROWS)
    probability = 1 / (1 + np.exp(1 - taste))
    clicks = rng.random(NUM_ROWS) < probability
    categories = [None, None, *(CATEGORIES[item % 7] for item in range(NUM_ITEMS))]
    slices = (
        whole(NUM_ROWS) | age_slices(targets, np.arange(NUM_ITEMS + 2)) | category_slices(targets, categories)
    )
    slices |= seen_slices(targets, np.where(np.arange(NUM_ITEMS + 2) > 150, 0, 5))
    part = TestPart(
        dataset="made-up",
        clicks=clicks,
        users=rng.integers(0, 80, NUM_ROWS),
        queries=np.zeros(NUM_ROWS, dtype=np.int64),
        true_probability=probability,
        slices=slices,
    )
    logits = {
        (model.ubm, model.variant, model.encoder, seed): (model.strength * taste + rng.normal(size=NUM_ROWS))
        for model, seed in itertools.product(MODELS, SEEDS)
    }
    # In the order of folders, which is not that of the tables: a later one may be the better or the worse.
    predictions = [
        Predictions(ubm=ubm, variant=variant, encoder=encoder, seed=seed, logits=values, probabilistic=True)
        for (ubm, variant, encoder, seed), values in sorted(logits.items(), key=str)
    ]
    results = Results(
        dataset=DatasetFacts(
            name="made-up",
            num_items=NUM_ITEMS,
            num_users=80,
            num_behaviors=0,
            num_queries=0,
            num_pairs=0,
            pair_rule="none",
            parts=[],
        ),
        rows=score(part, predictions),
        comparisons=compare(Measurements(part, predictions, num_resamples=30, seed=0)),
        skipped_slices=[],
        coverage=[],
        models=[],
        stages=[],
        curves=[],
        searches=[],
        pictures=[],
        settings={},
        versions=describe_versions(),
        machine=describe_machine(),
    )
    return Made(part, logits, Lookup(results))


def exact(value):
    return Estimate(mean=value, sd=None, low=None, high=None, p_value=None)


@pytest.fixture(scope="module")
def encoders(made):
    rows = [
        RowResult(name=name, labels=labels, not_run=None, chosen={}, kept_steps=KEPT_STEPS.get(name, []))
        for name, labels in ROWS.items()
    ]
    missing = RowResult(
        name="mim, EVA", labels={3: "MIM, EVA"}, not_run="no weights", chosen={}, kept_steps=[]
    )
    measures = [
        Measure(
            row=row,
            part=part,
            slice="all",
            metric="recall@10",
            num_pairs=9,
            by_seed=[value],
            value=exact(value),
            over_base=None,
            over_best=None,
        )
        for row in ROWS
        for part, value in (("test", STRENGTH[row] / 10), ("validation", 0.9))
    ]
    searched = EncoderResults(
        dataset="made-up", seeds=list(SEEDS), num_resamples=3, rows=[*rows, missing], measures=measures
    )
    return Encoders(made.found, searched, "sim")


def row_of(table, label):
    return next(row for row in table.rows if row.label == label)


def numbers(row):
    return [None if cell.ours is None else cell.ours.mean for cell in row.cells]


def printed(row):
    return [cell.paper for cell in row.cells]


def test_table_2_has_our_aucs_and_the_papers_beside_them(made):
    table = table_2(made.found, NAMES, MIM)
    for ubm in ("din", "sim"):
        base, mim = made.auc(ubm, BASE, None), made.auc(ubm, MIM, MIM)
        assert numbers(row_of(table, NAMES[ubm])) == pytest.approx([base, mim, mim - base])
    assert printed(row_of(table, "SIM")) == [0.7024, 0.7062, 0.0038]
    assert printed(row_of(table, "DIN")) == [0.7004, 0.7047, 0.0042]
    gains = [made.auc(ubm, MIM, MIM) - made.auc(ubm, BASE, None) for ubm in ("din", "sim")]
    assert numbers(row_of(table, "mean over UBMs"))[2] == pytest.approx(np.mean(gains))
    ceiling = roc_auc_score(made.part.clicks, made.part.true_probability)
    assert numbers(row_of(table, "Ceiling (true probabilities)"))[1] == pytest.approx(ceiling)


def test_the_papers_mean_gain_is_over_the_models_that_ours_is_over(made):
    """A run that was cut short: SIM has a Base only. Mutant: the paper's SIM counts beside our DIN and Avg Pooling."""
    results = made.found.results
    rows = [row for row in results.rows if (row.ubm, row.variant) != ("sim", MIM)]
    rows += [row.model_copy(update={"ubm": "mean"}) for row in rows if row.ubm == "din"]
    comparisons = [
        one.model_copy(update={"ubm": "mean"}) if one.ubm == "sim" else one for one in results.comparisons
    ]
    cut = Lookup(results.model_copy(update={"rows": rows, "comparisons": comparisons}))
    row = row_of(table_2(cut, NAMES, MIM), "mean over UBMs")
    assert row.cells[2].paper == pytest.approx((0.0042 + 0.0066) / 2)


def test_gains_by_category_are_those_of_the_slice(made):
    table = table_2_by_category(made.found, NAMES, MIM)
    sizes = [made.part.slices[f"category:{row.label}"].sum() for row in table.rows]
    assert sizes == sorted(sizes, reverse=True)
    for row in table.rows:
        name = f"category:{row.label}"
        expected = [made.auc(ubm, MIM, MIM, name) - made.auc(ubm, BASE, None, name) for ubm in ("din", "sim")]
        assert numbers(row)[1:] == pytest.approx(expected)
    seven = table_7(made.found, MIM)
    for row in table.rows:
        assert numbers(row_of(seven, row.label))[0] == pytest.approx(np.mean(numbers(row)[1:]))
    assert printed(row_of(seven, "Clothes")) == [0.0037]


def test_figure_6_has_the_gain_of_each_age_set(made):
    points = figure_6(made.found, MIM).series[0].points
    assert [point.x for point in points] == [f"S{number}" for number in range(1, 11)]
    for point in points:
        name = f"age:{point.x}"
        gains = [made.auc(ubm, MIM, MIM, name) - made.auc(ubm, BASE, None, name) for ubm in ("din", "sim")]
        assert point.y == pytest.approx(np.mean(gains))
        assert point.low < point.y < point.high


def test_tables_3_and_4_count_from_base(made, encoders):
    for write, number in ((table_3, 3), (table_4, 4)):
        table, base = write(encoders), made.auc("sim", BASE, None)
        assert numbers(table.rows[0]) == pytest.approx([base, None, None])
        assert printed(table.rows[0]) == [0.7024, None, None]
        for name, labels in ROWS.items():
            if number in labels:
                auc = made.auc("sim", MIM, name)
                expected = [auc, auc - base, STRENGTH[name] / 10]
                assert numbers(row_of(table, labels[number])) == pytest.approx(expected)
    assert printed(row_of(table_3(encoders), "+DDA"))[:2] == pytest.approx([0.7034, 0.0010])
    assert printed(row_of(table_4(encoders), "v4: click, contrastive"))[:2] == [None, None]
    assert row_of(table_3(encoders), "MIM, EVA").not_run == "no weights"
    (sentence,) = table_4(encoders).reading
    assert sentence.endswith(
        "never got better. So it was with v4: click, contrastive (1 of 2 seeds). "
        "These rows say partly what DDA and DMA are worth, not their signal."
    )


def test_a_row_of_table_4_is_its_start_only_where_every_seed_kept_it(encoders):
    """Mutant: one seed that kept its start speaks for all."""
    rows = [
        row.model_copy(update={"kept_steps": [0, 0]}) if row.name == MIM else row
        for row in encoders.searched.rows
    ]
    changed = encoders._replace(searched=encoders.searched.model_copy(update={"rows": rows}))
    (sentence,) = table_4(changed).reading
    assert sentence.partition("better. ")[2] == (
        "So it was with v5 (2 of 2 seeds). These rows say what DDA and DMA are worth, not their signal. "
        "So it was with v4: click, contrastive (1 of 2 seeds). "
        "These rows say partly what DDA and DMA are worth, not their signal."
    )
    never = [row.model_copy(update={"kept_steps": [100, 0]}) for row in rows if 4 not in row.labels]
    none = encoders._replace(searched=encoders.searched.model_copy(update={"rows": never}))
    assert table_4(none).reading == []


def test_table_5_counts_what_leaving_out_costs(made, encoders):
    """Mutant: the cost has the wrong sign."""
    table, whole = table_5(encoders), made.auc("sim", MIM, MIM)
    assert table.rows[0].label == "MIM"
    for label, variant, encoder in (
        ("w/o C-SFT", MIM, "dma"),
        ("w/o TFN", MIM, "without_tfn"),
        ("w/o ID interest", "mim_without_id", MIM),
        ("w/o content interest", "mim_without_content", MIM),
        ("w/o fusion interest", "mim_without_fusion", MIM),
    ):
        auc = made.auc("sim", variant, encoder)
        assert numbers(row_of(table, label))[:2] == pytest.approx([auc, whole - auc])
    assert printed(row_of(table, "w/o TFN"))[:2] == pytest.approx([0.7058, 0.0004])
    assert printed(row_of(table, "w/o fusion interest"))[:2] == pytest.approx([0.7054, 0.0008])


def test_a_difference_is_the_same_whichever_way_it_was_compared(made):
    """Mutant: the ends of a turned interval stay in their places."""
    pairs = itertools.permutations([Contender(MIM, row) for row in ROWS] + [NO_CONTENT], 2)
    for one, other in pairs:
        there, back = (made.found.difference("sim", *pair) for pair in ((one, other), (other, one)))
        expected = made.auc("sim", *one) - made.auc("sim", *other)
        assert there.mean == pytest.approx(expected)
        assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
        assert there.low < there.mean < there.high


def test_findings_name_the_better_and_the_worse(made, encoders):
    findings = {one.key: one for one in encoder_findings(encoders)}
    aucs = {row: made.auc("sim", MIM, row) for row in ROWS}
    assert findings["dma_adds"].difference.mean == pytest.approx(aucs["dma"] - aucs["dda"])
    assert findings["csft_adds"].difference.mean == pytest.approx(aucs["mim"] - aucs["dma"])
    assert findings["ablation:tfn"].difference.mean == pytest.approx(aucs["mim"] - aucs["without_tfn"])
    assert findings["ablation:tfn"].verdict != "held"  # the row without TFN is the strongest here
    assert findings["purchase_beats_click:contrastive"].paper == "so it says, without readable numbers"
    note = "Kept its start, as C-SFT never searched better: click contrastive (1 of 2 seeds)."
    assert findings["purchase_beats_click:contrastive"].note == note
    assert (findings["csft_adds"].note, findings["dma_adds"].note) == ("", "")
    assert findings["click_beats_category"].verdict == "not run"
    gains = {one.key: one for one in ubm_findings(made.found, NAMES, MIM)}
    assert gains["ubm_gains:sim"].verdict == "held"
    assert gains["ubm_gains:twin"].verdict == "not run"


def test_what_was_compared_for_one_model_alone_is_that_models(made):
    """A run that was cut short: DIN has a Base only. Mutant: their mean, of which there is none."""
    results = made.found.results
    cut = results.model_copy(
        update={
            "rows": [row for row in results.rows if (row.ubm, row.variant) != ("din", MIM)],
            "comparisons": [one for one in results.comparisons if one.ubm == "sim"],
        }
    )
    points = figure_6(Lookup(cut), MIM).series[0].points
    assert len(points) == 10
    for point in points:
        name = f"age:{point.x}"
        assert point.y == pytest.approx(made.auc("sim", MIM, MIM, name) - made.auc("sim", BASE, None, name))
    assert figure_6_findings(Lookup(cut), MIM)[0].difference is not None
    assert table_7(Lookup(cut), MIM).rows[0].cells[0].ours is not None


def test_gains_by_support_are_those_of_the_slice(made):
    figure = figure_support(made.found, MIM)
    [point] = figure.series[0].points
    gains = [
        made.auc(ubm, MIM, MIM, "item:unseen") - made.auc(ubm, BASE, None, "item:unseen")
        for ubm in ("din", "sim")
    ]
    assert (point.x, point.y) == ("0", pytest.approx(np.mean(gains)))
    assert point.low < point.y < point.high
    assert f"{made.part.slices['item:unseen'].sum():,} on 0" in figure.note
    lines = {series.name: series.points[0].y for series in figure_support_auc(made.found, MIM).series}
    mask = made.part.slices["item:unseen"]
    for label, variant, encoder in (("Base", BASE, None), ("Base+MIM", MIM, MIM)):
        aucs = [made.auc(ubm, variant, encoder, "item:unseen") for ubm in ("din", "sim")]
        assert lines[label] == pytest.approx(np.mean(aucs))
    ceiling = roc_auc_score(made.part.clicks[mask], made.part.true_probability[mask])
    assert lines["ceiling"] == pytest.approx(ceiling)


@pytest.mark.parametrize(
    ("new", "known", "told"),
    [
        ((0.02, 0.01, 0.03), (-0.02, -0.03, -0.01), "+0.0200 AUC on {}, and −0.0200 on {}."),
        (
            (0.02, -0.01, 0.05),
            (0.01, -0.01, 0.03),
            "+0.0200 AUC (not told from 0) on {}, and +0.0100 (not told from 0) on {}.",
        ),
        ((0.02, None, None), (0.01, 0.005, 0.015), "+0.0200 AUC (not told from 0) on {}, and +0.0100 on {}."),
    ],
)
def test_a_gain_by_support_is_told_from_0_where_its_interval_lies_on_one_side(made, new, known, told):
    """Mutants: a certain loss is one that is not told from 0; the unseen items' interval is not looked at."""
    gain = next(one for one in made.found.results.comparisons if one.slice == "item:unseen")
    row = next(one for one in made.found.results.rows if one.slice == "item:unseen")
    pair = {"ubm": "sim", "variant": MIM, "encoder": MIM, "against": BASE, "against_encoder": None}
    comparisons = [
        gain.model_copy(update=pair | {"slice": name, "difference": mean, "low": low, "high": high})
        for name, (mean, low, high) in (("item:unseen", new), ("support:10-99", known), ("all", known))
    ]
    rows = [row.model_copy(update={"slice": name, "ubm": "sim"}) for name in ("item:unseen", "support:10-99")]
    found = Lookup(made.found.results.model_copy(update={"comparisons": comparisons, "rows": rows}))
    on = ("items that training has never shown, as target or behavior", "those that it has shown 10-99 times")
    assert figure_support(found, MIM).reading == [f"Content adds {told.format(*on)}"]


def test_there_is_no_way_to_a_ceiling_below_base(made):
    """Mutants: a share of a way that leads down, or of none; the share is said of the largest gain."""

    def read(ceiling):
        changed = [row.model_copy(update={"ceiling_auc": ceiling}) for row in made.found.results.rows]
        return table_2(Lookup(made.found.results.model_copy(update={"rows": changed})), NAMES, MIM).reading

    bases = [made.auc(ubm, BASE, None) for ubm in ("din", "sim")]
    gains = [made.auc(ubm, MIM, MIM) - base for ubm, base in zip(("din", "sim"), bases, strict=True)]
    base, gain = np.mean(bases), np.mean(gains)
    told = f"Their mean, +{gain:.4f}, is 50 % of the way from Base to the ceiling, what a perfect model would reach."
    assert read(base + 2 * gain)[1] == told
    assert len(read(base - 0.01)) == 1


def test_the_papers_numbers_stand_only_beside_the_papers_categories(made):
    """Mutant: Table 7's means beside a shop's own groups."""
    [papers] = table_7_findings(made.found, MIM)
    assert (papers.paper, papers.ours) == ("+0.0036 against +0.0027", False)
    comparisons = [
        one.model_copy(update={"slice": "category:Books", "minus_slice": "category:Tools"})
        if one.slice == BY_SENSITIVITY.name
        else one
        for one in made.found.results.comparisons
    ]
    own = made.found.results.model_copy(update={"comparisons": comparisons})
    [ours] = table_7_findings(Lookup(own), MIM)
    assert (ours.claim, ours.paper, ours.ours) == ("Books gain more than Tools", "", True)
    assert ours.difference == papers.difference


def test_a_place_with_few_impressions_is_named_and_not_drawn(made, monkeypatch):
    monkeypatch.setattr(paper_slices, "FEWEST_IMPRESSIONS", 10**6)
    for figure in (figure_support(made.found, MIM), figure_support_auc(made.found, MIM)):
        assert all(not series.points for series in figure.series)
        assert f"Left out as too few: {made.part.slices['item:unseen'].sum():,} on 0." in figure.note


def test_log_loss_and_calibration_are_those_of_scikit_learn_and_of_counting(made):
    rows = {(row.group, row.label): row.cells for row in calibration_table(made.found, NAMES, MIM).rows}
    lower = 0
    for ubm in ("din", "sim"):
        for label, variant, encoder in (("Base", BASE, None), ("Base+MIM", MIM, MIM)):
            said = [1 / (1 + np.exp(-made.logits[ubm, variant, encoder, seed])) for seed in SEEDS]
            losses = [sklearn_log_loss(made.part.clicks, one) for one in said]
            loss, pcoc, _ = (cell.ours.mean for cell in rows[NAMES[ubm], label])
            assert loss == pytest.approx(np.mean(losses))
            assert pcoc == pytest.approx(np.mean([one.sum() / made.part.clicks.sum() for one in said]))
        lower += rows[NAMES[ubm], "Base+MIM"][0].ours.mean < rows[NAMES[ubm], "Base"][0].ours.mean
    reading = calibration_table(made.found, NAMES, MIM).reading
    assert reading[0] == f"Content lowers the log loss of {lower} of 2 user behavior models."


def test_every_table_and_figure_is_read_in_words(made, encoders):
    read = [
        table_2(made.found, NAMES, MIM),
        table_2_by_category(made.found, NAMES, MIM),
        table_3(encoders),
        table_4(encoders),
        table_5(encoders),
        table_7(made.found, MIM),
        table_extensions(made.found, "sim", ["SimTier"]),
        figure_6(made.found, MIM),
        figure_pairs(encoders, [(0.0, "dma"), (0.5, "pairs_50"), (1.0, MIM)]),
        figure_5(encoders, [("ours", MIM), ("EVA", "mim, EVA")]),
    ]
    assert [one.key for one in read if not one.reading] == []
    table = table_5(encoders)
    lost = {row.label.removeprefix("w/o "): row.cells[1].ours for row in table.rows if row.cells[1].ours}
    told = " ".join(table.reading)
    assert all(name in told for name in lost)
    worst = min(lost, key=lambda name: lost[name].mean)
    assert f"better: {worst}" in told  # the row without TFN is the strongest here
    by_category = table_2_by_category(made.found, NAMES, MIM)
    gains = [cell.ours for row in by_category.rows for cell in row.cells if cell.ours]
    up, sure = sum(one.mean > 0 for one in gains), sum(one.low > 0 for one in gains)
    assert f"in {up} of the {len(gains)} pairs" in by_category.reading[0]
    assert f"in {sure} of them beyond doubt" in by_category.reading[0]


def test_newest_minus_oldest_and_sensitive_minus_others(made):
    def gain(name):
        return np.mean(
            [made.auc(ubm, MIM, MIM, name) - made.auc(ubm, BASE, None, name) for ubm in ("din", "sim")]
        )

    of_both = [*figure_6_findings(made.found, MIM), *table_7_findings(made.found, MIM)]
    findings = {one.key: one.difference.mean for one in of_both}
    assert findings["newest_gain_most"] == pytest.approx(gain("age:S1") - gain("age:S10"))
    assert findings["unseen_gain_more"] == pytest.approx(gain("item:unseen") - gain("item:seen"))
    sensitive = np.mean([gain(f"category:{name}") for name in ("Clothes", "Home Decoration", "Toys")])
    others = np.mean([gain(f"category:{name}") for name in ("Sports", "Pets", "Cars")])
    assert findings["sensitive_categories_gain_most"] == pytest.approx(sensitive - others)


def test_extensions_are_compared_with_base_and_with_mim(made):
    table = table_extensions(made.found, "sim", ["SimTier"])
    base, mim = made.auc("sim", BASE, None), made.auc("sim", MIM, MIM)
    for label, variant in (("+ SimTier", "mim_plus:SimTier"), ("MIM+ (the recipe's)", "mim_plus")):
        auc = made.auc("sim", variant, MIM)
        assert numbers(row_of(table, label)) == pytest.approx([auc, auc - base, auc - mim])


def test_figures_of_encoders(made, encoders):
    base = made.auc("sim", BASE, None)
    pairs = figure_pairs(encoders, [(0.0, "dma"), (0.5, "never made"), (1.0, MIM)])
    expected = [(0.0, made.auc("sim", MIM, "dma") - base), (1.0, made.auc("sim", MIM, MIM) - base)]
    assert [(point.x, point.y) for point in pairs.series[0].points] == [
        pytest.approx(one) for one in expected
    ]
    five = figure_5(encoders, [("ours", MIM), ("EVA", "mim, EVA")])
    assert [(point.x, point.y) for point in five.series[0].points] == [
        ("ours", pytest.approx(made.auc("sim", MIM, MIM)))
    ]
    assert "Not run: EVA (no weights)." in five.note
    exchange = figure_exchange(encoders, {"pairs_50": "half of the pairs"})
    points = exchange.series[0].points
    names = {next(iter(labels.values()), "half of the pairs") for labels in ROWS.values()}
    assert {point.label for point in points} == names
    slope = np.polyfit([point.x for point in points], [point.y for point in points], 1)[0]
    assert f"{slope / 100:+.4f} AUC" in exchange.reading[0]


def test_a_narrow_range_of_recalls_is_told_by_tenths(made, encoders):
    """Fashion's recalls lie within .2 percentage points. Mutant: a slope far beyond what was seen."""
    measures = [
        one.model_copy(update={"value": exact(one.value.mean / 100)}) for one in encoders.searched.measures
    ]
    narrow = encoders._replace(searched=encoders.searched.model_copy(update={"measures": measures}))
    wide_words, narrow_words = (
        figure_exchange(one, {"pairs_50": "half of the pairs"}).reading[0] for one in (encoders, narrow)
    )
    points = figure_exchange(encoders, {"pairs_50": "half of the pairs"}).series[0].points
    slope = np.polyfit([point.x for point in points], [point.y for point in points], 1)[0]
    assert wide_words.startswith(f"One percentage point more recall@10 goes with {slope / 100:+.4f}")
    assert narrow_words.startswith(
        f"A tenth of a percentage point more recall@10 goes with {slope / 10:+.4f}"
    )
