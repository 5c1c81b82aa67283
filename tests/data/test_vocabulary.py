"""Vocabularies: 0 nothing, 1 unknown, then the values in order."""

import polars as pl

from mimctr.data.vocabulary import build_vocabulary, count_vocabulary, encode, encode_codes, factorize


def test_null_is_nothing_and_a_new_value_is_unknown():
    vocabulary = build_vocabulary(pl.Series(["b", "a", None, "b"]))
    assert vocabulary.to_dict(as_series=False) == {"index": [2, 3], "value": ["a", "b"], "count": [1, 2]}
    assert encode(pl.Series(["b", "new", None, "a"]), vocabulary).tolist() == [3, 1, 0, 2]


def test_rare_values_are_unknown():
    vocabulary = build_vocabulary(pl.Series(["a", "b", "b"]), min_count=2)
    assert encode(pl.Series(["a", "b"]), vocabulary).tolist() == [1, 2]


def test_the_order_of_the_rows_does_not_matter():
    """Mutant: number values by first appearance; two exports of one log then disagree."""
    values = pl.Series(["x", "y", "z", "y"])
    assert build_vocabulary(values).equals(build_vocabulary(values.reverse()))


def test_an_empty_vocabulary_knows_nothing():
    vocabulary = build_vocabulary(pl.Series([], dtype=pl.String))
    assert encode(pl.Series(["a", None]), vocabulary).tolist() == [1, 0]


def test_factorize_is_undone_by_gather():
    values = pl.Series([30, 10, None, 30])
    distinct, codes = factorize(values)
    assert (distinct.to_list(), codes.tolist()) == ([10, 30], [1, 0, -1, 1])


def test_a_factorized_column_has_the_same_vocabulary_and_indices():
    values = pl.Series(["b", None, "a", "b", "c"])
    for min_count in (1, 2):
        vocabulary = build_vocabulary(values, min_count=min_count)
        assert count_vocabulary(factorize(values), min_count=min_count).equals(vocabulary)
        assert encode_codes(factorize(values), vocabulary).tolist() == encode(values, vocabulary).tolist()


def test_values_without_a_row_are_not_in_the_vocabulary():
    first_two = factorize(pl.Series(["b", "a", "z"])).take(slice(0, 2))
    assert count_vocabulary(first_two)["value"].to_list() == ["a", "b"]
