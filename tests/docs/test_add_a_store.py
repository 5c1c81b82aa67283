"""The example of a parameter store keeps what every parameter store promises."""

import pytest
from center.servers import Open
from center.test_stores import *  # noqa: F403 - the suite, with this store
from center.worlds import World

from mimctr.center.stores.interface import ParameterStore
from mimctr.errors import DamagedRecord, StoreUnavailable

from .examples import example

SqliteStore = example("sqlite_store").SqliteStore


@pytest.fixture
def open_store(tmp_path) -> Open:
    return lambda: SqliteStore(tmp_path / "vectors.sqlite")


def test_it_is_one(open_store: Open):
    assert isinstance(open_store(), ParameterStore)


def test_another_process_sees_what_was_applied(tmp_path, open_store: Open):
    world = World(tmp_path / "center")
    world.put(5, 900)
    world.bring(open_store())
    world.check(open_store())


def test_a_row_under_another_key_is_damage(tmp_path, open_store: Open):
    world, store = World(tmp_path / "center"), open_store()
    world.bring(store)
    space = world.center.log.generations.space(1)
    with store._transaction() as connection:
        connection.execute("UPDATE vectors SET key = 6 WHERE key = 5")
    assert not store.fetch(space, world_key(6)).known.any()
    with pytest.raises(DamagedRecord, match="item key 5: its record stands under 6"):
        store.digests(space)


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        SqliteStore(tmp_path / "no folder" / "vectors.sqlite")


def world_key(key: int):
    return np.array([key])  # noqa: F405
