"""A reproduction with everything that one can have; its numbers are made up."""

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.machine import describe_machine, describe_versions
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.schema import (
    Cell,
    Column,
    Figure,
    Gallery,
    Point,
    Reproduction,
    Series,
    Step,
    Table,
    TableRow,
)
from mimctr.evaluate.results import PictureSheet

DOLLARS = "between $5 and $10_000"
"""Two dollar signs: a formula for matplotlib and for GitHub, were they not told otherwise."""
NAUGHTY = "<script>alert('x')</script> & Söhne"


WRITTEN = {
    "auc": (0.64114, "0.6411", 0.7024, "0.7024"),
    "gain": (-0.02768, "−0.0277", 0.0038, "+0.0038"),
    "share": (0.1234, "12.3 %", 0.5, "50.0 %"),
    "count": (4000.0, "4,000", 1.83e9, "1.83 billion"),
    "ratio": (1.594, "1.59 ×", 6318.0, "6,318 ×"),
    "flop": (182_000.0, "0.182 MFLOP", 240.24e9, "240.2 GFLOP"),
    "bytes": (700.0e6, "700 MB", 3.0e9, "3 GB"),
    "seconds": (0.0123, "12.3 ms", 75.0, "1 min 15 s"),
    "rate": (-0.002, "−0.20 %", 0.0489, "+4.89 %"),
    "money": (1234.5, "1,234.50", 0.25, "0.25"),
    "number": (12345.0, "12,345", -3.25, "−3.25"),
}
"""Of every unit: ours and the paper's number, and how they are written, by hand."""


def alone(mean: float) -> Estimate:
    """Return a number of one seed: nothing is known of how sure it is."""
    return Estimate(mean=mean, sd=None, low=None, high=None, p_value=None)


def paired(mean: float, reach: float = 0.01, p_value: float = 0.001) -> Estimate:
    return Estimate(mean=mean, sd=0.001, low=mean - reach, high=mean + reach, p_value=p_value)


def of_seeds(mean: float) -> Estimate:
    return Estimate(mean=mean, sd=0.0012, low=None, high=None, p_value=None)


def make_reproduction(*, picture: str | None = None) -> Reproduction:
    """Return tables long and short, rows not run, figures of every kind; a gallery where there is a picture."""
    aucs = [0.61, 0.6, 0.625, 0.59]
    small = Table(
        key="table 2",
        title="Models",
        columns=[Column(name="AUC", unit="auc"), Column(name="gain", unit="gain", note="over Base")],
        rows=[
            *(
                TableRow(
                    label=f"model {number}",
                    group="first" if number < 2 else "second",
                    cells=[Cell(ours=of_seeds(auc), paper=0.7 + number / 100), Cell(ours=paired(auc - 0.6))],
                )
                for number, auc in enumerate(aucs)
            ),
            TableRow(label=NAUGHTY, not_run="no weights"),
        ],
        note="A note.",
        reading=["In plain words."],
    )
    long = Table(
        key="by category",
        title="Many categories",
        columns=[Column(name="impressions", unit="text"), Column(name="gain", unit="gain")],
        rows=[
            TableRow(
                label=f"A category with a rather long name {number}",
                cells=[Cell(text=f"{1000 * number:,}"), Cell(ours=paired(0.001 * (number % 7)))],
            )
            for number in range(75)
        ]
        + [TableRow(label="All", cells=[Cell(text="9"), Cell(ours=paired(0.002))], summary=True)],
        note="",
    )
    units = Table(
        key="目",
        title="Every unit",
        columns=[Column(name=f"in {unit}", unit=unit) for unit in WRITTEN],
        rows=[
            TableRow(label="ours", cells=[Cell(ours=alone(ours)) for ours, _, _, _ in WRITTEN.values()]),
            TableRow(
                label="beside the paper's",
                cells=[Cell(ours=alone(ours), paper=paper) for ours, _, paper, _ in WRITTEN.values()],
            ),
        ],
        note="One seed.",
    )
    named = [Point(x=f"S{number}", y=0.01 * number, low=0.0, high=0.02 * number) for number in range(1, 11)]
    lines = [Point(x=0.0, y=-0.01), Point(x=0.5, y=0.02), Point(x=1.0, y=0.03)]
    cloud = [Point(x=0.01 * n, y=0.002 * n, low=0.0, high=0.01, label=f"row {n}") for n in range(4)]
    figures = [
        Figure(
            key=f"figure {number}",
            title=f"A {kind}",
            kind=kind,
            x_label="x",
            y_label="y",
            series=series,
            note="n",
        )
        for number, (kind, series) in enumerate(
            (
                ("bar", [Series(name="one", points=named)]),
                ("line", [Series(name="one", points=lines), Series(name="two", points=lines[1:])]),
                ("scatter", [Series(name="one", points=cloud)]),
            )
        )
    ]
    figures.append(
        Figure(
            key="by category",
            title=f"{DOLLARS} {NAUGHTY}",
            kind="bar",
            x_label=DOLLARS,
            y_label="AUC",
            series=[
                Series(name=name, points=[Point(x=DOLLARS, y=0.61, low=0.609, high=0.612, label=DOLLARS)])
                for name in (DOLLARS, "other")
            ],
            note="Of the same key as a table.",
        )
    )
    sheets = [] if picture is None else [PictureSheet(file=picture, title="A sheet", caption="What is seen")]
    return Reproduction(
        dataset=f"shop {NAUGHTY}",
        seeds=[0, 1],
        tables=[small, long, units],
        figures=figures,
        findings=[
            finding(
                "a", source="Table 2", claim="A holds", paper="0.7024 to 0.7062", difference=paired(0.02)
            ),
            finding("b", source="Table 2", claim="B does not", difference=paired(-0.03)),
            finding("c", source="Figure 6", claim="C is open", difference=paired(0.001, p_value=0.5)),
            finding("d", source="Table 4", claim=f"D {NAUGHTY}", difference=None),
            finding(
                "e", source="Online", claim="E has one seed", paper="4.89 %", difference=alone(0.0314)
            ).model_copy(update={"unit": "rate"}),
        ],
        galleries=[Gallery(key="pictures", title="Pictures", note="n", sheets=sheets)] if sheets else [],
        steps=[
            Step(name="train/a", kind="train", serves=["table 2"], seconds=3.0, not_run=None),
            Step(name="train/b", kind="train", serves=["table 2"], seconds=None, not_run="no time"),
            Step(name="train/c", kind="train", serves=["table 2"], seconds=None, not_run="no time"),
            Step(name="train/d", kind="train", serves=["figure 5"], seconds=None, not_run="no weights"),
        ],
        command="mimctr reproduce x.toml --out runs/x",
        versions=describe_versions(),
        machine=describe_machine(),
    )
