"""Write a bundle from a trained model and the dataset of its training."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mimctr.batch import FIRST_INDEX, UNKNOWN
from mimctr.center.snapshot import MANIFEST as SNAPSHOT
from mimctr.center.snapshot import ROWS_AT_ONCE
from mimctr.center.snapshot_writer import write_in_pieces
from mimctr.data.dataset import CtrDataset
from mimctr.data.keys import item_keys
from mimctr.errors import RunError
from mimctr.files import atomic_folder, hash_path, read_json, write_json
from mimctr.serve.bundle import (
    MANIFEST,
    MODEL,
    ONNX,
    SCHEMA,
    TABLE_PARTITIONS,
    TABLES,
    VOCABULARIES,
    WEIGHTS,
    BundleManifest,
    Table,
)
from mimctr.serve.onnx_export import export_onnx, why_not_onnx
from mimctr.serve.tables import trained_rows
from mimctr.ubm.ciubm import CiUBM
from mimctr.ubm.embeddings import table_name
from mimctr.weights import save_tensors


def write_bundle(
    model: Path, trained: CiUBM, dataset: Path, out: Path, *, onnx: bool = True
) -> BundleManifest:
    """Write a bundle.

    Args:
        model: Folder of a trained model.
        trained: What it holds.
        dataset: What it was trained on.
        out: Must not exist.
        onnx: Whether to write the dense half for ONNX Runtime, where that can be done.

    Raises:
        RunError: the model was trained on another dataset, or ``out`` exists.
    """
    data, record = CtrDataset.open(dataset), read_json(model / MODEL)
    if record["dataset_hash"] != data.manifest.source_hash:
        raise RunError(
            f"{model}: it was trained on tables {record['dataset_hash'][:12]}, {dataset} was made from "
            f"{data.manifest.source_hash[:12]}. Name the dataset of its training."
        )
    data.manifest.refuse_other_training(model, record.get("training_hash"))
    embedding, weights_hash = trained.embedding, hash_path(model / WEIGHTS)
    with atomic_folder(out) as folder, torch.inference_mode():
        keys = {Table.ITEMS: data.item_keys[FIRST_INDEX:], Table.USERS: item_keys(data.users["user_id"])}
        widths = {
            table: _write_table(
                folder / TABLES / table,
                weights_hash,
                keys[table],
                functools.partial(trained_rows, embedding, table),
            )
            for table in Table
        }
        write_json(folder / MODEL, _without_rows(record))
        save_tensors(folder / WEIGHTS, _small(trained))
        length = record["config"]["max_length"]
        without_onnx = why_not_onnx(trained, length) if onnx else "it was not asked for"
        if without_onnx is None:
            export_onnx(trained, folder / ONNX, max_length=length)
        shutil.copytree(dataset / VOCABULARIES, folder / VOCABULARIES)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        files = [path for path in files if TABLES not in path.parts or path.name == SNAPSHOT]
        manifest = BundleManifest(
            schema_version=SCHEMA,
            content_fingerprint=record.get("content_fingerprint"),
            content_dim=record["content_dim"],
            max_length=length,
            kinds=data.manifest.kinds,
            text_ids=_text_ids(data),
            dataset_hash=record["dataset_hash"],
            weights_hash=weights_hash,
            widths=widths,
            without_onnx=without_onnx,
            files={path.relative_to(folder).as_posix(): hash_path(path) for path in files},
        )
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _text_ids(data: CtrDataset) -> list[Literal["item", "user"]]:
    found: list[Literal["item", "user"]] = []
    if data.items["item_id"].dtype == pl.String:
        found.append("item")
    if data.users["user_id"].dtype == pl.String:
        found.append("user")
    return found


def _write_table(
    folder: Path,
    fingerprint: str,
    keys: Int[ndarray, "rows"],
    rows_of: Callable[[Int[Tensor, "some"]], Float[Tensor, "some width"]],
) -> int:
    """Write the rows of all ``keys``, whose indices follow one another; return how wide they are."""
    width = rows_of(torch.tensor([UNKNOWN])).shape[1]
    marks = [(0, 0)] * TABLE_PARTITIONS
    with write_in_pieces(
        folder, keys, dim=width, encoder=fingerprint, dtype="float32", watermarks=marks
    ) as writer:
        for first in range(0, len(keys), ROWS_AT_ONCE):
            some = keys[first : first + ROWS_AT_ONCE]
            index = torch.arange(first, first + len(some)) + FIRST_INDEX
            writer.write(some, rows_of(index).numpy())
    return width


def _small(trained: CiUBM) -> dict[str, Tensor]:
    """Return the model's weights; of items and users, and of items' fields, those of padding and *unknown* only."""
    state = dict(trained.state_dict())
    embedding, few = trained.embedding, torch.arange(FIRST_INDEX)
    for name in ("item", "user"):
        state[f"embedding.{name}_rows"] = few
        state[f"embedding.tables.{name}.weight"] = state[f"embedding.tables.{name}.weight"][
            :FIRST_INDEX
        ].clone()
    for column, name in enumerate(embedding.names["item"]):
        rows = embedding.bucketed(name, embedding.item_fields[:FIRST_INDEX, column])
        state[f"embedding.tables.{name}.weight"] = state[f"embedding.tables.{name}.weight"][rows].clone()
    state["embedding.item_fields"] = few.unsqueeze(1).expand(-1, embedding.item_fields.shape[1]).contiguous()
    return state


def _without_rows(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of such a model."""
    of_items = dict.fromkeys(record["fields"]["item"], FIRST_INDEX)
    config = record["config"]
    gone = {"item", "user", *(table_name("item", field) for field in of_items)}
    buckets = {name: count for name, count in config["hash_buckets"].items() if name not in gone}
    config = config | {"auxiliary_weight": 0.0, "hash_buckets": buckets}  # it is not trained any more
    return record | {"fields": record["fields"] | {"item": of_items}, "config": config}
