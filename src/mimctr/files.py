"""Files that are either wholly there or not there at all, and the hashes that name what they were made from."""

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from numpy import ndarray

from mimctr.errors import RunError

CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it there on success, delete it on any failure.

    A reader sees the old file or the new one, never half of either. The data is on disk (fsync) before the name is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; rename it there on success, delete it on any failure.

    Raises:
        RunError: ``path`` exists already; nothing is overwritten.
    """
    if path.exists():
        raise RunError(f"{path}: exists already. Choose another folder or remove this one.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def advise_random(array: ndarray) -> None:
    """Tell the system that a memory-mapped array is read here and there; nothing where it takes no advice.

    Raises:
        OSError: the array is not memory-mapped.
    """
    madvise = getattr(ctypes.CDLL(None, use_errno=True), "madvise", None)
    if madvise is None or not hasattr(mmap, "MADV_RANDOM") or not array.nbytes:
        return
    start = array.ctypes.data
    first = start - start % mmap.PAGESIZE
    size = start + array.nbytes - first
    if madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), mmap.MADV_RANDOM):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write_table(path: Path, table: pl.DataFrame) -> None:
    """Write ``table`` as Parquet.

    Raises:
        OSError: it cannot be written whole.
    """
    try:
        table.write_parquet(path)
    except pl.exceptions.ComputeError as error:  # what Polars makes of it
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically. NaN and infinity are refused: they are not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file.") from None
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON ({error}). It was damaged or edited by hand.") from None


def hash_json(value: Any) -> str:
    """Return the SHA-256 (hex) of ``value`` in canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_path(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes, or of every file below a folder with its relative name.

    What a link leads to counts as if it were there.

    Raises:
        RunError: a link leads back to a folder that it is in.
    """
    digest = hashlib.sha256()
    for file in sorted(_files_below(path)) if path.is_dir() else [path]:
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as handle:
            while chunk := handle.read(CHUNK):
                digest.update(chunk)
        digest.update(b"\0")
    return digest.hexdigest()


def _files_below(folder: Path, within: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield every file below a folder, those of linked folders too."""
    real = folder.resolve()
    if real in within:
        raise RunError(f"{folder}: a link that leads back to {real}, which it is in. Take it away.")
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_below(path, (*within, real))
        elif path.is_file():
            yield path
