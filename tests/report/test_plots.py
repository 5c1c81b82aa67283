"""Plots draw names as they are, tell every line apart, and are seen on light and dark panels (WCAG 1.4.11)."""

import re
from pathlib import Path

import pytest
from fake_run import make_results
from made_up import make_reproduction

import mimctr.report
from mimctr.evaluate.compare import Contender
from mimctr.report.curves import ctr_curves, encoder_curves
from mimctr.report.plots import (
    COLORS,
    UBM_STYLES,
    auc_by_age,
    auc_by_category,
    contender_looks,
    gain_by_age,
    gain_by_category,
)
from mimctr.report.reliability import reliability_plots
from mimctr.report.reproduction_plots import plot as plot_figure
from mimctr.report.summary import Summary

DOLLARS = "from $5 to $10"
STYLE = (Path(mimctr.report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def two_encoders():
    return make_results(ubms=("sim",), variants=("base", "mim"), encoders=("plain", "csft"))


@pytest.mark.parametrize("draw", [gain_by_category, auc_by_category])
def test_a_category_with_dollars_stands_as_it_is(results, draw):
    assert f">{DOLLARS}</text>" in draw(Summary(results)).svg


def test_folders_and_encoders_with_dollars_stand_as_they_are(results):
    curves = [
        curve.model_copy(update={"folder": f"{DOLLARS}/run/a"}) if curve.folder == "csft" else curve
        for curve in results.curves
    ]
    plots = encoder_curves(Summary(results.model_copy(update={"curves": curves})))
    assert f">{DOLLARS}, a: loss</text>" in "".join(plot.svg for plot in plots)
    named = make_results(ubms=("sim",), variants=("base", "mim"), encoders=("csft", DOLLARS))
    for plots in (reliability_plots(Summary(named)), ctr_curves(Summary(named))):
        assert all(f">Base+MIM ({DOLLARS} vectors)</text>" in plot.svg for plot in plots)
    reliability = [item.model_copy(update={"ubm": DOLLARS}) for item in named.reliability]
    rows = [row.model_copy(update={"ubm": DOLLARS}) for row in named.rows]
    changed = named.model_copy(update={"reliability": reliability, "rows": rows})
    assert f">{DOLLARS}</text>" in reliability_plots(Summary(changed))[0].svg


def strokes(svg):
    """Return color and dashes of the lines of a plot, without axes, grid and text."""
    found = re.findall(r'style="fill: none; ([^"]*stroke: #[^"]*)"', svg)
    return {
        (re.search(r"stroke: (#\w+)", style)[1], re.sub(r".*(stroke-dasharray: [^;]*).*|.*", r"\1", style))
        for style in found
    }


def test_curves_and_reliability_tell_encoders_apart(two_encoders):
    """Mutant: the color of the variant for every encoder of it."""
    summary = Summary(two_encoders)
    for plots in (ctr_curves(summary), reliability_plots(summary)):
        assert plots
        for plot in plots:
            assert len(strokes(plot.svg)) == 3
            for label in ("Base", "Base+MIM (csft vectors)", "Base+MIM (plain vectors)"):
                assert plot.svg.count(f">{label}</text>") == 1


def test_no_two_contenders_look_alike_and_the_main_one_looks_the_same_everywhere():
    variants = [
        "base",
        "mim",
        "mim_plus",
        *(f"mim_plus_without_{name}" for name in ("id", "content", "fusion")),
    ]
    rows = [
        row.model_copy(update={"variant": variant, "encoder": encoder})
        for row in make_results(ubms=("sim",), variants=("base",), seeds=(0,), full=False).rows
        if row.slice == "all"
        for variant in variants
        for encoder in ("plain", "csft")
    ]
    results = make_results(ubms=("sim",), variants=("base",), full=False).model_copy(update={"rows": rows})
    looks = contender_looks(Summary(results))
    assert len(looks) == len(set(looks.values())) == 12
    assert looks[Contender("mim", "csft")] == (COLORS["mim"], "-")


def channels(color):
    return [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def luminance(rgb):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(color, panel, opacity=1.0):
    """Return the contrast of WCAG 2 between a color, as it lies on a panel, and the panel."""
    behind = channels(panel)
    shown = [opacity * c + (1 - opacity) * b for c, b in zip(channels(color), behind, strict=True)]
    low, high = sorted([luminance(shown), luminance(behind)])
    return (high + 0.05) / (low + 0.05)


def panels():
    """Return what plots stand on, light and dark, and in print."""
    light, dark = re.search(r"--panel: light-dark\((#\w+), (#\w+)\)", STYLE).groups()
    return {light, dark, "#ffffff"}


def marks(svg):
    """Yield per mark of a series its color and opacity, of its outline and of its fill where it has them."""
    for style in set(re.findall(r'style="([^"]*)"', svg)):
        given = dict(part.split(": ", 1) for part in style.split("; ") if ": " in part)
        found = [
            (given[kind], float(given.get(f"{kind}-opacity", given.get("opacity", 1))))
            for kind in ("stroke", "fill")
            if given.get(kind, "none").startswith("#")
        ]
        if found:
            yield found


def test_the_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert contrast("#000000", "#ffffff", 0.0) == 1


def test_every_series_is_seen_on_every_panel(results, two_encoders):
    """Mutant: lines or bars without outline that the panel shines through."""
    plots = [draw(Summary(results)) for draw in (gain_by_age, auc_by_age, gain_by_category, auc_by_category)]
    for found in (results, two_encoders):
        plots += [
            *ctr_curves(Summary(found)),
            *encoder_curves(Summary(found)),
            *reliability_plots(Summary(found)),
        ]
    plots += [plot_figure(figure, name=figure.key) for figure in make_reproduction().figures]
    shown = [found for drawn in plots for found in marks(drawn.svg)]
    assert {color for found in shown for color, _ in found} >= set(COLORS.values())
    assert {len(found) for found in shown} == {1, 2}, "bars have a fill and an outline"
    shown += [[(color, 1.0)] for color, _ in UBM_STYLES]
    for panel in panels():
        faint = {
            tuple(found)
            for found in shown
            if max(contrast(color, panel, opacity) for color, opacity in found) < 3
        }
        assert faint == set()
