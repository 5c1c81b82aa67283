"""Beyond the paper: whether the probabilities of the models of Table 2 can be taken at their word."""

from collections.abc import Mapping

from mimctr.evaluate.compare import MIM, Contender
from mimctr.evaluate.paper.lookup import DEVIATION, NO_CONTENT, Lookup
from mimctr.evaluate.paper.schema import Cell, Column, Table, TableRow

MEASURES = ("log_loss", "pcoc", "ece")
"""Of a row of ``results.json``; in the order of the columns."""


def calibration_table(found: Lookup, names: Mapping[str, str], encoder: str) -> Table:
    """Return log loss and calibration of every user behavior model, without and with content.

    Args:
        found: Of Base and Base+MIM.
        names: How user behavior models are written.
        encoder: Whose vectors Base+MIM reads.
    """
    rows = [
        TableRow(
            label=label,
            group=names.get(ubm, ubm),
            cells=[Cell(ours=found.level(ubm, one, name)) for name in MEASURES],
        )
        for ubm in found.ubms()
        for label, one in (("Base", NO_CONTENT), ("Base+MIM", Contender(MIM, encoder)))
    ]
    return Table(
        key="calibration",
        title="Log loss and calibration",
        columns=[
            Column(name="log loss", unit="auc", note="nats an impression, lower is better"),
            Column(name="predicted over observed", unit="auc", note="clicks, 1 where they agree (PCOC)"),
            Column(
                name="calibration error",
                unit="auc",
                note="mean distance of both over bins of probability (ECE)",
            ),
        ],
        rows=rows,
        note=f"Of all test impressions, mean over seeds. {DEVIATION} The models are those of Table 2, and nothing was "
        "calibrated afterwards.",
        reading=_reading(found, Contender(MIM, encoder)),
    )


def _reading(found: Lookup, content: Contender) -> list[str]:
    losses = [
        tuple(found.level(ubm, one, "log_loss") for one in (NO_CONTENT, content)) for ubm in found.ubms()
    ]
    known = [(base.mean, mim.mean) for base, mim in losses if base is not None and mim is not None]
    if not known:
        return []
    lower = sum(mim < base for base, mim in known)
    sentences = [f"Content lowers the log loss of {lower} of {len(known)} user behavior models."]
    pcocs = [found.level(ubm, one, "pcoc") for ubm in found.ubms() for one in (NO_CONTENT, content)]
    ratios = [one.mean for one in pcocs if one is not None]
    if ratios:
        sentences.append(
            f"Predicted clicks are {min(ratios):.2f} to {max(ratios):.2f} times the observed ones."
        )
    return sentences
