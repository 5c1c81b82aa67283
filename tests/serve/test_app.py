"""The service over HTTP: scores as offline, refusals that say what to do, a swap that nobody notices."""

import asyncio
import json
import shutil
import threading
import time
from dataclasses import replace
from unittest import mock

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from mimctr.center import database
from mimctr.center.center import Center
from mimctr.center.database import Database
from mimctr.center.log import Change
from mimctr.center.record import encode
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.local import LocalStore
from mimctr.errors import CenterError, ConfigError
from mimctr.files import hash_path
from mimctr.recipes import serve as recipe
from mimctr.recipes.ctr_model import load_model
from mimctr.recipes.embed import ITEMS
from mimctr.serve.app import create_app
from mimctr.serve.follower import Follower
from mimctr.serve.histories import LocalHistories
from mimctr.serve.scorer import Scorer
from mimctr.serve.service import Service
from serve.shops import DIM, TOKEN, body, offline


def test_scores_over_http_are_the_offline_ones(shop, client, tmp_path):
    """No training-serving skew, from raw ids in JSON to the evaluated probability."""
    for row, probability in list(offline(shop, tmp_path / "model").items())[:30]:
        answer = client.post("/score", json=body(shop, row))
        assert answer.status_code == 200, answer.text
        (score,) = answer.json()["scores"]
        assert score["probability"] == pytest.approx(probability, abs=1e-5)


def test_a_history_of_the_behavior_store_is_one_of_the_request(shop, client):
    """Mutant: events of another user; the store is not asked."""
    asked = body(shop, 850)
    whole = client.post("/score", json=asked).json()
    history = asked.pop("history")
    empty = client.post("/score", json=asked).json()
    events = [{"user": asked["user"], **one} for one in history]
    assert client.post("/events", json={"events": events}, headers=TOKEN).status_code == 202
    stored = client.post("/score", json=asked).json()
    assert stored["num_behaviors"] == whole["num_behaviors"] > empty["num_behaviors"] == 0
    assert stored["scores"][0]["probability"] == pytest.approx(whole["scores"][0]["probability"], abs=1e-6)


def test_a_new_item_is_scored_with_its_vector(shop, client):
    """From the log to a changed score within a second or so, without a restart."""
    key = 2**58 + int(np.random.default_rng().integers(2**40))
    asked = {"candidates": [key], "history": [], "time": 1_800_000_000}
    assert client.post("/score", json=asked).json()["scores"][0]["vector"] == "miss"
    center = Center(shop / "center")
    payload = encode(np.ones((1, DIM), np.float32), "float16")[0].tobytes()
    center.log.append(center.log.take_over("test"), [Change(key=key, payloads={1: payload})])
    end = time.monotonic() + 10
    while client.post("/score", json=asked).json()["scores"][0]["vector"] != "hit":
        assert time.monotonic() < end, "the follower did not bring it"
        time.sleep(0.05)


def test_the_follower_keeps_no_more_than_is_new(shop, tmp_path):
    """Mutant: what a snapshot has stays in memory for as long as the process runs."""
    center = Center.create(tmp_path / "own", num_partitions=2)
    center.adopt(Snapshot.open(shop / "content" / ITEMS, encoder="e"))
    store = LocalStore()
    follower = Follower(tmp_path / "own", store)
    payload = encode(np.ones((1, DIM), np.float32), "float16")[0].tobytes()
    producer = center.log.take_over("test")
    center.log.append(producer, [Change(key=2**57 + n, payloads={1: payload}) for n in range(30)])
    follower.look(center, store)
    assert len(store._held[1].tail) == 30
    center.compact(1)
    follower.look(center, store)
    assert len(store._held[1].tail) == 0
    assert store.fetch(center.log.generations.space(1), np.array([2**57])).known.tolist() == [True]
    center.drop(1)
    follower.look(center, store)
    assert not store._held
    follower.close()


def wait_for(what, told: str) -> None:
    """Wait until something is so; counted in looks, for the machine may be stopped meanwhile."""
    for _ in range(4000):
        if what():
            return
        time.sleep(0.01)
    raise TimeoutError(told)


def test_the_follower_goes_on_after_any_error(caplog):
    """Mutants: its thread ends with an error that nobody thought of; nobody is told; every look writes a line."""
    looked = mock.Mock()
    follower = Follower(None, on_look=looked)
    wrong = {
        "ValueError: operands could not be broadcast": ValueError("operands could not be broadcast"),
        "AssertionError": AssertionError(),
        "a damaged window": CenterError("a damaged window"),
    }
    for told, looked.side_effect in wrong.items():
        wait_for(lambda told=told: follower.error == told, f"nobody is told of {told}")
        again = looked.call_count + 2
        wait_for(lambda again=again: looked.call_count >= again, "the follower does not look again")
    looked.side_effect = None
    wait_for(lambda: follower.error is None, "the follower does not look again")
    follower.close()
    assert [record.getMessage() for record in caplog.records] == [f"follower: {told}" for told in wrong]
    assert [bool(record.exc_info) for record in caplog.records] == [True, True, False]


def test_the_follower_waits_for_its_center(tmp_path):
    """Mutant: a log that cannot be opened at that moment is never followed."""
    follower = Follower(tmp_path / "center")
    wait_for(lambda: "no such file" in str(follower.error), "nobody is told that there is no center")
    Center.create(tmp_path / "center")
    wait_for(lambda: follower.error is None, "the center is not opened")
    follower.close()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"candidates": []}, "at least 1 item"),
        ({"candidates": list(range(5001))}, "at most 5000 items"),
        ({"candidates": [-1]}, "greater than or equal to 0"),
        ({"candidates": [1.5]}, "valid integer"),
        ({"candidates": [1], "titel": 1}, "Extra inputs are not permitted"),
        ({"candidates": [1], "history": [{"item_id": 1, "time": -5}]}, "greater than or equal to 0"),
        ({"candidates": [1], "context_fields": {"context_our": "1h"}}, "the model has no context_our"),
        ({"user": 1}, "Field required"),
    ],
)
def test_a_wrong_request_is_told_why(client, wrong, told):
    answer = client.post("/score", json=wrong)
    assert answer.status_code == 422
    assert told in answer.text


def test_a_large_request_is_refused(client):
    assert client.post("/score", content=b"x" * 5_000_000).status_code == 413


def test_writes_need_the_token(client):
    """Mutant: any token will do."""
    event = {"events": [{"user": 1, "item_id": 1, "time": 5}]}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret "}):
        assert client.post("/events", json=event, headers=headers).status_code == 401
        assert client.post("/admin/reload", json={"bundle": "x"}, headers=headers).status_code == 401
    assert client.post("/events", json=event, headers=TOKEN).status_code == 202


def test_an_address_from_elsewhere_needs_a_token(monkeypatch):
    monkeypatch.delenv(recipe.TOKEN, raising=False)
    assert recipe.read_token(recipe.Config()) is None
    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(ConfigError, match=f"{host} can be reached from elsewhere. Set MIMCTR_TOKEN"):
            recipe.read_token(recipe.Config(host=host))
    monkeypatch.setenv(recipe.TOKEN, "t")
    assert recipe.read_token(recipe.Config(host="0.0.0.0")) == "t"


def test_a_bundle_that_is_not_sound_changes_nothing(client, bundle, tmp_path):
    """The old one keeps serving."""
    before = client.post("/score", json={"candidates": [1]}).json()
    (tmp_path / "broken").mkdir()
    answer = client.post("/admin/reload", json={"bundle": str(tmp_path / "broken")}, headers=TOKEN)
    assert answer.status_code == 409
    assert "holds no bundle" in answer.json()["detail"]
    assert client.post("/score", json={"candidates": [1]}).json()["bundle"] == before["bundle"]
    answer = client.post("/admin/reload", json={"bundle": str(bundle)}, headers=TOKEN)
    assert answer.json() == {"bundle": "bundle", "generation": 1}


def test_a_bundle_of_another_version_changes_nothing(client, bundle):
    """Mutant: what this version cannot read is a fault of ours."""
    newer = bundle.parent / "newer"
    shutil.copytree(bundle, newer)
    record = json.loads((newer / "model.json").read_text())
    record["config"]["a_later_setting"] = 1
    (newer / "model.json").write_text(json.dumps(record))
    manifest = json.loads((newer / "bundle.json").read_text())
    manifest["files"]["model.json"] = hash_path(newer / "model.json")
    (newer / "bundle.json").write_text(json.dumps(manifest))
    answer = client.post("/admin/reload", json={"bundle": "newer"}, headers=TOKEN)
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("another version of mimctr. Run 'mimctr export' again.")
    assert client.post("/score", json={"candidates": [1]}).json()["bundle"] == "bundle"


def test_not_ready_says_so(shop):
    service = Service(load_model, center=shop / "center")
    with TestClient(create_app(service, deadline=60.0)) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").json() == {"detail": "not ready: no bundle is loaded"}
        answer = client.post("/score", json={"candidates": [1]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_too_many_and_too_late(service, monkeypatch):
    """Mutants: the queue has no bound; a deadline that nobody keeps."""
    go = threading.Event()
    score = Scorer.score

    def slow(self, request):
        go.wait(20)
        return score(self, request)

    monkeypatch.setattr(Scorer, "score", slow)
    app = create_app(service, max_waiting=3, deadline=20.0)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            late = {"X-Deadline-Ms": "50"}
            assert (await client.post("/score", json={"candidates": [1]}, headers=late)).status_code == 504
            waiting = [asyncio.create_task(client.post("/score", json={"candidates": [1]})) for _ in range(8)]
            while sum(task.done() for task in waiting) < 6:
                await asyncio.sleep(0.01)
            go.set()
            return list(await asyncio.gather(*waiting))

    answers = asyncio.run(ask())
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 200] + [429] * 6  # the late one is still worked on: three in all
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)


def test_a_request_names_what_it_was_scored_with(service, client, monkeypatch):
    """A switch while it is scored changes nothing of it. Mutant: what is served is looked at twice."""
    score = Scorer.score

    def switched(self, request):
        service.serving = replace(service.serving, name="newer", generation=2)
        return score(self, request)

    monkeypatch.setattr(Scorer, "score", switched)
    first, then = (client.post("/score", json={"candidates": [1]}).json() for _ in range(2))
    assert (first["bundle"], first["generation"]) == ("bundle", 1)
    assert then["bundle"] == "newer"  # its generation is put back by whoever follows the center


@pytest.mark.parametrize(
    "raw",
    [
        b'{"candidates": [NaN]}',
        b'{"candidates": ["\\ud800"]}',
        b'{"candidates": [1], "\\ud800": 1}',
        b'{"candidates": [1], "user_fields": {"\\ud800": "x"}}',
        b'{"candidates": [' + b"9" * 5000 + b"]}",
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_what_is_told_may_hold_anything(client, raw):
    """Each of them is an error of whoever asks. Mutant: the refusal cannot be written as JSON, and becomes a 500."""
    for path in ("/score", "/v2/models/mimctr/infer"):
        answer = client.post(path, content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
        assert [type(one) for one in answer.json().values()] == [str]
    far = {"X-Deadline-Ms": "9" * 400}
    assert client.post("/score", json={"candidates": [1]}, headers=far).status_code == 422


def test_a_large_request_that_does_not_say_so_is_refused(client):
    """Mutant: only what a request says of itself is looked at."""
    assert client.post("/score", content=iter([b"x" * 1_000_000] * 5)).status_code == 413


def test_metrics_count_requests_and_vectors(client):
    client.post("/score", json={"candidates": [2**60]})
    client.post("/score", json={"candidates": []})
    client.get("/nonsense/12345")
    text = client.get("/metrics").text
    assert 'mimctr_requests_total{route="/score",status="200"} 1.0' in text
    assert 'mimctr_requests_total{route="/score",status="422"} 1.0' in text
    assert 'mimctr_requests_total{route="other",status="404"} 1.0' in text
    assert 'mimctr_vectors_total{state="miss"} 1.0' in text
    assert "mimctr_requests_in_flight 0.0" in text


def test_a_behavior_store_that_is_full_is_told(active_center, bundle, tmp_path):
    """Mutant: SQLite's word for it is a fault of ours."""

    def small() -> LocalHistories:
        made = LocalHistories(tmp_path / "small.sqlite")
        made._database.ask("PRAGMA max_page_count = 3")
        return made

    service = Service(load_model, center=active_center, open_histories=small)
    service.load(bundle)
    with TestClient(create_app(service, deadline=60.0)) as client:
        events = [{"user": 1, "item_id": n, "time": n, "event_id": "x" * 100} for n in range(200)]
        answer = client.post("/events", json={"events": events})
        assert answer.status_code == 507
        assert "disk is full. Nothing of this change was written" in answer.json()["detail"]
        assert "507" in client.get("/openapi.json").json()["paths"]["/events"]["post"]["responses"]
        assert client.post("/events", json={"events": events[:5]}).json() == {"num_events": 5}
        assert client.post("/score", json={"user": 1, "candidates": [1]}).json()["num_behaviors"] == 5


def test_a_behavior_store_that_another_holds_is_told(client, monkeypatch, tmp_path):
    """Whoever asks comes again. Mutant: a process that does not end its transaction is a fault of ours."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    event = {"events": [{"user": 1, "item_id": 1, "time": 5}]}
    inputs = [
        {"name": name, "datatype": "INT64", "shape": [1], "data": [1]} for name in ("candidates", "user")
    ]
    with Database(tmp_path / "histories.sqlite").transaction():
        answers = [
            client.post("/events", json=event, headers=TOKEN),
            client.post("/score", json={"user": 1, "candidates": [1]}),
            client.post("/v2/models/mimctr/infer", json={"inputs": inputs}),
        ]
    for answer, key in zip(answers, ("detail", "detail", "error"), strict=True):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "database is locked. Nothing of this change was written" in answer.json()[key]
    assert client.post("/events", json=event, headers=TOKEN).status_code == 202


def test_without_a_behavior_store_there_are_no_events(active_center, bundle):
    service = Service(load_model, center=active_center)
    service.load(bundle)
    with TestClient(create_app(service, deadline=60.0)) as client:
        assert client.post("/events", json={"events": []}).status_code == 404
