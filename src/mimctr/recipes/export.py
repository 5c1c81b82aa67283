"""Every model's predictions of the test part as one table that can be joined with the raw impressions."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from jaxtyping import Int
from numpy import ndarray

from mimctr.data.dataset import CtrDataset
from mimctr.evaluate.metrics import sigmoid
from mimctr.evaluate.results import ModelFacts
from mimctr.evaluate.scoring import Predictions
from mimctr.files import atomic_path, write_table


def export_predictions(
    path: Path,
    dataset: CtrDataset,
    rows: Int[ndarray, "rows"],
    models: Sequence[ModelFacts],
    predictions: Sequence[Predictions],
) -> None:
    """Write a Parquet file with a row per impression (docs/results-schema.md), atomically.

    Columns: ``row`` of the impression in the dataset, ``user_id`` and ``item_id`` as in the raw tables, ``time`` in
    seconds UTC, ``click``, and one per model under the name of its folder: ``probability:<name>``, or ``score:<name>``
    where a model only ranks.

    Args:
        path: Of the file.
        dataset: Whose impressions were scored.
        rows: Of its impressions.
        models: What ``predictions`` are of, in their order.
        predictions: Of the impressions ``rows``.
    """
    scores = []
    for model, said in zip(models, predictions, strict=True):
        kind = "probability" if said.probabilistic else "score"
        values = sigmoid(said.logits) if said.probabilistic else said.logits
        scores.append(pl.Series(f"{kind}:{Path(model.folder).name}", values, dtype=pl.Float64))
    with atomic_path(path) as temporary:
        write_table(temporary, dataset.impression_table(rows).with_columns(scores))
