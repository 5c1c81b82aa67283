"""Faults with real processes: kill -9, a server that stops, loses, or runs out of disk. Each seeded and bounded.

``MIMCTR_FAULT_ROUNDS`` makes the campaign of it (``make faults``).
"""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from center.servers import RedisCluster, RedisServer, cluster_of_six, needs_redis, one_server, wait_for
from center.worlds import DIM, PARTITIONS, World, partition_of, vector
from mimctr.center.center import Center
from mimctr.center.log import CenterLog, Change
from mimctr.center.publish import bring_up_to_date
from mimctr.center.record import State, encode
from mimctr.center.stores.local import LocalStore
from mimctr.errors import DamagedRecord, StoreUnavailable

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("MIMCTR_FAULT_ROUNDS", "0"))
"""Of each fault; 0: the short form."""
FORK = multiprocessing.get_context("fork")
Acknowledged = dict[int, tuple[int, int]]
"""Key -> version and salt of the last change that was acknowledged."""


def change(key: int, salt: int) -> Change:
    """Return a change whose vector says which it is."""
    return Change(key=key, payloads={1: encode(vector(key, salt, 1)[None], "float16")[0].tobytes()})


def produce(folder: Path, seed: int, told: Connection) -> None:
    """Append batches for ever; say of each, after it was acknowledged, what it was."""
    rng = np.random.default_rng(seed)
    log = CenterLog(folder / "center.sqlite")
    producer = log.take_over(f"producer {seed}")
    while True:
        keys = rng.integers(0, 40, size=int(rng.integers(1, 9))).tolist()
        salt = int(rng.integers(1, 2**31))
        told.send(("tried", keys, salt, []))
        appended = log.append(producer, [change(key, salt) for key in keys])
        told.send(("acknowledged", keys, salt, [one.version for one in appended]))


def follow(folder: Path, url: str, name: str) -> None:
    """Bring a store up to date for ever."""
    from mimctr.center.stores.redis import RedisStore

    center = Center(folder)
    store = RedisStore(url, name=name)
    while True:
        with contextlib.suppress(StoreUnavailable):
            bring_up_to_date(center.log, store, 1, lambda: center.open_base(1))


@contextlib.contextmanager
def killed_after(seconds: float, work, *args):
    """Run a function in a process of its own, kill it with SIGKILL, and wait until it is gone."""
    process = FORK.Process(target=work, args=args, daemon=True)
    process.start()
    try:
        yield process
        time.sleep(seconds)
    finally:
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path):
    """Mutant: acknowledged before the commit; a window without its rows."""
    world, rng = World(tmp_path / "center"), random.Random(0)
    folder = world.center.folder
    world.center.log.close()
    acknowledged: dict[int, tuple[int, int]] = {}
    for number in range(ROUNDS or 20):
        mine, theirs = FORK.Pipe(duplex=False)
        with killed_after(rng.uniform(0.005, 0.08), produce, folder, number, theirs):
            pass
        theirs.close()
        tried = None
        with contextlib.suppress(EOFError, OSError):  # also in the middle of a message
            while True:
                what, keys, salt, versions = mine.recv()
                tried = (keys, salt) if what == "tried" else None
                for key, version in zip(keys, versions, strict=False):
                    acknowledged[key] = (version, salt)
        check_log(folder, acknowledged, tried)
    assert len(acknowledged) > 10


def check_log(folder: Path, acknowledged: Acknowledged, tried: tuple[list[int], int] | None) -> None:
    """Assert that a killed producer left every acknowledged change, and its last one wholly or not at all."""
    center = Center(folder)
    center.verify({})
    found = {
        record.key: record for partition in range(PARTITIONS) for record in center.log.records(1, partition)
    }
    extra = set()
    for key, (version, salt) in acknowledged.items():
        wanted = encode(vector(key, salt, 1)[None], "float16")[0].tobytes()
        if (found[key].version, found[key].payload) != (version, wanted):
            assert found[key].version > version, f"item {key}: version {version} was acknowledged and is lost"
            extra.add(key)
    extra |= set(found) - set(acknowledged)
    if extra:
        assert tried is not None, f"{extra}: nobody tried that"
        keys, salt = tried
        assert extra == set(keys), "a change was written in part"
        for key in keys:
            acknowledged[key] = (found[key].version, salt)
            assert found[key].payload == encode(vector(key, salt, 1)[None], "float16")[0].tobytes()
    heads = [center.log.head(1, partition).seq for partition in range(PARTITIONS)]
    counted = [len(center.log.windows_after(1, number, 0, limit=10**6)) for number in range(PARTITIONS)]
    assert heads == counted
    center.log.close()


def agree(world: World, store) -> None:
    """Assert that a store, brought up to date, holds what the log says."""
    world.bring(store)
    own, space = LocalStore(), world.center.log.generations.space(1)
    world.bring(own)
    assert store.digests(space) == own.digests(space)
    world.check(store)


@needs_redis
def test_a_publisher_killed_while_it_applies(tmp_path):
    """Mutant: the watermark is written apart from the rows."""
    from mimctr.center.stores.redis import RedisStore

    world, rng = World(tmp_path / "center"), random.Random(1)
    with one_server(tmp_path / "redis") as server:
        store = RedisStore(server.url)
        for number in range(ROUNDS or 12):
            for salt in range(6):
                world.put(*rng.sample(range(60), 8), salt=100 * number + salt)
            with killed_after(rng.uniform(0.0, 0.05), follow, world.center.folder, server.url, "mimctr"):
                pass
            if number % 4 == 3:
                agree(world, store)
        agree(world, store)


@needs_redis
def test_a_server_killed_while_windows_are_applied(tmp_path):
    """It comes back with what it acknowledged (its log is synced always), and goes on from its watermark."""
    from mimctr.center.stores.redis import RedisStore

    world, rng = World(tmp_path / "center"), random.Random(2)
    with one_server(tmp_path / "redis") as server:
        store = RedisStore(server.url)
        world.bring(store)
        for number in range(ROUNDS or 4):
            with killed_after(0.0, follow, world.center.folder, server.url, "mimctr"):
                for salt in range(10):
                    world.put(*rng.sample(range(60), 8), salt=100 * number + salt)
                before = store.watermarks(world.center.log.generations.space(1))
                server.kill()
            with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
                store.watermarks(world.center.log.generations.space(1))
            server.start()
            after = store.watermarks(world.center.log.generations.space(1))
            assert all(new >= old for old, new in zip(before, after, strict=True))
            agree(world, store)


@needs_redis
def test_a_server_that_does_not_answer(tmp_path):
    """A window whose answer never came may have been applied: it is a duplicate then."""
    from mimctr.center.stores.redis import RedisStore

    world = World(tmp_path / "center")
    with one_server(tmp_path / "redis") as server:
        store = RedisStore(server.url)
        world.bring(store)
        world.put(5, 6)
        server.pause()
        with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:\d+/0: .*[Tt]imeout"):
            world.bring(store)
        server.go_on()
        agree(world, store)


@needs_redis
def test_a_server_that_forgot_everything(tmp_path):
    """A cache was used for a store: it is loaded again from the snapshot and the log."""
    from mimctr.center.stores.redis import RedisStore

    world = World(tmp_path / "center")
    with one_server(tmp_path / "redis") as server:
        store = RedisStore(server.url)
        world.put(5, 6)
        world.bring(store)
        server.ask("flushall")
        assert store.watermarks(world.center.log.generations.space(1)) == [None] * PARTITIONS
        agree(world, store)


@needs_redis
def test_of_two_that_load_the_last_goes_on(tmp_path, monkeypatch):
    """Mutant: a loader writes the base over rows that another has brought up to date, and dies before it says so."""
    from mimctr.center.stores.redis import RedisStore

    world = World(tmp_path / "center")
    with one_server(tmp_path / "redis") as server:
        slow, quick = RedisStore(server.url), RedisStore(server.url)
        world.put(5, 6)
        step, seen = RedisStore._step, []

        def interrupted(self, what, *args, **named):
            if self is slow and what == "write" and not seen:
                seen.append(what)
                world.bring(quick)
            step(self, what, *args, **named)

        monkeypatch.setattr(RedisStore, "_step", interrupted)
        with pytest.raises(StoreUnavailable, match="another publisher began to load generation 1"):
            slow.load(world.center.log.generations.space(1), world.center.open_base(1))
        world.check(quick)
        agree(world, slow)


@needs_redis
def test_flipped_bytes_on_a_server(tmp_path):
    """Mutant: the checksum is ignored. Redis loads flipped bytes without a word."""
    from mimctr.center.stores.redis import RedisStore

    world = World(tmp_path / "center")
    with one_server(tmp_path / "redis") as server:
        store, space = RedisStore(server.url), world.center.log.generations.space(1)
        world.put(5, 6)
        world.bring(store)
        name = store._prefix(space, partition_of(5)) + (5).to_bytes(8, "big")
        raw = bytearray(store._client.get(name))
        raw[-7] ^= 2
        store._client.set(name, bytes(raw))
        found = store.fetch(space, np.array([6, 5]))
        assert found.states.tolist() == [State.HIT, State.DAMAGED]
        assert not found.vectors[1].any()
        with pytest.raises(DamagedRecord, match="does not match its checksum"):
            store.digests(space)
        other = store._prefix(space, partition_of(6)) + (6).to_bytes(8, "big")
        store._client.set(name, store._client.get(other))  # a whole record, of another item
        assert store.fetch(space, np.array([5])).states.tolist() == [State.DAMAGED]
        with pytest.raises(DamagedRecord, match="item key 6: its record stands under"):
            store.digests(space)
        world.put(5, salt=3)  # an unreadable version must not keep a newer one out
        store._client.set(name, b"?")
        world.bring(store)
        world.check(store)


@needs_redis
def test_fail_over_under_load(tmp_path):
    """A primary is killed while windows are applied."""
    from mimctr.center.stores.redis import RedisStore

    world, rng = World(tmp_path / "center"), random.Random(3)
    with cluster_of_six(tmp_path / "cluster") as cluster:
        store = RedisStore(cluster.url)
        world.bring(store)
        for number in range(max(ROUNDS // 20, 10) if ROUNDS else 1):
            primary, _ = _owners(cluster, store, world)
            with killed_after(0.0, follow, world.center.folder, cluster.url, "mimctr"):
                for salt in range(20):
                    world.put(*rng.sample(range(60), 8), salt=100 * number + salt)
                    if salt == 10:
                        primary.kill()
                wait_for(lambda: _answers(store, world), "the replica took over")
                for salt in range(20, 25):
                    world.put(*rng.sample(range(60), 8), salt=100 * number + salt)
            agree(world, store)
            primary.start()


@needs_redis
def test_fail_over_to_a_replica_that_lags(tmp_path):
    """Mutant: the publisher keeps a watermark of its own. Redis loses what it acknowledged; the rewind heals it."""
    from mimctr.center.stores.redis import RedisStore

    world, rng = World(tmp_path / "center"), random.Random(4)
    partition = partition_of(5)
    with cluster_of_six(tmp_path / "cluster") as cluster:
        store = RedisStore(cluster.url)
        world.bring(store)
        for number in range(max(ROUNDS // 20, 10) if ROUNDS else 1):
            primary, replicas = _owners(cluster, store, world)
            for server in replicas:
                server.pause()
            store._client.set(
                f"mimctr{{{partition}}}ballast", b"x" * 30_000_000
            )  # fills what is between the two
            for salt in range(10):
                world.put(5, *rng.sample(range(60), 8), salt=100 * number + salt)
                world.bring(store)
            before = store.watermarks(world.center.log.generations.space(1))[partition]
            primary.kill()
            for server in replicas:
                server.go_on()
            wait_for(lambda: _answers(store, world), "the replica took over")
            after = store.watermarks(world.center.log.generations.space(1))[partition]
            assert after is None or after < before, "the replica did not lag: nothing was shown"
            agree(world, store)
            primary.start()


def _owners(cluster: RedisCluster, store, world: World) -> tuple[RedisServer, list[RedisServer]]:
    """Return the primary that has item 5, and its replicas, once the cluster is whole."""
    wait_for(cluster.is_whole, "the cluster before a fail-over")
    store._client.nodes_manager.initialize()
    slot = store._client.keyslot(store._mark_key(world.center.log.generations.space(1), partition_of(5)))
    port = store._client.nodes_manager.get_node_from_slot(slot).port
    replicas = [
        server for server in cluster.servers if f"master_port:{port}" in server.ask("info", "replication")
    ]
    return next(server for server in cluster.servers if server.port == port), replicas


def _answers(store, world: World) -> bool:
    try:
        store.watermarks(world.center.log.generations.space(1))
    except StoreUnavailable:
        return False
    return True


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """Mount a small tmpfs; skip where that is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_under_the_log(tmp_path):
    """One clear line, nothing half-written, and it goes on when there is room."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        world = World(disk / "center")
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 400_000)
        done: Acknowledged = {}
        with pytest.raises(
            OSError, match=r"center.sqlite: .*(full|disk I/O).* Nothing of this change was written"
        ):
            for salt in range(1, 100_000):
                appended = world.center.log.append(world.producer, [change(key, salt) for key in range(30)])
                done |= {key: (one.version, salt) for key, one in enumerate(appended)}
        assert done
        ballast.unlink()
        check_log(world.center.folder, dict(done), None)
        (after,) = world.center.log.append(world.producer, [change(3, 1)])
        assert after.version == done[3][0] + 1
        world.center.verify({})
        world.center.log.close()


def test_a_full_disk_under_a_snapshot(tmp_path):
    """Mutant: the snapshot is written in place. The last one keeps serving; a mapped file on a full disk kills."""
    with small_disk(tmp_path / "disk", "3m") as disk:
        world = World(disk / "center")
        keys = np.arange(20_000)
        with world.center.write_base(1, keys) as writer:
            writer.write(keys, np.ones((len(keys), DIM), np.float32))
        free = os.statvfs(disk)
        (disk / "ballast").write_bytes(b"x" * (free.f_bavail * free.f_frsize - 300_000))
        world.put(5)
        with pytest.raises(OSError, match="No space left"):
            world.center.compact(1)
        assert world.center.snapshots(1) == [1, 2]
        (disk / "ballast").unlink()
        assert world.center.compact(1) == 3
        world.center.verify({})
        world.center.log.close()


@needs_redis
def test_a_full_disk_under_a_server(tmp_path):
    from mimctr.center.stores.redis import RedisStore

    world = World(tmp_path / "center")
    with small_disk(tmp_path / "disk", "2m") as disk, one_server(disk / "redis") as server:
        store = RedisStore(server.url)
        world.bring(store)
        (disk / "ballast").write_bytes(b"x" * 1_900_000)
        with pytest.raises((StoreUnavailable, OSError)):
            for salt in range(100_000):
                world.put(*range(40), salt=salt)
                world.bring(store)
        (disk / "ballast").unlink()

        def has_room():
            if (
                server.process.poll() is not None
            ):  # Redis ends itself, soon, when it cannot keep what it promised
                server.start()
            return _answers(store, world)

        wait_for(has_room, "the server has room again")
        agree(world, store)
