"""A new generation of the representation center: the whole catalogue, and what came in since (MIM Section 3.5, MFM).

mimctr center build CENTER --dataset dataset --encoder csft
"""

import contextlib
import itertools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from mimctr.center.attach import ContentTable
from mimctr.center.center import DATABASE, Center
from mimctr.center.generations import Generation, GenerationState
from mimctr.center.known_queries import QUERIES, content_key, write_known
from mimctr.center.log import CenterLog, Item
from mimctr.center.record import DType, content_flags
from mimctr.center.snapshot import ROWS_AT_ONCE, Snapshot
from mimctr.center.snapshot_writer import SnapshotWriter
from mimctr.data.dataset import CtrDataset
from mimctr.encoders.item import ItemEncoder
from mimctr.errors import CenterError
from mimctr.evaluate.metrics import auc
from mimctr.files import atomic_folder, write_json
from mimctr.recipes import stages
from mimctr.recipes.ctr_config import Config as TrainConfig
from mimctr.recipes.ctr_fitting import Task
from mimctr.recipes.embed import ITEMS
from mimctr.recipes.embed_config import Config
from mimctr.recipes.train import untrained_cosine

logger = logging.getLogger(__name__)

ITEMS_AT_ONCE = 64
MIN_COSINE, NUM_COMPARED = 0.9999, 64
"""Least cosine of an item encoded as it comes in to its vector in the snapshot, over so many items."""
MAX_LOSS = 0.0005
"""Of AUC, that int8 may cost."""
JUDGED = "int8.json"


def main(
    center: Path, dataset: Path, encoder: Path, config: Config, *, dtype: DType = "float16"
) -> Generation:
    """Embed every item and register the snapshot as a generation that is building.

    From its first moment new items go to it too. A call that was interrupted is taken up where it stopped.

    Args:
        center: Folder of the center.
        dataset: Written by ``mimctr prepare``: the catalogue.
        encoder: Item encoder, written by ``mimctr csft``.
        config: Settings of ``mimctr embed``.
        dtype: How vectors are kept.

    Raises:
        CenterError: there is no center, or an item that comes in would not be comparable.
        RunError: no item has content.
    """
    opened = Center(center)
    loaded = ItemEncoder.load(encoder)
    opened.keep_encoder(encoder, loaded.fingerprint)
    one = _begun(opened, loaded.fingerprint, dtype) or opened.log.generations.begin(
        fingerprint=loaded.fingerprint, dim=loaded.dim, dtype=dtype
    )
    work, made = opened.build_folder(one.number), opened.snapshot_folder(one.number, 1)
    stages.embed(dataset, encoder, work, config).run()
    catalogue = Snapshot.open(work / ITEMS, encoder=loaded.fingerprint)
    if not opened.snapshots(one.number):
        _write_base(opened, one, loaded, catalogue)
    if not (made.parent / QUERIES).exists():
        with atomic_folder(made.parent / QUERIES) as temporary:
            shutil.copytree(work / QUERIES, temporary, dirs_exist_ok=True)
            _name_queries(CtrDataset.open(dataset), temporary, loaded.fingerprint)
    try:
        cosine = _judge(CtrDataset.open(dataset), loaded, opened, one, catalogue)
    except CenterError:
        opened.drop(one.number)
        raise
    shutil.rmtree(work)
    logger.info(
        "center: generation %d, %s vectors; items encoded one at a time have a cosine of %.6f with them at least",
        one.number,
        f"{len(opened.open_base(one.number)):,}",
        cosine,
    )
    return one


def _name_queries(data: CtrDataset, folder: Path, fingerprint: str) -> None:
    """Let the queries that have a vector be found by what they say."""
    keys, texts = Snapshot.open(folder, encoder=fingerprint).keys, data.queries.texts
    said = [content_key(texts[row], data.queries.images.get(row)) for row in (keys - 1).tolist()]
    write_known(folder, np.array(said, dtype=np.int64), keys)


def _write_base(center: Center, one: Generation, encoder: ItemEncoder, catalogue: Snapshot) -> None:
    """Write the first snapshot: the catalogue's vectors, and those of items that came in one by one."""
    with contextlib.closing(CenterLog(center.folder / DATABASE)) as log, log.reading():
        known = {item.key: _has_content(item) for item in _items(log)}
        rest = np.flatnonzero(~np.isin(catalogue.keys, np.array(list(known), dtype=np.int64)))
        live = np.array([key for key, has_content in known.items() if has_content], dtype=np.int64)
        with center.write_base(one.number, np.concatenate([catalogue.keys[rest], live])) as writer:
            for first in range(0, len(rest), ROWS_AT_ONCE):
                writer.copy(catalogue, rest[first : first + ROWS_AT_ONCE])
            _write_items(_items(log), encoder, writer)


def _judge(
    data: CtrDataset,
    encoder: ItemEncoder,
    center: Center,
    one: Generation,
    catalogue: Snapshot,
) -> float:
    """Return the least cosine of items as they come in to the snapshot; write what int8 costs beside that.

    Raises:
        CenterError: the generation is not as good as it must be.
    """
    base = center.open_base(one.number)
    if one.dtype == "int8":
        judged = judge_int8(data, catalogue, base)
        write_json(center.snapshot_folder(one.number, 1).parent / JUDGED, judged.model_dump(mode="json"))
    return _parity(data, encoder, base)


class Judged(BaseModel):
    """What int8 costs: AUC of the mean cosine of target and behaviors on the validation part."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    auc_float16: float
    auc_int8: float


def judge_int8(data: CtrDataset, exact: Snapshot, kept: Snapshot) -> Judged:
    """Compare a generation in int8 with the same vectors in float16.

    Raises:
        CenterError: int8 costs more than it may, or there is nothing to judge it by.
    """
    rows = data.rows("validation")
    clicks = data.impressions.click[rows.start : rows.stop]
    if not len(clicks) or clicks.min() == clicks.max():
        raise CenterError(
            f"{data.folder}: int8 is judged by the validation part, whose {len(clicks):,} impressions are all clicked "
            "or all not. Keep float16."
        )
    scores = [
        untrained_cosine(
            Task(
                dataset=data,
                content=ContentTable.from_snapshots(data.item_keys, snapshot),
                config=TrainConfig(variant="untrained_cosine"),
                device=torch.device("cpu"),
            ),
            rows,
        )
        for snapshot in (exact, kept)
    ]
    judged = Judged(auc_float16=auc(clicks, scores[0]), auc_int8=auc(clicks, scores[1]))
    if judged.auc_float16 - judged.auc_int8 > MAX_LOSS:
        raise CenterError(
            f"{data.folder}: int8 costs {judged.auc_float16 - judged.auc_int8:.5f} AUC of the mean cosine on the "
            f"validation part, allowed are {MAX_LOSS}. Keep float16."
        )
    return judged


def _parity(data: CtrDataset, encoder: ItemEncoder, base: Snapshot) -> float:
    """Return the least cosine between items encoded as they come in and their vectors in the snapshot.

    Raises:
        CenterError: it is too small: new items would not be comparable with the catalogue's.
    """
    keys = data.items["item_key"].to_numpy()
    places = base.rows(keys)
    rows = np.flatnonzero((places >= 0) & (base.versions[places.clip(min=0)] == 0))  # as in the catalogue
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_COMPARED, len(rows))).round().astype(np.int64)].tolist()
    columns, least = data.items.select("title", "category", "item_key"), 1.0
    for row in rows:
        title, category, key = columns.row(row)
        vector, _ = encoder.embed_items([data.item_images.get(row)], [title], [category])
        held = torch.from_numpy(base.fetch(np.array([key])).vectors)
        least = min(least, torch.cosine_similarity(vector, held).item())
    if least < MIN_COSINE:
        raise CenterError(
            f"{data.folder}: an item encoded as it comes in has a cosine of {least:.5f} with its vector in the "
            f"snapshot, wanted {MIN_COSINE}. Build with the back-end 'torch', on the device that encodes new items."
        )
    return least


def _begun(center: Center, fingerprint: str, dtype: DType) -> Generation | None:
    """Return the generation that an interrupted call began."""
    for one in center.log.generations.all():
        same = (one.fingerprint, one.dtype, one.state) == (fingerprint, dtype, GenerationState.BUILDING)
        if same and (center.build_folder(one.number).exists() or not center.snapshots(one.number)):
            return one
    return None


def _items(log: CenterLog) -> Iterator[Item]:
    """Return all items that came in one by one, in the order of their keys."""
    last = -1
    while some := log.items(after=last):
        yield from some
        last = some[-1].key


def _has_content(item: Item) -> bool:
    return not item.deleted and (item.image is not None or item.title is not None)


def _write_items(items: Iterator[Item], encoder: ItemEncoder, writer: SnapshotWriter) -> None:
    """Encode what came in one by one, as it is now; what changes meanwhile is in the windows, and newer."""
    with_content = filter(_has_content, items)
    while batch := list(itertools.islice(with_content, ITEMS_AT_ONCE)):
        vectors, _ = encoder.embed_items(
            [item.image for item in batch], [item.title for item in batch], [item.category for item in batch]
        )
        writer.write(
            np.array([item.key for item in batch]),
            vectors.numpy(),
            versions=np.array([item.version for item in batch]),
            flags=np.array([content_flags(item.image, item.title) for item in batch], dtype=np.uint8),
        )
