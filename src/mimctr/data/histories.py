"""Each user's behaviors once, in time order; for each impression, where they end."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mimctr.errors import DataError


class Histories(NamedTuple):
    """Behaviors of all users in flat arrays. User ``u`` owns ``offsets[u]:offsets[u + 1]``, oldest first."""

    offsets: Int[ndarray, "users_plus_3"]
    user: Int[ndarray, "behaviors"]
    item: Int[ndarray, "behaviors"]
    time: Int[ndarray, "behaviors"]
    kind: Int[ndarray, "behaviors"]


def build_histories(
    *,
    user: Int[ndarray, "behaviors"],
    item: Int[ndarray, "behaviors"],
    time: Int[ndarray, "behaviors"],
    kind: Int[ndarray, "behaviors"],
    num_users: int,
) -> Histories:
    """Sort behaviors by user, then by time; equal times keep the order of the table.

    Args:
        user: User index, 2 and up.
        item: ``item_index``.
        time: Seconds UTC.
        kind: Index in the vocabulary of kinds.
        num_users: Users in the vocabulary, padding and unknown not counted.
    """
    order = np.argsort(time, kind="stable")
    order = order[np.argsort(user[order], kind="stable")]
    counts = np.bincount(user, minlength=num_users + 2)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Histories(offsets, user[order], item[order], time[order], kind[order])


def history_ends(
    histories: Histories, *, user: Int[ndarray, "rows"], time: Int[ndarray, "rows"]
) -> Int[ndarray, "rows"]:
    """Return, for each (user, time), the position behind the user's last behavior *strictly* earlier than the time.

    A behavior of the same second may be the click that the impression is asked to predict.

    Cost: one binary search a row, O(log behaviors), over one sorted key that holds user and time.

    Raises:
        DataError: users times seconds exceed 62 bits.
    """
    if not len(histories.time) or not len(time):
        return histories.offsets[user]
    first = int(min(histories.time.min(), time.min()))
    span = int(max(histories.time.max(), time.max())) - first + 1
    num_users = len(histories.offsets)
    if num_users * span >= 2**62:
        raise DataError(
            f"behaviors.time: {num_users:,} users times {span:,} seconds do not fit one 62-bit key. Shorten the log."
        )
    keys = histories.user.astype(np.int64) * span + (histories.time - first)
    asked = user.astype(np.int64) * span + (time - first)
    order = np.argsort(asked, kind="stable")  # neighboring searches then read neighboring memory
    ends = np.empty(len(asked), dtype=np.int64)
    ends[order] = np.searchsorted(keys, asked[order], side="left")
    return ends
