"""Which CTR models a recipe trains: every UBM x variant x encoder x seed, each with its own best settings."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from mimctr.files import read_json
from mimctr.recipes.ctr_config import Config as TrainConfig
from mimctr.recipes.ctr_config import Ubm, Variant, check_settings
from mimctr.recipes.ctr_model import RECORD
from mimctr.recipes.grid import Grid, grid_points, keep_best
from mimctr.recipes.workers import Training, run_trainings

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
    seeds: list[NonNegativeInt] = Field(
        [0], min_length=1, description="One training each; the table shows mean and deviation."
    )
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {},
        description="Settings of [train] with the values to try. Every UBM x variant x encoder takes what has the best "
        "validation AUC with the first seed, so that Base is tuned as well as what is compared with it.",
    )
    num_workers: int = Field(
        0,
        ge=0,
        description="Models trained at a time, the cores divided among them; 0: one a core, at most 8, or one where "
        "there is a GPU.",
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


def check_models(models: Models, train: TrainConfig) -> None:
    """Raise what the settings of one of the models would raise, before anything is made.

    Raises:
        ConfigError: the grid does not suit, or a model cannot have a setting.
    """
    for model in cells(models):
        for point in _points_of(model, models, train):
            check_settings(_with(point, model, models.seeds[0]))


def train_models(
    models: Models, train: TrainConfig, *, dataset: Path, embed: Path, out: Path
) -> tuple[str, ...]:
    """Train every model into ``out/train``, return the names of the folders; what the grid tried is in ``out/tune``.

    Args:
        models: The matrix.
        train: Settings that all models share.
        dataset: Written by ``mimctr prepare``.
        embed: Holds a folder of vectors for each encoder.
        out: Run folder.
    """
    first = models.seeds[0]
    points = {
        model: [_with(point, model, first) for point in _points_of(model, models, train)]
        for model in cells(models)
    }
    tries = [
        Training(dataset, _content(model, embed), out / TUNE / model.name / str(number), point)
        for model, tried in points.items()
        for number, point in enumerate(tried)
        if len(tried) > 1
    ]
    run_trainings(tries, num_workers=models.num_workers)
    tuned = {
        model: keep_best(
            tried,
            models.grid,
            judge=lambda made: read_json(made / RECORD)["validation"]["auc"],
            tune=out / TUNE / model.name,
            chosen=_folder(out, model, first),
        )
        for model, tried in points.items()
    }
    wanted = [
        Training(dataset, _content(model, embed), _folder(out, model, seed), _with(tuned[model], model, seed))
        for seed in models.seeds
        for model in cells(models)
        if seed == first or model.variant not in UNTRAINED
    ]
    run_trainings(wanted, num_workers=models.num_workers)
    return tuple(sorted(training.folder.name for training in wanted))


def _points_of(model: Model, models: Models, train: TrainConfig) -> list[TrainConfig]:
    return train_points({} if model.variant in UNTRAINED else models.grid, train)


def _content(model: Model, embed: Path) -> Path | None:
    return None if model.encoder == "none" else embed / model.encoder


def _folder(out: Path, model: Model, seed: int) -> Path:
    return out / TRAIN / f"{model.name}-seed{seed}"


def _with(config: TrainConfig, model: Model, seed: int) -> TrainConfig:
    return config.model_copy(update={**model.model_dump(), "seed": seed})
