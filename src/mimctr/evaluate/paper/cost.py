"""The paper's Table 6, what content costs, from ``cost.json``."""

from mimctr.evaluate.cost import Cost, Measured, Mode, Run, Side
from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.findings import finding
from mimctr.evaluate.paper.schema import Cell, Column, Finding, Table, TableRow

MOST_TRAINING_OPERATIONS = 1.20
"""Times Base's, wanted of content through the center."""
LEAST_SAVED = 10.0
"""Times Base's operations that training without the center takes at least."""
LABELS: dict[Side, tuple[str, str]] = {
    "base": ("Base", ""),
    "without_center": ("Base+MIM without the center", ""),
    "end_to_end": ("Base+MIM end to end", ""),
    "mim": ("Base+MIM", ""),
    "without_center_distinct": ("Base+MIM without the center", "each different item of a batch once"),
    "end_to_end_distinct": ("Base+MIM end to end", "each different item of a batch once"),
}
"""Side -> label and group of its row."""
PAPER: dict[Side, dict[Mode, tuple[float, float]]] = {
    "base": {"training": (0.114, 1.10e9), "inference": (0.31, 0.68e9)},
    "without_center": {"training": (240.24, 10.15e9), "inference": (240.11, 9.85e9)},
    "end_to_end": {"training": (720.38, 30.15e9), "inference": (240.11, 9.85e9)},
    "mim": {"training": (0.182, 1.11e9), "inference": (0.43, 0.81e9)},
}
"""GFLOPs of a sample and bytes, as Table 6 gives them."""
MODES: tuple[Mode, ...] = ("training", "inference")


def cost_table(cost: Cost) -> Table:
    """Return Table 6: operations, memory and time of every side, and each divided by Base's."""
    columns = []
    for mode in MODES:
        columns += [
            Column(name=f"{mode}, GFLOP", unit="gflop", note="of one impression, products of matrices"),
            Column(name="times Base", unit="ratio"),
            Column(name=f"{mode}, memory", unit="bytes", note="peak, above the start of the process"),
            Column(name="times Base", unit="ratio"),
            Column(name=f"{mode}, ms", unit="number", note="of one impression, median step"),
            Column(name="times Base", unit="ratio"),
        ]
    return Table(
        key="table 6",
        title="What content costs",
        columns=columns,
        rows=[_row(cost, side) for side in LABELS],
        note=_note(cost),
        reading=_reading(cost),
    )


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
            claim="Content from the center costs at most 20 % more operations in training than Base",
            paper=f"{paper['mim']:.2f} times Base (+59 %)",
            difference=None if mim is None else _counted(MOST_TRAINING_OPERATIONS - mim),
            unit="ratio",
        ),
        finding(
            "cost:without_center",
            source="Table 6",
            claim="Without the center, training takes more than ten times the operations of Base",
            paper=f"{paper['without_center']:,.0f} times Base",
            difference=None if without is None else _counted(without - LEAST_SAVED),
            unit="ratio",
        ),
        finding(
            "cost:end_to_end",
            source="Table 6",
            claim="Training the encoder end to end takes more operations than running it without the center",
            paper=f"{paper['end_to_end']:,.0f} against {paper['without_center']:,.0f} times Base",
            difference=None if without is None or end_to_end is None else _counted(end_to_end - without),
            unit="ratio",
        ),
    ]


def _row(cost: Cost, side: Side) -> TableRow:
    label, group = LABELS[side]
    if any(cost.find(name, mode) is None for name in ("base", side) for mode in MODES):
        return TableRow(label=label, group=group, not_run="not among the sides that were measured")
    return TableRow(
        label=label, group=group, cells=[cell for mode in MODES for cell in _cells(cost, side, mode)]
    )


def _cells(cost: Cost, side: Side, mode: Mode) -> list[Cell]:
    one, base = _found(cost, side, mode), _found(cost, "base", mode)
    flops, memory = PAPER.get(side, {}).get(mode, (None, None))
    base_flops, base_memory = PAPER["base"][mode]
    shown = one.usual or one.compared
    ours = [
        (one.operations.products / 1e9, flops),
        (one.operations.products / base.operations.products, flops and flops / base_flops),
        (float(shown.memory_bytes), memory),
        (_compared_with(one, base, "memory_bytes"), memory and memory / base_memory),
        (1e3 * shown.seconds, None),
        (_compared_with(one, base, "seconds"), None),
    ]
    return [
        Cell(ours=_counted(value) if place < 2 else _measured(value), paper=paper)
        for place, (value, paper) in enumerate(ours)
    ]


def _compared_with(one: Measured, base: Measured, name: str) -> float:
    """Return a ratio to Base at the same batch size: that of a training where both have it, else the shared one."""
    pair: tuple[Run, Run] = (one.compared, base.compared)
    if one.usual is not None and base.usual is not None:
        pair = one.usual, base.usual
    return getattr(pair[0], name) / max(getattr(pair[1], name), 1e-12)


def _found(cost: Cost, side: Side, mode: Mode) -> Measured:
    found = cost.find(side, mode)
    assert found is not None, "looked at by the caller"
    return found


def _times_base(cost: Cost, side: Side, mode: Mode) -> float | None:
    one, base = cost.find(side, mode), cost.find("base", mode)
    return None if one is None or base is None else one.operations.products / base.operations.products


def _counted(value: float) -> Estimate:
    return Estimate(mean=value, sd=None, low=value, high=value, p_value=0.0)


def _measured(value: float) -> Estimate:
    return Estimate(mean=value, sd=None, low=None, high=None, p_value=None)


def _note(cost: Cost) -> str:
    compared = cost.config["compared_batch_size"]
    text = (
        f"Every side was run, in processes of their own on {cost.device} with {cost.threads} threads. Operations are "
        f"counted on {cost.num_impressions} impressions of the training part with {cost.items_per_impression:.1f} "
        "items each (target and behaviors), without the optimizer's step; memory and time include it. Base and "
        f"Base+MIM are measured with batches of {cost.config['batch_size']:,}, what runs the encoder with {compared} "
        f"and divided by Base with {compared}. Pictures were decoded before. The paper counts its own, larger encoder."
    )
    base, mim = cost.find("base", "training"), cost.find("mim", "training")
    if base is None or mim is None:
        return text
    whole = [one.operations.products + one.operations.elementwise for one in (base, mim)]
    return (
        f"{text} With what is computed number by number, training with Base+MIM takes {whole[1] / whole[0]:.2f} times "
        "Base's operations."
    )


def _reading(cost: Cost) -> list[str]:
    mim, without, end_to_end = (
        _times_base(cost, side, "training") for side in ("mim", "without_center", "end_to_end")
    )
    sentences = []
    if mim is not None:
        sentences.append(f"Content from the center takes {mim:.2f} times the operations of Base in training.")
    if without is not None and end_to_end is not None:
        sentences.append(
            f"With the encoder in the loop it is {without:,.0f} times, and {end_to_end:,.0f} times where it is "
            "trained too."
        )
    return sentences
