"""A center with a base of its own, and every parameter store that the same tests run on."""

from pathlib import Path

import numpy as np
import pytest

from center.servers import Open, needs_redis
from mimctr.center.stores.local import LocalStore

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
