"""What a run's folders say of themselves, for results.json: stage records, training curves, visual search."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mimctr.errors import RunError
from mimctr.evaluate.results import Curve, Search, StageFacts
from mimctr.files import read_json

STAGE_RECORD = "stage.json"
METRICS = "metrics.jsonl"
SEARCH = "search.json"
AFTERWARDS = {"evaluate", "report"}
"""Stages that come after the gathering; a record of one is an earlier run's."""


def gather_stages(run: Path) -> list[StageFacts]:
    """Return the record of every stage below ``run`` up to the evaluation, in the order in which they were finished.

    Raises:
        RunError: a record is damaged.
    """
    found = sorted(run.rglob(STAGE_RECORD), key=lambda path: (path.stat().st_mtime_ns, path))
    stages = []
    for path in found:
        value = read_json(path)
        try:
            stages.append(StageFacts.model_validate({"folder": _below(run, path), **value}))
        except (ValidationError, TypeError) as error:
            raise RunError(f"{path}: not a stage record ({error}). Run the stage again.") from None
    return [stage for stage in stages if stage.name not in AFTERWARDS]


def gather_curves(run: Path, *, max_points: int = 150) -> list[Curve]:
    """Return every metric of every ``metrics.jsonl`` below ``run``, thinned to ``max_points``.

    Raises:
        RunError: a line is damaged.
    """
    curves = []
    for path in sorted(run.rglob(METRICS)):
        series: dict[str, list[tuple[int, float]]] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                values = json.loads(line)
                step = int(values.pop("step"))
            except (ValueError, KeyError, AttributeError) as error:
                raise RunError(
                    f"{path}: line {number}: not a line of metrics ({error!r}). Train again."
                ) from None
            for name, value in values.items():
                if isinstance(value, int | float):
                    series.setdefault(name, []).append((step, float(value)))
        curves += [_curve(_below(run, path), name, points, max_points) for name, points in series.items()]
    return curves


def gather_searches(run: Path) -> list[Search]:
    """Return the visual-search metrics that encoders below ``run`` wrote, in the order in which they were written.

    Raises:
        RunError: a file is damaged.
    """
    found = []
    for path in sorted(run.rglob(SEARCH), key=lambda path: (path.stat().st_mtime_ns, path)):
        try:
            found += [
                Search(encoder=_below(run, path), part=part, slice=name, metrics=metrics)
                for part, slices in read_json(path).items()
                for name, metrics in slices.items()
            ]
        except (ValidationError, AttributeError) as error:
            raise RunError(
                f"{path}: not a record of visual search ({error}). Make the encoder again."
            ) from None
    return found


def _curve(folder: str, metric: str, points: Sequence[tuple[int, float]], max_points: int) -> Curve:
    """Thin by the mean over consecutive groups of equal size; the last point stays as it is."""
    steps, values = (np.array(column) for column in zip(*points, strict=True))
    if len(steps) > max_points:
        starts = np.unique(np.arange(max_points - 1) * (len(steps) - 1) // (max_points - 1))
        sizes = np.diff(np.r_[starts, len(steps) - 1])
        last_step, last_value = steps[-1], values[-1]
        steps = np.r_[np.add.reduceat(steps[:-1], starts) // sizes, last_step]
        values = np.r_[np.add.reduceat(values[:-1], starts) / sizes, last_value]
    return Curve(folder=folder, metric=metric, steps=steps.tolist(), values=values.tolist())


def _below(run: Path, path: Path) -> str:
    return path.parent.relative_to(run).as_posix()
