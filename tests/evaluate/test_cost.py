"""Table 6 from costs that are known: ratios, the paper's numbers, findings."""

import pytest

from mimctr.errors import DataError
from mimctr.evaluate.cost import Agreement, Cost, Measured, Operations, Run, read_cost, write_cost
from mimctr.evaluate.machine import describe_machine
from mimctr.evaluate.paper.cost import cost_findings, cost_tables

PRODUCTS = {"base": 100.0, "mim": 110.0, "without_center": 5000.0, "end_to_end": 15000.0}


def measured(side: str, mode: str, products: float) -> Measured:
    """Base and MIM take a tenth of the time with a batch of 1,024."""
    run = Run(batch_size=16, num_steps=3, seconds=products, memory_bytes=1000, process_bytes=2000)
    usual = run.model_copy(update={"batch_size": 1024, "seconds": products / 10, "memory_bytes": 3000})
    return Measured(
        side=side,
        mode=mode,
        operations=Operations(products=products, elementwise=50.0),
        compared=run,
        usual=usual if side in ("base", "mim") else None,
    )


def cost(**products: float) -> Cost:
    found = [measured(s, m, p) for s, p in (PRODUCTS | products).items() for m in ("training", "inference")]
    return Cost(
        config={"compared_batch_size": 16, "batch_size": 1024},
        encoder="0" * 64,
        num_impressions=16,
        items_per_impression=21.5,
        distinct_items_per_impression=20.0,
        agreement=Agreement(num_vectors=9, mean_cosine=1.0, least_cosine=1.0, largest_logit_difference=0.0),
        measured=found,
        device="cpu",
        threads=2,
        machine=describe_machine(),
        versions={},
    )


def rows(made: Cost, *, half: int = 0):
    return {(row.group, row.label): row for row in cost_tables(made)[half].rows}


def means(row):
    return [cell.ours.mean for cell in row.cells]


def test_each_side_is_divided_by_base_at_its_own_batch_size():
    """Mutant: Base at 1,024 impressions would make 500 times of 50."""
    table = rows(cost())
    without = table["batches of 16", "Base+MIM without the center"]
    assert means(without) == [5000.0, 50.0, 1000.0, 1.0, 5000.0, 50.0]
    assert means(table["batches of 16", "Base"]) == [100.0, 1.0, 1000.0, 1.0, 100.0, 1.0]
    assert means(table["batches of 1,024", "Base+MIM"]) == pytest.approx([110.0, 1.1, 3000.0, 1.0, 11.0, 1.1])
    assert means(table["batches of 16", "Base+MIM"]) == pytest.approx([110.0, 1.1, 1000.0, 1.0, 110.0, 1.1])
    assert [table.key for table in cost_tables(cost())] == ["table 6", "table 6, inference"]


def test_the_papers_own_ratios_stand_beside_ours_once():
    """Table 6 writes (cost - base) / base: 0.59 and 2106 in training, 0.387 in inference."""
    training, inference = rows(cost()), rows(cost(), half=1)
    mim, without = ("batches of 1,024", "Base+MIM"), ("batches of 16", "Base+MIM without the center")
    assert training[mim].cells[1].paper == pytest.approx(1.59, abs=0.01)
    assert inference[mim].cells[1].paper == pytest.approx(1.387, abs=0.001)
    assert training[without].cells[1].paper == pytest.approx(2107, abs=1)
    assert training[mim].cells[0].paper == pytest.approx(0.182e9)
    assert all(cell.paper is None for cell in training["batches of 16", "Base+MIM"].cells)


def test_a_side_that_was_not_measured_is_not_run():
    row = rows(cost())["batches of 16", "end to end, each different item once"]
    assert row.not_run
    assert not row.cells


@pytest.mark.parametrize(
    ("products", "verdicts"),
    [
        ({}, ["held", "held", "held", "held"]),
        ({"mim": 121.0}, ["held", "held", "held", "not held"]),
        ({"mim": 160.0}, ["not held", "held", "held", "not held"]),
        ({"without_center": 999.0}, ["held", "not held", "held", "held"]),
        ({"end_to_end": 4999.0}, ["held", "held", "not held", "held"]),
    ],
)
def test_findings_hold_where_the_counts_say_so(products, verdicts):
    found = cost_findings(cost(**products))
    assert [one.verdict for one in found] == verdicts
    assert [one.ours for one in found] == [False, False, False, True]
    assert found[0].measured == f"{products.get('mim', 110.0) / 100:.2f} ×"


def test_costs_come_back_as_they_were_written(tmp_path):
    write_cost(tmp_path / "cost.json", cost())
    assert read_cost(tmp_path / "cost.json") == cost()
    (tmp_path / "cost.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"values do not follow the schema of cost\.json"):
        read_cost(tmp_path / "cost.json")
