"""Items over HTTP: on the disk before they are acknowledged, refused in one line, under the key that was meant."""

import asyncio
import base64
import collections
import contextlib
import io
import struct
import threading
import zlib
from unittest import mock

import httpx
import numpy as np
import pytest
from encoders.small import TITLES, item_encoder, picture, shake
from fastapi.testclient import TestClient
from PIL import Image

from mimctr.center.center import Center
from mimctr.center.database import Database, DiskFull
from mimctr.center.log import CenterLog
from mimctr.center.realtime import ItemRealtime
from mimctr.center.record import decode, partition_of
from mimctr.data.keys import item_key, text_key
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import CenterError, ConfigError, DataError
from mimctr.recipes import serve as recipe
from mimctr.recipes.ctr_model import load_model
from mimctr.serve import items as module
from mimctr.serve.app import MAX_ITEM_BYTES, create_app
from mimctr.serve.items import Items
from mimctr.serve.routes.items import read_id
from mimctr.serve.service import Service

TOKEN = {"Authorization": "Bearer secret"}
PNG = TOKEN | {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    made = item_encoder()
    shake(made)
    folder = tmp_path_factory.mktemp("encoder")
    made.save(folder)
    return folder, ItemEncoder.load(folder)


@pytest.fixture
def center(tmp_path, encoder):
    made = Center.create(tmp_path / "center", num_partitions=2)
    folder, loaded = encoder
    made.keep_encoder(folder, loaded.fingerprint)
    one = made.log.generations.begin(fingerprint=loaded.fingerprint, dim=loaded.dim, dtype="float16")
    with made.write_base(one.number, np.array([1])) as writer:
        writer.write(np.array([1]), np.eye(1, loaded.dim, dtype=np.float32))
    return made


@contextlib.contextmanager
def serving(center, **settings):
    """Yield an application that only takes items in."""
    items = Items(center.folder, max_waiting=settings.pop("max_waiting", 64), disk_floor=0)
    app = create_app(
        Service(load_model), items=items, scores=False, token="secret", **{"item_deadline": 60.0} | settings
    )
    with TestClient(app) as client:
        yield client


@pytest.fixture
def client(center):
    with serving(center) as made:
        yield made


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def held(center, key: int) -> np.ndarray | None:
    """Return an item's newest vector in the log."""
    partition = int(partition_of(np.array([key]), center.log.num_partitions)[0])
    found = next(record for record in center.log.records(1, partition) if record.key == key)
    return decode(np.frombuffer(found.payload, np.uint8)[None], "float16")[0] if found.has_vector else None


def bomb(side: int) -> bytes:
    """Return a PNG of few bytes and side * side pixels."""
    made = io.BytesIO()
    Image.new("1", (side, side)).save(made, "PNG")
    return made.getvalue()


def text_bomb(size: int) -> bytes:
    """Return a PNG whose compressed text chunk unpacks to ``size`` bytes."""
    whole = picture(0)
    body = b"zTXt" + b"Comment\0\0" + zlib.compress(b"a" * size, 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return whole[:33] + chunk + whole[33:]


def test_an_item_is_on_the_disk_with_the_catalogues_vector(client, center, encoder):
    body = {"title": TITLES[0], "category": "bags", "image": text_of(picture(3))}
    answer = client.put("/items/lamp%2F7?id_type=text", json=body, headers=TOKEN)
    assert answer.status_code == 202, answer.text
    assert answer.json() == {"item_id": "lamp/7", "version": 1, "windows": {"1": 1}}
    vectors, _ = encoder[1].embed_items([picture(3)], [TITLES[0]], ["bags"])
    np.testing.assert_allclose(held(center, text_key("lamp/7")), vectors.numpy()[0], atol=1e-3)
    (kept,) = center.log.items()
    assert kept[1:] == (1, False, "lamp/7", TITLES[0], "bags", picture(3))


def test_a_picture_alone_is_a_body_too(client, center, encoder):
    asked = {"id_type": "integer", "title": TITLES[1], "category": "hats"}
    for media_type, form in (
        ("image/png", "PNG"),
        ("image/jpeg", "JPEG"),
        ("application/octet-stream", "GIF"),
    ):
        made = io.BytesIO()
        Image.open(io.BytesIO(picture(4))).save(made, form)
        headers = TOKEN | {"Content-Type": media_type}
        answer = client.put("/items/12", params=asked, content=made.getvalue(), headers=headers)
        assert answer.status_code == 202, answer.text
        vectors, _ = encoder[1].embed_items([made.getvalue()], [TITLES[1]], ["hats"])
        np.testing.assert_allclose(held(center, 12), vectors.numpy()[0], atol=1e-3)


def test_nothing_is_acknowledged_before_it_is_on_the_disk(center, monkeypatch):
    """Mutant: 202 before the log has it."""
    go, append = threading.Event(), CenterLog.append

    def slow(log, producer, changes):
        go.wait(20)
        return append(log, producer, changes)

    monkeypatch.setattr(CenterLog, "append", slow)
    items = Items(center.folder, max_waiting=8, disk_floor=0)
    app = create_app(Service(load_model), items=items, scores=False)

    async def ask() -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            put = asyncio.create_task(client.put("/items/a", json={"title": "bag"}))
            late = await client.put("/items/b", json={"title": "bag"}, headers={"X-Deadline-Ms": "1500"})
            assert late.status_code == 504
            assert "the item may still be taken in" in late.json()["detail"]
            assert not put.done()
            assert center.log.items() == []
            go.set()
            return (await put).status_code

    assert asyncio.run(ask()) == 202
    items.close()
    assert {one.item_id for one in center.log.items()} == {"a", "b"}


def test_the_same_again_is_a_new_version_and_a_deletion_is_one(client, center):
    versions = [
        client.put("/items/a", json={"title": TITLES[0]}, headers=TOKEN).json()["version"] for _ in range(2)
    ]
    assert versions == [1, 2]
    assert held(center, text_key("a")) is not None
    answer = client.delete("/items/a", headers=TOKEN)
    assert (answer.status_code, answer.json()["version"]) == (202, 3)
    assert held(center, text_key("a")) is None
    assert client.delete("/items/never", headers=TOKEN).json()["version"] == 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "it is empty (0 bytes)"),
        (picture(1, width=64, height=64)[:-900], "damaged or truncated"),
        (b"<html>not found</html>", "are not JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "are not JPEG, PNG"),
        (bomb(12_000), "larger than 50,000,000 pixels"),
        (text_bomb(100_000_000), "damaged or truncated"),
    ],
    ids=["empty", "truncated", "html", "postscript", "bomb", "text bomb"],
)
def test_a_picture_that_cannot_be_read_is_refused(client, center, data, told):
    for sent in ({"json": {"image": text_of(data)}}, {"content": data}):
        headers = TOKEN if "json" in sent else TOKEN | {"Content-Type": "application/octet-stream"}
        answer = client.put("/items/a", headers=headers, **sent)
        assert answer.status_code == 422
        assert told in answer.json()["detail"]
    assert center.log.items() == []


def test_a_picture_is_looked_at_without_a_generation_too(tmp_path):
    """Mutant: what no encoder reads yet is taken in, and the first build fails on it."""
    empty = Center.create(tmp_path / "empty")
    with serving(empty) as client:
        answer = client.put("/items/a", json={"image": text_of(picture(1)[:-30])}, headers=TOKEN)
        assert answer.status_code == 422
        assert "item a: image: damaged or truncated" in answer.json()["detail"]
        assert client.put("/items/a", json={"image": text_of(picture(1))}, headers=TOKEN).status_code == 202


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        ({"json": {"titel": "bag"}}, 422, "Extra inputs are not permitted"),
        ({"json": {"image_url": "http://localhost/secret.png"}}, 422, "Extra inputs are not permitted"),
        ({"json": {"title": 7}}, 422, "valid string"),
        ({"json": {"image": "!!"}}, 422, "not base64"),
        ({"json": {"image": "http://localhost/secret.png"}}, 422, "not base64"),
        ({"json": []}, 422, "should be an object"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "Invalid JSON"),
        (
            {"content": b'{"title": "\\ud800"}', "headers": {"Content-Type": "application/json"}},
            422,
            "Invalid JSON",
        ),
        ({"json": {"title": "x" * 100_001}}, 422, "at most 100000 characters"),
        ({"json": {"title": "bag"}, "params": {"title": "hat"}}, 422, "title: nothing of that name"),
        (
            {"content": picture(1), "headers": {"Content-Type": "image/jpeg"}},
            422,
            "said to be image/jpeg, it is PNG",
        ),
        (
            {"content": picture(1), "params": {"titel": "hat"}, "headers": PNG},
            422,
            "titel: nothing of that name",
        ),
        ({"content": b"x", "headers": {"Content-Type": "image/tiff"}}, 415, "content-type 'image/tiff'"),
        ({"content": b"x"}, 415, "content-type ''"),
        ({"content": b"x" * (MAX_ITEM_BYTES + 1), "headers": PNG}, 413, "larger than 21,000,000 bytes"),
    ],
)
def test_what_is_no_item_is_refused(client, center, sent, status, told):
    sent = sent | {"headers": TOKEN | sent.get("headers", {})}
    answer = client.put("/items/a", **sent)
    assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert center.log.items() == []


@pytest.mark.parametrize("far", ["0", str(86_400_001), "9" * 400])
def test_a_deadline_that_is_none_is_refused(client, center, far):
    """Mutant: a number that no float holds is a fault of ours."""
    headers = TOKEN | {"X-Deadline-Ms": far}
    answers = [client.put("/items/a", json={"title": "bag"}, headers=headers)]
    answers.append(client.delete("/items/a", headers=headers))
    assert [answer.status_code for answer in answers] == [422, 422]
    assert all("x-deadline-ms" in answer.json()["detail"] for answer in answers)
    assert center.log.items() == []


def test_a_stream_that_does_not_end_is_cut_off(client):
    """Mutant: only what a request says of its own length is looked at."""
    answer = client.put("/items/a", content=iter([b"x" * 1_000_000] * 30), headers=PNG)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("item_id", "id_type", "expected"),
    [
        ("a", None, "a"),
        ("7", "integer", 7),
        ("7", "text", "7"),
        ("0", "integer", 0),
        ("007", "text", "007"),
        ("7e5", None, "7e5"),
        (str(2**63 - 1), "integer", 2**63 - 1),
    ],
)
def test_an_id_is_what_the_caller_says(item_id, id_type, expected):
    found = read_id(item_id, id_type)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("item_id", "id_type"),
    [
        *((name, None) for name in ("7", "007", "-7", "+7", "7.0", "7.", "٧", "", "x" * 513, "\ufffd")),
        *((name, "integer") for name in ("007", "-7", "7.0", "a", "", "٧", str(2**63), "1_000", " 7")),
    ],
)
def test_an_id_that_may_be_two_items_is_refused(item_id, id_type):
    """Mutant: 7 is written as '7'."""
    with pytest.raises(DataError, match="item id"):
        read_id(item_id, id_type)


def test_integer_and_text_are_two_items(client, center):
    """Mutant: the path segment is the key's text, whatever the catalogue has."""
    assert client.put("/items/7", json={"title": "bag"}, headers=TOKEN).status_code == 422
    assert client.put("/items/7?id_type=number", json={"title": "bag"}, headers=TOKEN).status_code == 422
    for id_type, name in (("integer", 7), ("text", "7")):
        answer = client.put(f"/items/7?id_type={id_type}", json={"title": "bag"}, headers=TOKEN)
        assert answer.json()["item_id"] == name
    assert {one.key for one in center.log.items()} == {item_key(7), item_key("7")}
    assert client.put("/items/%FF", json={"title": "bag"}, headers=TOKEN).status_code == 422


def test_writing_needs_the_token_before_a_byte_is_read(client):
    for send in (client.put, client.delete):
        assert send("/items/a", headers={"Content-Type": "image/png"}).status_code == 401


def test_a_full_queue_is_told(center, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(ItemRealtime, "_append", lambda *_: go.wait(60))
    with serving(center, max_waiting=1, item_deadline=0.01) as client:
        answers = [client.put(f"/items/a{n}", json={"title": "bag"}, headers=TOKEN) for n in range(300)]
        counts = collections.Counter(answer.status_code for answer in answers)
        assert set(counts) == {429, 504}
        full = next(answer for answer in answers if answer.status_code == 429)
        assert full.headers["retry-after"] == "1"
        assert "mimctr_items_waiting 1.0" in client.get("/metrics").text
        go.set()


def test_a_process_that_was_replaced_says_so(center, client):
    center.log.take_over("another")
    answer = client.put("/items/a", json={"title": "bag"}, headers=TOKEN)
    assert answer.status_code == 503
    assert "is written by 'another' (epoch 2), not by 'serve" in answer.json()["detail"]


def test_an_imported_generation_takes_no_content(center, client):
    center.log.generations.begin(fingerprint="clip", dim=3, dtype="float16")
    answer = client.put("/items/a", json={"title": "bag"}, headers=TOKEN)
    assert answer.status_code == 409
    assert "generation 2 was imported" in answer.json()["detail"]


def test_a_full_disk_is_told_and_is_read_as_before(center, client, monkeypatch):
    """Mutants: the floor is not looked at; SQLite's word for it is a fault of ours."""
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "disk_usage", lambda _: collections.namedtuple("Use", "free")(-1))
        answer = client.put("/items/a", json={"title": "bag"}, headers=TOKEN)
        assert answer.status_code == 507
        assert "-1 bytes are free on its disk, items are taken in from 0 on" in answer.json()["detail"]
    with monkeypatch.context() as patch:
        patch.setattr(CenterLog, "append", lambda *_: full())
        answer = client.put("/items/a", json={"title": "bag"}, headers=TOKEN)
        assert (answer.status_code, answer.json()["detail"]) == (507, "database or disk is full")
    assert client.get("/health/ready").status_code == 200
    assert client.put("/items/a", json={"title": "bag"}, headers=TOKEN).status_code == 202


def full() -> None:
    raise DiskFull("database or disk is full")


def test_sqlite_says_that_a_disk_is_full(tmp_path):
    database = Database(tmp_path / "small.sqlite")
    database.change("CREATE TABLE data (bytes BLOB)")
    database.ask("PRAGMA max_page_count = 3")
    with pytest.raises(DiskFull, match=r"disk is full\. Nothing of this change was written"):
        database.change("INSERT INTO data VALUES (zeroblob(100000))")


def test_items_are_counted(client):
    client.put("/items/a", json={"title": "bag"}, headers=TOKEN)
    client.put("/items/a", json={"image": text_of(b"no")}, headers=TOKEN)
    client.put("/items/a", json={"titel": "bag"}, headers=TOKEN)
    text = client.get("/metrics").text
    assert 'mimctr_items_total{outcome="accepted"} 1.0' in text
    assert 'mimctr_items_total{outcome="refused"} 2.0' in text
    assert 'mimctr_requests_total{route="/items/{item_id:path}",status="202"} 1.0' in text
    free = next(line for line in text.splitlines() if line.startswith("mimctr_disk_free_bytes "))
    assert float(free.split()[1]) > 0


def test_a_process_for_items_alone_scores_nothing(client, tmp_path):
    assert client.post("/score", json={"candidates": [1]}).status_code == 404
    assert client.get("/health/ready").json() == {"ready": True}
    with pytest.raises(ConfigError, match="no bundle, and no items to take in"):
        recipe.main(None, tmp_path, recipe.Config())
    with pytest.raises(ConfigError, match="items=true needs the center"):
        recipe.main(None, None, recipe.Config(items=True))


def test_items_are_there_only_where_they_are_taken_in(tmp_path):
    with TestClient(create_app(Service(load_model))) as client:
        assert client.put("/items/a", json={"title": "bag"}).status_code == 404


def test_what_is_not_known_without_items_is_not_zero(tmp_path):
    """Mutant: 0 bytes are free where nobody looked, and two alerts never end."""
    with TestClient(create_app(Service(load_model))) as client:
        lines = client.get("/metrics").text.splitlines()
    assert {"mimctr_disk_free_bytes NaN", "mimctr_items_waiting NaN"} <= set(lines)


@pytest.mark.parametrize("error", [CenterError("not a sound database"), PermissionError("unable to open")])
def test_metrics_are_read_where_the_log_is_not(error, monkeypatch):
    """Mutant: the scrape fails with it, so that nobody sees that the follower does."""
    service = Service(load_model)
    monkeypatch.setattr(service, "behind", mock.Mock(side_effect=error))
    monkeypatch.setattr(Service, "follower_error", str(error))
    with TestClient(create_app(service)) as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    assert {"mimctr_follower_failing 1.0", "mimctr_store_unreachable 0.0"} <= set(answer.text.splitlines())


def test_closing_finishes_what_waits(center):
    with serving(center, item_deadline=0.001) as client:
        for number in range(5):
            assert client.put(f"/items/a{number}", json={"title": "bag"}, headers=TOKEN).status_code == 504
    assert len(center.log.items()) == 5
