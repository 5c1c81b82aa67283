"""Which parameter store ``mimctr serve`` asks."""

import pytest
from center.servers import needs_redis, one_server

from mimctr.center.stores.cached import CachedStore
from mimctr.center.stores.redis import RedisStore
from mimctr.recipes import serve


def test_a_cache_needs_a_store_elsewhere():
    """The process's own store is in memory as it is."""
    assert serve.open_store(serve.Config(cache_rows=100)) is None


@needs_redis
@pytest.mark.slow
def test_rows_are_kept_only_where_that_is_set(tmp_path):
    with one_server(tmp_path / "redis") as server:
        assert isinstance(serve.open_store(serve.Config(store=server.url)), RedisStore)
        store = serve.open_store(serve.Config(store=server.url, cache_rows=100, cache_seconds=2.0))
        assert isinstance(store, CachedStore)
        assert (store.hits, store.misses) == (0, 0)
