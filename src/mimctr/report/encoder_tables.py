"""The paper's Tables 3, 4 and 5 by visual search, as Markdown."""

from mimctr.evaluate.cohorts import ALL, UNSEEN_ITEMS
from mimctr.evaluate.encoder_results import EncoderResults, Estimate, RowResult
from mimctr.evaluate.written import MINUS, signed

TITLES = {
    3: "Table 3, pre-training",
    4: "Table 4, signal and loss of C-SFT",
    5: "Table 5, ablations of C-SFT",
}
RECALL = "recall@10"
PARTS = ("test", "validation")
HEADS = (
    "Encoder",
    "recall@10",
    "over plain",
    "over MIM",
    "unseen items",
    "recall@1",
    "recall@100",
    "MRR",
    "cosine AUC",
    "C-SFT",
)


def encoder_tables_markdown(results: EncoderResults) -> str:
    """Return every table for the test and the validation part.

    Held-out visual search: what share of purchases is among the first ten of all items, with the 95 % interval over
    users and seeds; its difference to the plain and to MIM's encoder, paired; on items in no training pair; the other
    depths; the AUC of the mean cosine of target and history; what the grid chose and the step of C-SFT that was best on
    validation, seed by seed (0: the plain geometry).
    """
    seeds = f"{len(results.seeds)} seed{'s' if len(results.seeds) > 1 else ''}"
    lines = [
        f"# Encoders by held-out visual search: {results.dataset}, {seeds}, 95 % intervals over users and seeds"
    ]
    for part in PARTS:
        for table, title in TITLES.items():
            lines += [
                "",
                f"## {title} ({part})",
                "",
                f"| {' | '.join(HEADS)} |",
                f"|---{'|---:' * (len(HEADS) - 1)}|",
            ]
            lines += [
                f"| {' | '.join(_cells(results, row, table, part))} |"
                for row in results.rows
                if table in row.labels
            ]
    return "\n".join(lines) + "\n"


def _cells(results: EncoderResults, row: RowResult, table: int, part: str) -> list[str]:
    if row.not_run is not None:
        return [row.labels[table], f"not run: {row.not_run}", *[""] * (len(HEADS) - 2)]
    main = results.find(row.name, part, ALL, RECALL)
    if main is None:
        return [row.labels[table], *[""] * (len(HEADS) - 1)]
    others = [
        (UNSEEN_ITEMS, RECALL),
        (ALL, "recall@1"),
        (ALL, "recall@100"),
        (ALL, "mrr"),
        (ALL, "cosine_auc"),
    ]
    found = [results.find(row.name, part, name, metric) for name, metric in others]
    return [
        row.labels[table],
        interval(main.value),
        interval(main.over_base, sign=True),
        interval(main.over_best, sign=True),
        *(interval(measure.value) if measure else "" for measure in found),
        _csft(row),
    ]


def _csft(row: RowResult) -> str:
    """Return what the grid chose for a row, and the steps of C-SFT that were kept."""
    chosen = [f"{name} {value:g}" for name, value in row.chosen.items()]
    steps = [f"step {', '.join(map(str, row.kept_steps))}"] if row.kept_steps else []
    return "; ".join([*chosen, *steps])


def interval(estimate: Estimate | None, *, sign: bool = False) -> str:
    """Return ``0.1166 (0.1021 to 0.1311)``; empty for None."""
    if estimate is None:
        return ""
    write = signed if sign else _plain
    if estimate.low is None or estimate.high is None:
        return write(estimate.mean)
    return f"{write(estimate.mean)} ({write(estimate.low)} to {write(estimate.high)})"


def _plain(value: float) -> str:
    return f"{value:.4f}".replace("-", MINUS)
