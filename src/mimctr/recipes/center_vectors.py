"""Anybody's own vectors into the center, and the center's vectors out of it.

mimctr center import CENTER vectors.parquet --encoder clip-vit-b32
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors import SafetensorError, safe_open

from mimctr.center.center import Center
from mimctr.center.generations import Generation
from mimctr.center.record import DType, decode, have_length
from mimctr.center.snapshot import ROWS_AT_ONCE
from mimctr.data.keys import item_keys
from mimctr.errors import DataError
from mimctr.files import atomic_path, hash_path
from mimctr.progress import track

ID, VECTOR, KEY = "item_id", "vector", "item_key"


class Vectors(NamedTuple):
    """Vectors in a file, read some rows at a time."""

    keys: Int[ndarray, "rows"]
    dim: int
    read: Callable[[int, int], Float[ndarray, "some content"]]
    """Returns the rows from the first to before the second number."""


def import_vectors(
    center: Path, path: Path, *, ids: Path | None = None, encoder: str | None = None, dtype: DType = "float16"
) -> Generation:
    """Register the vectors of a file as a generation that is building.

    Args:
        center: Folder of the center.
        path: Parquet with the columns ``item_id`` and ``vector`` (a list of numbers); ``.npy`` of shape [items, dim];
            or ``.safetensors`` with the tensors ``item_id`` (int64) and ``vector``.
        ids: The item ids of a ``.npy``: another ``.npy``, integers or text.
        encoder: Name of what made the vectors; None: a hash of the file. Vectors of one name are comparable.
        dtype: How vectors are kept.

    Raises:
        DataError: the file is not what it should be, an id stands twice, or a vector has no length in float32.
        CenterError: there is no center.
    """
    opened = Center(center)
    vectors = open_vectors(path, ids)
    one = opened.log.generations.begin(fingerprint=encoder or hash_path(path), dim=vectors.dim, dtype=dtype)
    try:
        with opened.write_base(one.number, vectors.keys) as writer:
            starts = range(0, len(vectors.keys), ROWS_AT_ONCE)
            for first in track(
                starts, total=len(starts), description="import", unit=f"{ROWS_AT_ONCE:,} vectors"
            ):
                some = vectors.read(first, first + ROWS_AT_ONCE)
                _refuse_without_length(path, some, first)
                writer.write(vectors.keys[first : first + ROWS_AT_ONCE], some)
    except BaseException:
        opened.log.generations.drop(one.number)
        raise
    return one


def open_vectors(path: Path, ids: Path | None) -> Vectors:
    """Return the vectors of a file.

    Raises:
        DataError: the file is not what it should be.
    """
    kinds = {".parquet": _open_parquet, ".npy": _open_npy, ".safetensors": _open_safetensors}
    if path.suffix not in kinds:
        raise DataError(f"{path}: not a file of vectors. Known: {', '.join(kinds)}.")
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if (ids is not None) != (path.suffix == ".npy"):
        raise DataError(f"{path}: --ids belongs to a .npy of vectors, and to nothing else.")
    try:
        return kinds[path.suffix](path, ids)
    except (pa.ArrowInvalid, SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not readable as vectors ({error}).") from None


def _open_parquet(path: Path, _: Path | None) -> Vectors:
    file = pq.ParquetFile(path)
    missing = [name for name in (ID, VECTOR) if name not in file.schema_arrow.names]
    if missing:
        raise DataError(
            f"{path}: the columns {', '.join(missing)} are missing; it has {', '.join(file.schema_arrow.names)}."
        )
    found = pl.read_parquet(path, columns=[ID])[ID]
    first = pl.scan_parquet(path).select(pl.col(VECTOR).head(1)).collect()[VECTOR]
    dim = len(first[0]) if len(first) else 0

    def read(start: int, stop: int) -> Float[ndarray, "some content"]:
        part = pl.scan_parquet(path).select(VECTOR).slice(start, stop - start).collect()[VECTOR]
        lengths = part.list.len() if part.dtype == pl.List else pl.Series([part.dtype.shape[0]] * len(part))  # type: ignore[attr-defined]
        wrong = lengths != dim
        if wrong.any():
            raise DataError(f"{path}: {wrong.sum()} vectors have another length than the first one's {dim}.")
        return part.explode().cast(pl.Float32).to_numpy().reshape(-1, dim)

    return Vectors(_keys(path, found), dim, read)


def _open_npy(path: Path, ids: Path | None) -> Vectors:
    vectors, found = np.load(path, mmap_mode="r"), np.load(ids or path)
    return _array_vectors(path, vectors, pl.Series(found.tolist() if found.dtype.kind in "US" else found))


def _open_safetensors(path: Path, _: Path | None) -> Vectors:
    with safe_open(path, framework="np") as file:
        return _array_vectors(path, file.get_tensor(VECTOR), pl.Series(file.get_tensor(ID)))


def _array_vectors(path: Path, vectors: ndarray, ids: pl.Series) -> Vectors:
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or len(vectors) != len(ids):
        raise DataError(
            f"{path}: vectors of shape {list(vectors.shape)} and dtype {vectors.dtype} for {len(ids)} ids; wanted "
            f"[{len(ids)}, dim] of floats."
        )
    return Vectors(
        _keys(path, ids), vectors.shape[1], lambda start, stop: vectors[start:stop].astype(np.float32)
    )


def _keys(path: Path, ids: pl.Series) -> Int[ndarray, "rows"]:
    """Return the keys of item ids.

    Raises:
        DataError: there is none, one is missing, stands twice, is negative or neither an integer nor text.
    """
    if not len(ids):
        raise DataError(f"{path}: holds no vectors.")
    if ids.null_count() or not (ids.dtype.is_integer() or ids.dtype == pl.String):
        raise DataError(
            f"{path}: item ids are integers or text, all of them; these are {ids.dtype} with {ids.null_count()} "
            "missing."
        )
    if ids.n_unique() < len(ids):
        raise DataError(
            f"{path}: {len(ids) - ids.n_unique()} item ids stand twice, the first is "
            f"{ids.filter(ids.is_duplicated())[0]}."
        )
    keys = item_keys(ids)
    if (keys < 0).any():
        raise DataError(f"{path}: {int((keys < 0).sum())} item ids are negative.")
    return keys


def _refuse_without_length(path: Path, vectors: Float[ndarray, "some content"], first: int) -> None:
    wrong = np.flatnonzero(~have_length(vectors))
    if len(wrong):
        raise DataError(
            f"{path}: {len(wrong)} of {len(vectors)} vectors from row {first} on have a length in float32 that is zero "
            f"or not finite, the first is row {first + wrong[0]}. Leave them out: an item without a vector is no error."
        )


def export_vectors(center: Path, out: Path, *, generation: int | None = None) -> int:
    """Write the newest snapshot of a generation as Parquet; return the number of vectors.

    Args:
        center: Folder of the center.
        out: File; the columns are ``item_key`` and ``vector`` (a list of float32).
        generation: Its number; None: the active one, or the newest.

    Raises:
        CenterError: there is no such generation, or a vector does not match its checksum.
    """
    opened = Center(center)
    base = opened.open_base(opened.number(generation))
    schema = pa.schema([(KEY, pa.int64()), (VECTOR, pa.list_(pa.float32(), base.dim))])
    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for first in range(0, len(base), ROWS_AT_ONCE):
            rows = np.arange(first, min(first + ROWS_AT_ONCE, len(base)))
            vectors = decode(base.checked_payload(rows), base.manifest.dtype)
            values = pa.array(vectors.reshape(-1))
            columns = [pa.array(base.keys[rows]), pa.FixedSizeListArray.from_arrays(values, base.dim)]
            writer.write_table(pa.table(columns, schema=schema))
    return len(base)
