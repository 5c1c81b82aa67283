"""Histories see what is strictly earlier, and nothing else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimctr.data.histories import build_histories, history_ends

EVENT = st.tuples(st.integers(2, 5), st.integers(2, 9), st.integers(0, 6))  # user, item, time
BASE = 1_600_000_000


def built(events):
    user, item, time = (np.array(column, dtype=np.int64) for column in zip(*events, strict=True))
    return build_histories(user=user, item=item, time=time + BASE, kind=np.full(len(user), 2), num_users=4)


@settings(deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=30), st.lists(EVENT, min_size=1, max_size=30))
def test_a_history_is_every_strictly_earlier_behavior_of_the_user_in_time_order(behaviors, impressions):
    """Brute force. Mutant: ``side='right'``; a behavior of the same second then leaks (<= for <)."""
    histories = built(behaviors)
    user, _, time = (np.array(column, dtype=np.int64) for column in zip(*impressions, strict=True))
    ends = history_ends(histories, user=user, time=time + BASE)
    for who, when, end in zip(user, time, ends, strict=True):
        earlier = [event for event in behaviors if event[0] == who and event[2] < when]
        earlier.sort(key=lambda event: event[2])  # stable: ties in the order of the table
        assert histories.item[histories.offsets[who] : end].tolist() == [event[1] for event in earlier]


def test_equal_times_keep_the_order_of_the_table():
    """Mutant: an unstable sort."""
    rng = np.random.default_rng(1)
    events = [(2, item, 0) for item in rng.permutation(500)]
    assert built(events).item.tolist() == [event[1] for event in events]


def test_users_without_behaviors_own_an_empty_range():
    histories = built([(3, 2, 0)])
    assert histories.offsets.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert history_ends(histories, user=np.array([5]), time=np.array([BASE + 9])).tolist() == [1]


def test_no_behaviors_at_all_give_empty_histories():
    empty = np.array([], dtype=np.int64)
    histories = build_histories(user=empty, item=empty, time=empty, kind=empty, num_users=2)
    assert history_ends(histories, user=np.array([2, 3]), time=np.array([BASE, BASE])).tolist() == [0, 0]
