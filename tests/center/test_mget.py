"""Rows asked for in bytes of our own: the bytes that redis-py would send, and the answers of who was asked."""

from collections.abc import Iterator
from pathlib import Path

import hiredis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.connection import Connection

from center.servers import RedisCluster, cluster_of_six, needs_redis, one_server, wait_for
from center.worlds import BASE_KEYS, World, partition_of
from mimctr.center.record import State
from mimctr.center.stores import mget
from mimctr.center.stores.redis import RedisStore
from mimctr.errors import StoreUnavailable

asked = st.lists(
    st.tuples(st.binary(min_size=1, max_size=4), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(asked)
def test_commands_are_what_redis_py_would_send(parts):
    """Mutant: keys are little-endian, or a name's length is wrong."""
    prefixes = tuple(prefix for prefix, _ in parts)
    keys = np.array([key for _, some in parts for key in some], dtype=np.int64)
    counts = [len(some) for _, some in parts]
    names = mget.pack_names(prefixes, keys, counts)
    packer = Connection()
    wanted = [[prefix + key.to_bytes(8, "big", signed=True) for key in some] for prefix, some in parts]
    for count, text, own in zip(counts, names, wanted, strict=True):
        assert mget._mget(count, text) == b"".join(packer.pack_command("MGET", *own))


@settings(deadline=None)
@given(asked, st.integers(1, 6))
def test_all_names_are_asked_for_in_their_order(parts, names_at_once):
    """Mutant: the last names, too few for a command of their own, are left out."""
    prefixes = tuple(prefix for prefix, _ in parts)
    keys = np.array([key for _, some in parts for key in some], dtype=np.int64)
    counts = [len(some) for _, some in parts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mget, "NAMES_AT_ONCE", names_at_once)
        commands = list(mget._together(mget.pack_names(prefixes, keys, counts), counts))
    found = []
    for command in commands:
        reader = hiredis.Reader()
        reader.feed(command)
        what, *some = reader.gets()
        assert what == b"MGET"
        assert some
        found += some
    assert found == [prefix + key.to_bytes(8, "big", signed=True) for prefix, some in parts for key in some]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "center")
    world.put(*range(100, 160))
    return world


@needs_redis
@pytest.mark.slow
def test_after_a_refusal_the_next_fetch_gets_its_own_answers(world, tmp_path, monkeypatch):
    """Mutant: the connection goes back to its pool while answers are on their way."""
    monkeypatch.setattr(mget, "NAMES_AT_ONCE", 1)  # a command of its own for each partition
    space = world.center.log.generations.space(1)
    with one_server(tmp_path / "redis") as server:
        store = RedisStore(server.url)
        world.bring(store)
        server.ask("acl", "setuser", "default", "resetkeys", "~mimctr{2}*")
        with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:\d+/0: .*key"):
            store.fetch(space, np.array(sorted(world.expected[1])))
        server.ask("acl", "setuser", "default", "allkeys")
        for key in world.expected[1]:
            if partition_of(key) != 0:
                np.testing.assert_allclose(
                    store.fetch(space, np.array([key])).vectors[0], world.expected[1][key], atol=2e-3
                )
        world.check(store)


@needs_redis
@pytest.mark.slow
def test_a_server_that_was_started_again_is_asked_again(world, tmp_path):
    """The pool's connections are closed by then."""
    with one_server(tmp_path / "redis") as server:
        store = RedisStore(server.url)
        world.bring(store)
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"redis://127\.0\.0\.1:\d+/0: .*refused"):
            store.fetch(world.center.log.generations.space(1), BASE_KEYS)
        server.start()
        world.check(store)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster of its own: its slots are moved, its servers killed."""
    with cluster_of_six(tmp_path_factory.mktemp("moving")) as cluster:
        yield cluster


@pytest.fixture
def again(monkeypatch) -> list[int]:
    """Return a list with an entry for each time that redis-py was asked."""
    calls: list[int] = []
    ask = mget._ask_again

    def counted(*args):
        calls.append(1)
        return ask(*args)

    monkeypatch.setattr(mget, "_ask_again", counted)
    return calls


@needs_redis
@pytest.mark.slow
def test_a_slot_that_moves_is_followed(world, cluster, again):
    """ASK while it moves, MOVED once afterwards; then the new owner is asked at once.

    Mutant: an MGET is asked again, which the new owner refuses (TRYAGAIN) while a slot moves and a row is missing.
    """
    store, space = RedisStore(cluster.url), world.center.log.generations.space(1)
    world.bring(store)
    world.check(store)
    assert again == []
    slot = store._client.keyslot(store._prefix(space, partition_of(5)))
    port = store._client.nodes_manager.get_node_from_slot(slot).port
    primaries = cluster.primaries()
    source = next(server for server in primaries if server.port == port)
    target = next(server for server in primaries if server.port != port)
    ids = {server: server.ask("cluster", "myid") for server in (source, target)}
    slots = ("cluster", "setslot", str(slot))
    assert target.ask(*slots, "importing", ids[source]) == "OK"
    assert source.ask(*slots, "migrating", ids[target]) == "OK"
    node = store._client.get_node(host="127.0.0.1", port=port).redis_connection
    rows = [name for name in node.scan_iter() if store._client.keyslot(name) == slot]
    assert node.migrate("127.0.0.1", target.port, rows, 0, 5000) == b"OK"
    world.check(store)
    assert len(again) == 1, "the source was not asked, or answered"
    for server in (target, source):
        assert server.ask(*slots, "node", ids[target]) == "OK"
    world.check(store)
    after = len(again)
    assert after == 2
    for _ in range(3):
        world.check(store)
    assert len(again) == after, "the map was not read again"


@needs_redis
@pytest.mark.slow
def test_a_fail_over_is_followed(world, cluster, again):
    """A primary dies: once its replica is promoted, rows are answered again, and soon without a detour."""
    wait_for(cluster.is_whole, "the cluster before a fail-over")
    store, space = RedisStore(cluster.url, name="other"), world.center.log.generations.space(1)
    world.bring(store)
    slot = store._client.keyslot(store._prefix(space, partition_of(5)))
    port = store._client.nodes_manager.get_node_from_slot(slot).port
    assert store._client.wait(1, 5000, target_nodes=store._client.get_primaries())  # the replicas have it all
    next(server for server in cluster.servers if server.port == port).kill()
    answered: list[bool] = []

    def is_answered() -> bool:
        try:
            answered.append(bool(store.fetch(space, np.array([5])).known[0]))
        except StoreUnavailable:
            return False
        return True

    wait_for(is_answered, "the replica took over")
    assert answered == [True], "a row was missing, not unavailable"

    def all_are_answered() -> bool:
        try:
            world.check(store)
        except StoreUnavailable:  # other nodes hear of the promotion a moment later
            return False
        return True

    wait_for(all_are_answered, "every node knows the replica")
    before = len(again)
    assert before > 0
    world.check(store)
    assert len(again) == before


@needs_redis
@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [1, 5, 1000])
def test_many_rows_are_those_asked_for(redis_server, redis_cluster, tmp_path, num_rows):
    """More names than one command has, some of them twice, some that nobody has."""
    world = World(tmp_path / "center")
    world.put(*range(1000, 1600))
    space = world.center.log.generations.space(1)
    keys = np.random.default_rng(0).integers(900, 1700, num_rows)
    for server in (redis_server, redis_cluster):
        store = RedisStore(server.url, name=tmp_path.name)
        world.bring(store)
        found = store.fetch(space, keys)
        held = world.expected[1]
        assert found.states.tolist() == [State.HIT if key in held else State.MISS for key in keys.tolist()]
        for key, row in zip(keys.tolist(), found.vectors, strict=True):
            np.testing.assert_allclose(row, held.get(key, np.zeros_like(row)), atol=2e-3)
