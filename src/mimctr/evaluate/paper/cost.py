"""The paper's Table 6, what content costs, from ``cost.json``."""

from mimctr.evaluate.cost import Cost, Mode, Side
from mimctr.evaluate.encoder_results import Estimate, alone
from mimctr.evaluate.paper.findings import counted, finding
from mimctr.evaluate.paper.schema import Cell, Column, Finding, Table, TableRow

MOST_TRAINING_OPERATIONS = 1.20
"""Times Base's, wanted of content through the center."""
LEAST_SAVED = 10.0
"""Times Base's operations that training without the center takes at least."""
LABELS: dict[Side, str] = {
    "base": "Base",
    "mim": "Base+MIM",
    "without_center": "Base+MIM without the center",
    "end_to_end": "Base+MIM end to end",
    "without_center_distinct": "without the center, each different item once",
    "end_to_end_distinct": "end to end, each different item once",
}
USUAL: tuple[Side, ...] = ("base", "mim")
"""Sides that are measured with a training's batch size too."""
PAPER: dict[Side, dict[Mode, tuple[float, float]]] = {
    "base": {"training": (0.114, 1.10e9), "inference": (0.31, 0.68e9)},
    "without_center": {"training": (240.24, 10.15e9), "inference": (240.11, 9.85e9)},
    "end_to_end": {"training": (720.38, 30.15e9), "inference": (240.11, 9.85e9)},
    "mim": {"training": (0.182, 1.11e9), "inference": (0.43, 0.81e9)},
}
"""GFLOPs of a sample and bytes, as Table 6 gives them."""
MODES: tuple[Mode, ...] = ("training", "inference")


def cost_tables(cost: Cost) -> list[Table]:
    """Return Table 6 in two halves, training and inference: operations, memory and time of every side.

    Each is divided by Base's with the same batch size.
    """
    halves = [
        Table(
            key="table 6" if mode == "training" else f"table 6, {mode}",
            title=f"What content costs: {mode}",
            columns=[
                Column(name="operations", unit="flop", note="of one impression, products of matrices"),
                Column(name="times Base", unit="ratio"),
                Column(name="memory", unit="bytes", note="peak, above the start of the process"),
                Column(name="times Base", unit="ratio"),
                Column(name="time", unit="seconds", note="of one impression, median step"),
                Column(name="times Base", unit="ratio"),
            ],
            rows=_rows(cost, mode),
            note="",
            reading=_reading(cost, mode),
        )
        for mode in MODES
    ]
    return [halves[0].model_copy(update={"note": _note(cost)}), *halves[1:]]


def cost_findings(cost: Cost) -> list[Finding]:
    """Return what the paper claims of the center. Counted numbers have no sampling error: their interval is a point."""
    mim, without, end_to_end = (
        _times_base(cost, side, "training") for side in ("mim", "without_center", "end_to_end")
    )
    paper = {side: PAPER[side]["training"][0] / PAPER["base"]["training"][0] for side in PAPER}
    return [
        finding(
            "cost:center",
            source="Table 6",
            claim=f"Training with content from the center takes at most {paper['mim']:.2f} times Base's operations",
            paper=f"{paper['mim']:.2f} times Base's",
            difference=None if mim is None else counted(paper["mim"] - mim),
            unit="ratio",
            measured="" if mim is None else f"{mim:.2f} ×",
        ),
        finding(
            "cost:without_center",
            source="Table 6",
            claim=f"Without the center, it takes more than {LEAST_SAVED:.0f} times Base's operations",
            paper=f"{paper['without_center']:,.0f} times Base's",
            difference=None if without is None else counted(without - LEAST_SAVED),
            unit="ratio",
            measured="" if without is None else f"{without:,.0f} ×",
        ),
        finding(
            "cost:end_to_end",
            source="Table 6",
            claim="Training the encoder end to end takes more than running it without the center",
            paper=f"{paper['end_to_end']:,.0f} against {paper['without_center']:,.0f} times Base's",
            difference=None if without is None or end_to_end is None else counted(end_to_end - without),
            unit="ratio",
            measured=""
            if without is None or end_to_end is None
            else f"{end_to_end:,.0f} ×, {without:,.0f} ×",
        ),
        finding(
            "cost:target",
            source="Table 6",
            claim=f"Training with content from the center takes at most {MOST_TRAINING_OPERATIONS:.2f} times Base's "
            "operations",
            difference=None if mim is None else counted(MOST_TRAINING_OPERATIONS - mim),
            unit="ratio",
            measured="" if mim is None else f"{mim:.2f} ×",
            ours=True,
        ),
    ]


def _rows(cost: Cost, mode: Mode) -> list[TableRow]:
    """Return the sides with a training's batch size, then all with the smaller one that they share."""
    groups = {
        f"batches of {cost.config['batch_size']:,}": (USUAL, True),
        f"batches of {cost.config['compared_batch_size']:,}": (tuple(LABELS), False),
    }
    return [
        _row(cost, side, mode, group=group, usual=usual)
        for group, (sides, usual) in groups.items()
        for side in sides
    ]


def _row(cost: Cost, side: Side, mode: Mode, *, group: str, usual: bool) -> TableRow:
    label = LABELS[side]
    one, base = cost.find(side, mode), cost.find("base", mode)
    if one is None or base is None:
        return TableRow(label=label, group=group, not_run="not among the sides that were measured")
    run, of_base = (one.usual, base.usual) if usual else (one.compared, base.compared)
    if run is None or of_base is None:
        return TableRow(label=label, group=group, not_run="not measured with this batch size")
    printed = PAPER[side][mode] if side in PAPER and usual == (side in USUAL) else None
    of_paper = PAPER["base"][mode]
    return TableRow(
        label=label,
        group=group,
        cells=[
            Cell(ours=counted(one.operations.products), paper=printed and 1e9 * printed[0]),
            Cell(
                ours=counted(one.operations.products / base.operations.products),
                paper=printed and printed[0] / of_paper[0],
            ),
            Cell(ours=alone(run.memory_bytes), paper=printed and printed[1]),
            Cell(
                ours=_times(run.memory_bytes, of_base.memory_bytes),
                paper=printed and printed[1] / of_paper[1],
            ),
            Cell(ours=alone(run.seconds)),
            Cell(ours=_times(run.seconds, of_base.seconds)),
        ],
    )


def _times(value: float, of_base: float) -> Estimate:
    return alone(value / max(of_base, 1e-12))


def _times_base(cost: Cost, side: Side, mode: Mode) -> float | None:
    one, base = cost.find(side, mode), cost.find("base", mode)
    return None if one is None or base is None else one.operations.products / base.operations.products


def _note(cost: Cost) -> str:
    compared = cost.config["compared_batch_size"]
    text = (
        f"Every side was run, in processes of their own on {cost.device} with {cost.threads} threads. Operations are "
        f"counted on {cost.num_impressions} impressions of the training part with {cost.items_per_impression:.1f} "
        "items each (target and behaviors), without the optimizer's step; memory and time include it. What runs the "
        f"encoder has batches of {compared}, and so has the Base that it is divided by. Pictures were decoded before. "
        "The paper counts its own, larger encoder."
    )
    base, mim = cost.find("base", "training"), cost.find("mim", "training")
    if base is None or mim is None:
        return text
    whole = [one.operations.products + one.operations.elementwise for one in (base, mim)]
    return (
        f"{text} With what is computed number by number, training with Base+MIM takes {whole[1] / whole[0]:.2f} times "
        "Base's operations."
    )


def _reading(cost: Cost, mode: Mode) -> list[str]:
    mim, without, end_to_end = (
        _times_base(cost, side, mode) for side in ("mim", "without_center", "end_to_end")
    )
    sentences = []
    if mim is not None:
        sentences.append(f"Content from the center takes {mim:.2f} times the operations of Base in {mode}.")
    if without is not None and end_to_end is not None:
        trained = f", and {end_to_end:,.0f} times where it is trained too" if mode == "training" else ""
        sentences.append(f"With the encoder in the loop it is {without:,.0f} times{trained}.")
    return sentences
