"""Which CTR models a recipe trains: every UBM x variant x encoder x seed, each with its own best settings."""

import itertools
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mimctr.files import read_json
from mimctr.recipes import stages
from mimctr.recipes.ctr_config import Config as TrainConfig
from mimctr.recipes.ctr_config import Ubm, Variant
from mimctr.recipes.ctr_model import RECORD
from mimctr.recipes.grid import Grid, grid_points, keep_best

logger = logging.getLogger(__name__)

Encoder = Literal["plain", "pretrained", "csft"]
"""Which item encoder made the vectors: public weights, after DDA and DMA, after C-SFT."""
UNTRAINED: tuple[Variant, ...] = ("untrained_cosine",)
TRAIN, TUNE = "train", "tune"


class Models(BaseModel):
    """Which CTR models are trained: every UBM x variant x seed, and x encoder where content is used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ubms: list[Ubm] = Field(["mean", "din", "sim"], min_length=1, description="User behavior models.")
    variants: list[Variant] = Field(
        ["base", "mim"], min_length=1, description="Base, Base+MIM, MIM+ and the controls."
    )
    encoders: list[Encoder] = Field(
        ["csft"], min_length=1, description="Whose vectors the content variants read."
    )
    seeds: list[int] = Field(
        [0], min_length=1, description="One training each; the table shows mean and deviation."
    )
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {},
        description="Settings of [train] with the values to try. Every UBM x variant x encoder takes what has the best "
        "validation AUC with the first seed, so that Base is tuned as well as what is compared with it.",
    )


class Model(BaseModel):
    """One cell of the matrix."""

    model_config = ConfigDict(frozen=True)

    ubm: Ubm
    variant: Variant
    encoder: Encoder | Literal["none"]

    @property
    def name(self) -> str:
        """What its folders begin with."""
        return "-".join([self.ubm, self.variant, *([self.encoder] if self.encoder != "none" else [])])


def cells(models: Models) -> Iterator[Model]:
    """Yield every UBM x variant x encoder of the matrix; the untrained cosine, which has no UBM, once per encoder."""
    for ubm, variant in itertools.product(models.ubms, models.variants):
        if variant in UNTRAINED and ubm != models.ubms[0]:
            continue
        for encoder in ["none"] if variant == "base" else models.encoders:
            yield Model.model_validate({"ubm": ubm, "variant": variant, "encoder": encoder})


def train_points(grid: Grid, train: TrainConfig) -> list[TrainConfig]:
    """Return the settings that every model tries (:func:`~mimctr.recipes.grid.grid_points`)."""
    return grid_points(grid, train, decided=(*Model.model_fields, "seed"), where="models.grid")


def train_models(models: Models, train: TrainConfig, *, dataset: Path, embed: Path, out: Path) -> None:
    """Train every model into ``out/train``; what the grid tried is in ``out/tune``.

    Args:
        models: The matrix.
        train: Settings that all models share.
        dataset: Written by ``mimctr prepare``.
        embed: Holds a folder of vectors for each encoder.
        out: Run folder.
    """
    tuned: dict[Model, TrainConfig] = {}
    for seed in models.seeds:
        for model in cells(models):
            if model.variant in UNTRAINED and seed != models.seeds[0]:
                continue
            content = None if model.encoder == "none" else embed / model.encoder
            folder = out / TRAIN / f"{model.name}-seed{seed}"
            if model not in tuned:
                points = train_points({} if model.variant in UNTRAINED else models.grid, train)
                tuned[model] = keep_best(
                    [_with(point, model, seed) for point in points],
                    models.grid,
                    make=partial(stages.train, dataset, content),
                    judge=lambda made: read_json(made / RECORD)["validation"]["auc"],
                    tune=out / TUNE / model.name,
                    chosen=folder,
                )
            logger.info("train %s", folder.name)
            stages.train(dataset, content, folder, _with(tuned[model], model, seed))


def _with(config: TrainConfig, model: Model, seed: int) -> TrainConfig:
    return config.model_copy(update={**model.model_dump(), "seed": seed})
