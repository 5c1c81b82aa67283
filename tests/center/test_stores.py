"""What every parameter store promises: the same tests on the embedded store, Redis, a cluster, and behind a cache."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from center.servers import Open
from center.worlds import BASE_KEYS, DIM, PARTITIONS, World, partition_of, vector
from mimctr.center.publish import Behind, behind
from mimctr.center.record import Digest, State, VectorRecord, encode
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.center.stores.interface import Outcome, Watermark
from mimctr.center.window import Window
from mimctr.errors import CenterError, Fenced


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "center")


def first_window(world: World, key: int = 5) -> Window:
    """Return the first window of an item's partition."""
    world.put(key)
    partition = partition_of(key)
    return world.center.log.windows_after(1, partition, 0)[0]


def test_base_and_windows_are_answered(world, open_store: Open):
    store = open_store()
    world.put(5, 900)
    world.delete(40)
    assert world.bring(store) > 0
    world.check(store)
    assert behind(world.center.log, store, 1) == Behind(0, 0.0)


def test_keys_may_repeat_and_stand_in_any_order(world, open_store: Open):
    store = open_store()
    world.put(5, 17, 2000)
    world.bring(store)
    space = world.center.log.generations.space(1)
    keys = np.array([2000, 5, 3, 5, 2**62, 2000, 17])
    whole = store.fetch(space, keys)
    for place, key in enumerate(keys.tolist()):
        alone = store.fetch(space, np.array([key]))
        assert alone.states[0] == whole.states[place]
        np.testing.assert_array_equal(alone.vectors[0], whole.vectors[place])
    assert store.fetch(space, keys[:0]).vectors.shape == (0, DIM)


def test_a_window_counts_once(world, open_store: Open):
    """Mutant: a duplicate is applied again, and its watermark moved."""
    store = open_store()
    window = first_window(world)
    world.bring(store)
    before = store.digests(world.center.log.generations.space(1))
    again = store.apply(world.center.log.generations.space(1), window)
    assert again == (Outcome.DUPLICATE, Watermark(1, 1))
    assert store.digests(world.center.log.generations.space(1)) == before


def test_a_window_with_others_missing_before_it_is_not_applied(world, open_store: Open):
    """Mutant: any newer window is applied."""
    store = open_store()
    space = world.center.log.generations.space(1)
    store.load(space, world.center.open_base(1))
    world.put(5)
    world.put(5, salt=2)
    partition = partition_of(5)
    first, second = world.center.log.windows_after(1, partition, 0)
    assert store.apply(space, second) == (Outcome.GAP, Watermark(0, 0))
    np.testing.assert_allclose(store.fetch(space, np.array([5])).vectors[0], vector(5, 0, 1), atol=2e-3)
    assert store.apply(space, first).outcome == Outcome.APPLIED
    assert store.apply(space, second) == (Outcome.APPLIED, Watermark(1, 2))
    world.check(store)


def test_a_producer_that_was_replaced_is_fenced(world, open_store: Open):
    """Mutant: the epoch is not compared."""
    store = open_store()
    space = world.center.log.generations.space(1)
    window = first_window(world)
    newer = dataclasses.replace(window, epoch=2)
    store.load(space, world.center.open_base(1))
    assert store.apply(space, newer).outcome == Outcome.APPLIED
    late = dataclasses.replace(window, seq=2)
    assert store.apply(space, late) == (Outcome.FENCED, Watermark(2, 1))


def test_an_older_version_never_comes_back(world, open_store: Open):
    """Mutant: the last writer wins; a replay resurrects a deleted item."""
    store = open_store()
    space = world.center.log.generations.space(1)
    window = first_window(world)
    world.put(5, salt=2)
    world.delete(17)
    world.bring(store)
    for key, version in ((5, 1), (17, 0)):
        partition = partition_of(key)
        mark = store.watermarks(space)[partition]
        payload = encode(vector(key, 9, 1)[None], "float16")[0].tobytes()
        replayed = dataclasses.replace(
            window,
            partition=partition,
            seq=mark.seq + 1,
            records=(VectorRecord(key, version, payload=payload),),
        )
        assert store.apply(space, replayed).outcome == Outcome.APPLIED
    world.check(store)
    assert store.fetch(space, np.array([17])).states.tolist() == [State.DELETED]


def test_versions_count_and_do_not_look_at_a_clock(world, open_store: Open, monkeypatch):
    """Mutant: version compared by clock. A machine whose clock goes back still overwrites."""
    store = open_store()
    monkeypatch.setattr("time.time", lambda: 2e9)
    world.put(5)
    monkeypatch.setattr("time.time", lambda: 1e9)
    world.put(5, salt=2)
    world.bring(store)
    world.check(store)


def test_a_large_version_is_compared_exactly(world, open_store: Open):
    """Mutant: versions pass through a 32-bit number."""
    store = open_store()
    space = world.center.log.generations.space(1)
    window = first_window(world)
    store.load(space, world.center.open_base(1))
    big = 2**40 + 1
    for seq, version in ((1, big), (2, 9), (3, big - 1), (4, big + 1)):
        payload = encode(vector(5, version, 1)[None], "float16")[0].tobytes()
        one = dataclasses.replace(window, seq=seq, records=(VectorRecord(5, version, payload=payload),))
        assert store.apply(space, one).outcome == Outcome.APPLIED
        wanted = vector(5, max(version, big), 1)
        np.testing.assert_allclose(store.fetch(space, np.array([5])).vectors[0], wanted, atol=2e-3)


def test_two_versions_in_one_window(world, open_store: Open):
    store = open_store()
    world.put(5, 5)
    world.delete(5)
    world.put(5, salt=3)
    world.bring(store)
    world.check(store)


def test_generations_do_not_see_one_another(world, open_store: Open):
    """Mutant: the generation is missing from the key."""
    store = open_store()
    second = world.begin(BASE_KEYS[:4])
    world.put(5, 700)
    for number in (1, second):
        world.bring(store, number)
    world.delete(700)
    world.bring(store, second)
    space = world.center.log.generations.space(1)
    assert store.fetch(space, np.array([700])).known.tolist() == [True]  # the first has not heard of it
    world.bring(store, 1)
    for number in (1, second):
        world.check(store, number)


def test_a_window_of_another_generation_or_encoder_is_refused(world, open_store: Open):
    store = open_store()
    window = first_window(world)
    world.bring(store)
    for changed in ({"generation": 2}, {"fingerprint": "somebody else"}):
        with pytest.raises(CenterError, match="generations never mix"):
            store.apply(world.center.log.generations.space(1), dataclasses.replace(window, **changed))


def test_a_snapshot_of_another_encoder_is_no_base(world, open_store: Open, tmp_path):
    write_snapshot(tmp_path / "other", BASE_KEYS, np.ones((len(BASE_KEYS), DIM)), encoder="other")
    from mimctr.center.snapshot import Snapshot

    with pytest.raises(
        CenterError, match=r"encoder other, 6 dimensions in float16 and 0 partitions is no base"
    ):
        open_store().load(
            world.center.log.generations.space(1), Snapshot.open(tmp_path / "other", encoder="other")
        )


def test_a_store_that_was_not_loaded_says_so(world, open_store: Open):
    store = open_store()
    space = world.center.log.generations.space(1)
    assert store.watermarks(space) == [None] * PARTITIONS
    assert store.apply(space, first_window(world)) == (Outcome.EMPTY, None)
    assert store.fetch(space, BASE_KEYS).states.tolist() == [State.MISS] * len(BASE_KEYS)
    assert store.digests(space) == [Digest(0, 0)] * PARTITIONS


def test_dropping_a_generation_leaves_the_others(world, open_store: Open):
    store = open_store()
    second = world.begin(BASE_KEYS)
    world.put(5, 700)
    for number in (1, second):
        world.bring(store, number)
    store.drop(world.center.log.generations.space(1))
    assert store.watermarks(world.center.log.generations.space(1)) == [None] * PARTITIONS
    assert not store.fetch(world.center.log.generations.space(1), np.array([5, 17, 700])).known.any()
    world.check(store, second)
    world.bring(store, 1)
    world.check(store, 1)


def test_loading_again_leaves_nothing_of_before(world, open_store: Open):
    """Mutant: rows that the new base does not have stay. The tombstone that said so is pruned."""
    store = open_store()
    world.put(5, 700)
    world.bring(store)
    world.delete(700, 17)
    world.center.compact(1)
    world.center.collect_garbage(keep_hours=0.0)
    world.bring(store)
    world.check(store, more_keys=(700,))
    own = open_store()
    world.bring(own)
    assert store.digests(world.center.log.generations.space(1)) == own.digests(
        world.center.log.generations.space(1)
    )


def test_a_store_that_is_loaded_again_is_up_to_date_in_all_partitions(world, open_store: Open):
    """Windows of the last partition are gone, which takes the first ones back to the snapshot, too.

    Mutant: a partition that was looked at once is up to date for good.
    """
    store = open_store()
    space = world.center.log.generations.space(1)
    first, last = (next(key for key in range(100) if partition_of(key) == own) for own in (0, PARTITIONS - 1))
    world.bring(store)
    world.put(first, last)
    store.apply(space, world.center.log.windows_after(1, 0, 0)[0])  # whoever published was killed after it
    world.center.compact(1)
    world.center.collect_garbage(keep_hours=0.0)
    world.put(first, salt=2)
    world.bring(store)
    world.check(store)
    assert behind(world.center.log, store, 1) == Behind(0, 0.0)


def test_a_store_of_another_center_is_refused(world, open_store: Open, tmp_path):
    """A database that was put back to an older copy must not be continued over newer rows."""
    store = open_store()
    world.put(5)
    world.bring(store)
    other = World(tmp_path / "older copy")
    if any(store.watermarks(world.center.log.generations.space(1))):
        with pytest.raises(Fenced, match=r"the log ends with window 0, but the store has more than that"):
            other.bring(store)


@pytest.mark.parametrize("more", [2, 3])
def test_a_restored_log_that_went_on_is_refused(world, open_store: Open, tmp_path, more):
    """Its windows have numbers that the store has seen. Mutant: they are taken for those, and are lost."""
    store = open_store()
    for salt in range(2):
        world.put(5, salt=salt)
    world.bring(store)
    restored = World(tmp_path / "restored")
    restored.put(5, salt=0)
    restored.producer = restored.center.log.take_over("after the restoration")
    for salt in range(1, more):
        restored.put(5, salt=7 + salt)
    with pytest.raises(
        Fenced, match=r"window 2 of the log is of epoch 2, the store's of epoch 1, but the store"
    ):
        restored.bring(store)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_store_holds_what_the_log_holds(tmp_path, open_store: Open, dtype):
    """Digests are of the content: they agree between any two stores, and with a snapshot made afterwards."""
    world = World(tmp_path / dtype, dtype=dtype)
    store, late = open_store(), open_store()
    space = world.center.log.generations.space(1)
    world.put(5, 700, 701)
    world.delete(40)
    world.bring(store)
    world.check(store)
    before = store.digests(space)
    assert sum(before, Digest(0, 0)).num_vectors == len(world.expected[1])
    world.center.compact(1)
    late.load(space, world.center.open_base(1))
    assert late.digests(space) == before
    world.put(5, salt=4)
    world.bring(store)
    assert store.digests(space) != before
