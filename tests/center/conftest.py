"""A center with a base of its own, and every parameter store that the same tests run on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from center.servers import Open, RedisCluster, RedisServer, cluster_of_six, needs_redis, one_server
from mimctr.center.stores.local import LocalStore


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with one_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with cluster_of_six(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


STORES = [
    pytest.param("local"),
    pytest.param("redis", marks=[needs_redis, pytest.mark.slow]),
    pytest.param("cluster", marks=[needs_redis, pytest.mark.slow]),
]


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "local":
        return LocalStore
    from mimctr.center.stores.redis import RedisStore

    server = request.getfixturevalue(f"redis_{'server' if request.param == 'redis' else 'cluster'}")
    return lambda: RedisStore(server.url, name=tmp_path.name)  # a name of its own: servers are shared


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
