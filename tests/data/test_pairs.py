"""Interest pairs: an earlier item of the same user queries a later purchase, within the window."""

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mimctr.data import CtrDataset, HardNegatives, PairRule, prepare_tables
from mimctr.data import pairs as pairs_module
from mimctr.data.histories import build_histories
from mimctr.data.pairs import pairs_from_behaviors
from mimctr.data.split import DAY, Split
from mimctr.errors import ConfigError, DataError

from .conftest import START, picture

HOUR = 3600
SPLIT = Split(START, START + 60 * HOUR, START + 80 * HOUR, START + 100 * HOUR)
EVENT = st.tuples(
    st.integers(2, 4), st.integers(2, 7), st.integers(0, 99), st.sampled_from(["click", "purchase"])
)  # user, item, hour, kind
KINDS = ["click", "purchase"]
HAS_IMAGE = np.array([False, False, True, True, True, False, True, True])
GROUP = np.array([0, 1, 2, 2, 3, 3, 0, 0])


def found(events, rule, group=None):
    """Return (query_item, item, user, time, kind) of every pair that the rule makes of events."""
    user, item, hour, kind = (list(column) for column in zip(*events, strict=True))
    histories = build_histories(
        user=np.array(user),
        item=np.array(item),
        time=START + HOUR * np.array(hour),
        kind=np.array([KINDS.index(name) + 2 for name in kind]),
        num_users=3,
    )
    pairs = pairs_from_behaviors(
        histories, kinds=KINDS, has_image=HAS_IMAGE, group=group, rule=rule, split=SPLIT
    )
    assert (pairs["query"] == 0).all()
    return pairs


@settings(deadline=None)
@given(
    st.lists(EVENT, min_size=1, max_size=40),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from([("purchase",), ("click", "purchase"), ("wish",)]),
)
def test_pairs_equal_a_loop_over_all_pairs_of_events(events, window, same, query_kinds):
    """Brute force. Mutants: a query at the positive's own time (<=); the item as its own query; no window."""
    rule = PairRule(query_kinds=query_kinds, window_days=window / 24, max_pairs=99)
    expected = {
        (query[1], positive[1], positive[0], START + HOUR * positive[2], "purchase")
        for query in events
        for positive in events
        if query[0] == positive[0]
        and query[3] in query_kinds
        and positive[3] == "purchase"
        and 0 < positive[2] - query[2] <= window
        and query[1] != positive[1]
        and HAS_IMAGE[query[1]]
        and (not same or GROUP[query[1]] == GROUP[positive[1]] != 0)
    }
    pairs = found(events, rule, GROUP if same else None)
    assert set(pairs.select("query_item", "item", "user", "time", "kind").iter_rows()) == expected


def test_the_newest_queries_are_taken_each_item_once():
    """Mutant: limit before the repeated query item is removed."""
    events = [(2, item, hour, "purchase") for hour, item in enumerate([2, 3, 4, 3, 3, 7])]
    pairs = found(events, PairRule(max_pairs=2)).filter(pl.col("item") == 7)
    assert pairs["query_item"].to_list() == [3, 4]


@settings(deadline=None, max_examples=50)
@given(st.lists(EVENT, min_size=1, max_size=60), st.integers(1, 3), st.booleans())
@example([(2, 2 + (hour == 9), hour, "click") for hour in range(20)] + [(2, 7, 30, "purchase")], 2, False)
@example([(2, 4 - (hour > 2), hour, "click") for hour in range(20)] + [(2, 2, 30, "purchase")], 1, True)
def test_looking_back_step_by_step_finds_what_looking_at_all_finds(events, most, same):
    """Mutants: stop where the newest few are of another category; cut a positive's queries at the end of a chunk."""
    rule, group = PairRule(query_kinds=("click", "purchase"), max_pairs=most), GROUP if same else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs_module, "REACH", 10**6)
        at_once = found(events, rule, group)
        patch.setattr(pairs_module, "REACH", 2)
        patch.setattr(pairs_module, "CHUNK_ROWS", 3)
        step_by_step = found(events, rule, group)
    assert step_by_step.equals(at_once)


def test_the_part_is_that_of_the_positive():
    """Mutant: the query's time decides; then a test purchase trains."""
    events = [(2, 2, 0, "purchase"), (2, 3, 59, "purchase"), (2, 4, 60, "purchase"), (2, 7, 80, "purchase")]
    parts = found(events, PairRule()).group_by("item", maintain_order=True).agg(pl.col("part").unique())
    assert dict(parts.iter_rows()) == {3: ["train"], 4: ["validation"], 7: ["test"]}


def test_the_rule_in_words_names_every_choice():
    rule = PairRule(kinds=("purchase", "wish"), window_days=2.5, max_pairs=3, same_field="category")
    assert str(rule) == (
        "behaviors: query = image of an earlier purchase of the same user, at most 2.5 days before; positive = another "
        "item with the same category, a later purchase or wish; at most 3 pairs per positive, newest queries first"
    )


def test_rules_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"pairs\.window_days: must be above 0, got 0"):
        PairRule(window_days=0)
    with pytest.raises(ConfigError, match=r"pairs\.max_pairs: must be at least 1, got 0"):
        PairRule(max_pairs=0)


def test_searches_are_the_pairs_where_there_are_any(tables, write, tmp_path):
    times = START + np.array([50, 3, 17_000])
    tables["searches"] = pl.DataFrame(
        {
            "query_image": [picture(3), picture(200), picture(3)],
            "user_id": [1, 2, 99],
            "item_id": [100, 101, 102],
            "time": times,
            "kind": ["purchase", "click", "purchase"],
            "query_text": ["hat", None, None],
        }
    )
    prepare_tables(write(tables), tmp_path / "out")
    dataset = CtrDataset.open(tmp_path / "out")
    pairs = dataset.pairs
    assert pairs["item"].to_list() == [3, 2, 4]
    assert pairs["kind"].to_list() == ["click", "purchase", "purchase"]
    assert pairs["query_item"].to_list() == [0, 0, 0]
    assert pairs["part"].to_list() == ["train", "train", "test"]
    assert [dataset.queries.images.get(query - 1) for query in pairs["query"]] == [
        picture(200),
        picture(3),
        picture(3),
    ]
    assert [dataset.queries.texts[query - 1] for query in pairs["query"]] == [None, "hat", None]
    assert dataset.users["user_id"].to_list() == [1, 2, 3, 4, 5, 6, 7, 8, 99]
    assert dataset.manifest.pair_rule == "searches: query = the image that was searched with"


def test_a_search_may_ask_with_a_text_alone(tables, write, tmp_path):
    """Mutant: keep the row that asks nothing; its pair would have no query."""
    searched = {"user_id": [1, 2, 3, 4], "item_id": [100, 101, 102, 103], "time": [START + 5] * 4}
    texts = pl.Series([None, "a hat", "shoe", " "], dtype=pl.String)
    images = pl.Series([picture(3), None, picture(4), None], dtype=pl.Binary)
    columns = {**searched, "kind": ["purchase"] * 4, "query_text": texts, "query_image": images}
    tables["searches"] = pl.DataFrame(columns)
    with pytest.raises(DataError, match=r"searches: 1 of 4 rows have neither .* First: row 3\. Fill in one"):
        prepare_tables(write(tables), tmp_path / "strict")
    prepare_tables(write(tables), tmp_path / "lenient", lenient=True)
    dataset = CtrDataset.open(tmp_path / "lenient")
    queries, pairs = dataset.queries, dataset.pairs
    found = [(queries.texts[query - 1], queries.images.get(query - 1)) for query in pairs["query"]]
    assert found == [(None, picture(3)), ("a hat", None), ("shoe", picture(4))]
    assert dataset.manifest.pair_rule.endswith(
        "query = the image, or where there is none the text, that was searched with"
    )
    tables["searches"] = (
        pl.DataFrame(columns)[:3].drop("query_image").filter(pl.col("query_text").is_not_null())
    )
    prepare_tables(write(tables), tmp_path / "texts")
    dataset = CtrDataset.open(tmp_path / "texts")
    assert [dataset.queries.texts[query - 1] for query in dataset.pairs["query"]] == ["a hat", "shoe"]
    tables["searches"] = tables["searches"].drop("query_text")
    with pytest.raises(DataError, match="searches: the columns query_image and query_text are missing"):
        prepare_tables(write(tables), tmp_path / "neither", lenient=True)


def test_no_pairs_at_all_is_a_warning(tables, write, tmp_path):
    summary = prepare_tables(write(tables), tmp_path / "out", pairs=PairRule(kinds=("wish",)))
    [problem] = summary.problems
    assert (problem.rule, problem.severity) == ("no-pairs", "warning")
    assert problem.message.startswith(
        "behaviors: no interest pair for C-SFT comes out of it. Choose other kinds"
    )


CATEGORY = np.array([0, 1, 2, 2, 2, 3, 0, 0, 3])
FIRST_SEEN = np.array([0, 0, 10, 10, 99, 10, 10, 10, 10])  # item 4 arrives late


def draws(positive, before, count=4000):
    sampler = HardNegatives(CATEGORY, FIRST_SEEN, before=before)
    items, hard = sampler.draw(np.full(count, positive), np.random.default_rng(0))
    assert len(set(hard.tolist())) == 1
    return np.bincount(items, minlength=9) / count, bool(hard[0])


@pytest.mark.parametrize(
    ("positive", "before", "others"),
    [(2, 100, [3, 4]), (2, 50, [3]), (4, 50, [2, 3]), (5, 50, [8]), (8, 50, [5])],
)
def test_a_hard_negative_is_another_known_item_of_the_category(positive, before, others):
    """Mutants: the positive itself is drawn; an item that is first seen later is drawn."""
    shares, hard = draws(positive, before)
    assert hard
    expected = np.isin(np.arange(9), others) / len(others)
    assert np.abs(shares - expected).max() < 0.05  # six standard deviations of 4,000 draws


@pytest.mark.parametrize("positive", [6, 7])
def test_an_item_without_a_category_gets_any_other_item(positive):
    shares, hard = draws(positive, 50)
    others = [item for item in (2, 3, 5, 6, 7, 8) if item != positive]
    assert not hard
    assert np.abs(shares - np.isin(np.arange(9), others) / 5).max() < 0.05


def test_an_item_alone_in_its_category_gets_any_other_item():
    category = np.array([0, 1, 2, 3, 3])
    sampler = HardNegatives(category, np.zeros(5), before=1)
    items, hard = sampler.draw(np.array([2] * 100 + [3]), np.random.default_rng(0))
    assert set(items[:100].tolist()) == {3, 4}
    assert hard.tolist() == [False] * 100 + [True]


def test_draws_come_from_the_generator_alone():
    sampler = HardNegatives(CATEGORY, FIRST_SEEN, before=100)
    positives = np.array([2, 3, 4] * 50)
    one, two = (sampler.draw(positives, np.random.default_rng([5, 1]))[0] for _ in range(2))
    assert one.tolist() == two.tolist()


def test_a_catalogue_that_nothing_is_known_of_yet_is_refused():
    with pytest.raises(
        ConfigError, match="hard negatives: 0 items were seen before 5; at least 2 are needed"
    ):
        HardNegatives(CATEGORY, FIRST_SEEN, before=5)


def test_the_window_is_in_days():
    events = [(2, 2, 0, "purchase"), (2, 3, 49, "purchase")]
    assert len(found(events, PairRule(window_days=2))) == 0
    assert len(found(events, PairRule(window_days=49 * HOUR / DAY))) == 1
