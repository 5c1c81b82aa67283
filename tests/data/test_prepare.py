"""Preparing as a whole: the summary, the same bytes twice, all or nothing."""

import polars as pl
import pytest

from mimctr.data import CtrDataset, PairRule, SplitRule, Summary, prepare_tables
from mimctr.errors import ConfigError, DataError, RunError
from mimctr.files import read_json

from .conftest import NUM_ITEMS, make_tables


def test_good_tables_have_no_problem(tables, write, tmp_path):
    summary = prepare_tables(write(tables), tmp_path / "out")
    assert summary.problems == []
    assert summary.counts["impressions"] == len(tables["impressions"])
    assert summary.counts["items"] == NUM_ITEMS
    assert summary.counts["train"] + summary.counts["validation"] + summary.counts["test"] == len(
        tables["impressions"]
    )
    assert Summary.model_validate(read_json(tmp_path / "out" / "summary.json")) == summary


def test_a_field_may_have_any_name_that_is_not_taken(tables, write, tmp_path):
    """Mutant: name a file after the column; ``../x`` then lands outside the dataset."""
    odd = {"../x": pl.lit("a"), "user": pl.lit("b"), "query_text": pl.lit("c"), "item_key": pl.lit(1)}
    tables["items"] = tables["items"].with_columns(value.alias(name) for name, value in odd.items())
    [problem] = prepare_tables(write(tables), tmp_path / "out").problems
    assert "1 columns are no part of the contract and are ignored: item_key." in problem.message
    dataset = CtrDataset.open(tmp_path / "out")
    assert dataset.fields.item == {"category": 6, "brand": 5, "../x": 3, "user": 3, "query_text": 3}
    assert dataset.vocabulary("item", "query_text")["value"].to_list() == ["c"]
    assert not (tmp_path / "x.parquet").exists()


def test_nothing_is_overwritten(tables, write, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="out: exists already"):
        prepare_tables(write(tables), tmp_path / "out")


def test_lenient_does_not_make_a_dataset_of_nothing(tables, write, tmp_path):
    tables["impressions"] = tables["impressions"].with_columns(click=pl.lit(5))
    with pytest.raises(DataError, match="no row of impressions is left after dropping the bad ones"):
        prepare_tables(write(tables), tmp_path / "out", lenient=True)


def test_a_failure_leaves_nothing_behind(tables, write, tmp_path):
    with pytest.raises(DataError, match="the train part has no impressions"):
        prepare_tables(write(tables), tmp_path / "sub" / "out", split=SplitRule(test_days=3))
    assert list((tmp_path / "sub").iterdir()) == []


def test_an_unknown_field_for_pairs_is_told(tables, write, tmp_path):
    with pytest.raises(ConfigError, match=r"items have no field 'colour'\. Choose one of category, brand\."):
        prepare_tables(write(tables), tmp_path / "out", pairs=PairRule(same_field="colour"))


def test_the_same_tables_give_the_same_bytes(tables, write, tmp_path):
    for name in ("one", "two"):
        prepare_tables(write(make_tables()), tmp_path / name)
    files = sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    assert len(files) > 20
    for file in files:
        if file.name != "summary.json":  # it tells the duration
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
