"""Generations from building to dropped, snapshots from the log, and what seal and verify see."""

import shutil

import numpy as np
import pytest

from center.worlds import BASE_KEYS, DIM, World, partition_of, vector
from mimctr.center.center import Center
from mimctr.center.record import State
from mimctr.center.snapshot import VECTORS, Snapshot, verify_snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.center.stores.interface import Watermark
from mimctr.center.stores.local import LocalStore
from mimctr.errors import CenterError, DamagedRecord


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "center")


def test_a_snapshot_from_anywhere_becomes_a_generation(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(50, DIM)).astype(np.float32)
    keys = np.random.default_rng(1).permutation(50)
    write_snapshot(tmp_path / "lake", keys, vectors, encoder="clip")
    center = Center.create(tmp_path / "center")
    one = center.adopt(Snapshot.open(tmp_path / "lake", encoder="clip"))
    base = center.open_base(one.number)
    np.testing.assert_array_equal(base.fetch(keys).vectors, vectors.astype(np.float16))
    small = center.adopt(Snapshot.open(tmp_path / "lake", encoder="clip"), dtype="int8")
    base = center.open_base(small.number)
    assert base.vectors.dtype == np.int8
    assert np.abs(base.fetch(keys).vectors - vectors).max() < np.abs(vectors).max() / 127


def test_compaction_is_base_and_windows(world):
    """The next snapshot answers what the last one and its windows answer; a replay on it changes nothing."""
    world.put(5, 700, 701)
    world.delete(40, 700)
    before = LocalStore()
    world.bring(before)
    assert world.center.compact(1) == 2
    assert world.center.compact(1) == 2  # nothing is new
    after = LocalStore()
    space = world.center.log.generations.space(1)
    after.load(space, world.center.open_base(1))
    assert after.digests(space) == before.digests(space)
    assert world.bring(after) == 0
    world.check(after)
    assert sorted(world.center.open_base(1).keys.tolist()) == sorted(world.expected[1])


def test_whoever_reads_the_last_snapshot_keeps_it(world):
    old = world.center.open_base(1)
    world.put(5)
    world.center.compact(1)
    world.put(5, salt=2)
    world.center.compact(1)
    assert world.center.collect_garbage(keep_snapshots=1, keep_hours=0.0) == (2, 2)
    assert world.center.snapshots(1) == [3]
    assert not world.center.snapshot_folder(1, 1).exists()
    np.testing.assert_allclose(old.fetch(np.array([5])).vectors[0], vector(5, 0, 1), atol=2e-3)


def test_garbage_leaves_what_stores_need(world):
    store = LocalStore()
    world.put(5)
    world.bring(store)
    world.center.compact(1)
    world.put(17)
    world.center.collect_garbage(keep_hours=0.0)
    assert world.bring(store) == 1
    world.check(store)


def test_a_generation_is_sealed_activated_and_rolled_back(world):
    log = world.center.log
    seal = world.center.seal(1, {"here": LocalStore()})
    assert (seal.num_vectors, seal.coverage) == (len(BASE_KEYS), 1.0)
    assert seal.stores[0].digest == seal.digest
    log.generations.activate(1)
    second = world.begin(BASE_KEYS)
    world.put(900)
    world.center.seal(second, {})
    log.generations.activate(second)
    log.generations.activate(log.generations.previous().number)
    assert log.generations.active().number == 1
    store = LocalStore()
    world.bring(store)
    world.check(store)  # 900 went to both


def test_a_generation_that_lacks_items_is_not_sealed(world):
    """Mutant: coverage is not looked at."""
    world.center.seal(1, {})
    world.center.log.generations.activate(1)
    second = world.begin(BASE_KEYS[:4])
    with pytest.raises(CenterError, match=r"only 57\.1% of the items that are served now have a vector"):
        world.center.seal(second, {})
    world.center.seal(second, {}, min_coverage=0.5)


class Forgetful(LocalStore):
    """Acknowledges a row and does not keep it."""

    def apply(self, space, window):
        applied = super().apply(space, window)
        self._held[space.generation].tail.pop(5, None)
        return applied


class Restless(LocalStore):
    """With each window all other partitions fall back to the base."""

    def apply(self, space, window):
        applied = super().apply(space, window)
        marks = self._held[space.generation].watermarks
        marks[:] = [one if own == window.partition else Watermark(0, 0) for own, one in enumerate(marks)]
        return applied


def test_a_store_that_never_is_up_to_date_is_given_up(world):
    """Mutant: it is brought up to date for ever, or taken for up to date."""
    first, last = (next(key for key in range(100) if partition_of(key) == own) for own in (0, 2))
    world.put(first)
    assert world.bring(Restless()) == 1
    world.put(last)
    with pytest.raises(CenterError, match=r"generation 1: the store fell back 8 times .* See its own log\."):
        world.bring(Restless())


def test_a_store_that_holds_something_else_stops_the_seal(world):
    """Mutant: only counts are compared."""
    world.put(5)
    with pytest.raises(
        CenterError, match=r"generation 1: shelf does not hold what the log holds in 1 of 3 partitions"
    ):
        world.center.seal(1, {"shelf": Forgetful()})
    with pytest.raises(CenterError, match="shelf does not hold what the log holds"):
        world.center.verify({"shelf": Forgetful()})
    world.center.verify({"shelf": LocalStore()})


def flip(folder, key: int, base: Snapshot) -> None:
    """Flip a bit of an item's vector on the disk."""
    path = folder / VECTORS
    data = bytearray(path.read_bytes())
    place = data.index(base.vectors[base.rows(np.array([key]))[0]].tobytes())
    data[place] ^= 1
    path.unlink()  # a mapped file is never written over
    path.write_bytes(data)


def test_a_flipped_bit_in_a_snapshot_is_one_items_loss(world):
    """Mutant: rows of the base are served unchecked."""
    flip(world.center.snapshot_folder(1, 1), 17, world.center.open_base(1))
    store = LocalStore()
    world.bring(store)
    found = store.fetch(world.center.log.generations.space(1), BASE_KEYS)
    assert found.states.tolist() == [State.DAMAGED if key == 17 else State.HIT for key in BASE_KEYS.tolist()]
    assert not found.vectors[1].any()
    with pytest.raises(
        DamagedRecord, match=r"1 of . rows of a snapshot do not match their checksums, .* key 17"
    ):
        store.digests(world.center.log.generations.space(1))
    with pytest.raises(CenterError, match="its bytes do not match the checksum"):
        world.center.verify({})
    world.put(5)
    with pytest.raises(DamagedRecord, match="key 17"):
        world.center.compact(1)
    assert world.center.snapshots(1) == [1]
    world.put(17, salt=8)  # written again, it is whole again
    world.center.compact(1)
    verify_snapshot(world.center.snapshot_folder(1, 2))


def test_another_snapshot_in_its_place_is_seen(world, tmp_path):
    other = World(tmp_path / "other")
    other.put(5)
    other.center.compact(1)
    shutil.rmtree(world.center.snapshot_folder(1, 1))
    shutil.copytree(other.center.snapshot_folder(1, 2), world.center.snapshot_folder(1, 1))
    with pytest.raises(CenterError, match="not the snapshot that was registered"):
        world.center.verify({})


def test_what_an_interrupted_writer_left_is_no_snapshot(world):
    """Mutant: a folder counts as soon as it is there."""
    with pytest.raises(RuntimeError), world.center.write_base(1, np.array([1, 2])):
        raise RuntimeError("killed")
    assert world.center.snapshots(1) == [1]
    world.put(5)
    assert world.center.compact(1) == 2
    store = LocalStore()
    world.bring(store)
    world.check(store)


def test_a_later_snapshot_under_a_store_changes_no_answer(world):
    """Mutants: what came after the snapshot goes with what it has; the memory keeps what it has."""
    store, space = LocalStore(), world.center.log.generations.space(1)
    world.put(5, 700, 701)
    world.delete(40, 700)
    world.bring(store)
    world.center.compact(1)
    base = world.center.open_base(1)
    world.put(5, salt=2)
    world.put(900)
    world.delete(17)
    world.bring(store)
    before, marks = store.digests(space), store.watermarks(space)
    assert len(store._held[1].tail) == 6
    store.rebase(space, base)
    assert (store.digests(space), store.watermarks(space)) == (before, marks)
    assert sorted(store._held[1].tail) == [5, 17, 900]
    world.check(store)
    world.put(700, salt=9)
    world.bring(store)
    world.check(store)
    late = LocalStore()
    late.load(space, Snapshot.open(world.center.snapshot_folder(1, 1), encoder=space.fingerprint))
    with pytest.raises(CenterError, match="reaches further than this store"):
        late.rebase(space, base)


def test_status_says_what_is_there(world):
    world.begin(BASE_KEYS[:2])
    world.put(5, 6)
    first, second = world.center.status()
    assert (first.num_vectors, first.num_snapshots, first.state) == (len(BASE_KEYS), 1, "building")
    assert second.num_vectors == 2
    assert first.num_windows == second.num_windows == len({partition_of(5), partition_of(6)})
