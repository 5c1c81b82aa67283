"""The terminal and Markdown tables, and how numbers are written."""

import re

import pytest
from fake_run import make_results

from mimctr.evaluate import written
from mimctr.evaluate.variants import ablated, split_ablated
from mimctr.report import wording
from mimctr.report.table import results_markdown, results_table


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def expected(results):
    """Mean AUC of Base+MIM and its gain, on all items, by UBM."""
    values = {}
    for ubm in ("mean", "din", "sim"):
        aucs = [row.auc for row in results.rows if (row.ubm, row.variant, row.slice) == (ubm, "mim", "all")]
        (gain,) = (
            item.difference
            for item in results.comparisons
            if (item.ubm, item.variant, item.against, item.slice, item.minus_slice)
            == (ubm, "mim", "base", "all", None)
        )
        values[ubm] = (sum(aucs) / len(aucs), gain)
    return values


@pytest.mark.parametrize(
    ("missing", "label"),
    [
        ([], "MIM+"),
        (["id"], "MIM+ w/o ID interest"),
        (["content"], "MIM+ w/o content interest"),
        (["id", "fusion"], "MIM+ w/o ID and fusion interests"),
    ],
)
def test_an_ablation_is_labelled_as_in_table_5(missing, label):
    name = ablated("mim_plus", missing)
    assert split_ablated(name) == ("mim_plus", missing)
    assert wording.variant_name(name) == label


def test_ablations_stand_behind_what_they_are_of():
    names = [
        "mim_plus",
        "mim_without_id_fusion",
        "untrained_cosine",
        "mim_without_id",
        "other",
        "mim",
        "base",
    ]
    assert wording.variants_in_order(names) == [
        "base",
        "mim",
        "mim_without_id",
        "mim_without_id_fusion",
        "mim_plus",
        "untrained_cosine",
        "other",
    ]


def test_the_table_shows_every_model_whole(results, expected):
    text, _, _ = results_table(results).partition("Are content vectors used?")
    assert "…" not in text
    lines = [line for line in text.splitlines() if "Base+MIM" in line]
    for line, (mean, gain) in zip(lines, expected.values(), strict=True):
        assert re.search(rf"Base\+MIM\s+{mean:.4f} ± 0\.\d{{4}}\s+\{gain:+.4f}", line)
    assert [line.split()[0] for line in text.splitlines() if "Base " in line] == ["Avg", "DIN", "SIM"]
    ceiling = next(row.ceiling_auc for row in results.rows if row.slice == "all")
    assert re.search(rf"Ceiling\s+{ceiling:.4f}", text)


def test_the_untrained_cosine_stands_once_and_without_deviation(results):
    table, _, use = results_table(results).partition("Are content vectors used?")
    for text in (table, use):
        (line,) = (line for line in text.splitlines() if "Untrained cosine" in line)
        assert "±" not in line


def test_whether_content_is_used_is_a_line_a_model(results):
    text = results_table(results).partition("Are content vectors used?")[2]
    (line,) = (line for line in text.splitlines() if re.search(r"DIN +Base\+MIM", line))
    (use,) = (item for item in results.content_use if (item.ubm, item.variant) == ("din", "mim"))
    shown = f"{use.drop:.4f} ± {use.sd:.4f} {use.low:+.4f} to {use.high:+.4f} 98.3 % 97.5 %"
    assert line.split()[2:] == shown.split()
    without = results.model_copy(update={"content_use": []})
    assert "Are content vectors used?" not in results_table(without)


def test_markdown_has_the_same_numbers_in_equally_many_columns(results, expected):
    lines = results_markdown(results).splitlines()
    assert {line.count("|") for line in lines} == {9}
    for name, (mean, gain) in zip(("Avg Pooling", "DIN", "SIM"), expected.values(), strict=True):
        (line,) = (line for line in lines if line.startswith(f"| {name} | Base+MIM |"))
        assert f"| {mean:.4f} ± " in line
        assert f"| {gain:+.4f} |" in line


def test_without_a_ceiling_there_is_no_such_line(results):
    rows = [row.model_copy(update={"ceiling_auc": None}) for row in results.rows]
    assert "Ceiling" not in results_table(results.model_copy(update={"rows": rows}))
    assert "Ceiling" not in results_markdown(results.model_copy(update={"rows": rows}))


def test_two_encoders_of_one_variant_are_told_apart():
    results = make_results(ubms=("sim",), variants=("base", "mim"))
    others = [row.model_copy(update={"encoder": "plain"}) for row in results.rows if row.variant == "mim"]
    text = results_table(results.model_copy(update={"rows": [*results.rows, *others]}))
    assert "Base+MIM (csft vectors)" in text
    assert "Base+MIM (plain vectors)" in text


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (written.signed(-0.01234), "\N{MINUS SIGN}0.0123"),
        (written.signed(0.5), "+0.5000"),
        (written.plus_minus(0.61, None), "0.6100"),
        (written.plus_minus(-0.001, 0.002), "\N{MINUS SIGN}0.0010 ± 0.0020"),
        (written.percent(0.98765), "98.8 %"),
        (written.percent(None), ""),
        (written.plus_minus(0.61, 0.002), "0.6100 ± 0.0020"),
        (written.interval(None, None), ""),
        (written.interval(-0.1, 0.1, 1), "\N{MINUS SIGN}0.1 to +0.1"),
        (written.probability(0.0004), "p < 0.001"),
        (written.probability(0.0004, name=""), "< 0.001"),
        (written.probability(0.04), "p = 0.040"),
        (written.probability(None), ""),
        (written.duration(9.96), "10.0 s"),
        (written.duration(59.97), "60.0 s"),
        (written.duration(62), "1 min 02 s"),
        (written.duration(7260), "2 h 01 min"),
        (written.memory(300 << 20), "300 MiB"),
        (written.memory(3 << 30), "3.0 GiB"),
        (wording.day(0), "1970-01-01 00:00"),
        (wording.listing(["a"]), "a"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
        (wording.slice_name("age:S3"), "Age set S3"),
        (wording.slice_name("category:Toys"), "Toys"),
        (wording.slice_name("history:1-9"), "1-9 earlier behaviors"),
        (wording.ubm_name("mean"), "Avg Pooling"),
        (wording.ubm_name("new"), "new"),
    ],
)
def test_numbers_and_names_are_written_one_way(written, expected):
    assert written == expected
