"""A bundle: everything that a scorer needs of one trained model, in one folder that is never changed.

bundle.json                what it is, and the hash of every file
model.json, .safetensors   as trained: tables and dense half
names.safetensors          sorted keys of items and users -> their indices
vocabularies/              values of categorical fields -> their indices
"""

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, ValidationError

from mimctr.batch import FIRST_INDEX, PADDING, UNKNOWN
from mimctr.data.dataset import CtrDataset
from mimctr.data.keys import item_keys
from mimctr.errors import RunError
from mimctr.files import atomic_folder, hash_path, read_json, write_json
from mimctr.weights import load_tensors, save_tensors

MANIFEST, NAMES, VOCABULARIES = "bundle.json", "names.safetensors", "vocabularies"
MODEL, WEIGHTS = "model.json", "model.safetensors"
SCHEMA = 1
GROUPS = ("item", "user", "query", "context")


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
    files: dict[str, str]
    """Name -> SHA-256."""


class Bundle:
    """A bundle, opened: names to indices, and where the model is.

    Args:
        folder: Written by :func:`write_bundle`.

    Raises:
        RunError: it is no bundle, or a file of it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        names, _ = load_tensors(folder / NAMES)
        self._names = {name: tensor.numpy() for name, tensor in names.items()}
        self._kinds = {kind: number for number, kind in enumerate(self.manifest.kinds, start=FIRST_INDEX)}
        self._values = {
            group: _read_vocabulary(folder / VOCABULARIES / f"{group}.parquet") for group in GROUPS
        }

    def item_index(self, keys: Int[ndarray, "items"]) -> Int[ndarray, "items"]:
        """Return the index of items by their keys; *unknown* for one that training has not seen."""
        return _find(self._names["item_keys"], self._names["item_index"], keys)

    def user_index(self, key: int) -> int:
        """Return the index of a user by its key (as an item's: :func:`mimctr.data.keys.item_keys`)."""
        return int(_find(self._names["user_keys"], self._names["user_index"], np.array([key]))[0])

    def kind_index(self, kind: str) -> int:
        """Return the index of what was done."""
        return self._kinds.get(kind, UNKNOWN)

    def value_index(self, group: str, field: str, value: str | None) -> int:
        """Return the index of a field's value: padding for none, *unknown* for one that training has not seen."""
        return PADDING if value is None else self._values[group].get((field, value), UNKNOWN)


def write_bundle(model: Path, dataset: Path, out: Path) -> BundleManifest:
    """Write a bundle.

    Args:
        model: Folder of a trained model.
        dataset: What it was trained on.
        out: Must not exist.

    Raises:
        RunError: there is no trained model, it was trained on another dataset, or ``out`` exists.
    """
    data, record = CtrDataset.open(dataset), _read_record(model)
    if record["dataset_hash"] != data.manifest.source_hash:
        raise RunError(
            f"{model}: it was trained on tables {record['dataset_hash'][:12]}, {dataset} was made from "
            f"{data.manifest.source_hash[:12]}. Name the dataset of its training."
        )
    with atomic_folder(out) as folder:
        for name in (MODEL, WEIGHTS):
            shutil.copyfile(model / name, folder / name)
        shutil.copytree(dataset / VOCABULARIES, folder / VOCABULARIES)
        save_tensors(folder / NAMES, _names(data))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest = BundleManifest(
            schema_version=SCHEMA,
            content_fingerprint=record.get("content_fingerprint"),
            content_dim=record["content_dim"],
            max_length=record["config"]["max_length"],
            kinds=data.manifest.kinds,
            text_ids=_text_ids(data),
            dataset_hash=record["dataset_hash"],
            files={path.relative_to(folder).as_posix(): hash_path(path) for path in files},
        )
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _read_record(model: Path) -> dict[str, Any]:
    record = read_json(model / MODEL)
    if not (model / WEIGHTS).is_file():
        raise RunError(f"{model}: holds no trained model ({WEIGHTS} is missing): nothing can be served.")
    return record


def _names(data: CtrDataset) -> dict[str, torch.Tensor]:
    """Return sorted keys and their indices."""
    of_items = data.item_keys[FIRST_INDEX:]
    of_users = item_keys(data.users["user_id"])
    found = {}
    for name, keys in (("item", of_items), ("user", of_users)):
        order = np.argsort(keys, kind="stable")
        found[f"{name}_keys"] = torch.from_numpy(np.ascontiguousarray(keys[order], dtype=np.int64))
        found[f"{name}_index"] = torch.from_numpy(order + FIRST_INDEX)
    return found


def _text_ids(data: CtrDataset) -> list[Literal["item", "user"]]:
    found: list[Literal["item", "user"]] = []
    if data.items["item_id"].dtype == pl.String:
        found.append("item")
    if data.users["user_id"].dtype == pl.String:
        found.append("user")
    return found


def _find(
    sorted_keys: Int[ndarray, "entries"], index: Int[ndarray, "entries"], keys: Int[ndarray, "asked"]
) -> Int[ndarray, "asked"]:
    if not len(sorted_keys):
        return np.full(len(keys), UNKNOWN)
    place = np.searchsorted(sorted_keys, keys).clip(max=len(sorted_keys) - 1)
    return np.where(sorted_keys[place] == keys, index[place], UNKNOWN)


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
