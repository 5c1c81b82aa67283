"""Behavior stores answer what a sorted list answers, the file and Redis alike."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from center.servers import needs_redis

from mimctr.serve.histories import Event, HistoryStore, LocalHistories, RedisHistories

Open = Callable[..., HistoryStore]


@pytest.fixture(params=["local", pytest.param("redis", marks=[needs_redis, pytest.mark.slow])])
def open_histories(request, tmp_path: Path) -> Open:
    if request.param == "local":
        return lambda **named: LocalHistories(tmp_path / "h.sqlite", **named)
    url = request.getfixturevalue("redis_server").url
    return lambda **named: RedisHistories(url, name=tmp_path.name, **named)


def test_what_was_appended_comes_back_in_order(open_histories):
    store, rng = open_histories(), random.Random(0)
    events = [
        Event(rng.randrange(3), rng.randrange(2**62), rng.randrange(50), rng.choice(["click", "käufe"]))
        for _ in range(200)
    ]
    for first in range(0, len(events), 7):
        store.append(events[first : first + 7])
    store.append(events[:20])  # again
    for user in range(4):
        mine = sorted((one.time, one.item, one.kind) for one in set(events) if one.user == user)
        for count, before in ((1, 50), (10, 50), (1000, 50), (10, 25), (1000, 25), (5, 0)):
            found = store.newest(user, count, before=before)
            assert (
                list(zip(found.times.tolist(), found.items.tolist(), found.kinds, strict=True))
                == [one for one in mine if one[0] < before][-count:]
            )


def test_two_events_of_one_second_are_two_if_they_say_so(open_histories):
    """Mutant: the event id is not part of the event."""
    store = open_histories()
    for event_id in ("a", "b", "a"):
        store.append([Event(1, 5, 100, "click", event_id)])
    assert len(store.newest(1, 10, before=10**9).items) == 2


def test_the_oldest_go(open_histories):
    store = open_histories(max_kept=5)
    for time in range(20):
        store.append([Event(1, time, time, "click")])
    assert store.newest(1, 100, before=10**9).times.tolist() == [15, 16, 17, 18, 19]


def test_the_oldest_go_also_within_a_second(open_histories):
    """Mutant: all of the second that the limit falls into go."""
    store = open_histories(max_kept=5)
    store.append([Event(1, item, 100, "click") for item in range(12)])
    assert store.newest(1, 100, before=10**9).items.tolist() == [7, 8, 9, 10, 11]


def test_what_was_kept_is_there_for_another_process(open_histories):
    open_histories().append([Event(1, 5, 100, "click")])
    assert open_histories().newest(1, 5, before=10**9).items.tolist() == [5]
