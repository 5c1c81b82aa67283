"""A shop whose log names users, items, contexts and kinds, and a center with its vectors."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from mimctr.center.center import Center
from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.recipes.ctr_model import load_model
from mimctr.recipes.embed import ITEMS, QUERIES
from mimctr.serve.app import create_app
from mimctr.serve.histories import LocalHistories
from mimctr.serve.service import Service
from serve.shops import DAY, DIM, NUM_ITEMS, NUM_ROWS, NUM_USERS, open_scorer


@pytest.fixture(scope="module", params=["text", "integers"])
def shop(request, tmp_path_factory) -> Path:
    """A log whose users, items, contexts and kinds have names; a vector of all items but five."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "tables").mkdir()
    rng = np.random.default_rng(0)
    name = (
        (lambda kind, numbers: [f"{kind}{n}" for n in numbers]) if request.param == "text" else lambda _, n: n
    )
    items, users = np.arange(NUM_ITEMS), rng.integers(0, NUM_USERS, NUM_ROWS)
    pl.DataFrame(
        {
            "item_id": name("item", items),
            "title": [f"title {n}" for n in items],
            "category": [("lamp", "chair", "desk")[n % 3] for n in items],
            "brand": [f"brand{n % 7}" for n in items],
        }
    ).write_parquet(folder / "tables" / "items.parquet")
    times = np.sort(rng.integers(0, 60 * DAY, NUM_ROWS)) + 1_700_000_000
    pl.DataFrame(
        {
            "user_id": name("user", users),
            "item_id": name("item", rng.integers(0, NUM_ITEMS, NUM_ROWS)),
            "time": times,
            "click": rng.integers(0, 2, NUM_ROWS),
            "user_age": [("young", "old")[n % 2] for n in users],
            "context_hour": [f"{n}h" for n in rng.integers(0, 5, NUM_ROWS)],
            "query_text": [("red", "blue", None)[n] for n in rng.integers(0, 3, NUM_ROWS)],
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    pl.DataFrame(
        {
            "user_id": name("user", rng.integers(0, NUM_USERS, NUM_ROWS)),
            "item_id": name("item", rng.integers(0, NUM_ITEMS, NUM_ROWS)),
            "time": np.sort(rng.integers(0, 60 * DAY, NUM_ROWS)) + 1_700_000_000,
            "kind": [("click", "cart", "purchase")[n] for n in rng.integers(0, 3, NUM_ROWS)],
        }
    ).write_parquet(folder / "tables" / "behaviors.parquet")
    prepare_tables(folder / "tables", folder / "dataset")
    catalogue = CtrDataset.open(folder / "dataset").items
    vectors = rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32)
    keys = catalogue["item_key"].to_numpy()
    write_snapshot(folder / "content" / ITEMS, keys[5:], vectors[5:], encoder="e")
    write_snapshot(folder / "content" / QUERIES, keys[:0], vectors[:0], encoder="e")
    center = Center.create(folder / "center", num_partitions=2)
    center.adopt(Snapshot.open(folder / "content" / ITEMS, encoder="e"))
    return folder


@pytest.fixture
def bundle(shop, tmp_path) -> Path:
    open_scorer(shop, tmp_path, ubm="sim", variant="mim")
    return tmp_path / "bundle"


@pytest.fixture
def active_center(shop) -> Path:
    """The shop's center, its generation active, whichever test comes first."""
    center = Center(shop / "center")
    if center.log.generations.active() is None:
        center.seal(1, {}, min_coverage=0.0)
        center.log.generations.activate(1)
    return shop / "center"


@pytest.fixture
def service(active_center, bundle, tmp_path):
    made = Service(
        load_model,
        center=active_center,
        open_histories=lambda: LocalHistories(tmp_path / "histories.sqlite"),
    )
    made.load(bundle)
    yield made
    made.close()


@pytest.fixture
def client(service):
    with TestClient(create_app(service, token="secret", deadline=60.0)) as made:
        yield made
