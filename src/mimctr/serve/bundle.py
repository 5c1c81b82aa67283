"""A bundle: everything that a scorer needs of one trained model, in one folder that is never changed.

bundle.json                what it is, and the hash of every file
model.json, .safetensors   dense half and small tables; of items and users no rows but padding and *unknown*
tables/items, tables/users rows of items and users by their keys: snapshots, which a parameter store can hold as well
vocabularies/              values of categorical fields -> their indices
dense.onnx                 the dense half for ONNX Runtime, where it could be exported
"""

from enum import StrEnum
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from mimctr.batch import FIRST_INDEX, PADDING, UNKNOWN
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.interface import Space
from mimctr.data.texts import visible_text
from mimctr.errors import RunError
from mimctr.files import hash_path, read_json

MANIFEST, VOCABULARIES, TABLES = "bundle.json", "vocabularies", "tables"
MODEL, WEIGHTS, ONNX = "model.json", "model.safetensors", "dense.onnx"
SCHEMA = 2
GROUPS = ("user", "query", "context")
TABLE_PARTITIONS = 16
"""Of each table on a parameter store."""


class Table(StrEnum):
    """What has a row of its own on a parameter store."""

    ITEMS = "items"
    """The item's row and those of its fields, then the index of its category."""
    USERS = "users"
    """The user's row."""


class BundleManifest(BaseModel):
    """What a bundle says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    content_fingerprint: str | None
    """Of the encoder whose vectors the model reads; null for Base."""
    content_dim: int | None
    max_length: int
    """Newest behaviors that the model sees."""
    kinds: list[str]
    """Of behavior; the first has index 2."""
    text_ids: list[Literal["item", "user"]] = []
    """Which of them the log names by text; integers name the others."""
    dataset_hash: str
    weights_hash: str
    """Of the trained model: rows of its tables are of no other."""
    widths: dict[Table, int]
    """Of the tables' rows."""
    without_onnx: str | None = None
    """Why there is no ``dense.onnx``; None: there is one."""
    files: dict[str, str]
    """Name -> SHA-256; of a table only its manifest, which has the table's digest, and each row has a checksum."""

    def space(self, table: Table) -> Space:
        """Return where a table's rows live on a parameter store."""
        return Space(1, self.weights_hash, self.widths[table], "float32", TABLE_PARTITIONS)


class Bundle:
    """A bundle, opened: names to indices, and where the model is.

    Args:
        folder: Written by :func:`~mimctr.serve.bundle_writer.write_bundle`.

    Raises:
        RunError: it is no bundle, or a file of it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        self._kinds = {kind: number for number, kind in enumerate(self.manifest.kinds, start=FIRST_INDEX)}
        self._values = {
            group: _read_vocabulary(folder / VOCABULARIES / f"{group}.parquet") for group in GROUPS
        }

    def open_table(self, table: Table) -> Snapshot:
        """Open a table's rows, memory-mapped.

        Raises:
            CenterError: it is not readable, or another model's.
        """
        return Snapshot.open(self.folder / TABLES / table, encoder=self.manifest.weights_hash)

    def kind_index(self, kind: str) -> int:
        """Return the index of what was done."""
        return self._kinds.get(kind, UNKNOWN)

    def value_index(self, group: str, field: str, value: str | None) -> int:
        """Return the index of a value: padding for none and blanks, *unknown* for one that training has not seen."""
        found = self._values[group].get((field, value)) if value is not None else PADDING
        if found is not None:
            return found
        return PADDING if visible_text(value) is None else UNKNOWN


def _read_vocabulary(path: Path) -> dict[tuple[str, str], int]:
    table = pl.read_parquet(path, columns=["field", "value", "index"])
    return {(field, value): index for field, value, index in table.iter_rows()}


def _read_manifest(folder: Path) -> BundleManifest:
    """Return the manifest of a bundle whose files are those that were written.

    Raises:
        RunError: it is no bundle, or a file is missing, damaged or another one.
    """
    if not (folder / MANIFEST).is_file():
        raise RunError(f"{folder}: holds no bundle ({MANIFEST} is missing). Run 'mimctr export' first.")
    raw = read_json(folder / MANIFEST)
    if not isinstance(raw, dict) or raw.get("schema_version") != SCHEMA:
        raise RunError(f"{folder}: not a bundle of schema {SCHEMA}. Run 'mimctr export' again.")
    try:
        manifest = BundleManifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunError(f"{folder / MANIFEST}: {where}: {first['msg']}. Run 'mimctr export' again.") from None
    root = folder.resolve()
    for name, wanted in manifest.files.items():
        if not (folder / name).resolve().is_relative_to(root):
            raise RunError(f"{folder / MANIFEST}: names {name}, which is outside of the bundle.")
        if not (folder / name).is_file() or hash_path(folder / name) != wanted:
            raise RunError(f"{folder / name}: missing or damaged. Run 'mimctr export' again.")
    return manifest
