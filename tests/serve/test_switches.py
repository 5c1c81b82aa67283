"""Generations and bundles are switched while clients score: every answer is wholly of those that it names."""

import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from mimctr.center.center import Center
from mimctr.center.snapshot import Snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.recipes.ctr_model import load_model
from mimctr.recipes.embed import ITEMS
from mimctr.serve.app import create_app
from mimctr.serve.schemas import ScoreRequest
from mimctr.serve.service import Service
from serve.running import running
from serve.shops import DIM, NUM_ITEMS, open_scorer

NUM_SWITCHES = 200
NUM_CLIENTS = 3
ASKED = {
    "candidates": list(range(NUM_ITEMS)),
    "history": [{"item_id": n, "time": 1_700_000_000 + n} for n in range(8, 14)],
    "time": 1_800_000_000,
}


@pytest.fixture
def world(shop, tmp_path) -> tuple[Path, list[Path]]:
    """A center with two generations of one encoder whose vectors differ, and two bundles with different models."""
    first = Snapshot.open(shop / "content" / ITEMS, encoder="e")
    other = np.random.default_rng(9).normal(size=(len(first.keys), DIM)).astype(np.float32)
    write_snapshot(tmp_path / "other", first.keys, other, encoder="e")
    center = Center.create(tmp_path / "center", num_partitions=2)
    for folder in (shop / "content" / ITEMS, tmp_path / "other"):
        number = center.adopt(Snapshot.open(folder, encoder="e")).number
        center.seal(number, {}, min_coverage=0.0)
    center.log.generations.activate(1)
    bundles = [tmp_path / "bundles" / name for name in ("one", "two")]
    for folder, seed in zip(bundles, (0, 1), strict=True):
        open_scorer(shop, tmp_path / f"trained{seed}", ubm="din", variant="mim", seed=seed)
        folder.parent.mkdir(exist_ok=True)
        (tmp_path / f"trained{seed}" / "bundle").rename(folder)
    return tmp_path / "center", bundles


def probabilities(answer: httpx.Response) -> list[float]:
    return [one["probability"] for one in answer.json()["scores"]]


def follow(service: Service, generation: int) -> None:
    """Wait until a generation is served; counted in looks, for the machine may be stopped meanwhile."""
    for _ in range(4000):
        if service.serving.generation == generation:
            return
        time.sleep(0.01)
    raise TimeoutError(f"generation {generation} is not followed: {service.follower_error}")


@pytest.mark.slow
@pytest.mark.parametrize("shop", ["integers"], indirect=True, scope="module")
def test_no_answer_is_mixed_and_none_fails(world):
    """Mutants: a request looks twice at what is served; a generation's vectors come without its number."""
    folder, bundles = world
    center = Center(folder)
    service = Service(load_model, center=folder)
    service.load(bundles[0])
    expected: dict[tuple[str, int], list[float]] = {}
    failed: list[str] = []
    seen: Counter[tuple[str, int]] = Counter()
    done = threading.Event()

    def client(url: str) -> None:
        with httpx.Client(base_url=url, timeout=None) as own:
            while not done.is_set():
                answer = own.post("/score", json=ASKED)
                named = (answer.json().get("bundle"), answer.json().get("generation"))
                if answer.status_code != 200 or probabilities(answer) != expected[named]:
                    failed.append(f"{answer.status_code} {answer.text[:200]}")
                seen[named] += 1

    with running(create_app(service, num_threads=2, max_waiting=64, deadline=600.0)) as port:
        url = f"http://127.0.0.1:{port}"
        for number in (1, 2):
            if number != 1:
                center.log.generations.activate(number)
            for bundle in bundles:
                httpx.post(f"{url}/admin/reload", json={"bundle": bundle.name}).raise_for_status()
                answer = httpx.post(f"{url}/score", json=ASKED)
                assert (answer.json()["bundle"], answer.json()["generation"]) == (bundle.name, number)
                expected[bundle.name, number] = probabilities(answer)
        different = [tuple(one) for one in expected.values()]
        assert len(set(different)) == 4

        threads = [threading.Thread(target=client, args=(url,)) for _ in range(NUM_CLIENTS)]
        for one in threads:
            one.start()
        try:
            active = 2
            for count in range(NUM_SWITCHES):
                if count % 2:
                    httpx.post(
                        f"{url}/admin/reload", json={"bundle": bundles[count // 2 % 2].name}, timeout=None
                    )
                else:
                    active = 3 - active
                    center.log.generations.activate(active)
                    follow(service, active)
        finally:
            done.set()
            for one in threads:
                one.join()
    assert not failed, (len(failed), failed[:3])
    assert set(seen) == set(expected)
    assert service.follower_error is None


@pytest.mark.parametrize("shop", ["integers"], indirect=True, scope="module")
def test_another_encoder_s_generation_waits_for_its_bundle(world, shop):
    """What the runbook says of a release. Mutants: it is served with the old bundle; the process is not ready."""
    folder, bundles = world
    center = Center(folder)
    first = Snapshot.open(shop / "content" / ITEMS, encoder="e")
    write_snapshot(
        folder.parent / "third", first.keys, np.ones((len(first.keys), DIM), np.float32), encoder="f"
    )
    number = center.adopt(Snapshot.open(folder.parent / "third", encoder="f")).number
    center.seal(number, {}, min_coverage=0.0)
    service = Service(load_model, center=folder)
    service.load(bundles[0])
    with TestClient(create_app(service, bundles=bundles[0].parent)) as client:
        center.log.generations.activate(number)
        for _ in range(4000):
            if "mimctr_follower_failing 1.0" in client.get("/metrics").text:
                break
            time.sleep(0.01)
        assert service.follower_error.endswith("or export another model.")
        assert (
            "its model was trained on vectors of encoder e, the center serves those of f"
            in service.follower_error
        )
        assert client.get("/health/ready").status_code == 200
        assert client.post("/score", json=ASKED).json()["generation"] == 1
        assert client.post("/admin/reload", json={"bundle": "two"}).status_code == 409
        center.log.generations.activate(2)
        follow(service, 2)
        assert client.post("/score", json=ASKED).json()["generation"] == 2


@pytest.mark.parametrize("shop", ["integers"], indirect=True, scope="module")
def test_a_dropped_generation_is_held_until_its_last_request_is_done(world):
    """Mutants: it goes at the first look; it goes while a request that began with it is worked on; it never goes."""
    folder, bundles = world
    center, service = Center(folder), Service(load_model, center=folder)
    serving = service.load(bundles[0])  # as a request holds it
    request = ScoreRequest(**ASKED).to_request()
    before = service.score(serving, request, from_store=False)
    center.log.generations.activate(2)
    center.drop(1)
    service._follower.look(center, service.store)
    follow(service, 2)
    for _ in range(3):
        service._follower.look(center, service.store)
        after = service.score(serving, request, from_store=False)
        assert after.states.tolist() == before.states.tolist()
        assert after.probabilities.tolist() == before.probabilities.tolist()
    space = serving.scorer.space
    del serving
    service._follower.look(center, service.store)
    assert service.store.watermarks(space) == [None, None]
    service.close()


@pytest.mark.parametrize("shop", ["integers"], indirect=True, scope="module")
def test_what_is_served_is_held_where_the_active_generation_is_another_encoder_s(world, shop):
    """Mutants: every candidate is a miss, and nobody is told; the error ends with the generation."""
    folder, bundles = world
    center = Center(folder)
    keys = Snapshot.open(shop / "content" / ITEMS, encoder="e").keys
    write_snapshot(folder.parent / "third", keys, np.ones((len(keys), DIM), np.float32), encoder="f")
    number = center.adopt(Snapshot.open(folder.parent / "third", encoder="f")).number
    center.seal(number, {}, min_coverage=0.0)
    service = Service(load_model, center=folder)
    first = service.load(bundles[0]).scorer.space
    with TestClient(create_app(service)) as client:
        before = client.post("/score", json=ASKED).json()
        center.log.generations.activate(number)
        center.drop(1)
        for _ in range(3):
            service._follower.look(center, service.store)
            assert client.post("/score", json=ASKED).json() == before
        for _ in range(4000):
            if service.follower_error is not None:
                break
            time.sleep(0.01)
        time.sleep(0.3)
        assert service.follower_error.endswith("or export another model.")
        assert client.post("/score", json=ASKED).json() == before
        center.log.generations.activate(2)
        follow(service, 2)
        for _ in range(4000):
            if service.store.watermarks(first) == [None, None]:
                return
            time.sleep(0.01)
        raise TimeoutError("generation 1 is not let go of")
