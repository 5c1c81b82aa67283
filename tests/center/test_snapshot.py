"""The snapshot answers what was written, refuses other encoders, and is never changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimctr.center.snapshot import Snapshot, verify_snapshot
from mimctr.center.snapshot_writer import write_snapshot
from mimctr.errors import CenterError, DataError, StaleSnapshot
from mimctr.weights import load_tensors, save_tensors

KEYS = np.array([70, 3, 900, 12])
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3) / 7


@pytest.fixture
def folder(tmp_path):
    write_snapshot(tmp_path / "s", KEYS, VECTORS, encoder="abc")
    return tmp_path / "s"


def test_every_key_finds_its_own_vector_within_float16(folder):
    snapshot = Snapshot.open(folder, encoder="abc")
    for key, vector in zip(KEYS, VECTORS, strict=True):
        row = snapshot.rows(np.array(key))
        np.testing.assert_allclose(snapshot.vectors[row], vector, rtol=2**-11)


def test_an_unknown_key_is_minus_one(folder):
    snapshot = Snapshot.open(folder, encoder="abc")
    assert snapshot.rows(np.array([[4, 3], [-1, 10**18]])).tolist() == [[-1, 0], [-1, -1]]


@settings(deadline=None)
@given(st.sets(st.integers(0, 2**62), max_size=20), st.lists(st.integers(0, 2**62), max_size=10))
def test_rows_equal_a_dictionary(tmp_path_factory, keys, asked):
    folder = tmp_path_factory.mktemp("s") / "s"
    write_snapshot(folder, np.array(list(keys), dtype=np.int64), np.zeros((len(keys), 2)), encoder="e")
    snapshot = Snapshot.open(folder, encoder="e")
    expected = {key: row for row, key in enumerate(sorted(keys))}
    asked = asked + list(keys)
    assert snapshot.rows(np.array(asked, dtype=np.int64)).tolist() == [expected.get(key, -1) for key in asked]


def test_the_vectors_are_memory_mapped(folder):
    snapshot = Snapshot.open(folder, encoder="abc")
    assert "vectors.safetensors" in Path("/proc/self/maps").read_text()
    assert not snapshot.vectors.flags.owndata


def test_another_encoders_snapshot_is_refused(folder):
    """Mutant: the fingerprint is not compared."""
    with pytest.raises(StaleSnapshot, match=r"came from encoder abc, not from xyz.*run 'mimctr embed'"):
        Snapshot.open(folder, encoder="xyz")


def test_a_snapshot_is_never_overwritten(folder):
    with pytest.raises(CenterError, match="never changed"):
        write_snapshot(folder, KEYS, VECTORS, encoder="abc")


def test_a_repeated_key_is_refused(tmp_path):
    with pytest.raises(DataError, match="1 item keys stand twice, the first is 3"):
        write_snapshot(tmp_path, np.array([3, 5, 3]), np.zeros((3, 2)), encoder="a")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_vector_that_float16_cannot_hold_is_refused(tmp_path, value):
    vectors = VECTORS.copy()
    vectors[1, 2] = value
    with pytest.raises(
        DataError, match="1 of 4 vectors are not finite as float16, the first belongs to item key 3"
    ):
        write_snapshot(tmp_path, KEYS, vectors, encoder="a")
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_is_found_by_verify(folder):
    path = folder / "vectors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    with pytest.raises(CenterError, match=r"its bytes do not match the checksum in manifest\.json"):
        verify_snapshot(folder)


def test_the_vectors_of_another_snapshot_are_found_by_verify(folder, tmp_path):
    # Mutant: a file that agrees with itself is taken for the manifest's.
    write_snapshot(tmp_path / "other", KEYS, VECTORS + 1, encoder="abc")
    shutil.copy(tmp_path / "other" / "vectors.safetensors", folder)
    Snapshot.open(folder, encoder="abc")
    with pytest.raises(CenterError, match="it is damaged, or another snapshot's"):
        verify_snapshot(folder)


def test_a_torn_file_and_a_missing_manifest_are_named(folder):
    path = folder / "vectors.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CenterError, match=r"vectors\.safetensors: not readable"):
        Snapshot.open(folder, encoder="abc")
    (folder / "manifest.json").unlink()
    with pytest.raises(CenterError, match=r"holds no snapshot \(manifest\.json is missing\)"):
        Snapshot.open(folder, encoder="abc")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"vectors": torch.zeros(4, 3)},
            "promises float16 vectors, the file holds float32 vectors",
        ),
        ({"vectors": torch.zeros(4, 3).bfloat16()}, "the file holds bfloat16 vectors"),
        ({"keys": torch.arange(4, dtype=torch.int32)}, "promises int64 keys, the file holds int32 keys"),
        ({"keys": torch.arange(3)}, "promises 4 x 3 vectors, the file holds 4 x 3 and 3 keys"),
        ({"keys": torch.arange(4).flip(0)}, "its keys are not sorted"),
    ],
)
def test_a_table_that_is_not_what_its_manifest_says_is_refused(changed, told, folder):
    # Mutant: float32 or unsorted keys are opened, and items silently have no vector.
    tensors, _ = load_tensors(folder / "vectors.safetensors")
    save_tensors(folder / "vectors.safetensors", tensors | changed)
    with pytest.raises(CenterError, match=told):
        Snapshot.open(folder, encoder="abc")
