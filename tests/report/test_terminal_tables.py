"""Tables for a terminal: what stands in them is text, not the markup of Rich."""

from made_up import make_reproduction

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.schema import Cell, Column, Table, TableRow
from mimctr.evaluate.sweeps import Choices, Sweep, Trial
from mimctr.report.cost_table import plain_cost_table
from mimctr.report.paper_table import plain_findings, plain_table
from mimctr.report.reproduction_text import reproduction_summary
from mimctr.report.sweep import sweep_table

BRACKETS = "a [/b] [red]c :smile:"
TABLE = Table(
    key="online",
    title=f"title {BRACKETS}",
    note="",
    columns=[Column(name=f"column {BRACKETS}", unit="rate")],
    rows=[
        TableRow(
            label=f"label {BRACKETS}",
            group=f"group {BRACKETS}",
            cells=[Cell(ours=Estimate(mean=0.02, sd=None, low=None, high=None, p_value=None), paper=0.141)],
        ),
        TableRow(label="other", not_run=f"reason {BRACKETS}"),
    ],
)


def test_the_papers_number_and_names_with_brackets_stay_in_the_table():
    text = plain_table(TABLE)
    assert "+2.00 % [paper +14.10 %]" in text
    for word in ("title", "column", "label", "group", "not run: reason"):
        assert f"{word} {BRACKETS}" in text


def test_names_with_brackets_stay_in_the_table_of_costs():
    text = plain_cost_table([TABLE])
    for word in ("title", "column", "label", "group", "reason"):
        assert f"{word} {BRACKETS}" in text


def test_claims_with_brackets_stay_in_the_findings():
    made = finding(
        key="one",
        claim=f"claim {BRACKETS}",
        paper="",
        difference=None,
        source="here",
        unit="auc",
    )
    assert f"claim {BRACKETS}" in plain_findings([made])


def test_values_with_brackets_stay_in_the_table_of_a_sweep():
    trial = Trial(
        number=0, state="finished", settings={"[dim]": BRACKETS}, validation_auc=0.6, seconds=1.0, reason=None
    )
    sweep = Sweep(
        search={"[dim]": Choices(values=[BRACKETS, "other"])},
        settings={},
        dataset="shop",
        dataset_hash="x",
        trials=[trial],
    )
    assert BRACKETS in sweep_table(sweep)
    assert "[dim]" in sweep_table(sweep)


def test_names_with_brackets_stay_in_the_summary_of_a_reproduction():
    made = make_reproduction().model_copy(update={"dataset": BRACKETS})
    assert f"MIM on {BRACKETS}: what held" in reproduction_summary(made)
