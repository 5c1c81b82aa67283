"""Which parameter store ``mimctr serve`` asks."""

import shutil

import pytest
from center.servers import needs_redis, one_server, wait_for
from fastapi.testclient import TestClient

from mimctr.center.center import Center
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.cached import CachedStore
from mimctr.center.stores.redis import RedisStore
from mimctr.errors import CenterError
from mimctr.recipes import center as recipe
from mimctr.recipes import serve
from mimctr.recipes.bundle import push
from mimctr.serve.app import create_app
from serve.shops import RawLog, bind, open_scorer


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


@needs_redis
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["server", "cluster"])
@pytest.mark.parametrize("shop", ["integers"], indirect=True)
def test_a_scorer_needs_nothing_but_the_store(request, shop, tmp_path, kind):
    """Bundle, rows, vectors and the active generation come from there. Mutant: it stays with the first generation."""
    url = request.getfixturevalue(f"redis_{kind}").url
    open_scorer(shop, tmp_path, ubm="sim", variant="mim")
    shutil.copytree(shop / "center", tmp_path / "center")
    center = Center(tmp_path / "center")
    second = center.adopt(Snapshot.open(shop / "content" / "items", encoder="e")).number
    for number in (1, second):
        center.seal(number, {}, min_coverage=0.0)
    config = serve.Config(store=url, name=tmp_path.name)
    push(tmp_path / "bundle", url, label="", name=tmp_path.name)
    with pytest.raises(CenterError, match="the store: no generation is active"):
        serve.make_service("store:bundle", None, config)
    center.log.generations.activate(1)
    recipe.publish(tmp_path / "center", [url], name=tmp_path.name, follow=False)
    service = serve.make_service("store:bundle", None, config)
    asked = RawLog(shop).request(850)
    wanted = bind(shop, tmp_path / "bundle").score(asked)
    for number in (second, 1):
        center.log.generations.activate(number)
        recipe.publish(tmp_path / "center", [url], name=tmp_path.name, follow=False)
        wait_for(lambda number=number: service.serving.generation == number, "the generation")
        found = service.score(service.serving, asked, from_store=False)
        assert found.probabilities.tolist() == pytest.approx(wanted.probabilities.tolist(), abs=1e-6)
        assert found.states.tolist() == wanted.states.tolist()
    with TestClient(create_app(service)) as client:
        assert "mimctr_lag_windows NaN" in client.get("/metrics").text, "nobody here knows"
