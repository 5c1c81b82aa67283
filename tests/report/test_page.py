"""The page: every number comes from results.json, nothing from outside, and missing parts leave no trace."""

import html
import html.parser
import re
from statistics import fmean

import pytest
from fake_run import make_results, make_run

from mimctr.errors import RunError
from mimctr.evaluate.compare import Contender
from mimctr.evaluate.results import Results, read_results
from mimctr.recipes import report
from mimctr.report.headline import headline, remarks
from mimctr.report.page import render_page
from mimctr.report.summary import Summary

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Checker(html.parser.HTMLParser):
    """Collects ids, references and unbalanced tags."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.references, self.problems = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self._collect(dict(attrs))

    def handle_startendtag(self, tag, attrs):
        self._collect(dict(attrs))

    def _collect(self, attrs):
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.references += [attrs[name] for name in ("href", "src") if name in attrs]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(filter(None, attrs.values())))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def two_encoders():
    return make_results(ubms=("din", "sim"), variants=("base", "mim"), encoders=("plain", "csft"), full=False)


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("run"), results)
    return report.main(run, run / "report").read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside(page):
    checker = Checker()
    checker.feed(page)
    outside = [place for place in checker.references if not place.startswith(("#", "data:image/"))]
    assert outside == []
    assert re.findall(r"https?:|//\w+\.\w+|@import|<script [^>]|<link", page) == []


def test_the_page_is_well_formed_and_every_reference_has_its_one_target(page):
    checker = Checker()
    checker.feed(page)
    assert checker.problems == []
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert {place[1:] for place in checker.references if place.startswith("#")} <= set(checker.ids)


def test_every_auc_and_gain_of_the_main_table_is_on_the_page(results, page):
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page, flags=re.DOTALL)
    for ubm in ("mean", "din", "sim"):
        for variant in ("base", "mim", "mim_plus", "mim_permuted"):
            for name in ("all", "age:S1", "item:unseen"):
                values = [
                    row.auc
                    for row in results.rows
                    if (row.ubm, row.variant, row.slice) == (ubm, variant, name)
                ]
                assert any(cell.startswith(f"{sum(values) / 2:.4f}<small>±") for cell in cells)
    for gain in results.comparisons:
        shown = gain.ubm == "pooled" or gain.variant != "untrained_cosine"
        if shown and gain.against == "base" and gain.minus_slice is None and gain.slice in ("all", "age:S1"):
            assert f"{gain.difference:+.4f}".replace("-", "\N{MINUS SIGN}") in page


def test_changed_numbers_change_the_page_and_nothing_else_does(results, page, tmp_path):
    run = make_run(tmp_path / "same", results)
    assert render_page(read_results(run / "evaluate" / "results.json"), run / "evaluate") == page
    for place, row in enumerate(results.rows):
        if row.slice == "all" and row.variant == "mim":
            rows = list(results.rows)
            rows[place] = row.model_copy(update={"auc": row.auc + 0.01})
            changed = render_page(results.model_copy(update={"rows": rows}), run / "evaluate")
            assert changed != page
            mean = Summary(results).mean(row.ubm, Summary(results).content, "all").mean + 0.005
            assert f"{mean:.4f}<small>" in changed
            break


def test_search_metrics_are_on_the_page_by_encoder(page):
    assert re.search(
        r">csft</th><td[^>]*>test</td><td[^>]*>all</td>\s*<td [^>]*>0\.0387</td><td [^>]*>0\.3100</td>",
        page,
    )
    assert re.search(r">csft, before training</th><td[^>]*>test</td>", page)


def test_what_shuffled_vectors_cost_is_on_the_page_a_line_a_model(results, page):
    section = page[page.index("<h3>Are content vectors used?") :]
    section = section[: section.index("</table>")]
    assert section.count('<th scope="row"') == len(results.content_use) == 3 * 3 + 1
    shown = re.sub(r' data-sort="[^"]*"', "", section)
    for item in results.content_use:
        cells = [f"{item.auc:.4f}", f"{item.shuffled_auc:.4f}", f"{item.drop:.4f}"]
        sd = "" if item.variant == "untrained_cosine" else f" ± {item.sd:.4f}"
        assert '</td><td class="number">'.join(cells[:2]) in shown
        assert f'<td class="number">{cells[2]}{sd}</td>' in shown
    assert '<td class="number">98.3 %</td><td class="number">97.5 %</td>' in shown


def test_delong_stands_beside_the_bootstrap_on_every_slice(results, page):
    (gain,) = (
        item
        for item in results.comparisons
        if (item.ubm, item.variant, item.against, item.slice) == ("pooled", "mim", "base", "category:Toys")
    )
    line = page[page.index(">Toys</th>") :]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", line[: line.index("</tr>")])
    written = [f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in (gain.p_value, gain.delong_p_value)]
    assert [html.unescape(cell) for cell in cells[4:6]] == written


def test_gauc_within_queries_is_on_the_page_with_what_is_left_out(results, page):
    (row, *_) = (row for row in results.rows if row.slice == "all")
    assert f"{row.num_queries - row.num_gauc_queries:,} of {row.num_queries:,} left out" in page
    assert f"({row.num_users - row.num_gauc_users:,} of {row.num_users:,})" in page
    values = [
        row.query_gauc for row in results.rows if (row.ubm, row.variant, row.slice) == ("din", "mim", "all")
    ]
    assert f"{fmean(values):.4f}<small>± " in page[page.index("GAUC by query") :]


def test_reliability_is_a_plot_per_ubm_with_a_line_per_model_that_gives_probabilities(results, page):
    for number, name in enumerate(["Avg Pooling", "DIN", "SIM"]):
        start = page.index(f'aria-label="{name}: observed by predicted click rate"')
        figure = page[start : page.index("</svg>", start)]
        assert f'id="reliability-{number}-' in figure
        assert all(variant in figure for variant in ("Base+MIM", "MIM+", "Leak control"))
        assert "Untrained" not in figure
    summary = Summary(results)
    points = summary.reliability("din", Contender("mim", "csft"))
    found = [item for item in results.reliability if (item.ubm, item.variant) == ("din", "mim")]
    assert len(found) == 2
    assert points[3].observed == pytest.approx(fmean(item.observed[3] for item in found))
    assert points[3].predicted == pytest.approx(fmean(item.predicted[3] for item in found))


def test_the_headline_is_the_pooled_gain_with_its_interval(results, page):
    (gain,) = (
        item
        for item in results.comparisons
        if (item.ubm, item.variant, item.against, item.slice, item.minus_slice)
        == ("pooled", "mim", "base", "all", None)
    )
    title = re.findall(r"<h1>(.*?)</h1>", page)[0]
    assert title == (
        "Content interest raised the test AUC on average over Avg Pooling, DIN and SIM by "
        f"{gain.difference:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})."
    )


def test_an_unsure_gain_is_not_called_a_gain(results):
    comparisons = [item.model_copy(update={"p_value": 0.3}) for item in results.comparisons]
    summary = Summary(results.model_copy(update={"comparisons": comparisons}))
    assert headline(summary).startswith("Content interest did not measurably change the test AUC")
    assert "(not significant)" in " ".join(remarks(summary))


def test_a_leak_is_called_out(results):
    for difference, words in [
        (0.02, "Caution: with vectors permuted within category the gain is still +0.0200"),
        (-0.02, "with vectors permuted within category nothing is gained, \N{MINUS SIGN}0.0200"),
    ]:
        changed = {"p_value": 0.001, "difference": difference}
        comparisons = [item.model_copy(update=changed) for item in results.comparisons]
        assert words in " ".join(remarks(Summary(results.model_copy(update={"comparisons": comparisons}))))


def test_the_share_of_the_way_to_the_ceiling_is_told_only_of_a_gain(results):
    summary = Summary(results)
    (told,) = (text for text in remarks(summary) if "known probabilities" in text)
    ceiling = next(row.ceiling_auc for row in results.rows if row.slice == "all")
    base = fmean(row.auc for row in results.rows if (row.variant, row.slice) == ("base", "all"))
    share = summary.overall_gain("all").difference / (ceiling - base)
    assert f"content closes {100 * share:.0f} % of the distance from Base ({base:.4f}) to it" in told
    worse = [item.model_copy(update={"difference": -0.01}) for item in results.comparisons]
    texts = remarks(Summary(results.model_copy(update={"comparisons": worse})))
    assert any(f"is the best that can be reached; Base has {base:.4f}" in text for text in texts)


def test_no_share_of_the_way_is_told_of_a_gain_that_is_not_sure(results):
    unsure = [item.model_copy(update={"p_value": 0.3}) for item in results.comparisons]
    (told,) = (
        text
        for text in remarks(Summary(results.model_copy(update={"comparisons": unsure})))
        if "known probabilities" in text
    )
    assert told.endswith("is the best that can be reached; Base has 0.6081.")


def test_every_table_can_be_sorted_scrolled_by_keyboard_and_read_aloud(page):
    """A name in every head and in front of every row; a button in every head; a name for every box that scrolls."""
    tables = re.findall(r"<table.*?</table>", page, flags=re.DOTALL)
    boxes = re.findall(
        r'<div class="scroll" tabindex="0" role="region" aria-label="([^"]+)"><table class="sortable">', page
    )
    assert len(tables) == len(boxes) == len(set(boxes)) == 9
    for table in tables:
        heads, rows = table.split("</thead>")
        num_columns = heads.count("<th ")
        assert (
            len(
                re.findall(
                    r'<th scope="col" aria-sort="none"[^>]*><button type="button">[^<]+</button></th>', heads
                )
            )
            == num_columns
        )
        for row in re.findall(r"<tr.*?</tr>", rows, flags=re.DOTALL):
            assert re.search(r'<th scope="row" data-sort="[^"]+">[^<]', row)
            assert len(re.findall(r"<t[dh]\b", row)) == num_columns


def test_what_a_column_is_sorted_by_is_the_number_itself(results, page):
    line = page[page.index(">Toys</th>") :]
    values = re.findall(r'data-sort="([^"]*)"', line[: line.index("</tr>")])
    row = next(row for row in results.rows if row.slice == "category:Toys")
    gain = Summary(results).overall_gain("category:Toys")
    assert values[2:4] == [repr(gain.difference), repr(gain.low)]
    assert values[-3:] == [str(row.num_impressions), str(row.num_clicks), str(row.num_users)]


def test_further_comparisons_of_several_encoders_are_told_apart(two_encoders, tmp_path):
    page = render_page(two_encoders, tmp_path)
    section = page[page.index("<h3>Further comparisons") :]
    rows = re.findall(r"<tr>(.*?)</tr>", section[: section.index("</tbody>")], flags=re.DOTALL)
    named = [tuple(re.findall(r'data-sort="([^"]*)"', row)[:4]) for row in rows[1:]]
    assert len(named) == len(set(named)) > 0
    assert ("mean over UBMs", "Base+MIM (plain vectors)", "Base", "All items") in named
    assert ("mean over UBMs", "Base+MIM (csft vectors)", "Base+MIM (plain vectors)", "All items") in named


def test_a_single_seed_is_called_out(tmp_path):
    results = make_results(ubms=("sim",), variants=("base", "mim"), seeds=(3,), full=False)
    page = render_page(results, tmp_path)
    assert "Only one seed was trained" in page
    assert "over SIM" in page


@pytest.mark.parametrize("variants", [("base", "mim"), ("base",), ("mim",), ("untrained_cosine",)])
def test_missing_parts_leave_no_trace(variants, tmp_path):
    page = render_page(make_results(ubms=("sim",), variants=variants, full=False), tmp_path)
    for title in (
        "Nearest neighbors",
        "held-out pairs",
        "Training of",
        "Coverage",
        "Are content vectors used?",
        "Reliability",
        "Settings of every stage",
    ):
        assert title not in page
    assert "None" not in page
    assert ("there is no gain to show" in page) == (variants != ("base", "mim"))


def test_results_without_the_later_fields_are_shown_without_them(results, tmp_path):
    later = {
        "rows": ["query_gauc", "query_gauc_unweighted", "num_queries", "num_gauc_queries"],
        "comparisons": ["delong_standard_error", "delong_p_value"],
    }
    values = results.model_dump(mode="json")
    for part, names in later.items():
        values[part] = [
            {key: value for key, value in item.items() if key not in names} for item in values[part]
        ]
    del values["content_use"], values["reliability"]
    page = render_page(Results.model_validate({**values, "pictures": []}), tmp_path)
    for title in ("Are content vectors used?", "Reliability", "GAUC by query", "By query", "None"):
        assert title not in page


def test_text_of_the_data_is_escaped(results, tmp_path):
    dataset = results.dataset.model_copy(update={"name": "<script>alert(1)</script>"})
    page = render_page(results.model_copy(update={"dataset": dataset, "pictures": []}), tmp_path)
    assert "<script>alert" not in page


def test_a_missing_picture_is_named(results, tmp_path):
    with pytest.raises(RunError, match=r"neighbors-01\.png: a picture of results\.json is missing"):
        render_page(results, tmp_path)


def test_pictures_are_inside_the_page(page):
    assert len(re.findall(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]{100,}"', page)) == 2
