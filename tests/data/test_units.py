"""How finely times are known, and what a log of days beside one of seconds may not show."""

import numpy as np
import polars as pl
import pytest

from mimctr.data import CtrDataset, prepare_tables
from mimctr.data.units import time_unit

DAY, START = 86_400, 1_600_000_000 // 86_400 * 86_400
DAYS = START + DAY * np.arange(12)


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (DAYS, DAY),
        (DAYS - 5 * 3600, DAY),  # midnight elsewhere
        (DAYS - 3600 * (1 + (np.arange(12) > 5)), DAY),  # clocks are changed on the seventh day
        (DAYS - 3600 * np.arange(12), 3600),
        (DAYS + 60 * np.arange(12), 60),
        (DAYS + np.arange(12), 1),
        (DAYS[:9], 1),  # too few to tell
        (np.repeat(DAYS[:9], 9), 1),
        (DAYS[:0], 1),
    ],
)
def test_the_unit_is_the_largest_that_all_times_share(times, unit):
    assert time_unit(times) == unit
    assert time_unit(times[::-1]) == unit


@pytest.mark.parametrize(("unit", "name"), [(DAY, "day"), (3600, "hour"), (60, "minute")])
def test_a_behavior_known_to_the_day_is_in_no_history_of_its_day(tables, write, tmp_path, unit, name):
    """Brute force. Mutants: it counts from midnight, so that every click of the day sees itself; its time is moved."""
    rng = np.random.default_rng(1)
    seconds = START + rng.integers(0, 20 * unit, len(tables["impressions"]))
    impressions = tables["impressions"] = tables["impressions"].with_columns(time=seconds)
    truncated = pl.col("time") // unit * unit
    clicks = impressions.filter(pl.col("click") == 1).select(
        "user_id", "item_id", truncated, kind=pl.lit("purchase")
    )
    tables["behaviors"] = clicks
    summary = prepare_tables(write(tables), tmp_path / "out")
    [told] = [problem for problem in summary.problems if problem.rule == "coarse-time"]
    assert told.message == (
        f"behaviors.time: all {len(clicks)} times are known to the {name}, those of impressions to the second. "
        f"A behavior is in no history before the end of its {name}: it may have come of the impression. Give seconds, "
        "if there are any."
    )
    data = CtrDataset.open(tmp_path / "out")
    users = dict(data.users.select("user_index", "user_id").iter_rows())
    assert sorted(data.behaviors.time) == sorted(clicks["time"])  # a service has no other times
    rows = data.impressions
    for row in range(len(rows.time)):
        user = int(rows.user_fields[row, 0])
        first, last = int(data.behaviors.offsets[user]), int(rows.end[row])
        earlier = clicks.filter(
            (pl.col("user_id") == users[user]) & (pl.col("time") + unit <= int(rows.time[row]))
        )
        assert last - first == len(earlier)


def test_days_beside_days_are_as_they_were(tables, write, tmp_path):
    """Nothing of the same day is seen anyway. Mutant: shift the behaviors always."""
    for name in ("impressions", "behaviors"):
        day = START + DAY * (pl.col("time") // 600 % 30)
        tables[name] = (
            tables[name].with_columns(time=day).unique(["user_id", "item_id", "time"], maintain_order=True)
        )
    summary = prepare_tables(write(tables), tmp_path / "out")
    assert "coarse-time" not in {problem.rule for problem in summary.problems}
    times = CtrDataset.open(tmp_path / "out").behaviors.time
    assert sorted(times) == sorted(tables["behaviors"]["time"])
