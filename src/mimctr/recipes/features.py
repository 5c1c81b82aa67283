"""Content interest as plain columns: what Eq. (7) sees in every impression, for models that mimctr does not train.

mimctr features dataset --content embed --out features
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mimctr.batch import CtrBatch
from mimctr.center.attach import ContentTable
from mimctr.data.checksums import verify_dataset
from mimctr.data.dataset import CtrDataset
from mimctr.data.split import PARTS
from mimctr.files import atomic_path
from mimctr.progress import track
from mimctr.recipes.embed import open_content
from mimctr.ubm.content_interest import content_interest, cosine
from mimctr.ubm.extensions import Tiers
from mimctr.ubm.masking import masked_max, masked_mean

FEATURES = "features.parquet"
ROWS_AT_ONCE = 65_536
"""Impressions in a row group of the file."""


class Config(BaseModel):
    """Settings of ``mimctr features``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int = Field(50, ge=1, description="Newest behaviors that are looked at.")
    num_tiers: int = Field(20, ge=1, description="Tiers of the histogram of relevances.")
    vectors: bool = Field(False, description="Write content interest, Eq. (7), too: a list of numbers.")
    batch_size: int = Field(1024, ge=1, description="Impressions at a time.")


def main(dataset: Path, content: Path, out: Path, config: Config) -> None:
    """Write ``features.parquet`` into ``out``: a row per impression of all parts, in time order (docs/features.md).

    Args:
        dataset: Written by ``mimctr prepare``.
        content: Folder that ``mimctr embed`` wrote.
        out: Folder for the file.
        config: Settings.

    Raises:
        RunError: a file of the dataset is damaged.
    """
    verify_dataset(dataset)
    data = CtrDataset.open(dataset)
    table = open_content(data, content)
    out.mkdir(parents=True, exist_ok=True)
    total = sum(len(data.rows(part)) for part in PARTS)
    groups = track(
        _groups(data, table, config), total=total, description="features", unit="impressions", size=len
    )
    first = next(groups)
    with atomic_path(out / FEATURES) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
        for group in itertools.chain([first], groups):
            writer.write_table(group)


def _groups(data: CtrDataset, table: ContentTable, config: Config) -> Iterator[pa.Table]:
    """Yield the rows of the file, some at a time."""
    for part in PARTS:
        rows = data.rows(part)
        for start in range(rows.start, rows.stop, ROWS_AT_ONCE):
            some = range(start, min(start + ROWS_AT_ONCE, rows.stop))
            batches = data.batches(
                some, batch_size=config.batch_size, max_length=config.max_length, seed=None
            )
            features = pl.concat([content_features(table.attach(batch), config) for batch in batches])
            named = data.impression_table(some).with_columns(part=pl.lit(part))
            yield pl.concat([named, features], how="horizontal").to_arrow()


def content_features(batch: CtrBatch, config: Config) -> pl.DataFrame:
    """Return a row of features for each impression of a batch with content; null where there is nothing to compare."""
    content = batch.content
    assert content is not None, "attached by the caller"
    behaviors = content.behavior_vectors()
    counted = content.behaviors_known & content.target_known.unsqueeze(1)
    interest = content_interest(
        target_content=content.target,
        behaviors_content=behaviors,
        behaviors=behaviors[..., :0],  # nothing to fuse with
        mask=counted,
    )
    of_query = cosine(content.query, behaviors)  # (B, L)
    asked = content.behaviors_known & content.query_known.unsqueeze(1)
    compared, query_compared = counted.any(1), asked.any(1)
    query_target = cosine(content.query, content.target.unsqueeze(1)).squeeze(1)
    frame = pl.DataFrame(
        {
            "target_has_vector": content.target_known.numpy(),
            "query_has_vector": content.query_known.numpy(),
            "num_behaviors": batch.mask.sum(1).numpy(),
            "num_compared": counted.sum(1).numpy(),
            "relevance_mean": _where(compared, masked_mean(interest.relevance, counted)),
            "relevance_max": _where(compared, masked_max(interest.relevance, counted)),
            "query_target": _where(content.query_known & content.target_known, query_target),
            "query_behaviors_mean": _where(query_compared, masked_mean(of_query, asked)),
            "query_behaviors_max": _where(query_compared, masked_max(of_query, asked)),
        }
    )
    tiers = Tiers(config.num_tiers).counts(interest.relevance, counted)
    frame = frame.with_columns(
        pl.Series(f"tier_{number}", count.numpy()) for number, count in enumerate(tiers.unbind(-1))
    )
    if config.vectors:
        frame = frame.with_columns(content_interest=pl.Series(interest.content.numpy()))
    return frame


def _where(there: Bool[Tensor, "batch"], values: Float[Tensor, "batch"]) -> pl.Series:
    """Return ``values``, null where there is none."""
    return pl.Series(values.numpy()).set(pl.Series(~there.numpy()), None)
