"""Which CTR models a recipe trains: every UBM x variant x encoder x seed, each with its own best settings."""

import itertools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mimctr.errors import ConfigError
from mimctr.files import atomic_folder, read_json
from mimctr.recipes import stages
from mimctr.recipes.config import build_config
from mimctr.recipes.ctr_config import Config as TrainConfig
from mimctr.recipes.ctr_config import Ubm, Variant
from mimctr.recipes.ctr_model import RECORD

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


def grid_points(grid: dict[str, list[Any]], train: TrainConfig) -> list[TrainConfig]:
    """Return ``train`` with every combination of the grid's values; ``train`` itself for an empty grid.

    Raises:
        ConfigError: a key is no setting of ``mimctr train``, a value does not suit it, or the matrix decides it.
    """
    settings = train.model_dump()
    decided = [name for name in grid if name in (*Model.model_fields, "seed")]
    if decided:
        raise ConfigError(f"models.grid: {decided[0]}: what is compared cannot be tuned. Leave it out.")
    return [
        build_config(TrainConfig, settings | dict(zip(grid, values, strict=True)), where="models.grid")
        for values in itertools.product(*grid.values())
    ]


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
                points = grid_points({} if model.variant in UNTRAINED else models.grid, train)
                candidates = [_with(point, model, seed) for point in points]
                tuned[model] = _best(
                    candidates, models.grid, dataset, content, out / TUNE / model.name, folder
                )
            logger.info("train %s", folder.name)
            stages.train(dataset, content, folder, _with(tuned[model], model, seed))


def _with(config: TrainConfig, model: Model, seed: int) -> TrainConfig:
    return config.model_copy(update={**model.model_dump(), "seed": seed})


def _best(
    candidates: list[TrainConfig],
    grid: dict[str, list[Any]],
    dataset: Path,
    content: Path | None,
    tune: Path,
    chosen: Path,
) -> TrainConfig:
    """Train every candidate into ``tune``; return the best and leave a copy of its model in ``chosen``."""
    if len(candidates) == 1:
        return candidates[0]
    found = []
    for number, config in enumerate(candidates):
        logger.info("tune %s: %s", tune.name, _point(config, grid))
        stages.train(dataset, content, tune / str(number), config)
        found.append(read_json(tune / str(number) / RECORD)["validation"]["auc"])
    best = max(range(len(found)), key=found.__getitem__)
    logger.info(
        "tune %s: best %s, validation AUC %.4f", tune.name, _point(candidates[best], grid), found[best]
    )
    if not chosen.exists():
        with atomic_folder(chosen) as folder:
            shutil.copytree(tune / str(best), folder, dirs_exist_ok=True)
    return candidates[best]


def _point(config: TrainConfig, grid: dict[str, list[Any]]) -> str:
    return ", ".join(f"{name} = {getattr(config, name)}" for name in grid)
