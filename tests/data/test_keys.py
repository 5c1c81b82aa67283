"""Item keys: integers are themselves, text is hashed, collisions are told."""

import hashlib

import polars as pl
import pytest

from mimctr.data import keys
from mimctr.data.keys import item_keys
from mimctr.errors import DataError


def test_an_integer_id_is_its_own_key():
    assert item_keys(pl.Series([7, 0, 2**62], dtype=pl.Int64)).tolist() == [7, 0, 2**62]


def test_a_text_key_is_the_first_63_bits_of_blake2b():
    digest = hashlib.blake2b("jumper-ß".encode(), digest_size=8).hexdigest()
    assert item_keys(pl.Series(["jumper-ß"])).tolist() == [int(digest, 16) // 2]


def test_keys_do_not_depend_on_the_other_items():
    """Mutant: number the ids by rank; then a new item renames every vector in the center."""
    alone = item_keys(pl.Series(["b"]))
    assert item_keys(pl.Series(["a", "b", "c"]))[1] == alone[0]


def test_text_that_looks_like_a_number_is_not_that_number():
    assert item_keys(pl.Series(["17"])).tolist() != [17]


def test_a_collision_is_an_error_that_names_both_ids(monkeypatch):
    """Mutant: no check; two items then share one vector, silently."""
    monkeypatch.setattr(keys, "text_key", len)
    with pytest.raises(
        DataError, match=r"1 pairs of text ids share an item_key\. First: 'ab' and 'xy' both have 2\."
    ):
        item_keys(pl.Series(["ab", "c", "xy"]))
