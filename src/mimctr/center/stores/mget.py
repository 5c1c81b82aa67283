"""Many rows of a server in one round trip a node: all names are written at once, with NumPy, not one by one.

redis-py packs each name of a command in Python, which takes longer than Redis does. What is sent here are the bytes
that it would send, over its own connections; where a cluster has changed, redis-py asks again its own way.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

KEY_BYTES = 8
NAMES_AT_ONCE = 384
"""Names of a command to one server: it reads the next while its answer to the last is looked at."""

T = TypeVar("T")
Look = Callable[[list[bytes | None]], T]


def mget(
    client: Any, prefixes: tuple[bytes, ...], keys: Int[ndarray, "keys"], counts: Sequence[int], look: Look[T]
) -> list[T]:
    """Ask for names, a prefix and a key in eight bytes each; return what ``look`` makes of the answers.

    Args:
        client: ``redis.Redis`` or ``redis.RedisCluster``.
        prefixes: Of the names; those of one prefix live in one hash slot.
        keys: Those of the first prefix, then those of the next.
        counts: Keys of each prefix.
        look: Called with the next answers in the order of ``keys``, None where nothing stands, while others are on
            their way.

    Raises:
        redis.exceptions.RedisError: a server cannot be reached, or refuses.
    """
    from redis import RedisCluster
    from redis.exceptions import RedisError

    names = pack_names(prefixes, keys, counts)
    if not isinstance(client, RedisCluster):
        return _ask_server(client, list(_together(names, counts)), look)
    asked = [place for place, count in enumerate(counts) if count]
    slots = [client.keyslot(prefixes[place]) for place in asked]
    try:
        return _ask_cluster(client, slots, [_mget(counts[place], names[place]) for place in asked], look)
    except (
        RedisError
    ):  # a slot moved, a node is gone: redis-py reads its map again, and says what does not heal
        return [look(_ask_again(client, prefixes, keys, counts))]


def pack_names(prefixes: tuple[bytes, ...], keys: Int[ndarray, "keys"], counts: Sequence[int]) -> list[bytes]:
    """Return the names of each prefix as they stand in a command."""
    packed: list[bytes] = []
    first = 0
    for heads, layout in _heads(prefixes):
        some = counts[len(packed) : len(packed) + len(heads)]
        rows = np.empty(sum(some), dtype=layout)
        rows["head"] = heads.repeat(some, axis=0)
        rows["key"] = keys[first : first + len(rows)]
        rows["end"] = b"\r\n"
        first += len(rows)
        text = rows.tobytes()
        ends = itertools.accumulate((layout.itemsize * count for count in some), initial=0)
        packed += [text[start:end] for start, end in itertools.pairwise(ends)]
    return packed


@functools.lru_cache(maxsize=64)
def _heads(prefixes: tuple[bytes, ...]) -> list[tuple[UInt8[ndarray, "prefixes bytes"], np.dtype[np.void]]]:
    """Return what stands before the keys, a matrix for prefixes of one length in a row, and the layout of a name."""
    found = []
    for size, run in itertools.groupby(prefixes, len):
        heads = np.array([list(b"$%d\r\n%s" % (size + KEY_BYTES, prefix)) for prefix in run], dtype=np.uint8)
        layout = np.dtype([("head", "u1", heads.shape[1:]), ("key", ">i8"), ("end", "S2")])
        found.append((heads, layout))
    return found


def _mget(count: int, *names: bytes) -> bytes:
    return b"*%d\r\n$4\r\nMGET\r\n" % (count + 1) + b"".join(names)


def _together(names: Sequence[bytes], counts: Sequence[int]) -> Iterator[bytes]:
    """Return commands of about :data:`NAMES_AT_ONCE` names."""
    some: list[bytes] = []
    total = 0
    for text, count in zip(names, counts, strict=True):
        some.append(text)
        total += count
        if total >= NAMES_AT_ONCE:
            yield _mget(total, *some)
            some, total = [], 0
    if total:
        yield _mget(total, *some)


def _ask_server(client: Any, commands: Sequence[bytes], look: Look[T]) -> list[T]:
    """Send commands and look at their answers; tried again as often as the client is set to."""
    with _lent(client) as connection:

        def ask() -> list[T]:
            connection.send_packed_command([b"".join(commands)])
            return [look(connection.read_response(disable_decoding=True)) for _ in commands]

        found: list[T] = connection.retry.call_with_retry(ask, lambda _error: connection.disconnect())
        return found


def _ask_cluster(client: Any, slots: Sequence[int], commands: Sequence[bytes], look: Look[T]) -> list[T]:
    """Send each command to the node that has its slot, to all nodes before any is read; look at the answers."""
    of_node: dict[str, tuple[Any, list[int]]] = {}
    for place, slot in enumerate(slots):
        node = client.nodes_manager.get_node_from_slot(slot)
        of_node.setdefault(node.name, (node, []))[1].append(place)
    found: dict[int, T] = {}
    with contextlib.ExitStack() as held:
        asked = []
        for node, places in of_node.values():
            connection = held.enter_context(_lent(client.get_redis_connection(node)))
            connection.send_packed_command([b"".join([commands[place] for place in places])])
            asked.append((connection, places))
        for connection, places in asked:
            for place in places:
                found[place] = look(connection.read_response(disable_decoding=True))
    return [found[place] for place in range(len(commands))]


def _ask_again(
    client: Any, prefixes: tuple[bytes, ...], keys: Int[ndarray, "keys"], counts: Sequence[int]
) -> list[bytes | None]:
    """Ask as redis-py does, which follows what moved; name by name, since a slot on its way refuses an MGET."""
    pipeline = client.pipeline(transaction=False)
    of_key = itertools.chain.from_iterable(map(itertools.repeat, prefixes, counts))
    for prefix, key in zip(of_key, keys.tolist(), strict=True):
        pipeline.get(prefix + key.to_bytes(KEY_BYTES, "big", signed=True))
    answers: list[bytes | None] = pipeline.execute()
    return answers


@contextlib.contextmanager
def _lent(client: Any) -> Iterator[Any]:
    """Lend a connection of a client's pool; after an error it is closed: answers may still be on their way."""
    connection = client.connection_pool.get_connection()
    try:
        yield connection
    except BaseException:
        connection.disconnect()
        raise
    finally:
        client.connection_pool.release(connection)
