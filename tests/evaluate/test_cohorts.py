"""Slices against loops over impressions."""

import numpy as np
import pytest

from mimctr.errors import DataError
from mimctr.evaluate.cohorts import (
    age_slices,
    arrival_slices,
    category_slices,
    content_slices,
    history_slices,
    query_slices,
    seen_slices,
    support_slices,
    whole,
)


def test_age_sets_hold_equally_many_items_from_newest_to_oldest():
    generator = np.random.default_rng(0)
    first_seen = generator.permutation(1000)
    targets = generator.choice(np.arange(2, 1000), 3000)
    slices = age_slices(targets, first_seen)
    assert list(slices) == [f"age:S{number}" for number in range(1, 11)]
    assert np.array_equal(sum(mask.astype(int) for mask in slices.values()), np.ones(3000))
    shown = sorted(set(targets.tolist()), key=lambda item: -first_seen[item])
    for number, mask in enumerate(slices.values()):
        expected = {item for rank, item in enumerate(shown) if rank * 10 // len(shown) == number}
        assert set(targets[mask].tolist()) == expected


def test_items_of_one_second_are_split_by_index_and_not_by_chance():
    slices = age_slices(np.array([5, 4, 3, 2]), np.zeros(6, dtype=np.int64), num_sets=2)
    assert slices["age:S1"].tolist() == [True, True, False, False]


def test_fewer_items_than_sets_is_an_error():
    with pytest.raises(DataError, match="3 items cannot make 10 sets"):
        age_slices(np.array([2, 3, 4, 4]), np.arange(9))


def test_categories_partition_the_impressions_and_missing_ones_have_a_name():
    categories = [None, None, "Toys", "Cars", None, "Pets"]
    targets = np.array([2, 3, 3, 4, 2])
    slices = category_slices(targets, categories)
    assert {name: mask.tolist() for name, mask in slices.items()} == {
        "category:(none)": [False, False, False, True, False],
        "category:Cars": [False, True, True, False, False],
        "category:Toys": [True, False, False, False, True],
    }


def test_the_largest_categories_are_kept_and_those_that_are_asked_for(caplog):
    """Mutants: all; the first by name; ties by the last name; what is asked for must be large."""
    caplog.set_level("INFO")
    names = [None, None, "Tiny", "Big", "Even", "Also even", "Not shown", None]
    targets = np.repeat([2, 3, 4, 5, 7], [1, 9, 4, 4, 2])
    slices = category_slices(targets, names, most=2)
    assert {name: mask.sum() for name, mask in slices.items()} == {"category:Also even": 4, "category:Big": 9}
    assert "2 of 5 categories, with 65.0 % of the impressions, are measured" in caplog.text
    besides = category_slices(targets, names, most=2, besides=("Tiny", "Big", "Not shown", "Nowhere"))
    assert list(besides) == ["category:Also even", "category:Big", "category:Tiny"]
    many = [None, None, *(f"{number:03}" for number in range(80))]
    assert len(category_slices(np.arange(2, 82), many)) == 50
    caplog.clear()
    assert len(category_slices(targets, names)) == 5
    assert caplog.text == ""


def test_unseen_items_are_those_without_an_occurrence_in_training():
    slices = seen_slices(np.array([2, 3, 2]), np.array([0, 0, 4, 0]))
    assert slices["item:unseen"].tolist() == [False, True, False]
    assert slices["item:seen"].tolist() == [True, False, True]
    assert list(seen_slices(np.array([2]), np.array([0, 0, 4]))) == ["item:seen"]


def test_an_item_of_the_validation_part_is_known_when_the_test_starts():
    first_seen = np.array([0, 0, 50, 99, 100, 130])
    slices = arrival_slices(np.array([2, 5, 3, 4, 2]), first_seen, test_start=100)
    assert slices["arrival:new"].tolist() == [False, True, False, True, False]
    assert slices["arrival:known"].tolist() == [True, False, True, False, True]
    assert list(arrival_slices(np.array([2, 3]), first_seen, test_start=100)) == ["arrival:known"]


def test_history_lengths_fall_into_their_ranges():
    slices = history_slices(np.array([0, 1, 9, 10, 49, 50, 1000]))
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slices.items()} == {
        "history:none": [0],
        "history:1-9": [1, 2],
        "history:10-49": [3, 4],
        "history:50+": [5, 6],
    }


def test_queries_are_sliced_only_where_they_differ():
    text, image = np.array([True, False, False, True]), np.array([False, True, False, True])
    slices = query_slices(text, image)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slices.items()} == {
        "query:none": [2],
        "query:text": [0],
        "query:image": [1],
        "query:both": [3],
    }
    assert query_slices(np.zeros(3, dtype=bool), np.zeros(3, dtype=bool)) == {}


def test_targets_with_and_without_an_image_or_a_title_are_told_apart_where_they_differ():
    image = np.array([False, False, True, False, True])
    title = np.array([False, False, True, True, False])
    slices = content_slices(np.array([2, 3, 4, 2]), image, title)
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slices.items()} == {
        "image:yes": [0, 2, 3],
        "image:no": [1],
        "title:yes": [0, 1, 3],
        "title:no": [2],
    }
    assert list(content_slices(np.array([2, 3]), image, title)) == ["image:yes", "image:no"]
    assert content_slices(np.array([2]), image, title) == {}


def test_the_whole_is_every_impression():
    assert whole(3)["all"].tolist() == [True, True, True]


def test_targets_are_sliced_by_how_often_training_showed_them():
    counts = np.array([0, 0, 0, 1, 9, 10, 99, 100, 999, 1000, 5000])
    targets = np.arange(2, 11)
    slices = support_slices(targets, counts)
    shown = {name: counts[targets[mask]].tolist() for name, mask in slices.items()}
    assert shown == {
        "support:1-9": [1, 9],
        "support:10-99": [10, 99],
        "support:100-999": [100, 999],
        "support:1000+": [1000, 5000],
    }
