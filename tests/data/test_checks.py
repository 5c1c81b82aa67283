"""The door: every broken rule is named with its place, count, first example and remedy; lenient drops and counts."""

import re

import numpy as np
import polars as pl
import pytest

from mimctr.data import CtrDataset, prepare_tables
from mimctr.errors import DataError

from .conftest import START, edit, refusal


@pytest.mark.parametrize("name", ["items", "impressions"])
def test_a_missing_table_is_told(tables, write, tmp_path, name):
    del tables[name]
    [line] = refusal(folder := write(tables), tmp_path / "out")
    assert line.startswith(
        f"{name}: no such table in {folder}. Put {name}.parquet, a folder {name} of Parquet files, or"
    )


@pytest.mark.parametrize("name", ["items", "impressions", "behaviors"])
def test_an_empty_table_is_told(tables, write, tmp_path, name):
    tables[name] = tables[name].clear()
    lines = refusal(write(tables), tmp_path / "out")
    assert len(lines) == 1
    assert re.match(rf"{name}: has no rows \(.*{name}\.parquet\)\. Export it again", lines[0])


def test_a_missing_column_is_told_with_the_columns_there(tables, write, tmp_path):
    tables["impressions"] = tables["impressions"].drop("click")
    [line] = refusal(write(tables), tmp_path / "out")
    assert line == (
        "impressions.click: the column is missing; the table has user_id, item_id, time, query_text, user_city, "
        "context_hour. Add it; it holds 0 or 1."
    )


@pytest.mark.parametrize(
    ("table", "column", "values", "told"),
    [
        (
            "items",
            "item_id",
            pl.Float64,
            r"items\.item_id: holds Float64, not whole numbers or text\. First: 100\.0\.",
        ),
        ("items", "title", pl.Int64, r"items\.title: holds Int64, not text\. First: 7\."),
        ("items", "price", pl.String, r"items\.price: holds String, not numbers\. First: '7'\."),
        ("items", "image", pl.Int64, r"items\.image: holds Int64, not image bytes, or the text of a path"),
        (
            "items",
            "first_seen_time",
            pl.Float64,
            r"items\.first_seen_time: holds Float64, not whole seconds UTC",
        ),
        ("impressions", "time", pl.String, r"impressions\.time: holds String, not whole seconds UTC"),
        ("impressions", "click", pl.String, r"impressions\.click: holds String, not 0 or 1\. First: '7'\."),
        (
            "impressions",
            "query_text",
            pl.Int64,
            r"impressions\.query_text: holds Int64, not text\. First: 7\.",
        ),
        ("behaviors", "kind", pl.Int64, r"behaviors\.kind: holds Int64, not text\. First: 7\."),
    ],
)
def test_a_wrong_type_is_told(tables, write, tmp_path, table, column, values, told):
    seven = pl.col("item_id").cast(values) if column == "item_id" else pl.lit(7).cast(values)
    tables[table] = tables[table].with_columns(seven.alias(column))
    lines = refusal(write(tables), tmp_path / "out")
    assert len(lines) == 1, lines
    assert re.match(told, lines[0])
    assert lines[0].endswith("Convert the column.")


def test_ids_of_another_type_than_in_items_are_told(tables, write, tmp_path):
    tables["behaviors"] = tables["behaviors"].with_columns(pl.col("item_id").cast(pl.String))
    [line] = refusal(write(tables), tmp_path / "out")
    assert line.startswith("behaviors.item_id: holds String, not Int64, as in the other tables. First: '1")


BAD_ROWS = [
    ("items", "item_id", None, "have no value"),
    ("items", "item_id", 101, "repeat an item_id"),
    ("items", "item_id", -4, "have a negative id"),
    ("items", "price", float("inf"), "are not finite numbers"),
    ("impressions", "user_id", None, "have no value"),
    ("impressions", "item_id", 9, "name an item that is not in the table items"),
    ("impressions", "time", None, "have no value"),
    ("impressions", "time", 12, "lie outside the years 1990 to 2099"),
    ("impressions", "time", 1_700_000_000_000, "lie outside the years 1990 to 2099"),
    ("impressions", "click", 2, "are not 0 or 1"),
    ("impressions", "click", None, "have no value"),
    ("behaviors", "item_id", 9, "name an item that is not in the table items"),
    ("behaviors", "time", 12, "lie outside the years 1990 to 2099"),
    ("behaviors", "kind", None, "have no value"),
]


@pytest.mark.parametrize(("table", "column", "value", "wrong"), BAD_ROWS)
def test_a_bad_row_is_told_and_leniently_dropped(tables, write, tmp_path, table, column, value, wrong):
    """What lenient leaves is what a table without the row gives. Mutant: drop the row from one column only."""
    row = 5
    if table == "items":  # nothing else may name the item
        item = tables["items"]["item_id"][row]
        tables |= {
            name: tables[name].filter(pl.col("item_id") != item) for name in ("impressions", "behaviors")
        }
    without = {**tables, table: tables[table].filter(pl.int_range(pl.len()) != row)}
    tables[table] = edit(tables[table], column, row, value)
    [line] = refusal(write(tables), tmp_path / "out")
    total = len(tables[table])
    assert line.startswith(f"{table}.{column}: 1 of {total} rows {wrong}. First: row {row}, {value!r}. ")

    summary = prepare_tables(write(tables), tmp_path / "lenient", lenient=True)
    assert [(problem.severity, problem.count) for problem in summary.problems] == [("dropped", 1)]
    prepare_tables(write(without), tmp_path / "clean")
    lenient, clean = CtrDataset.open(tmp_path / "lenient"), CtrDataset.open(tmp_path / "clean")
    assert lenient.items.equals(clean.items)
    assert lenient.users.equals(clean.users)
    for name in ("time", "click", "target", "end", "user_fields", "context_fields"):
        assert np.array_equal(getattr(lenient.impressions, name), getattr(clean.impressions, name)), name
    assert np.array_equal(lenient.behaviors.item, clean.behaviors.item)


@pytest.mark.parametrize("title", ["", "  ", "\t\n", "\x00", "\u3000\u00a0", "\u200b\ufeff", "\u00ad"])
def test_a_title_of_which_nothing_can_be_seen_is_missing(tables, write, tmp_path, title):
    """Mutant: strip white space only; an encoder then takes a zero-width space for a description."""
    summary = prepare_tables(
        write({**tables, "items": edit(tables["items"], "title", 5, title)}), tmp_path / "out"
    )
    titles = CtrDataset.open(tmp_path / "out").items["title"].to_list()
    assert [row for row, kept in enumerate(titles) if kept is None] == [5]
    assert [(problem.rule, problem.count) for problem in summary.problems] == [("missing-title", 1)]


@pytest.mark.parametrize(
    "title", ["👟", "赤い靴", "red\x00 shoe", "\u0301", "-", "word " * 20_000, "\U0001fae9"]
)
def test_any_other_title_is_kept_to_the_letter(tables, write, tmp_path, title):
    prepare_tables(write({**tables, "items": edit(tables["items"], "title", 5, title)}), tmp_path / "out")
    assert CtrDataset.open(tmp_path / "out").items["title"][5] == title


def test_duplicated_impressions_are_told_and_leniently_kept_once(tables, write, tmp_path):
    impressions = tables["impressions"]
    tables["impressions"] = pl.concat([impressions, impressions[7:8], impressions[9:10]])
    first = len(impressions)
    [line] = refusal(write(tables), tmp_path / "out")
    user, item, time = impressions.row(7)[:3]
    assert line == (
        f"impressions: 2 of {first + 2} rows repeat an impression (same user, item, time and query). First: row "
        f"{first}, user_id {user}, item_id {item}, time {time}. Keep one row for each impression."
    )
    summary = prepare_tables(write(tables), tmp_path / "lenient", lenient=True)
    assert summary.counts["impressions"] == first


@pytest.mark.parametrize("clicked_first", [False, True])
def test_an_impression_with_a_row_for_its_click_is_clicked(tables, write, tmp_path, clicked_first):
    """As logs of events have them: shown, then clicked. Mutant: the first row decides, and no click is left."""
    impressions = tables["impressions"]
    shown, clicked = (
        impressions.with_columns(click=pl.lit(0, pl.Int64)),
        impressions.filter(pl.col("click") == 1),
    )
    tables["impressions"] = pl.concat([clicked, shown] if clicked_first else [shown, clicked])
    [line] = refusal(write(tables), tmp_path / "out")
    assert (
        f" {len(clicked)} of these impressions have a row with a click and one without; '--lenient' takes them as "
        "clicked. Keep one row" in line
    )
    prepare_tables(write(tables), tmp_path / "lenient", lenient=True)
    prepare_tables(write({**tables, "impressions": impressions}), tmp_path / "once")
    names = ("time", "target", "click")
    found = [CtrDataset.open(tmp_path / name).impressions for name in ("lenient", "once")]
    rows = [
        sorted(zip(*(getattr(one, name) for name in names), one.user_fields[:, 0], strict=True))
        for one in found
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("table", ["impressions", "behaviors"])
def test_a_blank_id_is_none(tables, write, tmp_path, table):
    """Mutant: all visitors without an id are one user, with the history of the whole site."""
    tables = {
        name: table if name == "items" else table.with_columns(pl.format("u{}", "user_id").alias("user_id"))
        for name, table in tables.items()
    }
    tables[table] = edit(edit(tables[table], "user_id", 3, ""), "user_id", 8, " \u200b")
    [line] = refusal(write(tables), tmp_path / "out")
    assert line.startswith(f"{table}.user_id: 2 of {len(tables[table])} rows have no value. First: row 3, ")


def test_a_blank_value_of_a_field_is_none(tables, write, tmp_path):
    tables["items"] = edit(tables["items"], "category", 3, "")
    tables["impressions"] = tables["impressions"].with_columns(user_city=pl.lit(" "))
    summary = prepare_tables(write(tables), tmp_path / "out")
    assert [(one.rule, one.count) for one in summary.problems] == [("missing-category", 1)]
    data = CtrDataset.open(tmp_path / "out")
    assert data.fields.user["user_city"] == 2
    assert not data.impressions.user_fields[:, 1].any()


def test_an_optional_number_that_is_nan_is_missing(tables, write, tmp_path):
    """Some writers have NaN for null. Mutant: the item goes, and all its impressions with it."""
    tables["items"] = edit(tables["items"], "price", 3, float("nan"))
    tables["impressions"] = tables["impressions"].with_columns(
        bid=pl.Series([float("nan"), 1.0] * 200)[: len(tables["impressions"])]
    )
    assert prepare_tables(write(tables), tmp_path / "out").problems == []
    data = CtrDataset.open(tmp_path / "out")
    assert data.items["price"].is_null().to_list() == [row == 3 for row in range(len(data.items))]
    assert (
        np.isnan(data.impressions.bid).sum() == len(tables["impressions"]) - len(tables["impressions"]) // 2
    )


def test_behaviors_of_which_no_row_is_left_are_told(tables, write, tmp_path):
    tables["behaviors"] = tables["behaviors"].with_columns(item_id=pl.lit(7, dtype=pl.Int64))
    told = r"^behaviors: no row is left after dropping the bad ones\. Correct the table, or leave it out\.$"
    with pytest.raises(DataError, match=told):
        prepare_tables(write(tables), tmp_path / "out", lenient=True)


def test_the_same_item_for_another_query_is_no_duplicate(tables, write, tmp_path):
    again = tables["impressions"][7:8].with_columns(query_text=pl.lit("something else"))
    tables["impressions"] = pl.concat([tables["impressions"], again])
    assert prepare_tables(write(tables), tmp_path / "out").problems == []


def test_a_few_times_in_milliseconds_are_recognized(tables, write, tmp_path):
    time = pl.when(pl.int_range(pl.len()) < 3).then(pl.col("time") * 1000).otherwise(pl.col("time"))
    tables["impressions"] = tables["impressions"].with_columns(time)
    [line] = refusal(write(tables), tmp_path / "out")
    assert line.endswith("Give seconds UTC; these look like milliseconds.")


@pytest.mark.parametrize(
    ("unit", "factor"), [("milliseconds", 10**3), ("microseconds", 10**6), ("nanoseconds", 10**9)]
)
def test_times_in_another_unit_are_recognized(tables, write, tmp_path, unit, factor):
    tables["impressions"] = tables["impressions"].with_columns(pl.col("time") * factor)
    folder, rows = write(tables), len(tables["impressions"])
    [line] = refusal(folder, tmp_path / "out")
    first = tables["impressions"]["time"][0]
    assert line == (
        f"impressions.time: {rows} of {rows} times are {unit}, not seconds. First: row 0, {first}. "
        f"Divide the column by {factor:,}."
    )
    assert refusal(folder, tmp_path / "lenient", lenient=True) == [line], (
        "dropping every row would help nobody"
    )


@pytest.mark.parametrize("value", [-0.1, 1.5, float("inf")])
def test_a_probability_outside_0_to_1_is_told(tables, write, tmp_path, value):
    tables["impressions"] = edit(
        tables["impressions"].with_columns(true_probability=pl.lit(0.5)), "true_probability", 4, value
    )
    [line] = refusal(write(tables), tmp_path / "out")
    assert re.match(
        r"impressions\.true_probability: 1 of \d+ rows are not finite numbers from 0 to 1\. First: row 4",
        line,
    )


def test_every_problem_of_every_table_is_told_at_once(tables, write, tmp_path):
    """Mutant: stop at the first problem; then the user meets them one run at a time."""
    tables["items"] = edit(tables["items"], "image", 2, b"no image")
    tables["impressions"] = edit(edit(tables["impressions"], "click", 0, 7), "item_id", 1, 1)
    tables["behaviors"] = tables["behaviors"].drop("kind")
    lines = refusal(write(tables), tmp_path / "out")
    assert [line.split(":")[0] for line in lines] == [
        "behaviors.kind",
        "items.image",
        "impressions.item_id",
        "impressions.click",
    ]


def test_missing_content_and_lone_items_are_information(tables, write, tmp_path):
    items = edit(edit(edit(tables["items"], "image", 1, None), "title", 2, ""), "category", 3, "only one")
    tables["items"] = edit(items, "category", 4, None)
    summary = prepare_tables(write(tables), tmp_path / "out")
    assert [(p.severity, p.rule, p.message) for p in summary.problems] == [
        ("information", rule, f"items.{column}: 1 of 20 items {wrong}")
        for rule, column, wrong in [
            ("missing-image", "image", "have no image. They are kept; content interest does without."),
            ("missing-title", "title", "have no title. They are kept; content interest does without."),
            (
                "missing-category",
                "category",
                "have no category. They are kept; content interest does without.",
            ),
            (
                "lone-category",
                "category",
                "are alone in their category. Their hard negatives come from other categories.",
            ),
        ]
    ]
    dataset = CtrDataset.open(tmp_path / "out")
    assert dataset.items["title"][2] is None
    assert dataset.item_fields[6, 0] == 0


def test_an_impression_before_its_item_is_a_counted_warning(tables, write, tmp_path):
    tables["items"] = edit(tables["items"], "first_seen_time", 0, START + 9000)
    early = tables["impressions"].filter((pl.col("item_id") == 100) & (pl.col("time") < START + 9000))
    summary = prepare_tables(write(tables), tmp_path / "out")
    [problem] = summary.problems
    assert (problem.rule, problem.severity, problem.count) == ("before-first-seen", "warning", len(early))
    assert f"impression at {early['time'][0]}, item first seen at {START + 9000}" in problem.message


def test_unexpected_columns_are_named_and_ignored(tables, write, tmp_path):
    tables["impressions"] = tables["impressions"].with_columns(page=pl.lit(3), user_vector=pl.lit(0.5))
    summary = prepare_tables(write(tables), tmp_path / "out")
    [problem] = summary.problems
    assert (problem.rule, problem.severity) == ("unexpected-column", "information")
    assert (
        "2 columns are no part of the contract and are ignored: page, user_vector. Fields hold"
        in problem.message
    )
    assert list(CtrDataset.open(tmp_path / "out").fields.user) == ["user", "user_city"]


@pytest.mark.parametrize("column", ["title", "image", "category", "price", "first_seen_time"])
def test_an_optional_column_without_any_value_is_as_if_it_were_not_there(tables, write, tmp_path, column):
    prepare_tables(write({**tables, "items": tables["items"].drop(column)}), tmp_path / "without")
    empty = tables["items"].with_columns(pl.lit(None).alias(column))
    prepare_tables(write({**tables, "items": empty}), tmp_path / "empty")
    without, empty = CtrDataset.open(tmp_path / "without"), CtrDataset.open(tmp_path / "empty")
    assert without.items.equals(empty.items)
    assert without.fields == empty.fields


def test_a_needed_column_without_any_value_is_told(tables, write, tmp_path):
    tables["impressions"] = tables["impressions"].with_columns(click=pl.lit(None))
    [line] = refusal(write(tables), tmp_path / "out")
    assert line == "impressions.click: holds Null, not 0 or 1. First: None. Convert the column."


def test_ids_beyond_64_bits_are_told_with_the_first(tables, write, tmp_path):
    users = tables["impressions"]["user_id"].cast(pl.UInt64)
    tables["impressions"] = tables["impressions"].with_columns(
        user_id=users.set(users == 3, None).fill_null(2**64 - 7)
    )
    lines = refusal(write(tables), tmp_path / "out")
    row, count = int((users == 3).arg_max()), int((users == 3).sum())
    assert lines[0] == (
        f"impressions.user_id: {count} of {len(users)} rows hold whole numbers beyond 64 bits with a sign. "
        f"First: row {row}, 18446744073709551609. Give all ids of this kind as text, in every table."
    )


def test_a_negative_bid_is_told_with_its_limit(tables, write, tmp_path):
    tables["impressions"] = tables["impressions"].with_columns(
        bid=pl.Series([-1.0] + [0.5] * (len(tables["impressions"]) - 1))
    )
    [line] = refusal(write(tables), tmp_path / "out")
    assert line == (
        f"impressions.bid: 1 of {len(tables['impressions'])} rows are not finite numbers of at least 0. "
        "First: row 0, -1.0. Correct them, or give null."
    )


def test_behaviors_in_the_future_of_all_impressions_are_refused(tables, write, tmp_path):
    last = tables["impressions"]["time"].max()
    tables["behaviors"] = tables["behaviors"].with_columns(pl.col("time") + 40_000)
    count, first = len(tables["behaviors"]), tables["behaviors"]["time"].min()
    assert first >= last
    told = (
        rf"^behaviors\.time: {count} of {count} rows are at or after the last impression, at {last}, so none is in a "
        rf"history\. First: {first}\. Correct the times, or leave the table out: earlier clicks take its place\.$"
    )
    with pytest.raises(DataError, match=told):
        prepare_tables(write(tables), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_behaviors_that_are_mostly_in_the_future_are_told(tables, write, tmp_path):
    late = pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col("time") + 40_000).otherwise("time")
    tables["behaviors"] = tables["behaviors"].with_columns(time=late)
    last, count = tables["impressions"]["time"].max(), len(tables["behaviors"])
    num_late = int((tables["behaviors"]["time"] >= last).sum())
    told = [
        p.message
        for p in prepare_tables(write(tables), tmp_path / "out").problems
        if p.rule == "late-behavior"
    ]
    assert told == [
        f"behaviors.time: {num_late} of {count} rows are at or after the last impression, at {last}; they are in no "
        "history. Kept. Correct the times, or add later impressions."
    ]


def test_behaviors_of_strangers_are_told(tables, write, tmp_path):
    tables["behaviors"] = tables["behaviors"].with_columns(pl.col("user_id") + 1000)
    told = [
        p.message for p in prepare_tables(write(tables), tmp_path / "out").problems if p.rule == "no-history"
    ]
    assert len(told) == 1
    assert (
        f"none of {len(tables['behaviors'])} behaviors is earlier than an impression of the same user."
        in told[0]
    )


def with_propensities(tables: dict, **columns: object) -> None:
    size = len(tables["impressions"])
    given = {"position": [row % 3 for row in range(size)], "propensity": [0.5] * size} | columns
    tables["impressions"] = tables["impressions"].with_columns(
        pl.Series(name, values) for name, values in given.items() if values is not None
    )


def test_positions_and_propensities_are_stored_in_the_order_of_time(tables, write, tmp_path):
    size = len(tables["impressions"])
    position = np.random.default_rng(0).integers(0, 9, size).tolist()
    propensity = np.random.default_rng(1).uniform(0.1, 1, size).tolist()
    position[4], propensity[9] = None, None
    with_propensities(tables, position=position, propensity=propensity)
    prepare_tables(write(tables), tmp_path / "out")
    found = CtrDataset.open(tmp_path / "out").impressions
    order = tables["impressions"].with_row_index().sort("time", maintain_order=True)["index"].to_list()
    np.testing.assert_array_equal(
        found.position, [-1 if position[row] is None else position[row] for row in order]
    )
    np.testing.assert_array_equal(
        found.propensity, [np.nan if propensity[row] is None else propensity[row] for row in order]
    )
    assert found.position.dtype == np.int32


def test_a_log_without_positions_and_propensities_has_none(tables, write, tmp_path):
    prepare_tables(write(tables), tmp_path / "out")
    found = CtrDataset.open(tmp_path / "out").impressions
    assert (found.position, found.propensity) == (None, None)


def test_a_position_may_stand_alone_but_a_propensity_needs_one(tables, write, tmp_path):
    with_propensities(tables, propensity=None)
    prepare_tables(write(tables), tmp_path / "alone")
    assert CtrDataset.open(tmp_path / "alone").impressions.position is not None
    tables["impressions"] = tables["impressions"].drop("position").with_columns(propensity=pl.lit(0.5))
    [line] = refusal(write(tables), tmp_path / "out")
    assert line.startswith(
        "impressions.position: the column is missing, and a propensity is the probability of an item"
    )


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("propensity", 0.0, "are 0, and what was shown had a chance to be. First: row 5, 0.0"),
        ("propensity", 1.5, "are not finite numbers from 0 to 1. First: row 5, 1.5"),
        ("position", -1.0, "are not finite numbers from 0 to 1e+06. First: row 5, -1.0"),
        ("position", 0.5, "are not whole numbers. First: row 5, 0.5"),
    ],
)
def test_impossible_positions_and_propensities_are_told(tables, write, tmp_path, column, value, told):
    size = len(tables["impressions"])
    with_propensities(
        tables, **{column: [0.5 if column == "propensity" else 1.0] * 5 + [value] + [1.0] * (size - 6)}
    )
    [line] = refusal(write(tables), tmp_path / "out")
    assert line.startswith(f"impressions.{column}: 1 of {size} rows {told}")
