"""The blob store gives back the bytes of every row, and keeps equal bytes once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimctr.data.blobs import BlobStore, BlobWriter
from mimctr.errors import RunError


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=6)), max_size=20))
def test_every_row_gets_its_bytes_back(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("blobs") / "store"
    with BlobWriter(folder) as writer:
        numbers = [-1 if value is None else writer.add(value) for value in values]
    writer.finish(np.array(numbers))
    store = BlobStore.open(folder)
    assert [store.get(row) for row in range(len(store))] == values
    assert store.num_blobs == len(set(values) - {None})
    assert (folder / "blobs.bin").stat().st_size == sum(map(len, set(values) - {None}))


def test_a_writer_finds_what_it_has(tmp_path):
    with BlobWriter(tmp_path / "store") as writer:
        assert writer.find(b"one") is None
        assert (writer.add(b"one"), writer.add(b"two"), writer.find(b"two"), writer.num_blobs) == (0, 1, 1, 2)


def test_an_incomplete_store_is_an_error(tmp_path):
    with BlobWriter(tmp_path / "store") as writer:
        writer.add(b"one")
    with pytest.raises(RunError, match=r"rows\.npy: no such file; the dataset is incomplete"):
        BlobStore.open(tmp_path / "store")
    writer.finish(np.array([0]))
    (tmp_path / "store" / "blobs.bin").write_bytes(b"on")
    with pytest.raises(
        RunError, match=r"blobs\.bin: 2 bytes, not 3; it was cut off\. Prepare the dataset again\."
    ):
        BlobStore.open(tmp_path / "store")
