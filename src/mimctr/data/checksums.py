"""Checksums of a dataset's files: memory-mapped arrays are read as they are, damaged or not."""

import zlib
from pathlib import Path

from mimctr.data.manifest import Manifest
from mimctr.errors import RunError

SUFFIXES = (".npy", ".parquet")
CHUNK = 1 << 20


def checksum_files(folder: Path) -> dict[str, int]:
    """Return the CRC-32 of every array and table below ``folder``, by relative name.

    Images are not among them: they are long, and a damaged one is found when it is decoded.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    return {path.relative_to(folder).as_posix(): _checksum(path) for path in files}


def verify_dataset(folder: Path) -> None:
    """Read every byte of a dataset's arrays and tables and compare; one prepared before there were checksums has none.

    Raises:
        RunError: the folder is no dataset, or a file is missing or damaged.
    """
    for name, expected in Manifest.read(folder).checksums.items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path}: no such file; the dataset is incomplete. Prepare it again.")
        if _checksum(path) != expected:
            raise RunError(
                f"{path}: its bytes do not match its checksum; the file is damaged. Prepare the dataset again."
            )


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found
