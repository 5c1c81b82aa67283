"""Numbers as a reproduction writes them, unit by unit, written out by hand."""

import pytest

from mimctr.evaluate.encoder_results import Estimate
from mimctr.evaluate.paper.findings import counted, finding
from mimctr.evaluate.paper.schema import Cell
from mimctr.report.units import (
    confidence_words,
    finding_confidence,
    finding_order,
    write_cell,
    write_estimate,
    write_interval,
    write_value,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.64114, "auc", "0.6411"),
        (0.02768, "gain", "+0.0277"),
        (-0.02768, "gain", "−0.0277"),
        (0.1234, "share", "12.3 %"),
        (4000, "count", "4,000"),
        (1.83e9, "count", "1.83 billion"),
        (56.34e6, "count", "56.34 million"),
        (1.594, "ratio", "1.59 ×"),
        (99.996, "ratio", "100.00 ×"),
        (6318.4, "ratio", "6,318 ×"),
        (552_000, "flop", "0.552 MFLOP"),
        (9999.4, "number", "9,999"),
        (9999.5, "number", "10,000"),
        (-123456.7, "number", "−123,457"),
        (240.24e9, "flop", "240.2 GFLOP"),
        (1.1e9, "bytes", "1.1 GB"),
        (114_294_784, "bytes", "114 MB"),
        (75.0, "seconds", "1 min 15 s"),
        (0.00123, "seconds", "1.23 ms"),
        (0.0314, "rate", "+3.14 %"),
        (-0.002, "rate", "−0.20 %"),
        (1234.5, "money", "1,234.50"),
        (-3.25, "number", "−3.25"),
    ],
)
def test_a_number_is_written_in_its_unit(value, unit, text):
    assert write_value(value, unit) == text


def test_a_deviation_stands_where_there_is_no_interval():
    of_seeds = Estimate(mean=0.64, sd=0.002, low=None, high=None, p_value=None)
    paired = Estimate(mean=0.02, sd=0.001, low=0.01, high=0.03, p_value=0.001)
    assert write_estimate(of_seeds, "auc") == "0.6400 ± 0.0020"
    assert (write_estimate(paired, "gain"), write_interval(paired, "gain")) == (
        "+0.0200",
        "+0.0100 to +0.0300",
    )
    assert (
        write_cell(Cell(ours=paired, paper=0.0038), "gain") == "+0.0200 (+0.0100 to +0.0300) [paper +0.0038]"
    )
    assert write_cell(Cell(text="none"), "gain") == "none"
    assert write_cell(Cell(), "gain") == ""


@pytest.mark.parametrize(
    ("confidence", "text"),
    [(None, ""), (0.5, "50.0 %"), (0.99996, "> 99.9 %"), (0.00001, "< 0.1 %"), (0.9512, "95.1 %")],
)
def test_no_confidence_is_rounded_to_certainty(confidence, text):
    assert confidence_words(confidence) == text


def test_what_was_counted_is_sure_and_two_that_are_the_same_are_not():
    """Mutant: any interval of no width was counted. Two encoders that both kept their start differ by nothing."""
    same = Estimate(mean=0.0, sd=None, low=0.0, high=0.0, p_value=1.0)
    found = [finding("k", source="s", claim="c", difference=one) for one in (counted(0.3), same)]
    assert [finding_confidence(one) for one in found] == ["counted", "50.0 %"]


def test_findings_are_sorted_unit_by_unit():
    """Mutant: +6.22 % of clicks stands above an AUC of .0219 because .0622 is larger."""

    def of(mean: float, unit: str):
        known = Estimate(mean=mean, sd=None, low=None, high=None, p_value=None)
        return finding_order(finding("k", source="s", claim="c", difference=known, unit=unit))

    gains, rates = (
        [of(mean, "gain") for mean in (-0.3, 0.02, 0.03)],
        [of(m, "rate") for m in (-0.5, 0.0, 0.06)],
    )
    assert gains == sorted(gains)
    assert rates == sorted(rates)
    assert max(gains) < min(rates) or max(rates) < min(gains)
    assert finding_order(finding("k", source="s", claim="c", difference=None)) == ""
