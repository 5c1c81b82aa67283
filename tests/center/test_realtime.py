"""RIM: what is submitted is in the log when it is acknowledged, encoded as the catalogue is, for every generation."""

import dataclasses
import queue
import threading
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders.small import TITLES, item_encoder, picture, shake

from mimctr.center.center import Center
from mimctr.center.incoming import NewItem
from mimctr.center.log import CenterLog
from mimctr.center.realtime import ItemRealtime
from mimctr.center.record import decode, partition_of
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import CenterError, DataError, Fenced

KEYS = np.array([1, 2, 3])


def make_encoder(folder: Path, seed: int) -> ItemEncoder:
    encoder = item_encoder()
    torch.manual_seed(seed)
    shake(encoder)
    encoder.save(folder)
    return ItemEncoder.load(folder)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> list[tuple[Path, ItemEncoder]]:
    folders = [tmp_path_factory.mktemp(f"encoder{seed}") / "csft" for seed in (0, 1)]
    return [(folder, make_encoder(folder, seed)) for seed, folder in enumerate(folders)]


@pytest.fixture
def center(tmp_path, encoders) -> Center:
    made = Center.create(tmp_path / "center", num_partitions=2)
    begin(made, *encoders[0])
    return made


def begin(center: Center, folder: Path, encoder: ItemEncoder) -> int:
    center.keep_encoder(folder, encoder.fingerprint)
    one = center.log.generations.begin(fingerprint=encoder.fingerprint, dim=encoder.dim, dtype="float16")
    vectors = np.eye(len(KEYS), encoder.dim, dtype=np.float32)
    with center.write_base(one.number, KEYS) as writer:
        writer.write(KEYS, vectors)
    return one.number


def item(number: int, **changed) -> NewItem:
    whole = NewItem(
        key=number,
        item_id=str(number),
        title=TITLES[number % len(TITLES)],
        image=picture(number),
        category="bags",
    )
    return dataclasses.replace(whole, **changed)


def held(center: Center, generation: int, key: int):
    partition = int(partition_of(np.array([key]), center.log.num_partitions)[0])
    return next(record for record in center.log.records(generation, partition) if record.key == key)


def test_an_item_is_encoded_as_the_catalogue_is(center, encoders):
    realtime = ItemRealtime(center.folder, name="test")
    items = [item(10), item(11, image=None), item(12, title=None), item(13, title=None, image=None)]
    appended = [done.result() for done in [realtime.submit(one) for one in items]]
    realtime.close()
    assert [one.version for one in appended] == [1, 1, 1, 1]
    for one in items:
        vector, known = encoders[0][1].embed_items([one.image], [one.title], [one.category])
        record = held(center, 1, one.key)
        assert record.has_vector == known.item()
        if known.item():
            found = decode(np.frombuffer(record.payload, dtype=np.uint8)[None], "float16")
            np.testing.assert_allclose(found, vector.numpy(), atol=2e-3)
    assert {one.key: one.title for one in center.log.items()} == {one.key: one.title for one in items}


def test_every_live_generation_has_it(center, encoders):
    """Mutant: while a generation is built, new items go to the active one only."""
    second = begin(center, *encoders[1])
    realtime = ItemRealtime(center.folder, name="test")
    (appended,) = [realtime.submit(item(10)).result()]
    assert sorted(appended.seqs) == [1, second]
    assert held(center, 1, 10).payload != held(center, second, 10).payload
    realtime.close()


def test_a_generation_that_begins_meanwhile_has_it_too(center, encoders, monkeypatch):
    """Mutant: what was encoded before a generation began is written without it, or refused."""
    realtime = ItemRealtime(center.folder, name="test")
    append, began = CenterLog.append, []

    def begin_first(log, producer, changes):
        if not began:
            began.append(begin(Center(center.folder), *encoders[1]))
        return append(log, producer, changes)

    monkeypatch.setattr(CenterLog, "append", begin_first)
    assert sorted(realtime.submit(item(10)).result().seqs) == [1, 2]
    realtime.close()


def test_a_bad_picture_is_its_own_items_loss(center):
    """Mutant: one bad picture refuses its whole batch."""
    realtime = ItemRealtime(center.folder, name="test")
    good, bad, last = (realtime.submit(one) for one in (item(10), item(11, image=b"GIF89a no"), item(12)))
    wait([good, bad, last])
    assert good.result().version == last.result().version == 1
    with pytest.raises(DataError, match="item 11: image: "):
        bad.result()
    assert [one.key for one in center.log.items()] == [10, 12]
    realtime.close()


def test_whoever_waits_hears_of_what_nobody_expected(center, monkeypatch):
    """Mutant: the thread dies, and everybody waits for ever."""
    realtime = ItemRealtime(center.folder, name="test")
    with monkeypatch.context() as patch:
        patch.setattr(ItemEncoder, "embed_items", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            realtime.submit(item(10)).result(timeout=20)
    assert realtime.submit(item(10)).result(timeout=20).version == 1
    realtime.close()


def test_items_that_come_together_share_a_transaction(center, monkeypatch):
    calls, append = [], CenterLog.append
    monkeypatch.setattr(CenterLog, "append", lambda *args: calls.append(len(args[2])) or append(*args))
    realtime = ItemRealtime(center.folder, name="test")
    wait([realtime.submit(item(number)) for number in range(10, 22)])
    realtime.close()
    assert sum(calls) == 12
    assert len(calls) <= 3


def test_a_deletion_needs_no_content(center):
    realtime = ItemRealtime(center.folder, name="test")
    realtime.submit(item(10)).result()
    assert realtime.submit(NewItem(key=10, item_id="10", deleted=True)).result().version == 2
    assert not held(center, 1, 10).has_vector
    realtime.close()


def test_a_generation_that_was_imported_takes_vectors(center):
    one = center.log.generations.begin(fingerprint="clip", dim=3, dtype="float16")
    realtime = ItemRealtime(center.folder, name="test")
    with pytest.raises(
        CenterError, match="item 10: generation 2 was imported, the center has no encoder of it"
    ):
        realtime.submit(item(10)).result()
    vector = np.array([0.5, -1.0, 2.0])
    realtime.submit(item(10, vectors={2: vector})).result()
    payload = np.frombuffer(held(center, one.number, 10).payload, dtype=np.uint8)[None]
    np.testing.assert_array_equal(decode(payload, "float16")[0], vector)
    for wrong, told in (
        (np.zeros(3), "zero or not finite"),
        (np.array([1.0, np.nan, 0.0]), "zero or not finite"),
        (np.ones(4), r"has shape \(4,\), generation 2 has \(3,\)"),
        (np.full(3, 1e6), "not finite as float16"),
    ):
        with pytest.raises(DataError, match=f"item 10: .*{told}"):
            realtime.submit(item(10, vectors={2: wrong})).result()
    realtime.close()


def test_a_process_that_was_replaced_writes_nothing(center):
    old = ItemRealtime(center.folder, name="old")
    new = ItemRealtime(center.folder, name="new")
    with pytest.raises(Fenced, match=r"is written by 'new' \(epoch 2\), not by 'old' \(epoch 1\)"):
        old.submit(item(10)).result()
    assert new.submit(item(10)).result().version == 1
    old.close()
    new.close()


def test_a_full_queue_is_told(center, monkeypatch):
    """Mutant: the queue has no bound."""
    may_go_on = threading.Event()
    monkeypatch.setattr("mimctr.center.realtime.NUM_RECORDS", 1)
    monkeypatch.setattr(ItemRealtime, "_append", lambda *_: may_go_on.wait())
    realtime = ItemRealtime(center.folder, name="test", max_waiting=2)
    with pytest.raises(queue.Full):
        for number in range(4):  # one in the thread's hands, two that wait, one too many
            realtime.submit(item(number))
    may_go_on.set()
    realtime.close()


def test_closing_finishes_what_waits(center):
    realtime = ItemRealtime(center.folder, name="test")
    waiting = [realtime.submit(item(number)) for number in range(10, 16)]
    realtime.close()
    assert [done.result(timeout=0).version for done in waiting] == [1] * 6


def test_a_folder_that_is_no_center_is_told(tmp_path):
    with pytest.raises(CenterError, match="no such file"):
        ItemRealtime(tmp_path, name="test")
