"""Means are over the models that Base and Base+MIM both have, in headline, tables and plots alike."""

from statistics import fmean

import pytest
from fake_run import make_results

from mimctr.evaluate.compare import Contender
from mimctr.report.headline import headline, remarks
from mimctr.report.plots import auc_by_age, auc_by_category
from mimctr.report.summary import Summary, shared_models

BASE, MIM = Contender("base", None), Contender("mim", "csft")


def models(base, mim):
    return [(*key[:1], BASE, *key[1:]) for key in base] + [(*key[:1], MIM, *key[1:]) for key in mim]


@pytest.mark.parametrize(
    ("base", "mim", "expected"),
    [
        ([("sim", 0), ("din", 0)], [("sim", 0), ("din", 0)], [("din", 0), ("sim", 0)]),
        ([("sim", 0), ("din", 0)], [("sim", 0)], [("sim", 0)]),
        ([("sim", 0), ("sim", 1), ("sim", 2)], [("sim", 2), ("sim", 1)], [("sim", 1), ("sim", 2)]),
        (
            [("din", 0), ("sim", 0), ("sim", 1)],
            [("din", 0), ("sim", 0), ("sim", 1)],
            [("din", 0), ("sim", 0)],
        ),
        ([("sim", 0), ("din", 1)], [("sim", 0), ("din", 1)], [("din", 1)]),
        ([("sim", 0)], [("din", 0)], []),
        ([("sim", 0)], [("sim", 1)], []),
    ],
)
def test_shared_are_the_ubms_and_seeds_that_all_contenders_have(base, mim, expected):
    assert shared_models(models(base, mim), [BASE, MIM]) == expected


def test_content_reads_the_vectors_of_c_sft_where_there_are_any():
    plain, ablation = Contender("mim", "plain"), Contender("mim_without_id", "csft")
    results = make_results()

    def content(*contenders):
        rows = [results.rows[0].model_copy(update=one._asdict()) for one in contenders]
        return Summary(results.model_copy(update={"rows": rows})).content

    assert content(BASE, plain, ablation, MIM) == MIM
    assert content(BASE, plain, ablation) == plain
    assert content(BASE, ablation) == ablation
    assert content(BASE) is None


def level(results, variant, name, ubms, seeds=(0, 1), encoder="csft"):
    return fmean(
        row.auc
        for row in results.rows
        if (row.variant, row.slice) == (variant, name)
        and row.ubm in ubms
        and row.seed in seeds
        and row.encoder in (None, encoder)
    )


@pytest.mark.parametrize(
    ("without", "ubms", "seeds", "where"),
    [
        ([("mean", "mim", 0), ("mean", "mim", 1)], ("din", "sim"), (0, 1), "on average over DIN and SIM by"),
        (
            [("din", "base", 0), ("mean", "mim", 1)],
            ("mean", "sim"),
            (0,),
            "on average over Avg Pooling and SIM by",
        ),
        (
            [("sim", "mim", 0), ("sim", "mim", 1), ("mean", "base", 0), ("mean", "base", 1)],
            ("din",),
            (0, 1),
            "over DIN by",
        ),
    ],
)
def test_levels_and_gain_are_of_the_same_models(without, ubms, seeds, where):
    if len(seeds) == 1:
        without = [*without, ("din", "base", 1)]
    results = make_results(variants=("base", "mim"), without=tuple(without), full=False)
    summary = Summary(results)
    assert where in headline(summary)
    for line in summary.all_slices():
        assert line.base == pytest.approx(level(results, "base", line.name, ubms, seeds))
        assert line.content == pytest.approx(level(results, "mim", line.name, ubms, seeds))
        assert line.content - line.base == pytest.approx(line.gain.difference)
    base = level(results, "base", "all", ubms, seeds)
    assert any(f"the distance from Base ({base:.4f}) to it" in text for text in remarks(summary))
    named = {"mean": "Avg Pooling", "din": "DIN", "sim": "SIM"}
    caption = auc_by_age(summary).caption
    assert caption == auc_by_category(summary).caption
    assert [name for name in named.values() if name in caption] == [named[ubm] for ubm in ubms]


def test_base_has_no_level_beside_models_that_it_shares_no_seed_with():
    results = make_results(
        ubms=("sim",), variants=("base", "mim"), without=(("sim", "base", 0), ("sim", "mim", 1)), full=False
    )
    summary = Summary(results)
    assert {line.base for line in summary.all_slices()} == {None}
    assert summary.all_slices()[0].content == pytest.approx(level(results, "mim", "all", ("sim",)))
    assert "there is no gain to show" in headline(summary)
    assert "Base<" not in auc_by_age(summary).svg


def test_with_several_encoders_everything_is_about_one_and_says_which():
    results = make_results(
        ubms=("sim",), variants=("base", "mim", "mim_permuted"), encoders=("plain", "csft"), full=False
    )
    summary = Summary(results)
    assert headline(summary).startswith("Content interest (csft vectors) raised")
    for line in summary.all_slices():
        assert line.content == pytest.approx(level(results, "mim", line.name, ("sim",)))
    for plot in (auc_by_age(summary), auc_by_category(summary)):
        assert "Base+MIM (csft vectors)" in plot.svg
        assert "plain" not in plot.svg
    (control,) = (
        item
        for item in results.comparisons
        if (item.variant, item.encoder, item.against, item.slice, item.minus_slice)
        == ("mim_permuted", "csft", "base", "all", None)
    )
    (told,) = (text for text in remarks(summary) if "Leak control" in text or "Caution" in text)
    assert f"{control.difference:+.4f}".replace("-", "\N{MINUS SIGN}") in told
