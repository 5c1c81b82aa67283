"""The steps that train CTR models for a table: each model with its best settings, each seed with its own vectors."""

from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mimctr.files import read_json
from mimctr.recipes.ctr_config import Config, Ubm, Variant
from mimctr.recipes.ctr_model import RECORD
from mimctr.recipes.grid import Grid, best_of, grid_points
from mimctr.recipes.models import TRAIN, TUNE
from mimctr.recipes.plan import TRAINING, Plan, Step
from mimctr.recipes.workers import Training

NO_ENCODER = "none"


class CtrModel(NamedTuple):
    """One row of a table, whatever its seed."""

    ubm: Ubm
    variant: Variant
    encoder: str = NO_ENCODER
    """Whose vectors it reads."""
    label: str = ""
    """Tells it from other models of its variant, in the results too."""
    tag: str = ""
    """Tells its folder from those of others that the results tell apart by their settings."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Of ``mimctr train``, that differ from the recipe's."""

    @property
    def name(self) -> str:
        """What its folders begin with."""
        parts = [self.ubm, self.variant, self.label or self.tag, self.encoder]
        return "-".join(part for part in parts if part and part != NO_ENCODER)


class CtrPlan:
    """Adds trainings of CTR models to a plan.

    Args:
        plan: Gets the steps.
        out: Run folder; trainings go into its folders ``train`` and ``tune``.
        dataset: Written by ``mimctr prepare``; made already.
        train: Settings that all models share.
        grid: Settings with values to try; every model takes what is best on validation with the first seed.
        first: The first seed.
        num_impressions: Of the training part.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        *,
        dataset: Path,
        train: Config,
        grid: Grid,
        first: int,
        num_impressions: int,
    ) -> None:
        self._plan, self._out, self._dataset = plan, out, dataset
        self._train, self._grid, self._first = train, grid, first
        self._num_impressions = num_impressions

    def training(self, model: CtrModel, seed: int, content: Path | None, serves: Collection[str]) -> Path:
        """Plan the training of a model with one seed; return its folder.

        Args:
            model: What is trained.
            seed: Of everything drawn.
            content: Vectors that it reads, planned already; None for Base. The grid is tried on the first seed's.
            serves: What needs it.
        """
        points = [self._with(point, model, self._first) for point in self._points(model)]
        tune = self._out / TUNE / model.name
        tried = tuple(
            self._add(model, tune / str(number), content, (), point.model_copy, serves)
            for number, point in enumerate(points)
            if len(points) > 1 and seed == self._first
        )

        @cache
        def best() -> int:
            return best_of(
                points,
                self._grid,
                judge=lambda made: read_json(made / RECORD)["validation"]["auc"],
                tune=tune,
            )

        needed = tried if seed == self._first else self._first_folder(model, len(points) > 1)
        return self._add(
            model,
            self.folder(model, seed),
            content,
            needed,
            lambda: self._with(points[best()], model, seed),
            serves,
            copied_from=(lambda: tune / str(best())) if tried else None,
        )

    def folder(self, model: CtrModel, seed: int) -> Path:
        """Return where a model is trained with a seed."""
        return self._out / TRAIN / f"{model.name}-seed{seed}"

    def _first_folder(self, model: CtrModel, tuned: bool) -> tuple[Path, ...]:
        """Return the first seed's training, which the others wait for where a grid decides."""
        return (self.folder(model, self._first),) if tuned else ()

    def _add(
        self,
        model: CtrModel,
        folder: Path,
        content: Path | None,
        needs: tuple[Path, ...],
        config: Callable[[], Config],
        serves: Collection[str],
        *,
        copied_from: Callable[[], Path] | None = None,
    ) -> Path:
        kind = f"{TRAINING}{model.ubm} {'base' if content is None else 'content'}"
        size = self._num_impressions * self._train.epochs
        needed = needs if content is None else (content, *needs)
        make = lambda: Training(self._dataset, content, folder, config())  # noqa: E731
        return self._plan.add(Step(folder, kind, size, needed, make, copied_from), serves)

    def _points(self, model: CtrModel) -> list[Config]:
        base = self._train.model_copy(update=dict(model.settings))
        decided = ("ubm", "variant", "encoder", "label", "seed", *dict(model.settings))
        return grid_points(self._grid, base, decided=decided, where="models_grid")

    def _with(self, config: Config, model: CtrModel, seed: int) -> Config:
        return config.model_copy(
            update={
                "ubm": model.ubm,
                "variant": model.variant,
                "encoder": model.encoder,
                "label": model.label,
                "seed": seed,
            }
        )
