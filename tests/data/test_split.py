"""The split is by time, and only by time."""

import numpy as np
import pytest

from mimctr.data.split import DAY, Split, SplitRule, split_times
from mimctr.errors import ConfigError, DataError

DAYS = 1_600_041_600 + np.repeat(np.arange(100), 3) * DAY  # 100 midnights, three impressions each


def test_days_are_counted_back_from_the_last_impression():
    """The fashion protocol: last 20 days test, the 10 before them validate, the first 5 only fill histories."""
    split = split_times(DAYS, SplitRule(test_days=20, validation_days=10, warmup_days=5))
    assert [split.rows(DAYS, part) for part in ("train", "validation", "test")] == [
        range(15, 210),
        range(210, 240),
        range(240, 300),
    ]


def test_equal_times_stay_together():
    """Mutant: cut at a row number, such as 90 % of the rows."""
    times = np.array([0] * 5 + [10] * 90 + [20] * 5) + 1_600_000_000
    split = split_times(times, SplitRule(test_fraction=0.3, validation_fraction=0.4))
    assert split.rows(times, "validation") == range(5, 95)


def test_fractions_are_of_the_time_not_of_the_rows():
    times = np.concatenate([np.zeros(900), np.arange(1, 101)]).astype(np.int64) + 1_600_000_000
    split = split_times(times, SplitRule(test_fraction=0.2, validation_fraction=0.1))
    assert split.rows(times, "test") == range(980, 1000)


def test_a_part_of_a_time_is_where_its_rows_are():
    split = Split(train_start=10, validation_start=20, test_start=30, test_end=40)
    assert split.part_of(np.array([5, 10, 19, 20, 29, 30, 39, 50])).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_an_empty_part_is_an_error_that_names_it():
    with pytest.raises(
        DataError, match=r"the train part has no impressions; 300 impressions span 99\.0 days"
    ):
        split_times(DAYS, SplitRule(test_days=90, validation_days=20))
    with pytest.raises(
        DataError, match=r"the validation part has no impressions; 3 impressions span 0\.0 days"
    ):
        split_times(DAYS[:3], SplitRule())


def test_lengths_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"split\.test_days: must be above 0, got 0"):
        SplitRule(test_days=0)
    with pytest.raises(ConfigError, match=r"split\.warmup_days: must not be negative, got -1"):
        SplitRule(warmup_days=-1)
