"""A raw query's vector online is the one that it had offline; where there is none in time, the response says so."""

import base64
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from encoders.small import TITLES, item_encoder, picture, shake
from fastapi.testclient import TestClient

from mimctr.center.center import Center
from mimctr.center.known_queries import KNOWN, QUERIES, content_key
from mimctr.center.query_encoder import QueryEncoder
from mimctr.center.snapshot import Snapshot
from mimctr.data.dataset import CtrDataset
from mimctr.data.prepare import prepare_tables
from mimctr.recipes import center_build, embed
from mimctr.recipes.bundle import main as export
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.ctr_model import load_model
from mimctr.recipes.embed import content_folder
from mimctr.recipes.train import main as train
from mimctr.serve import queries as module
from mimctr.serve.app import create_app
from mimctr.serve.items import Items
from mimctr.serve.service import Service
from serve.shops import DAY, SMALL, offline

NUM_ITEMS, NUM_ROWS = 24, 500
TEXTS = ["red shoe", "blue bag", "green hat", None]


def encoder_folder(folder: Path, *, text_queries: bool) -> Path:
    made = item_encoder(text_queries=text_queries)
    shake(made)
    made.save(folder)
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A shop that is searched by text and by picture, a center with its vectors, and MIM+ trained on them."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "tables").mkdir()
    rng = np.random.default_rng(0)
    pl.DataFrame(
        {
            "item_id": np.arange(NUM_ITEMS),
            "title": [TITLES[n % len(TITLES)] for n in range(NUM_ITEMS)],
            "image": [picture(n) for n in range(NUM_ITEMS)],
            "category": [("bags", "hats")[n % 2] for n in range(NUM_ITEMS)],
        }
    ).write_parquet(folder / "tables" / "items.parquet")
    users, texts = rng.integers(0, 10, NUM_ROWS), rng.integers(0, len(TEXTS), NUM_ROWS)
    pl.DataFrame(
        {
            "user_id": users,
            "item_id": rng.integers(0, NUM_ITEMS, NUM_ROWS),
            "time": np.sort(rng.integers(0, 60 * DAY, NUM_ROWS)) + 1_700_000_000,
            "click": rng.integers(0, 2, NUM_ROWS),
            "query_text": [TEXTS[n] for n in texts],
            "query_image": [picture(100 + n % 5) if n % 3 == 0 else None for n in range(NUM_ROWS)],
        }
    ).write_parquet(folder / "tables" / "impressions.parquet")
    pl.DataFrame(
        {
            "user_id": rng.integers(0, 10, NUM_ROWS),
            "item_id": rng.integers(0, NUM_ITEMS, NUM_ROWS),
            "time": np.sort(rng.integers(0, 60 * DAY, NUM_ROWS)) + 1_700_000_000,
            "kind": ["click"] * NUM_ROWS,
        }
    ).write_parquet(folder / "tables" / "behaviors.parquet")
    prepare_tables(folder / "tables", folder / "dataset")
    encoder = encoder_folder(folder / "encoder", text_queries=True)
    center = Center.create(folder / "center", num_partitions=2)
    small = embed.Config(batch_size=4, batches_per_shard=2, device="cpu", num_workers=1)
    center_build.main(folder / "center", folder / "dataset", encoder, small)
    center.seal(1, {})
    center.log.generations.activate(1)
    for variant in ("mim_plus", "mim"):
        config = Config(**(SMALL | {"ubm": "mean", "variant": variant}))
        train(folder / "dataset", content_folder(folder / "center"), folder / variant, config)
        export(folder / variant, folder / "dataset", folder / f"bundle-{variant}", onnx=False)
    return folder


@pytest.fixture
def client(shop):
    yield from serving(shop, "mim_plus")


def serving(shop: Path, variant: str):
    service = Service(load_model, center=shop / "center")
    service.load(shop / f"bundle-{variant}")
    with TestClient(create_app(service, deadline=60.0)) as made:
        yield made


def body(shop: Path, row: int) -> dict:
    """Return a raw row of the log as a caller asks."""
    one = pl.read_parquet(shop / "tables" / "impressions.parquet").row(row, named=True)
    mine = pl.read_parquet(shop / "tables" / "behaviors.parquet").filter(pl.col("user_id") == one["user_id"])
    image = one["query_image"]
    return {
        "user": one["user_id"],
        "candidates": [one["item_id"]],
        "history": mine.select("item_id", "time", "kind").to_dicts(),
        "time": one["time"],
        "query": one["query_text"],
        "query_image": None if image is None else base64.b64encode(image).decode(),
    }


def asked(client: TestClient, sent: dict) -> tuple[float, str]:
    answer = client.post("/score", json=sent)
    assert answer.status_code == 200, answer.text
    return answer.json()["scores"][0]["probability"], answer.json()["query_vector"]


def test_a_score_with_a_query_is_the_offline_one(shop, client, monkeypatch):
    """Mutants: the text of a query that has a picture; a query's vector without the rounding of the snapshots."""
    wanted, origins = list(offline(shop, shop / "mim_plus").items())[:40], set()
    for row, probability in wanted:
        found, origin = asked(client, body(shop, row))
        origins.add(origin)
        assert found == pytest.approx(probability, abs=1e-5)
    assert origins == {"hit", "none"}  # every query was embedded with the generation
    monkeypatch.setattr(module.KnownQueries, "find", lambda *_: None)
    origins = []
    for row, probability in wanted:
        found, origin = asked(client, body(shop, row))
        origins.append(origin)
        assert found == pytest.approx(probability, abs=1e-5)
    distinct = {(body(shop, row)["query"], body(shop, row)["query_image"]) for row, _ in wanted}
    pieces = {(None, image) if image else (text, None) for text, image in distinct} - {(None, None)}
    assert origins.count("encoded") == len(pieces)
    assert set(origins) == {"encoded", "cached", "none"}


def test_a_query_changes_a_score(shop, client):
    """Mutant: the vector is found and not given to the model."""
    sent = body(shop, 480) | {"query": None, "query_image": None}
    without, origin = asked(client, sent)
    assert origin == "none"
    pictures = [base64.b64encode(picture(number)).decode() for number in (7, 8)]
    found = [asked(client, sent | {"query_image": one}) for one in pictures]
    assert [origin for _, origin in found] == ["encoded"] * 2
    assert len({without, *(one for one, _ in found)}) == 3


def test_a_callers_vector_is_used_as_it_is(shop, client):
    encoder = Center(shop / "center").log.generations.active().fingerprint
    sent = body(shop, 480) | {"query": "a shoe that nobody asked for", "query_image": None}
    raw, origin = asked(client, sent)
    assert origin == "encoded"
    vector = QueryEncoder(shop / "center").encode(encoder, text=sent["query"])
    assert asked(client, sent | {"query_vector": vector.tolist()}) == (pytest.approx(raw, abs=1e-7), "given")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"query_vector": [1.0]}, "has 1 numbers, generation 1 has 6"),
        ({"query_vector": [0.0] * 6}, "zero or not finite"),
        ({"query_vector": [3.0] + [0.0] * 5}, "its norm is 3, the generation's vectors have 1"),
        ({"query_vector": [1e300] + [0.0] * 5}, "zero or not finite"),
        ({"query_vector": ["1"]}, "valid number"),
        ({"query_vector": []}, "at least 1 item"),
        ({"query_image": "!!"}, "not base64"),
        ({"query_image": ""}, "it is empty"),
        ({"query_image": base64.b64encode(picture(1)[:-20]).decode()}, "damaged or truncated"),
    ],
)
def test_a_query_that_is_none_is_told(client, wrong, told):
    answer = client.post("/score", json={"candidates": [1]} | wrong)
    assert (answer.status_code, told in answer.text) == (422, True), answer.text


def test_a_lone_surrogate_is_told(client):
    """And NaN: neither can be said back in JSON. Mutant: the refusal repeats what came, and fails."""
    surrogates = ('"query": "\\ud800"', '"user": "\\udfff"', '"user_fields": {"\\ud800": "a"}')
    for field in (*surrogates, '"query_vector": [NaN]'):
        headers = {"Content-Type": "application/json"}
        answer = client.post("/score", content=f'{{"candidates": [1], {field}}}', headers=headers)
        assert answer.status_code == 422, answer.text


def test_a_query_that_takes_too_long_is_scored_without(shop, client, monkeypatch):
    """And is kept when it is done. Mutant: the deadline is the query's alone."""
    go, encode = threading.Event(), QueryEncoder.encode

    def slow(self, *args, **named):
        go.wait(20)
        return encode(self, *args, **named)

    monkeypatch.setattr(QueryEncoder, "encode", slow)
    sent = body(shop, 480) | {"query": "late", "query_image": None}
    headers = {"X-Deadline-Ms": "3000"}
    answer = client.post("/score", json=sent, headers=headers).json()
    assert answer["query_vector"] == "late"
    nothing, _ = asked(client, sent | {"query": " \u200b"})
    # The text is a field, too, whose unknown value differs from none.
    assert 0 < answer["scores"][0]["probability"] < 1
    assert 0 < nothing < 1
    go.set()
    origins = {asked(client, sent)[1] for _ in range(3)}
    assert origins <= {"encoded", "cached"}
    assert asked(client, sent)[1] == "cached"
    assert 'mimctr_queries_total{outcome="late"} 1.0' in client.get("/metrics").text


def test_too_many_that_wait_are_late(shop, client, monkeypatch):
    """Mutant: the queue of queries has no bound."""
    monkeypatch.setattr(module, "MAX_WAITING", 0)
    assert asked(client, body(shop, 480) | {"query": "one more", "query_image": None})[1] == "late"


def test_a_model_that_reads_no_query_is_not_kept_waiting(shop, monkeypatch):
    """Mutant: every query is encoded, whoever scores."""
    monkeypatch.setattr(QueryEncoder, "encode", lambda *_, **__: 1 / 0)
    for client in serving(shop, "mim"):
        sent = body(shop, 480) | {"query": "something new", "query_vector": [1.0]}
        assert asked(client, sent)[1] == "none"


def test_an_encoder_without_text_queries_reads_none(shop, tmp_path, monkeypatch):
    folder = encoder_folder(tmp_path / "center" / "encoders" / "e", text_queries=False)
    encoder = QueryEncoder(folder.parent.parent)
    assert encoder.encode("e", text="red shoe") is None
    assert encoder.encode("e", image=picture(1)).shape == (6,)
    assert (encoder.has("e"), encoder.has("f")) == (True, False)


def test_without_an_encoder_there_is_no_vector(shop, client, monkeypatch):
    monkeypatch.setattr(QueryEncoder, "has", lambda *_: False)
    sent = body(shop, 480) | {"query_image": None}
    assert asked(client, sent | {"query": "of an imported generation"})[1] == "none"
    assert asked(client, sent | {"query_vector": [3.0] * 6})[1] == "given"  # nor a norm that it should have


@pytest.mark.parametrize("value", [1e20, 3e38, 1e-30, 1e-42, 0.0])
def test_a_vector_without_a_length_in_float32_is_refused(client, monkeypatch, value):
    """Mutant: its numbers are looked at one by one; its cosines are then NaN, which no JSON can say."""
    monkeypatch.setattr(QueryEncoder, "has", lambda *_: False)
    answer = client.post("/score", json={"candidates": [1], "query_vector": [value] * 6})
    assert (answer.status_code, answer.json()) == (
        422,
        {"detail": "query_vector: its length in float32 is zero or not finite."},
    )


def test_known_queries_are_found_by_what_they_say(shop):
    """Mutant: a text that has a picture's hash, or the first query's vector for all."""
    folder = shop / "center" / "snapshots" / "1" / QUERIES
    encoder = Center(shop / "center").log.generations.active().fingerprint
    data, known = CtrDataset.open(shop / "dataset"), module.KnownQueries(folder, encoder=encoder)
    vectors = Snapshot.open(folder, encoder=encoder)
    assert len(vectors) == len(data.queries) > 8
    for row, text in enumerate(data.queries.texts):
        found = known.find(content_key(text, data.queries.images.get(row)))
        np.testing.assert_array_equal(found, vectors.fetch(np.array([row + 1])).vectors[0])
    assert known.find(content_key("never asked", None)) is None
    assert known.find(2**63 - 1) is None
    assert content_key("a", None) != content_key(None, b"a")
    assert (folder / KNOWN).is_file()


def test_a_candidate_without_a_vector_asks_the_process_that_takes_items_in(shop, monkeypatch):
    """From a score to a renewed vector. Mutant: deleted items, or those of Base, ask too."""
    items = Items(shop / "center", max_waiting=8, disk_floor=0)
    service = Service(load_model, center=shop / "center")
    service.load(shop / "bundle-mim_plus")
    with TestClient(create_app(service, items=items, deadline=60.0)) as client:
        client.post("/score", json={"candidates": [1, 10**9]})
        end = time.monotonic() + 60
        while 'mimctr_missing_total{outcome="unknown"} 1.0' not in client.get("/metrics").text:
            assert time.monotonic() < end, "nobody asked"
            time.sleep(0.05)
