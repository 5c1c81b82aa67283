"""Tuning by a grid: every setting is tried, the best one on validation is kept, alike for all that is compared."""

import itertools
import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from mimctr import distributed
from mimctr.errors import ConfigError
from mimctr.files import atomic_folder
from mimctr.recipes.config import build_config

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=BaseModel)
Grid = Mapping[str, Sequence[Any]]


def grid_points(grid: Grid, config: C, *, decided: Collection[str], where: str) -> list[C]:
    """Return ``config`` with every combination of the grid's values; ``config`` itself for an empty grid.

    Args:
        grid: Values to try, by setting.
        config: What the points differ from.
        decided: Settings that what is compared differs in; they cannot be tuned.
        where: The grid's place in the recipe; opens every message.

    Raises:
        ConfigError: a key is no setting, a value does not suit it, or it is decided already.
    """
    wrong = [name for name in grid if name in decided]
    if wrong:
        raise ConfigError(f"{where}: {wrong[0]}: what is compared cannot be tuned. Leave it out.")
    settings = config.model_dump()
    return [
        build_config(type(config), settings | dict(zip(grid, values, strict=True)), where=where)
        for values in itertools.product(*grid.values())
    ]


def best_of(points: Sequence[C], grid: Grid, *, judge: Callable[[Path], float], tune: Path) -> int:
    """Return the number of the best of the points; a single one was not tried.

    Args:
        points: From :func:`grid_points`.
        grid: Names the settings in the log.
        judge: Validation metric of a folder, higher is better.
        tune: Holds what each point made, in folders ``0``, ``1`` ...
    """
    if len(points) == 1:
        return 0
    found = [judge(tune / str(number)) for number in range(len(points))]
    for point, value in zip(points, found, strict=True):
        logger.info("tune %s: %s: %.4f on validation", tune.name, _named(point, grid), value)
    best = max(range(len(found)), key=found.__getitem__)
    logger.info("tune %s: best %s", tune.name, _named(points[best], grid))
    return best


def copy_made(made: Path, chosen: Path) -> None:
    """Leave a copy of the folder ``made`` in ``chosen``, unless that exists; all processes call this."""
    if distributed.is_main() and not chosen.exists():
        with atomic_folder(chosen) as folder:
            shutil.copytree(made, folder, dirs_exist_ok=True)
    distributed.barrier()


def keep_best(
    points: Sequence[C],
    grid: Grid,
    *,
    judge: Callable[[Path], float],
    tune: Path,
    chosen: Path,
) -> C:
    """Return the best of the points, and leave a copy of what it made in ``chosen``; a single point as it is.

    Args:
        points: As for :func:`best_of`.
        grid: Likewise.
        judge: Likewise.
        tune: Likewise.
        chosen: Filled unless it exists.
    """
    best = best_of(points, grid, judge=judge, tune=tune)
    if len(points) > 1:
        copy_made(tune / str(best), chosen)
    return points[best]


def _named(point: BaseModel, grid: Grid) -> str:
    return ", ".join(f"{name} = {getattr(point, name)}" for name in grid)
