"""The stable int64 name of an item in the representation center, whatever its raw id."""

import hashlib

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from mimctr.errors import DataError

KEY_BITS = 63


def item_keys(item_ids: pl.Series) -> Int[ndarray, "items"]:
    """Return the key of every item: an integer id itself, a text id hashed to 63 bits.

    A key depends on the id alone, so it is the same in every dataset and every run.

    Args:
        item_ids: Distinct ids, integers (at least 0) or text.

    Raises:
        DataError: two text ids share a key. Among a billion ids the chance is about one in twenty.
    """
    if item_ids.dtype != pl.String:
        return item_ids.cast(pl.Int64).to_numpy()
    keys = np.fromiter(map(text_key, item_ids), dtype=np.int64, count=len(item_ids))
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if len(same):
        first, second = item_ids[int(order[same[0]])], item_ids[int(order[same[0] + 1])]
        raise DataError(
            f"items.item_id: {len(same)} pairs of text ids share an item_key. First: {first!r} and {second!r} "
            f"both have {keys[order][same[0]]}. Rename one of the two, or export integer ids."
        )
    return keys


def item_key(item_id: int | str) -> int:
    """Return the key of one item; :func:`item_keys` is for many, and refuses text ids that share one.

    Raises:
        DataError: the id is negative.
    """
    if isinstance(item_id, str):
        return text_key(item_id)
    if item_id < 0:
        raise DataError(f"item {item_id}: an id must not be negative.")
    return item_id


def text_key(item_id: str) -> int:
    """Return the key of a text id: the first 63 bits of the BLAKE2b hash of its UTF-8 bytes."""
    digest = hashlib.blake2b(item_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - KEY_BITS)
