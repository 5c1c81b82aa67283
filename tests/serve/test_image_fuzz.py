"""Thousands of damaged images: each is read or refused in one line; none crashes, hangs or takes the memory."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from encoders.small import item_encoder, shake

from mimctr.center.center import Center
from mimctr.center.record import decode
from mimctr.serve.app import create_app
from mimctr.serve.items import Items
from mimctr.serve.service import Service
from serve import image_mutants

NUM_DECODED, NUM_SENT = 4_000, 240


@pytest.mark.slow
def test_damaged_images_are_read_or_refused():
    """Mutants: the size is looked at after decoding; a PNG's checksums are not."""
    run = subprocess.run(
        [sys.executable, image_mutants.__file__, str(NUM_DECODED)],
        env=os.environ | {"PYTHONFAULTHANDLER": "1"},
        capture_output=True,
        text=True,
        timeout=3_000,  # it ends itself, by processor time
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["accepted"] + found["refused"] == NUM_DECODED
    assert min(found["accepted"], found["refused"]) > NUM_DECODED // 20
    assert found["peak_mb"] < 1_100


@pytest.mark.slow
def test_damaged_images_over_http(tmp_path: Path):
    """What is accepted has a vector of finite numbers, and is what Pillow finds sound."""
    encoder = item_encoder()
    shake(encoder)
    encoder.save(tmp_path / "encoder")
    center = Center.create(tmp_path / "center", num_partitions=1)
    center.keep_encoder(tmp_path / "encoder", encoder.fingerprint)
    center.log.generations.begin(fingerprint=encoder.fingerprint, dim=encoder.dim, dtype="float16")
    items = Items(center.folder, max_waiting=NUM_SENT, disk_floor=0)
    app = create_app(Service(lambda _: None), items=items, scores=False, item_deadline=300.0)
    sent = dict(image_mutants.mutants(NUM_SENT, seed=1))

    async def put() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app)
        headers = {"Content-Type": "application/octet-stream"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=300) as client:
            asked = [
                client.put(f"/items/i{n}", content=data, headers=headers)
                for n, data in enumerate(sent.values())
            ]
            return list(await asyncio.gather(*asked))

    answers = asyncio.run(put())
    items.close()
    accepted = set()
    for number, (name, data, answer) in enumerate(zip(sent, sent.values(), answers, strict=True)):
        assert answer.status_code in (202, 422), f"{name}: {answer.text}"
        if answer.status_code == 202:
            assert not image_mutants.is_broken(data), name
            accepted.add(f"i{number}")
        else:
            assert answer.json()["detail"].startswith(f"item i{number}: image: "), name
    held = {one.item_id for one in center.log.items(limit=NUM_SENT)}
    assert held == accepted
    assert len(accepted) > 10
    for record in center.log.records(1, 0):
        vector = decode(np.frombuffer(record.payload, np.uint8)[None], "float16")[0]
        assert np.isfinite(vector).all()
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-2)
