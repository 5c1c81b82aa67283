"""The catalogue is embedded once per item, the same whoever does it and whatever interrupts it."""

import functools
import json
import shutil
import subprocess
import sys
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from encoders.small import TITLES, item_encoder, picture, shake
from processes import run_in

from mimctr.center.snapshot import Snapshot, read_manifest
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import ConfigError, EncoderError, RunError
from mimctr.recipes import embed, embed_shards, stages
from mimctr.recipes.embed_ray import ShardWorker
from mimctr.recipes.embed_shards import Contents, ShardEncoder, encode_in_threads
from mimctr.weights import load_tensors

NUM_ITEMS = 40
SMALL = embed.Config(batch_size=3, batches_per_shard=2, device="cpu", num_workers=1)
START = 1_600_000_000


class Killed(Exception): ...


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A shop with 7 pictures, 11 titles of many lengths and 5 query pictures, shared by 40 items and 30 searches.

    Item 100 has no picture, 101 no title, 102 neither.
    """
    folder = tmp_path_factory.mktemp("embed")
    tables = folder / "tables"
    tables.mkdir()
    words = " ".join(TITLES).split()
    titles = [" ".join(words[number : 2 * number + 1]) for number in range(11)]
    rng = np.random.default_rng(0)
    items = pl.DataFrame(
        {
            "item_id": np.arange(100, 100 + NUM_ITEMS),
            "title": [titles[0], None, None, *(titles[n % 11] for n in range(3, NUM_ITEMS))],
            "image": [None, picture(1), None, *(picture(n % 7) for n in range(3, NUM_ITEMS))],
            "category": [("bags", "hats", "shoes")[n % 3] for n in range(NUM_ITEMS)],
        }
    )
    events = {
        "user_id": rng.integers(1, 5, 60),
        "item_id": rng.integers(100, 100 + NUM_ITEMS, 60),
        "time": START + np.arange(60),
    }
    asked = pl.DataFrame(events).head(30)
    searches = asked.with_columns(
        query_image=pl.Series([picture(50 + n % 5) for n in range(30)]), kind=pl.lit("purchase")
    )
    items.write_parquet(tables / "items.parquet")
    pl.DataFrame({**events, "click": rng.integers(0, 2, 60)}).write_parquet(tables / "impressions.parquet")
    searches.write_parquet(tables / "searches.parquet")
    prepare_tables(tables, folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    encoder = item_encoder()
    shake(encoder)
    folder = tmp_path_factory.mktemp("encoder")
    encoder.save(folder)
    return folder


@pytest.fixture(scope="module")
def whole(dataset, encoder, tmp_path_factory) -> Path:
    """What an undisturbed call of one process and one worker writes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    embed.main(dataset, encoder, out, SMALL)
    return out


def files(out: Path) -> dict[str, bytes | list]:
    """Return what every file holds, bit for bit; safetensors shuffles its metadata."""
    found: dict[str, bytes | list] = {}
    for path in (path for path in out.rglob("*") if path.is_file() and path.name != "stage.json"):
        tensors = load_tensors(path)[0] if path.suffix == ".safetensors" else None
        held = (
            path.read_bytes() if tensors is None else [(n, t.numpy().tobytes()) for n, t in tensors.items()]
        )
        found[path.relative_to(out).as_posix()] = held
    return found


def test_every_item_and_query_has_the_vector_of_its_own_content(dataset, encoder, whole):
    """Mutants: places of titles for those of pictures; rows of queries not counted from 1."""
    data, model = CtrDataset.open(dataset), ItemEncoder.load(encoder)
    fingerprint = model.fingerprint
    items = Snapshot.open(whole / "items", encoder=fingerprint)
    rows = items.rows(data.items["item_key"].to_numpy())
    for index, item in enumerate(data.items.iter_rows(named=True)):
        vector, known = model.embed_items([data.item_images.get(index)], [item["title"]], [item["category"]])
        assert (rows[index] >= 0) == bool(known)
        if known:
            np.testing.assert_allclose(items.vectors[rows[index]], vector[0], atol=1e-3)
    queries = Snapshot.open(whole / "queries", encoder=fingerprint)
    places = queries.rows(np.arange(1, len(data.queries) + 1))
    for row in range(len(data.queries)):
        image = data.queries.images.get(row)
        assert (places[row] >= 0) == (image is not None)
        if image is not None:
            np.testing.assert_allclose(
                queries.vectors[places[row]], model.embed_query_images([image])[0][0], atol=1e-3
            )
    summary = embed.Summary.model_validate_json((whole / "summary.json").read_text())
    assert (summary.num_items, summary.num_items_without_content) == (NUM_ITEMS - 1, 1)
    assert (summary.num_pictures, summary.num_titles) == (7, 11)


def test_equal_pictures_and_titles_are_encoded_once_and_alike_lengths_together(
    dataset, encoder, tmp_path, monkeypatch
):
    pictures, texts = [], []
    image_vectors, text_vectors = ItemEncoder.image_vectors, ItemEncoder.text_vectors
    monkeypatch.setattr(
        ItemEncoder,
        "image_vectors",
        lambda self, pixels: pictures.append(pixels) or image_vectors(self, pixels),
    )
    monkeypatch.setattr(
        ItemEncoder,
        "text_vectors",
        lambda self, ids, mask: texts.append(mask) or text_vectors(self, ids, mask),
    )
    embed.main(dataset, encoder, tmp_path / "out", SMALL)
    shown = torch.cat(pictures)
    assert len(shown) == len(shown.flatten(1).unique(dim=0)) == 7 + 5
    assert max(map(len, pictures)) == 3
    assert sum(map(len, texts)) == 11
    assert all(mask.any(0).all() for mask in texts)  # no column of padding alone
    first, second = (torch.cat([mask.sum(1) for mask in texts[at : at + 2]]).tolist() for at in (0, 2))
    assert first == sorted(first)
    assert second == sorted(second)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_killed_call_is_resumed_without_encoding_a_shard_twice(
    dataset, encoder, whole, tmp_path, monkeypatch, after
):
    encoded = []
    encode = ShardEncoder.encode

    def counted(self, shard):
        if len(encoded) == after:
            raise Killed
        encoded.append(shard)
        return encode(self, shard)

    monkeypatch.setattr(ShardEncoder, "encode", counted)
    with pytest.raises(Killed):
        embed.main(dataset, encoder, tmp_path / "out", SMALL)
    after = 99
    embed.main(dataset, encoder, tmp_path / "out", SMALL)
    assert len(encoded) == len(set(encoded)) == 2 + 1 + 2
    assert files(tmp_path / "out") == files(whole)


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory) -> Path:
    encoder = item_encoder()
    shake(encoder, scale=0.5)
    folder = tmp_path_factory.mktemp("other_encoder")
    encoder.save(folder)
    return folder


@pytest.mark.parametrize("other", ["settings", "encoder", "dataset"])
def test_what_another_call_left_is_not_taken_for_its_own(
    dataset, encoder, other_encoder, whole, tmp_path, monkeypatch, other
):
    """Mutants: a shard is known by where it starts, which other sizes share; its encoder is not looked at."""
    theirs, model, config = dataset, encoder, SMALL
    if other == "settings":
        config = SMALL.model_copy(update={"batches_per_shard": 3})
    elif other == "encoder":
        model = other_encoder
    else:
        theirs = tmp_path / "dataset"
        shutil.copytree(dataset, theirs)
        manifest = theirs / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"source_hash": "other"}))
    shards = ShardEncoder.open(theirs, model, tmp_path / "out" / "shards", config)
    for shard in shards.shards:
        shards.encode(shard)
    encoded, encode = [], ShardEncoder.encode
    monkeypatch.setattr(
        ShardEncoder, "encode", lambda self, shard: encoded.append(shard) or encode(self, shard)
    )
    embed.main(dataset, encoder, tmp_path / "out", SMALL)
    assert len(encoded) == 2 + 1 + 2
    assert files(tmp_path / "out") == files(whole)


@pytest.mark.parametrize("left", ["all", "items"])
def test_vectors_of_another_encoder_are_neither_returned_nor_completed(
    dataset, other_encoder, whole, tmp_path, left
):
    """Mutant: what is there is taken for the result."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    if left == "items":
        shutil.rmtree(out / "queries")
        (out / "summary.json").unlink()
    held = files(out)
    with pytest.raises(
        RunError, match=r"items: holds vectors of encoder \w{12}, not of \w{12}\. Choose another folder\."
    ):
        embed.main(dataset, other_encoder, out, SMALL)
    assert files(out) == held


@pytest.mark.parametrize("missing", ["queries/manifest.json", "summary.json"])
def test_a_call_killed_while_it_writes_the_snapshots_ends_the_same(
    dataset, encoder, whole, tmp_path, monkeypatch, missing
):
    out, write_snapshot = tmp_path / "out", embed.write_snapshot

    def kill(*_):
        raise Killed

    def write_items_only(folder, *args, **named):
        if folder.name == "queries":
            raise Killed
        write_snapshot(folder, *args, **named)

    with monkeypatch.context() as patch:
        if missing == "summary.json":
            patch.setattr(embed, "write_json", kill)
        else:
            patch.setattr(embed, "write_snapshot", write_items_only)
        with pytest.raises(Killed):
            embed.main(dataset, encoder, out, SMALL)
        assert not (out / missing).exists()
    monkeypatch.setattr(ShardEncoder, "encode", kill)  # all shards are on disk
    embed.main(dataset, encoder, out, SMALL)
    assert files(out) == files(whole)


@pytest.mark.parametrize("num_workers", [2, 5])
def test_the_number_of_workers_changes_no_bit(dataset, encoder, whole, tmp_path, num_workers):
    config = SMALL.model_copy(update={"num_workers": num_workers})
    embed.main(dataset, encoder, tmp_path / "out", config)
    assert files(tmp_path / "out") == files(whole)


def test_an_interrupted_worker_stops_after_its_batch(dataset, encoder, tmp_path, monkeypatch):
    batches = []

    def interrupt(self, pixels):
        batches.append(len(pixels))
        self.shards.stop()
        return torch.zeros(len(pixels), self.image_encoder.dim)

    model = ItemEncoder.load(encoder)
    data = CtrDataset.open(dataset)
    model.shards = ShardEncoder(data, model, model, tmp_path, batch_size=2, batches_per_shard=9)
    monkeypatch.setattr(ItemEncoder, "image_vectors", interrupt)
    with pytest.raises(CancelledError):
        list(encode_in_threads(model.shards, model.shards.shards, 1))
    assert batches == [2]
    assert list(tmp_path.rglob("*.safetensors")) == []


def embed_stage(
    dataset: Path, encoder: Path, out: Path, config: embed.Config, seen: Path | None = None
) -> None:
    """Run the stage; write which shards this process encoded into ``seen``."""
    encode = ShardEncoder.encode

    def noted(self, shard):
        if seen is not None:
            (seen / f"{shard.part}-{shard.start}-{torch.distributed.get_rank()}").touch()
        return encode(self, shard)

    ShardEncoder.encode = functools.wraps(encode)(noted)
    stages.embed(dataset, encoder, out, config).run()


def test_two_processes_share_the_shards_and_write_what_one_writes(dataset, encoder, whole, tmp_path):
    """Mutants: both encode all shards; the first one assembles before the others are done."""
    (tmp_path / "seen").mkdir()
    run_in(2, embed_stage, dataset, encoder, tmp_path / "out", SMALL, tmp_path / "seen")
    seen = sorted(path.name for path in (tmp_path / "seen").iterdir())
    assert sorted(name.rpartition("-")[0] for name in seen) == sorted(
        ["pictures-0", "pictures-6", "queries-0", "titles-0", "titles-6"]
    )
    assert {name.rpartition("-")[2] for name in seen} == {"0", "1"}
    assert files(tmp_path / "out") == files(whole)


def test_what_one_process_left_two_finish(dataset, encoder, whole, tmp_path, monkeypatch):
    encode = ShardEncoder.encode

    def kill(self, shard):
        if shard.part == "queries":
            raise Killed
        return encode(self, shard)

    monkeypatch.setattr(ShardEncoder, "encode", kill)
    with pytest.raises(Killed):
        stages.embed(dataset, encoder, tmp_path / "out", SMALL).run()
    left = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert len(left) == 2
    (tmp_path / "seen").mkdir()
    run_in(2, embed_stage, dataset, encoder, tmp_path / "out", SMALL, tmp_path / "seen")
    assert len(list((tmp_path / "seen").iterdir())) == 3
    assert files(tmp_path / "out") == files(whole)


def test_a_catalogue_without_content_is_refused(dataset, encoder, tmp_path, monkeypatch):
    nothing = property(lambda self: np.zeros(NUM_ITEMS, dtype=bool))
    monkeypatch.setattr(Contents, "has_content", nothing)
    with pytest.raises(RunError, match="none of its 40 items has an image or a title"):
        embed.main(dataset, encoder, tmp_path, SMALL)


def test_the_manifest_names_the_back_end(whole):
    manifest = read_manifest(whole / "items")
    assert (manifest.backend, manifest.parity) == ("torch", None)


@pytest.mark.needs_extras
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_back_end_is_close_to_pytorch_and_says_how_close(dataset, encoder, whole, tmp_path, backend):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[backend])
    pytest.importorskip("onnxscript")
    config = SMALL.model_copy(update={"backend": backend, "num_workers": 2})
    embed.main(dataset, encoder, tmp_path, config)
    for name in ("items", "queries"):
        exact, found = (embed_snapshot(out / name) for out in (whole, tmp_path))
        assert np.array_equal(found.keys, exact.keys)
        cosines = (found.vectors.astype(np.float64) * exact.vectors).sum(1)
        assert cosines.mean() > 0.9995
    parity = read_manifest(tmp_path / "items").parity
    assert read_manifest(tmp_path / "items").backend == backend
    assert parity.num_compared == NUM_ITEMS - 1
    assert 0.999 < parity.least_cosine <= parity.mean_cosine < 1.00001
    items, theirs = embed_snapshot(whole / "items"), embed_snapshot(tmp_path / "items")
    cosines = (items.vectors.astype(np.float64) * theirs.vectors).sum(1)
    assert parity.mean_cosine == pytest.approx(cosines.mean(), abs=1e-3)


def embed_snapshot(folder: Path) -> Snapshot:
    return Snapshot.open(folder, encoder=read_manifest(folder).fingerprint)


class Tilted:
    """Towers whose picture vectors are off by some share of another vector."""

    def __init__(self, encoder: ItemEncoder, share: float) -> None:
        self.encoder, self.share = encoder, share

    def image_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        vectors = self.encoder.image_vectors(pixels)
        return vectors + self.share * vectors.roll(1, dims=1)

    def text_vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.encoder.text_vectors(ids, mask)


@pytest.mark.parametrize(("share", "accepted"), [(0.001, True), (0.5, False), (float("nan"), False)])
def test_a_back_end_far_from_pytorch_is_refused_before_it_encodes(
    dataset, encoder, tmp_path, monkeypatch, share, accepted
):
    """Mutants: the comparison the other way round; NaN passes."""
    monkeypatch.setattr(embed_shards, "open_towers", lambda model, *_, **__: Tilted(model, share))
    config = SMALL.model_copy(update={"backend": "onnx"})
    if accepted:
        embed.main(dataset, encoder, tmp_path, config)
        assert 0.999 <= read_manifest(tmp_path / "items").parity.mean_cosine < 1
        return
    with pytest.raises(
        EncoderError,
        match=r"back-end 'onnx': mean cosine (0\.\d{4}|nan) to PyTorch over 39 items of the catalogue",
    ):
        embed.main(dataset, encoder, tmp_path, config)
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_a_back_end_that_is_not_installed_is_named(dataset, encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(EncoderError, match=r"onnxscript is not installed\. pip install 'mimctr\[onnx\]'"):
        embed.main(dataset, encoder, tmp_path, SMALL.model_copy(update={"backend": "onnx"}))


def test_a_back_end_runs_on_the_cpu():
    with pytest.raises(ValueError, match="device: the back-end openvino runs on the CPU"):
        embed.Config(backend="openvino", device="cuda")


def test_workers_and_engine_are_no_part_of_what_the_stage_is_known_by():
    assert embed.Config(num_workers=3, engine="ray").model_dump() == embed.Config().model_dump()


@pytest.mark.needs_extras
@pytest.mark.slow
def test_ray_writes_what_one_process_writes(dataset, encoder, whole, tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "mimctr", "embed", str(dataset), "--encoder", str(encoder)]
    settings = SMALL.model_copy(update={"engine": "ray"})
    for name in ("batch_size", "batches_per_shard", "device", "engine"):
        command += ["--set", f"{name}={getattr(settings, name)}"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == files(whole)

    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    blobs = broken / "items" / "images" / "blobs.bin"
    blobs.write_bytes(b"x" * blobs.stat().st_size)
    command[4] = str(broken)
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "failed")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    said = [
        line for line in done.stderr.splitlines() if line.startswith("mimctr: ")
    ]  # Ray's own lines may follow
    assert len(said) == 1, done.stderr
    assert said[0].startswith("mimctr: Ray: image: its ")


def test_a_worker_of_ray_names_its_first_problem_from_then_on(dataset, encoder, tmp_path):
    """Mutant: the shard after a bad one is tried, and fails with another, wordless error."""
    shutil.copytree(dataset, tmp_path / "broken")
    blobs = tmp_path / "broken" / "items" / "images" / "blobs.bin"
    blobs.write_bytes(b"x" * blobs.stat().st_size)
    opened = functools.partial(ShardEncoder.open, tmp_path / "broken", encoder, tmp_path / "shards", SMALL)
    worker = ShardWorker(opened, 1)
    for part in ("pictures", "titles"):
        batch = {"part": np.array([part]), "start": np.array([0]), "stop": np.array([6])}
        assert worker(batch)["problem"][0].startswith("image: its ")
    assert list((tmp_path / "shards").rglob("*.safetensors")) == []


def test_ray_that_is_not_installed_is_named(dataset, encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"engine: Ray is not installed\. pip install 'mimctr\[ray\]'"):
        embed.main(dataset, encoder, tmp_path, SMALL.model_copy(update={"engine": "ray"}))
