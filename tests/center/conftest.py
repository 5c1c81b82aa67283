"""A center with a base of its own, and every parameter store that the same tests run on."""

from pathlib import Path

import numpy as np
import pytest

from center.servers import STORES, Open
from mimctr.center.stores.cached import CachedStore
from mimctr.center.stores.local import LocalStore


@pytest.fixture(params=[*STORES, "cached"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "local":
        return LocalStore
    if (
        request.param == "cached"
    ):  # all that is written goes through it, so that its rows may be as old as they like
        return lambda: CachedStore(LocalStore(), max_rows=4, seconds=3600.0)
    from mimctr.center.stores.redis import RedisStore

    server = request.getfixturevalue(f"redis_{'server' if request.param == 'redis' else 'cluster'}")
    return lambda: RedisStore(server.url, name=tmp_path.name)  # a name of its own: servers are shared


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
