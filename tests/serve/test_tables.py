"""Rows of items and users: the same scores, whether they lie in the bundle or on a parameter store."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from center.servers import needs_redis

from mimctr.batch import FIRST_INDEX, UNKNOWN
from mimctr.center.stores.local import LocalStore
from mimctr.data.dataset import CtrDataset
from mimctr.data.keys import item_keys
from mimctr.errors import CenterError, ConfigError, RunError
from mimctr.recipes.bundle import push
from mimctr.recipes.ctr_model import load_model
from mimctr.serve.bundle import Bundle, Table
from mimctr.serve.remote import BundleStore
from mimctr.serve.scorer import Scorer
from mimctr.serve.service import Service
from mimctr.serve.tables import embedded_tables
from serve.shops import RawLog, bind, open_scorer

SETTINGS = {
    "ubm": "twin",
    "variant": "mim",
    "dims": {"user": 6},
    "hash_buckets": {"item": 7, "item_brand": 2, "user": 5, "query_text": 1},
    "min_count": 25,
}


@pytest.fixture
def made(shop, tmp_path) -> Path:
    open_scorer(shop, tmp_path, **SETTINGS)
    return tmp_path


def test_a_table_has_the_models_own_rows(shop, made):
    """Of each item its row, its fields' rows and its category: looked up one by one in the trained tables."""
    model, bundle, data = (
        load_model(made / "model"),
        Bundle(made / "bundle"),
        CtrDataset.open(shop / "dataset"),
    )
    tables, half = embedded_tables(bundle), model.embedding
    unknown = np.full(bundle.manifest.widths[Table.ITEMS], 7.0, np.float32)
    keys = data.item_keys[FIRST_INDEX:]
    found = tables[Table.ITEMS].rows(np.append(keys, 2**60), unknown=unknown)
    assert (found[-1] == 7.0).all()
    for number, row in enumerate(found[:-1]):
        index = number + FIRST_INDEX
        own = int(half.item_rows[index])
        own = own if own < FIRST_INDEX else (own - FIRST_INDEX) % 7 + FIRST_INDEX
        category, brand = half.item_fields[index].tolist()
        shared = brand if brand < FIRST_INDEX else (brand - FIRST_INDEX) % 2 + FIRST_INDEX
        parts = [
            half.tables["item"].weight[own],
            half.tables["item_category"].weight[category],
            half.tables["item_brand"].weight[shared],
            torch.tensor([float(category)]),
        ]
        assert row.tolist() == torch.cat(parts).tolist()
    assert (half.item_rows[FIRST_INDEX:] == UNKNOWN).any(), (
        "a rare item has the unknown row and its own fields"
    )
    users = item_keys(data.users["user_id"])
    rows = tables[Table.USERS].rows(users[::-1].copy(), unknown=np.zeros(6, np.float32))
    for number, row in enumerate(rows[::-1]):
        own = int(half.user_rows[number + FIRST_INDEX])
        own = own if own < FIRST_INDEX else (own - FIRST_INDEX) % 5 + FIRST_INDEX
        assert row.tolist() == half.tables["user"].weight[own].tolist()


def test_the_bundles_model_has_no_rows_of_items_and_users(made):
    """Mutant: the scorer holds the tables."""
    state = load_model(made / "bundle").state_dict()
    for name in ("item", "user", "item_category", "item_brand"):
        assert len(state[f"embedding.tables.{name}.weight"]) <= FIRST_INDEX
    assert len(load_model(made / "model").state_dict()["embedding.tables.item_brand.weight"]) > FIRST_INDEX


def test_a_damaged_row_is_an_unknown_one(made):
    """Mutant: its bytes are used."""
    bundle = Bundle(made / "bundle")
    snapshot = bundle.open_table(Table.ITEMS)
    path = made / "bundle" / "tables" / "items" / "vectors.safetensors"
    whole = bytearray(path.read_bytes())
    place = whole.find(snapshot.vectors.tobytes()) + 3 * snapshot.vectors[0].nbytes
    whole[place] ^= 1
    path.unlink()
    path.write_bytes(whole)
    tables = embedded_tables(Bundle(made / "bundle"))
    unknown = np.full(bundle.manifest.widths[Table.ITEMS], 7.0, np.float32)
    rows = tables[Table.ITEMS].rows(snapshot.keys[2:5], unknown=unknown)
    assert (rows == 7.0).all(axis=1).tolist() == [False, True, False]


def test_tables_of_another_model_are_refused(shop, made, tmp_path):
    """Mutant: rows of two models are mixed."""
    open_scorer(shop, tmp_path / "other", **SETTINGS | {"seed": 5})
    one, other = Bundle(made / "bundle"), Bundle(tmp_path / "other" / "bundle")
    with pytest.raises(CenterError, match="its vectors came from encoder"):
        Bundle.open_table(
            type("Mixed", (), {"folder": one.folder, "manifest": other.manifest})(), Table.ITEMS
        )
    space = other.manifest.space(Table.ITEMS)
    with pytest.raises(CenterError, match="is no base of generation 1"):
        LocalStore().load(space, one.open_table(Table.ITEMS))


@needs_redis
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_scores_from_a_store_are_those_of_the_bundle(request, shop, made, kind):
    """Mutants: a table under the name of another; unknown rows from elsewhere; a bundle that is pushed in part."""
    url = request.getfixturevalue(f"redis_{kind}").url
    name, log = made.name, RawLog(shop)
    own = bind(shop, made / "bundle")
    told = push(made / "bundle", url, label="", name=name)
    assert told == {"label": "store:bundle", "items": 60, "users": 20}
    assert push(made / "bundle", url, label="", name=name) == told  # again changes nothing
    bundles = BundleStore(url, name=name)
    with bundles.pull("bundle") as folder:
        assert not list(folder.rglob("vectors.safetensors"))
        bundle = Bundle(folder)
        scorer = Scorer(
            bundle, load_model(folder), tables=bundles.tables(bundle), space=own.space, store=own.store
        )
    for row in range(700, 740):
        asked = log.request(row)
        asked = asked._replace(candidates=np.append(asked.candidates, [2**60, *asked.candidates]))
        wanted, found = own.score(asked), scorer.score(asked)
        assert found.probabilities.tolist() == wanted.probabilities.tolist()
    service = Service(load_model, center=shop / "center", bundles=bundles)
    with pytest.raises(RunError, match=r"has no bundle 'other' of .*Run 'mimctr push' first"):
        service.load("store:other")
    service.close()


def test_a_store_that_is_not_there_is_told(shop):
    service = Service(load_model)
    with pytest.raises(ConfigError, match=r"store:x: there is no parameter store\. Set store to its URL"):
        service.load("store:x")


@needs_redis
@pytest.mark.slow
def test_a_bundle_that_reaches_out_of_its_folder_is_refused(redis_server, tmp_path):
    """Mutant: names of files are taken as they are."""
    from mimctr.center.stores.redis import connect

    client = connect(redis_server.url)
    client.hset("evil:bundle:x", mapping={"../../escaped.json": json.dumps({})})
    bundles = BundleStore(redis_server.url, name="evil")
    with pytest.raises(RunError, match="has a file outside of it"), bundles.pull("x"):
        pass
