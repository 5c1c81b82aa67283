"""The system of record: what it acknowledged is there, in order, once, and only its own producer writes."""

import sqlite3
import threading

import pytest

from center.worlds import BASE_KEYS, PARTITIONS, World, partition_of, vector
from mimctr.center.generations import GenerationState
from mimctr.center.log import CenterLog, Change, Pruned
from mimctr.center.record import Flag, encode
from mimctr.center.stores.interface import Watermark
from mimctr.errors import CenterError, DamagedWindow, Fenced


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "center")


def windows(log: CenterLog, generation: int = 1):
    """Return all windows by partition."""
    return [log.windows_after(generation, partition, 0) for partition in range(PARTITIONS)]


def test_windows_are_numbered_without_a_gap(world):
    for salt in range(5):
        world.put(*range(20), salt=salt)
    for partition, found in enumerate(windows(world.center.log)):
        assert [window.seq for window in found] == list(range(1, len(found) + 1))
        assert world.center.log.head(1, partition) == Watermark(1, len(found))
        assert {partition_of(record.key) for window in found for record in window.records} <= {partition}


def test_an_append_says_where_it_went(world):
    first, second = world.put(5, 5)
    assert (first.version, second.version) == (1, 2)
    (again,) = world.put(5)
    assert (again.version, again.seqs) == (3, {1: 2})
    assert world.put(17)[0].version == 1


def test_nothing_of_a_refused_append_stays(world):
    """Mutant: each change is a transaction of its own."""
    world.put(5)
    before = [len(part) for part in windows(world.center.log)]
    payload = encode(vector(17, 1, 1)[None], "float16")[0].tobytes()
    with pytest.raises(
        CenterError, match=r"item key 40: encoded for generations none, but generation 1 is building too"
    ):
        world.center.log.append(world.producer, [Change(key=17, payloads={1: payload}), Change(key=40)])
    assert [len(part) for part in windows(world.center.log)] == before
    assert world.center.log.item_keys().tolist() == [5]
    world.put(17)


def test_a_change_goes_to_every_live_generation(world):
    """Mutant: only the active generation is written while another is built."""
    second = world.begin(BASE_KEYS)
    third = world.begin(BASE_KEYS)
    world.center.log.generations.drop(second)
    (appended,) = world.put(5)
    assert sorted(appended.seqs) == [1, third]
    with pytest.raises(CenterError, match="encoded for generations 1, but generation 3 is building too"):
        world.center.log.append(world.producer, [Change(key=5, payloads={1: None})])


def test_a_replaced_producer_writes_nothing(world):
    """Mutant: the epoch is not compared in the transaction that writes."""
    old = world.producer
    newer = world.center.log.take_over("another")
    assert set(newer.epochs.values()) == {2}
    with pytest.raises(
        Fenced, match=r"partition \d is written by 'another' \(epoch 2\), not by 'test' \(epoch 1\)"
    ):
        world.put(5)
    assert windows(world.center.log) == [[]] * PARTITIONS
    world.producer = newer
    world.put(5)
    world.producer = old
    with pytest.raises(Fenced):
        world.delete(5)


def test_a_producer_of_some_partitions_is_fenced_in_the_others(world):
    mine = partition_of(5)
    world.producer = world.center.log.take_over("part", [mine])
    world.put(5)
    other = next(key for key in range(100) if partition_of(key) != mine)
    with pytest.raises(
        Fenced, match=rf"partition {partition_of(other)} is written by 'test' \(epoch 1\), not by 'part'"
    ):
        world.put(other)


def test_two_processes_take_turns(world, tmp_path):
    """Each append is one transaction: versions of one item are 1 ... 40 whoever writes, and no window is lost."""
    world.center.log.append(world.producer, [Change(key=5, deleted=True)])
    errors: list[Exception] = []

    def write() -> None:
        log = CenterLog(world.center.log.path)
        try:
            for _ in range(20):
                log.append(world.producer, [Change(key=5, deleted=True)])
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)
        finally:
            log.close()

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = windows(world.center.log)[partition_of(5)]
    assert [record.version for window in found for record in window.records] == list(range(1, 42))


def test_pruned_windows_are_told(world):
    world.put(5)
    world.put(5, salt=2)
    partition = partition_of(5)
    world.center.compact(1)
    world.put(5, salt=3)
    assert world.center.log.prune(1, [2] * PARTITIONS, older_than=float("inf")) == 2
    with pytest.raises(Pruned, match=rf"windows after 0 of generation 1, partition {partition} are not kept"):
        world.center.log.windows_after(1, partition, 0)
    assert [window.seq for window in world.center.log.windows_after(1, partition, 2)] == [3]
    assert world.center.log.windows_after(1, partition, 3) == []


def test_a_partition_of_which_everything_was_pruned_is_told(world):
    """Mutant: no window after a watermark means up to date."""
    world.put(5)
    world.center.compact(1)
    world.center.log.prune(1, [9] * PARTITIONS, older_than=float("inf"))
    with pytest.raises(Pruned):
        world.center.log.windows_after(1, partition_of(5), 0)


def test_young_windows_stay(world):
    world.put(5)
    world.center.compact(1)
    assert world.center.log.prune(1, [9] * PARTITIONS, older_than=0.0) == 0


def test_generations_go_their_way(world):
    log = world.center.log
    with pytest.raises(CenterError, match="generation 1 is building; only one that is sealed becomes active"):
        log.generations.activate(1)
    log.generations.seal(1)
    assert log.generations.active() is None
    log.generations.activate(1)
    assert log.generations.active().number == 1
    with pytest.raises(CenterError, match="nothing to go back to"):
        log.generations.previous()
    with pytest.raises(
        CenterError, match="generation 1 is active; only one that is building or sealed becomes dropped"
    ):
        log.generations.drop(1)
    second = world.begin(BASE_KEYS)
    log.generations.seal(second)
    log.generations.activate(second)
    assert [one.state for one in log.generations.all()] == [GenerationState.SEALED, GenerationState.ACTIVE]
    assert log.generations.previous().number == 1
    log.generations.activate(1)
    assert log.generations.previous().number == second
    log.generations.drop(second)
    with pytest.raises(CenterError, match="generation 2, active before, was dropped"):
        log.generations.previous()
    with pytest.raises(CenterError, match=r"has no generation 9\. There are: 1, 2\."):
        log.generations.get(9)


def test_a_flipped_bit_in_a_window_is_seen(world):
    world.put(5)
    database = sqlite3.connect(world.center.log.path)
    (raw,) = database.execute("SELECT window FROM windows").fetchone()
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    database.execute("UPDATE windows SET window = ?", (bytes(flipped),))
    database.commit()
    database.close()
    with pytest.raises(DamagedWindow, match=f"a window of {len(raw)} bytes does not match its checksum"):
        windows(world.center.log)
    with pytest.raises(DamagedWindow):
        world.center.log.verify()


def test_a_window_that_is_not_there_is_seen(world):
    for salt in range(3):
        world.put(5, salt=salt)
    database = sqlite3.connect(world.center.log.path)
    database.execute("DELETE FROM windows WHERE seq = 2")
    database.commit()
    database.close()
    with pytest.raises(CenterError, match=r"window 3 of generation 1, partition . is not in its place"):
        world.center.log.verify()


def test_an_item_without_content_has_a_record_without_a_vector(world):
    (appended,) = world.center.log.append(
        world.producer, [Change(key=5, payloads={1: None}, flags=Flag.NO_IMAGE | Flag.NO_TITLE)]
    )
    (record,) = world.center.log.records(1, partition_of(5))
    assert (record.version, record.has_vector, record.flags) == (
        appended.version,
        False,
        Flag.NO_IMAGE | Flag.NO_TITLE,
    )


def test_files_that_are_no_center_are_told(tmp_path):
    with pytest.raises(CenterError, match=r"no such file\. Run 'mimctr center init' first"):
        CenterLog(tmp_path / "center.sqlite")
    (tmp_path / "text").write_text("no database, but more than a hundred bytes of text" * 10)
    with pytest.raises(CenterError, match="not a sound database"):
        CenterLog(tmp_path / "text")
    CenterLog.create(tmp_path / "center.sqlite", num_partitions=2).close()
    with pytest.raises(CenterError, match="holds a center already"):
        CenterLog.create(tmp_path / "center.sqlite", num_partitions=2)


def test_what_is_acknowledged_is_on_the_disk(world):
    """``synchronous=FULL`` and a write-ahead log, on this very connection."""
    database = world.center.log._database
    assert database.ask("PRAGMA journal_mode") == [("wal",)]
    assert database.ask("PRAGMA synchronous") == [(2,)]


def test_reading_is_of_one_moment(world):
    reader = CenterLog(world.center.log.path)
    with reader.reading():
        before = reader.head(1, partition_of(5))
        world.put(5)
        assert reader.head(1, partition_of(5)) == before
        assert list(reader.records(1, partition_of(5))) == []
    assert reader.head(1, partition_of(5)).seq == 1
    reader.close()


def test_a_damaged_database_is_told(world):
    """Mutant: SQLite's own exception, with a traceback."""
    world.put(*range(40))
    log = world.center.log
    log._database.ask("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(log.path.read_bytes())
    data[4096:] = b"?" * (len(data) - 4096)
    log.close()
    log.path.write_bytes(data)
    with pytest.raises(
        CenterError, match=r"center\.sqlite: not a sound database \(.*malformed.*\)\. Put back a copy"
    ):
        CenterLog(log.path).verify()
