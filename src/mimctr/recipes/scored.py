"""Two trained models of one user behavior model and seed, without content and with it, on the same test impressions."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import ValidationError

from mimctr.center.attach import ContentTable
from mimctr.center.snapshot import read_manifest
from mimctr.data.dataset import CtrDataset
from mimctr.errors import RunError, StaleSnapshot
from mimctr.evaluate.compare import BASE
from mimctr.evaluate.metrics import sigmoid
from mimctr.recipes import ctr_config
from mimctr.recipes.embed import ITEMS, open_content
from mimctr.recipes.evaluate import ModelRecord, read_model_record, read_predictions

WITH_CONTENT = ("mim", "mim_plus")
"""Variants whose pictures mean something: the others have seen permuted vectors, or give no probabilities."""


class Scored(NamedTuple):
    """The test impressions and what both models say of them."""

    dataset: CtrDataset
    table: ContentTable
    """The vectors that the model with content has seen."""
    rows: Int[ndarray, "rows"]
    """Of the dataset's impressions."""
    base: Float[ndarray, "rows"]
    """Logits without content."""
    mim: Float[ndarray, "rows"]
    """Logits with content."""
    variant: str
    """With content."""
    config: ctr_config.Config
    """Of the model with content."""

    @property
    def change(self) -> Float[ndarray, "rows"]:
        """How much higher the probability is with content."""
        return sigmoid(self.mim) - sigmoid(self.base)


def read_scored(dataset: CtrDataset, *, content: Path, base: Path, mim: Path) -> Scored:
    """Return what two models say of the dataset's test impressions.

    Args:
        dataset: Whose test part.
        content: Folder of vectors (``mimctr embed``).
        base: Folder of the model without content.
        mim: Folder of the model with content.

    Raises:
        RunError: a record is damaged, a model was trained on other tables or another split, or the two are not one user
            behavior model and seed without and with content.
        StaleSnapshot: the model with content was trained on other vectors.
    """
    rows = np.array(dataset.rows("test"))
    without, base_logits = _read_model(base, rows, dataset)
    with_content, mim_logits = _read_model(mim, rows, dataset)
    names = [(record.ubm, record.seed) for record in (without, with_content)]
    if names[0] != names[1] or without.variant != BASE or with_content.variant not in WITH_CONTENT:
        raise RunError(
            f"{base}, {mim}: {without.variant} of {names[0]} and {with_content.variant} of {names[1]}. Name a model "
            "without and one with content (mim or mim_plus), of one user behavior model and seed."
        )
    found = read_manifest(content / ITEMS).fingerprint
    if with_content.content_fingerprint not in (None, found):
        raise StaleSnapshot(
            f"{mim}: it was trained on vectors of encoder {with_content.content_fingerprint[:12]}, {content} holds "
            f"those of {found[:12]}. Name the folder that it was trained on."
        )
    table = open_content(dataset, content)
    try:
        config = ctr_config.Config.model_validate(with_content.config)
    except ValidationError as error:
        raise RunError(f"{mim}: its config is not of this version ({error}). Train it again.") from None
    return Scored(dataset, table, rows, base_logits, mim_logits, with_content.variant, config)


def _read_model(
    folder: Path, rows: Int[ndarray, "rows"], dataset: CtrDataset
) -> tuple[ModelRecord, Float[ndarray, "rows"]]:
    """Return a model's record and its logits of ``rows``."""
    record = read_model_record(folder, dataset_hash=dataset.manifest.source_hash)
    return record, read_predictions(folder, rows)["logit"].numpy()
