"""A candidate without a vector asks RIM, once, behind the scores; what the log knows is encoded again."""

import queue
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from encoders.small import TITLES, item_encoder, picture, shake

from mimctr.center.center import Center
from mimctr.center.incoming import NewItem, Renewed
from mimctr.center.realtime import ItemRealtime
from mimctr.center.record import State
from mimctr.errors import CenterError
from mimctr.serve.missing import Missing, missed


@pytest.fixture
def center(tmp_path):
    encoder = item_encoder()
    shake(encoder)
    encoder.save(tmp_path / "encoder")
    made = Center.create(tmp_path / "center", num_partitions=2)
    made.keep_encoder(tmp_path / "encoder", encoder.fingerprint)
    made.log.generations.begin(fingerprint=encoder.fingerprint, dim=encoder.dim, dtype="float16")
    return made


@pytest.fixture
def realtime(center):
    made = ItemRealtime(center.folder, name="test")
    yield made
    made.close()


def item(key: int, title: str = TITLES[0]) -> NewItem:
    return NewItem(key=key, item_id=str(key), title=title, image=picture(1), category="bags")


def forget(center, key: int) -> None:
    """Let the generation lack an item's vector."""
    center.log._database.change("DELETE FROM vectors WHERE key = ?", (key,))


def test_what_the_log_knows_is_encoded_again(center, realtime):
    realtime.submit(item(10)).result()
    before = center.log.record(1, 10)
    forget(center, 10)
    assert realtime.renew(10).result() == Renewed.ASKED
    after = center.log.record(1, 10)
    assert (after.version, after.payload) == (2, before.payload)
    assert center.log.item(10)._replace(version=1) == (10, 1, False, "10", TITLES[0], "bags", picture(1))


def test_what_is_held_is_not_encoded_again_unless_it_is_damaged(center, realtime):
    """Mutant: every miss of a store that lags is a forward pass."""
    realtime.submit(item(10)).result()
    assert realtime.renew(10).result() == Renewed.HELD
    assert center.log.item(10).version == 1
    assert realtime.renew(10, damaged=True).result() == Renewed.ASKED
    center.log._database.change("UPDATE vectors SET record = zeroblob(40)")
    assert realtime.renew(10).result() == Renewed.ASKED
    assert center.log.item(10).version == 3


def test_what_the_log_does_not_know_is_unknown(center, realtime):
    realtime.submit(NewItem(key=11, item_id="11")).result()
    realtime.submit(item(12)).result()
    realtime.submit(NewItem(key=12, item_id="12", deleted=True)).result()
    assert [realtime.renew(key).result() for key in (0, 10, 11, 12)] == [Renewed.UNKNOWN] * 4
    assert center.log.item(12).deleted


def test_newer_content_is_never_overwritten(center, realtime):
    """Mutant: what is encoded again is read before what comes with it is written."""
    realtime.submit(item(10, "bag")).result()
    forget(center, 10)
    waiting = [realtime.submit(item(10, "red hat")), realtime.renew(10), realtime.renew(10)]
    assert [one.result() for one in waiting][1:] == [Renewed.HELD] * 2
    assert center.log.item(10).title == "red hat"


def test_an_item_that_cannot_be_encoded_says_so(center, realtime):
    realtime.submit(item(10)).result()
    center.log.generations.begin(fingerprint="clip", dim=3, dtype="float16")
    with pytest.raises(CenterError, match="generation 2 was imported"):
        realtime.renew(10).result()


def asked_for(**settings) -> tuple[Missing, list, list]:
    calls, counted = [], []

    def renew(key: int, damaged: bool) -> Future[Renewed]:
        calls.append((key, damaged))
        done: Future[Renewed] = Future()
        done.set_exception(CenterError("no")) if key == 3 else done.set_result(Renewed.ASKED)
        return done

    made = Missing(settings.get("renew", renew), lambda outcome, count: counted.append((str(outcome), count)))
    return made, calls, counted


def test_an_item_is_asked_for_once_in_a_while():
    """Mutant: each request asks again."""
    missing, calls, counted = asked_for()
    keys = np.array([1, 2, 3, 1])
    states = np.array([State.MISS, State.DAMAGED, State.MISS, State.MISS], dtype=np.uint8)
    missing.ask(keys, states)
    missing.ask(keys, states)
    missing.close()
    assert calls == [(1, False), (2, True), (3, False)]
    assert counted == [("asked", 1), ("asked", 1), ("failed", 1)]


def test_nobody_waits_for_the_queue():
    """What does not fit is counted."""
    go = threading.Event()

    def busy(key: int, damaged: bool) -> Future[Renewed]:
        go.wait(20)
        raise queue.Full

    missing, _, counted = asked_for(renew=busy)
    one = np.array([7]), np.array([State.MISS], dtype=np.uint8)
    for _ in range(300):
        missing.ask(*one)
    assert 30 < len(counted) < 50  # beyond the 256 that may wait and the one that is asked for
    go.set()
    missing.close()
    assert {outcome for outcome, _ in counted} == {"dropped"}


def test_hits_and_deletions_are_not_asked_for():
    states = np.array([State.HIT, State.MISS, State.DELETED, State.DAMAGED], dtype=np.uint8)
    keys, found = missed(np.arange(4), states)
    assert (keys.tolist(), found.tolist()) == ([1, 3], [State.MISS, State.DAMAGED])
    assert missed(np.arange(1), states[:1]) is None
