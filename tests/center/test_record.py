"""Records and windows: what is written is read, and what was changed on the way is seen."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimctr.center.record import (
    Digest,
    Flag,
    State,
    VectorRecord,
    decode,
    digest,
    encode,
    partition_of,
    unpack,
    unpack_many,
)
from mimctr.center.window import NUM_BYTES, NUM_RECORDS, Window, cut, unpack_window
from mimctr.errors import CenterError, DamagedRecord, DamagedWindow

DIM = 5
VECTORS = np.random.default_rng(1).normal(size=(4, DIM)).astype(np.float32)
PAYLOADS = [payload.tobytes() for payload in encode(VECTORS, "float16")]
RECORD = VectorRecord(2**62 + 5, 3, Flag.NO_TITLE, PAYLOADS[0])
records = st.builds(
    VectorRecord,
    key=st.integers(0, 2**63 - 1),
    version=st.integers(0, 2**53),
    flags=st.sampled_from([Flag(0), Flag.NO_IMAGE, Flag.TOMBSTONE]),
    payload=st.binary(max_size=40),
    dtype=st.sampled_from(["float16", "int8"]),
)


@given(records, st.integers(0, 2**32 - 1))
def test_a_record_comes_back(record, generation):
    assert unpack(record.pack(generation), generation=generation) == record


def test_any_flipped_bit_is_seen():
    """Mutant: the checksum is ignored."""
    raw = RECORD.pack(7)
    for place in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(
            DamagedRecord, match=f"a vector record of {len(raw)} bytes does not match its checksum"
        ):
            unpack(bytes(flipped), generation=7)
        found = unpack_many([bytes(flipped)], np.array([RECORD.key]), generation=7, dim=DIM, dtype="float16")
        assert found.states.tolist() == [State.DAMAGED]
        assert not found.vectors.any()


@pytest.mark.parametrize("size", [0, 1, 27, 30])
def test_a_torn_record_is_seen(size):
    raw = RECORD.pack(7)[:size]
    with pytest.raises(DamagedRecord):
        unpack(raw, generation=7)
    found = unpack_many([raw], np.array([RECORD.key]), generation=7, dim=DIM, dtype="float16")
    assert found.states.tolist() == [State.DAMAGED]


def test_a_record_of_another_generation_or_item_is_not_taken():
    """Mutants: the generation, or the key, in the record is not compared."""
    with pytest.raises(DamagedRecord, match="is of generation 6, not of 7"):
        unpack(RECORD.pack(6), generation=7)
    raws = [RECORD.pack(6), RECORD.pack(7), RECORD.pack(7)]
    keys = np.array([RECORD.key, RECORD.key + 1, RECORD.key])
    found = unpack_many(raws, keys, generation=7, dim=DIM, dtype="float16")
    assert found.states.tolist() == [State.DAMAGED, State.DAMAGED, State.HIT]


def test_a_vector_of_another_width_or_dtype_is_not_taken():
    for dim, dtype in ((DIM + 1, "float16"), (DIM, "int8"), (2 * DIM - 4, "int8")):
        found = unpack_many([RECORD.pack(7)], np.array([RECORD.key]), generation=7, dim=dim, dtype=dtype)
        assert found.states.tolist() == [State.DAMAGED]


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["hit", "none", "dead", "empty", "bad"])), max_size=12
    )
)
def test_many_records_equal_a_loop(asked):
    raws, keys, states, vectors = [], [], [], []
    for number, (which, kind) in enumerate(asked):
        vector = VECTORS[which % len(VECTORS)]
        whole = VectorRecord(number, 1, payload=PAYLOADS[which % len(VECTORS)])
        raw, state = {
            "hit": (whole.pack(1), State.HIT),
            "none": (None, State.MISS),
            "dead": (VectorRecord(number, 1, Flag.TOMBSTONE).pack(1), State.DELETED),
            "empty": (VectorRecord(number, 1, Flag.NO_IMAGE | Flag.NO_TITLE).pack(1), State.MISS),
            "bad": (whole.pack(1)[:-1] + b"?", State.DAMAGED),
        }[kind]
        raws.append(raw)
        keys.append(number)
        states.append(state)
        vectors.append(vector.astype(np.float16) if state == State.HIT else np.zeros(DIM))
    found = unpack_many(raws, np.array(keys, dtype=np.int64), generation=1, dim=DIM, dtype="float16")
    assert found.states.tolist() == states
    np.testing.assert_array_equal(found.vectors, np.array(vectors).reshape(-1, DIM).astype(np.float32))


def test_int8_is_off_by_half_a_step_at_most():
    vectors = np.concatenate([VECTORS, np.zeros((1, DIM), np.float32), 1e-4 * VECTORS[:1]])
    found = decode(encode(vectors, "int8"), "int8")
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - vectors) <= steps / 2 + 1e-7).all()
    np.testing.assert_array_equal(found[-2], 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_vector_that_is_not_finite_is_refused(value, dtype):
    vectors = VECTORS.copy()
    vectors[2, 1] = value
    with pytest.raises(CenterError, match="1 of 4 vectors are not finite as float16, the first stands at 2"):
        encode(vectors, dtype)


def test_partitions_are_even_and_stay():
    """Where an item lives must never change: these numbers are the ones of SplitMix64's finalizer."""
    assert partition_of(np.array([0, 1, 2, 2**62]), 1000).tolist() == [
        _splitmix(key) % 1000 for key in (0, 1, 2, 2**62)
    ]
    for keys in (np.arange(16_000), 16 * np.arange(16_000), 2**40 + np.arange(16_000)):
        counts = np.bincount(partition_of(keys, 16), minlength=16)
        assert abs(counts - 1000).max() < 150  # five standard deviations


def _splitmix(key: int) -> int:
    mixed = key
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % 2**64
    return mixed ^ mixed >> 31


def test_a_digest_is_of_a_set():
    some = [VectorRecord(key, key + 1, payload=PAYLOADS[key]) for key in range(4)]
    whole = digest(some)
    assert whole == digest(reversed(some)) == digest(some[:1]) + digest(some[1:])
    assert whole.num_vectors == 4
    gone = VectorRecord(9, 1, Flag.TOMBSTONE)
    assert digest([*some, gone]) == whole
    for changed in (
        dataclasses.replace(some[0], version=9),
        dataclasses.replace(some[0], payload=PAYLOADS[1]),
        dataclasses.replace(some[0], key=9),
        dataclasses.replace(some[0], flags=Flag.NO_IMAGE),
    ):
        assert digest([changed, *some[1:]]) != whole
    assert digest([]) == Digest(0, 0)


parts = {
    "generation": st.integers(1, 100),
    "fingerprint": st.text(max_size=20),
    "partition": st.integers(0, 1000),
    "producer": st.text(max_size=20),
    "epoch": st.integers(1, 2**60),
    "seq": st.integers(1, 2**60),
}


@settings(deadline=None)
@given(st.fixed_dictionaries(parts), st.lists(records, max_size=4))
def test_a_window_comes_back(named, held):
    window = Window(**named, records=tuple(held))
    assert unpack_window(window.pack()) == window


def test_a_damaged_window_is_seen():
    raw = Window(1, "abc", 2, "me", 3, 4, (RECORD, RECORD)).pack()
    for place in range(len(raw)):
        flipped = bytearray(raw)
        flipped[place] ^= 16
        with pytest.raises(DamagedWindow):
            unpack_window(bytes(flipped))
        with pytest.raises(DamagedWindow):
            unpack_window(raw[:place])


def test_a_window_closes_at_its_records_and_its_bytes():
    few = [VectorRecord(key, 1, payload=b"x" * 1000) for key in range(400)]
    parts = list(cut(few))
    assert [record for part in parts for record in part] == few
    assert max(map(len, parts)) == NUM_BYTES // 1000
    small = [VectorRecord(key, 1) for key in range(600)]
    assert [len(part) for part in cut(small)] == [NUM_RECORDS, NUM_RECORDS, 600 - 2 * NUM_RECORDS]
    assert [len(part) for part in cut([VectorRecord(1, 1, payload=b"x" * (NUM_BYTES + 1))])] == [1]
    assert list(cut([])) == []
