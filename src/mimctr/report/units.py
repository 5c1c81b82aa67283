"""How a number of a reproduction is written: one place, so that page, Markdown and terminal agree."""

from typing import get_args

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.schema import Cell, Finding, Unit
from mimctr.evaluate.written import MINUS, duration, percent, signed

MOST_OF_FOUR_DIGITS = 9_999.5
"""From here on a number is written whole: in four digits it would need a power of ten."""
LARGE = 10_000_000
"""From here on a count is written in millions or billions."""


def write_value(value: float, unit: Unit) -> str:
    """Return a number in its unit; the minus is a real minus."""
    if unit == "gain":
        return signed(value)
    if unit == "rate":
        return f"{signed(100 * value, 2)} %"
    if unit == "bytes":
        return _scaled(value, "B")
    if unit == "flop":
        return _scaled(value, "FLOP")
    if unit == "seconds":
        return duration(value) if value >= 1 else f"{1e3 * value:.3g} ms"
    if unit == "count":
        return _count(value)
    if unit == "number":
        return write_point(value)
    if unit == "share":
        return percent(value)
    ratio = "{:,.2f} ×" if abs(value) < 100 else "{:,.0f} ×"
    text = {"auc": "{:.4f}", "money": "{:,.2f}", "ratio": ratio}.get(unit, "{}").format(value)
    return text.replace("-", MINUS)


def _scaled(value: float, unit: str) -> str:
    """Return a value in millions or billions of its unit."""
    return f"{value / 1e9:,.4g} G{unit}" if value >= 1e9 else f"{value / 1e6:,.3g} M{unit}"


def _count(value: float) -> str:
    if value < LARGE:
        return f"{value:,.0f}"
    scaled, word = (value / 1e9, "billion") if value >= 1e9 else (value / 1e6, "million")
    return f"{scaled:,.4g} {word}"


def write_point(value: float | str | None) -> str:
    """Return a coordinate of a figure, whose unit stands on its axis; empty for None."""
    if value is None or isinstance(value, str):
        return value or ""
    text = f"{value:,.4g}" if abs(value) < MOST_OF_FOUR_DIGITS else f"{value:,.0f}"
    return text.replace("-", MINUS)


def write_estimate(estimate: Estimate, unit: Unit) -> str:
    """Return the mean, with the standard deviation over seeds where there are several and no interval."""
    text = write_value(estimate.mean, unit)
    if estimate.sd is None or estimate.low is not None:
        return text
    return f"{text} ± {write_value(estimate.sd, unit).lstrip('+')}"


def write_interval(estimate: Estimate, unit: Unit) -> str:
    """Return ``low to high``; empty where there is no interval."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    return f"{write_value(estimate.low, unit)} to {write_value(estimate.high, unit)}"


def write_cell(cell: Cell, unit: Unit) -> str:
    """Return a cell in one line: ours, its interval in brackets, the paper's behind it."""
    if cell.text is not None:
        return cell.text
    parts = []
    if cell.ours is not None:
        within = write_interval(cell.ours, unit)
        parts.append(write_estimate(cell.ours, unit) + (f" ({within})" if within else ""))
    if cell.paper is not None:
        parts.append(f"[paper {write_value(cell.paper, unit)}]")
    return " ".join(parts)


def confidence_words(confidence: float | None) -> str:
    """Return a confidence in percent, never rounded up to certainty."""
    if confidence is None:
        return ""
    if confidence > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if confidence < 0.001 else f"{100 * confidence:.1f} %"


def finding_confidence(finding: Finding) -> str:
    """Return how sure a finding is; what was counted is sure."""
    known = finding.difference
    if known is not None and known.low is not None and known.low == known.high and known.p_value == 0:
        return "counted"
    return confidence_words(finding.confidence)


def finding_difference(finding: Finding) -> str:
    """Return what was measured: the difference, or the words that tell it better."""
    if finding.measured:
        return finding.measured
    return "" if finding.difference is None else write_value(finding.difference.mean, finding.unit)


def finding_interval(finding: Finding) -> str:
    """Return the interval of the difference; empty where there is none, or where the difference is not shown."""
    if finding.difference is None or finding.measured:
        return ""
    return write_interval(finding.difference, finding.unit)


def finding_order(finding: Finding) -> float | str:
    """Return what findings are sorted by where they are sorted by difference: unit by unit, the larger ones apart."""
    if finding.difference is None:
        return ""
    return list(get_args(Unit)).index(finding.unit) * 1e6 + min(max(finding.difference.mean, -1e5), 1e5)
