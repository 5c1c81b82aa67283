"""The commands of the representation center, from a catalogue to a generation that is served."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from encoders.small import TITLES, item_encoder, picture, shake
from safetensors.numpy import save_file

from mimctr.center.center import Center
from mimctr.center.publish import bring_up_to_date
from mimctr.center.record import State
from mimctr.center.stores.local import LocalStore
from mimctr.data.dataset import CtrDataset
from mimctr.data.keys import item_keys, text_key
from mimctr.data.prepare import prepare_tables
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import CenterError, ConfigError, DamagedRecord, DataError
from mimctr.recipes import center as recipe
from mimctr.recipes import center_build, center_ingest, center_vectors, embed, stages

NUM_ITEMS = 20
SMALL = embed.Config(batch_size=3, batches_per_shard=2, device="cpu", num_workers=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A shop of 20 items; the last has no content."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "tables").mkdir()
    rng = np.random.default_rng(0)
    pl.DataFrame(
        {
            "item_id": np.arange(100, 100 + NUM_ITEMS),
            "title": [*(TITLES[n % len(TITLES)] for n in range(NUM_ITEMS - 1)), None],
            "image": [*(picture(n) for n in range(NUM_ITEMS - 1)), None],
            "category": [("bags", "hats")[n % 2] for n in range(NUM_ITEMS)],
        }
    ).write_parquet(folder / "tables" / "items.parquet")
    pl.DataFrame(
        {
            "user_id": rng.integers(1, 5, 60),
            "item_id": rng.integers(100, 100 + NUM_ITEMS, 60),
            "time": 1_600_000_000 + np.arange(60),
            "click": rng.integers(0, 2, 60),
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    prepare_tables(folder / "tables", folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    made = item_encoder()
    shake(made)
    folder = tmp_path_factory.mktemp("encoder")
    made.save(folder)
    return folder


@pytest.fixture
def center(tmp_path) -> Path:
    recipe.init(tmp_path / "center", num_partitions=3)
    return tmp_path / "center"


def answers(folder: Path, generation: int, keys) -> tuple[np.ndarray, list[int]]:
    """Return what a store that follows the center answers."""
    opened, store = Center(folder), LocalStore()
    bring_up_to_date(opened.log, store, generation, lambda: opened.open_base(generation))
    found = store.fetch(opened.log.generations.space(generation), np.array(keys))
    return found.vectors, found.states.tolist()


def test_a_catalogue_becomes_a_generation(center, dataset, encoder):
    made = center_build.main(center, dataset, encoder, SMALL)
    data = CtrDataset.open(dataset)
    vectors, states = answers(center, made.number, data.items["item_key"])
    assert states == [State.HIT] * (NUM_ITEMS - 1) + [State.MISS]
    loaded = ItemEncoder.load(encoder)
    exact, _ = loaded.embed_items(
        [data.item_images.get(row) for row in range(NUM_ITEMS)],
        data.items["title"].to_list(),
        data.items["category"].to_list(),
    )
    cosines = torch.cosine_similarity(exact, torch.from_numpy(vectors))[:-1]
    assert cosines.min() > 0.9999
    assert not (center / "builds" / "1").exists()


def test_what_came_in_is_in_the_next_generation(center, dataset, encoder, monkeypatch):
    """Mutant: a build knows the catalogue only, and forgets what was ingested or deleted since."""
    monkeypatch.setattr(center_build, "MAX_LOSS", 1.0)  # of six impressions' AUC
    center_build.main(center, dataset, encoder, SMALL)
    rows = [
        {"item_id": 500, "title": TITLES[0]},
        {"item_id": 101, "title": "another title altogether", "category": "hats"},
        {"item_id": 102, "deleted": True},
        {"item_id": 103},
    ]
    found = center_ingest.main(center, rows, images=center)
    assert (found.num_items, found.num_refused) == (4, 0)
    center_build.main(center, dataset, encoder, SMALL, dtype="int8")
    keys = [100, 101, 102, 103, 500]
    first, states = answers(center, 1, keys)
    second, later = answers(center, 2, keys)
    assert states == [State.HIT, State.HIT, State.DELETED, State.MISS, State.HIT]
    assert [state == State.HIT for state in later] == [True, True, False, False, True]
    np.testing.assert_allclose(second, first, atol=np.abs(first).max() / 100)
    base = Center(center).open_base(2)
    assert base.versions[base.rows(np.array([101]))].tolist() == [1]


def test_int8_is_judged(center, dataset, encoder, monkeypatch):
    """Mutant: the gate is open whatever int8 costs."""
    monkeypatch.setattr(center_build, "MAX_LOSS", 1.0)
    center_build.main(center, dataset, encoder, SMALL, dtype="int8")
    judged = json.loads((center / "snapshots" / "1" / "int8.json").read_text())
    assert set(judged) == {"auc_float16", "auc_int8"}
    assert 0 <= judged["auc_int8"] <= 1
    monkeypatch.setattr(center_build, "MAX_LOSS", -1.0)
    with pytest.raises(
        CenterError, match=r"int8 costs -?0\.\d+ AUC of the mean cosine on the validation part"
    ):
        center_build.main(center, dataset, encoder, SMALL, dtype="int8")
    assert [one.state for one in Center(center).log.generations.all()] == ["building", "dropped"]


def test_an_interrupted_build_is_taken_up(center, dataset, encoder, monkeypatch):
    """Mutant: every call begins another generation."""

    class Killed(Exception): ...

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stages, "embed", kill)
        with pytest.raises(Killed):
            center_build.main(center, dataset, encoder, SMALL)
    center_ingest.main(center, [{"item_id": 500, "title": TITLES[0]}], images=center)
    assert center_build.main(center, dataset, encoder, SMALL).number == 1
    assert [one.number for one in Center(center).log.generations.all()] == [1]
    assert answers(center, 1, [500])[1] == [State.HIT]


def test_a_build_that_nobody_judged_is_not_sealed(center, dataset, encoder, monkeypatch):
    """Mutant: a kill between the snapshot and its judges leaves a generation that is as good as any."""

    class Killed(Exception): ...

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(center_build, "_judge", kill)
        with pytest.raises(Killed):
            center_build.main(center, dataset, encoder, SMALL)
    with pytest.raises(
        CenterError, match=r"generation 1: its build was interrupted\. Run 'mimctr center build' again"
    ):
        Center(center).seal(1, {})
    assert center_build.main(center, dataset, encoder, SMALL).number == 1
    assert Center(center).snapshots(1) == [1]
    assert Center(center).seal(1, {}).num_vectors == NUM_ITEMS - 1


def test_vectors_that_would_not_be_comparable_are_refused(center, dataset, encoder, monkeypatch):
    """Mutant: parity of one item at a time with the catalogue is not looked at."""
    embed_items = ItemEncoder.embed_items

    def other(self, images, titles, categories=None, **named):
        vectors, known = embed_items(self, images, titles, categories, **named)
        return torch.roll(vectors, 1, dims=1), known

    monkeypatch.setattr(ItemEncoder, "embed_items", other)
    with pytest.raises(
        CenterError, match=r"has a cosine of .* with its vector in the snapshot, wanted 0\.9999"
    ):
        center_build.main(center, dataset, encoder, SMALL)


VECTORS = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
IDS = [9, 3, 7, 2**40, 0]


def write(folder: Path, kind: str, ids=IDS, vectors=VECTORS) -> tuple[Path, Path | None]:
    """Write vectors as somebody would have them."""
    path, names = folder / f"v.{kind}", None
    if kind == "parquet":
        pl.DataFrame({"item_id": ids, "vector": [row.tolist() for row in vectors]}).write_parquet(path)
    elif kind == "npy":
        names = folder / "ids.npy"
        np.save(path, vectors)
        np.save(names, np.array(ids))
    else:
        save_file({"item_id": np.array(ids), "vector": vectors}, path)
    return path, names


@pytest.mark.parametrize("kind", ["parquet", "npy", "safetensors"])
def test_own_vectors_come_in_and_out(center, tmp_path, kind):
    path, names = write(tmp_path, kind)
    made = center_vectors.import_vectors(center, path, ids=names, encoder="clip")
    assert (made.number, made.fingerprint, made.dim) == (1, "clip", 4)
    vectors, states = answers(center, 1, IDS)
    assert states == [State.HIT] * 5
    np.testing.assert_allclose(vectors, VECTORS, rtol=2**-11)
    assert center_vectors.export_vectors(center, tmp_path / "out.parquet") == 5
    back = pl.read_parquet(tmp_path / "out.parquet")
    assert back["item_key"].to_list() == sorted(IDS)
    np.testing.assert_array_equal(
        back["vector"].explode().to_numpy().reshape(5, 4)[np.argsort(np.argsort(IDS))], vectors
    )


def test_damaged_vectors_do_not_come_out(center, tmp_path):
    """Mutant: they come out as zero vectors."""
    center_vectors.import_vectors(center, write(tmp_path, "parquet")[0])
    path = center / "snapshots" / "1" / "1" / "vectors.safetensors"
    data = bytearray(path.read_bytes())
    data[data.index(VECTORS[2].astype(np.float16).tobytes())] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(DamagedRecord, match=rf"1 of 5 rows .* the first is of item key {IDS[2]}\."):
        center_vectors.export_vectors(center, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_text_ids_have_the_keys_of_datasets(center, tmp_path, kind):
    names = ["a", "b", "c", "d", "ä"]
    path, ids = write(tmp_path, kind, ids=names)
    center_vectors.import_vectors(center, path, ids=ids)
    keys = item_keys(pl.Series(names))
    assert keys.tolist() == [text_key(name) for name in names]
    assert answers(center, 1, keys)[1] == [State.HIT] * 5


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ids": [1, 2, 3, 4, 3]}, "1 item ids stand twice, the first is 3"),
        ({"ids": [1, 2, 3, 4, -3]}, "1 item ids are negative"),
        ({"ids": [1, 2, 3, 4, None]}, "Int64 with 1 missing"),
        ({"ids": [1.5, 2, 3, 4, 5]}, "these are Float64 with 0 missing"),
        (
            {"vectors": np.zeros_like(VECTORS)},
            "5 of 5 vectors from row 0 on have a length in float32 that is zero or not finite, the first is row 0",
        ),
        ({"vectors": VECTORS * np.nan}, "that is zero or not finite"),
        ({"vectors": VECTORS * 1e30}, "that is zero or not finite"),
        ({"vectors": VECTORS * 1e10}, "5 of 5 vectors are not finite as float16"),
        ({"ids": [], "vectors": VECTORS[:0]}, "holds no vectors"),
    ],
)
def test_wrong_vectors_are_refused_and_leave_nothing(center, tmp_path, changed, told):
    path, _ = write(tmp_path, "parquet", **changed)
    with pytest.raises(DataError, match=told):
        center_vectors.import_vectors(center, path)
    assert all(one.state == "dropped" for one in Center(center).log.generations.all())
    assert center_vectors.import_vectors(center, write(tmp_path, "parquet")[0]).dim == 4


def test_files_that_are_no_vectors_are_told(center, tmp_path):
    ragged = tmp_path / "ragged.parquet"
    pl.DataFrame({"item_id": [1, 2], "vector": [[1.0, 2.0], [1.0]]}).write_parquet(ragged)
    other = tmp_path / "other.parquet"
    pl.DataFrame({"id": [1]}).write_parquet(other)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\0" * 40)
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    for path, ids, told in (
        (ragged, None, "1 vectors have another length than the first one's 2"),
        (other, None, "the columns item_id, vector are missing; it has id"),
        (torn, None, "not readable as vectors"),
        (pickled, pickled, "not readable as vectors .*Python objects"),
        (tmp_path / "none.parquet", None, "no such file"),
        (tmp_path / "v.csv", None, r"not a file of vectors\. Known: \.parquet, \.npy, \.safetensors"),
        (write(tmp_path, "npy")[0], None, "--ids belongs to a .npy"),
    ):
        with pytest.raises(DataError, match=told):
            center_vectors.import_vectors(center, path, ids=ids)


def test_rows_that_are_no_items_are_told_and_the_others_taken(center, dataset, encoder, tmp_path):
    center_build.main(center, dataset, encoder, SMALL)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.png").write_bytes(picture(1))
    (photos / "bad.png").write_bytes(picture(1)[:50])
    (tmp_path / "secret.png").write_bytes(picture(2))
    lines = [
        {"item_id": 600, "image": "good.png"},
        {"item_id": 601, "image": "bad.png"},
        {"item_id": 602, "image": "../secret.png"},
        {"item_id": 603, "image": "none.png"},
        {"item_id": -4, "title": "x"},
        {"title": "x"},
        {"item_id": 605, "titel": "x"},
        {"item_id": 1.5, "title": "x"},
        {"item_id": 606, "title": "the last"},
    ]
    stream = io.StringIO("\n".join([*map(json.dumps, lines), "no json", "[1]", ""]))
    found = center_ingest.main(center, center_ingest.read_lines(stream), images=photos)
    assert (found.num_items, found.num_refused) == (2, 9)
    told = " ".join(found.refused)
    for part in (
        "item 601: image: damaged or truncated",
        "row 2: picture ../secret.png: lies outside of",
        "row 3: picture none.png: No such file or directory.",
        "row 4: item -4: an id must not be negative.",
        "row 5: item_id: Field required",
        "row 6: titel: Extra inputs are not permitted",
        "row 9: line 10 is not a JSON object",
    ):
        assert part in told
    assert answers(center, 1, [600, 606])[1] == [State.HIT, State.HIT]


def test_a_table_is_read(tmp_path):
    table = pl.DataFrame({"item_id": ["a", "b"], "title": ["x", None]})
    table.write_parquet(tmp_path / "t.parquet")
    table.write_csv(tmp_path / "t.csv")
    table.write_ndjson(tmp_path / "t.jsonl")
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        rows, count = center_ingest.read_table(tmp_path / name)
        assert count == 2
        assert [center_ingest.read_item(row, tmp_path).title for row in rows] == ["x", None]
    rows, count = center_ingest.read_table(tmp_path)
    assert (count, [row["item_id"] for row in rows]) == (None, ["a", "b"] * 3)
    (tmp_path / "empty").mkdir()
    for name, told in (
        ("t.txt", "not a table of items"),
        ("none.csv", "not readable"),
        ("empty", "holds no table of items. Known: .parquet, .csv, .jsonl"),
    ):
        with pytest.raises(DataError, match=told):
            center_ingest.read_table(tmp_path / name)


def test_generations_by_command(center, tmp_path):
    path, _ = write(tmp_path, "parquet")
    for _ in range(2):
        center_vectors.import_vectors(center, path)
    with pytest.raises(CenterError, match="generation 1 is building"):
        recipe.activate(center, 1)
    for number in (1, 2):
        recipe.seal(center, number, [], name="x", min_coverage=0.99)
        recipe.activate(center, number)
    assert recipe.rollback(center) == {"active": 1}
    assert recipe.rollback(center) == {"active": 2}
    assert recipe.verify(center, [], name="x") == {"verified": "center"}
    assert recipe.compact(center, None) == {"generation": 2, "snapshot": 1}
    found = recipe.status(center, [], name="x")
    assert [facts["state"] for facts in found.values()] == ["sealed", "active"]
    assert recipe.drop(center, 1, [], name="x") == {"dropped": 1}
    assert recipe.collect_garbage(center, keep_snapshots=1, keep_hours=0.0)["num_snapshots_removed"] == 0
    with pytest.raises(ConfigError, match="no store is named"):
        recipe.publish(center, [], name="x", follow=False)
    with pytest.raises(ConfigError, match=r"mysql://x: not the URL of a parameter store\. Known: redis://"):
        recipe.status(center, ["mysql://x"], name="x")
    with pytest.raises(ConfigError, match="'float64' is not one of float16, int8"):
        recipe.vector_dtype("float64")
