"""A plan: the stages of several experiments as one graph, each made once, as many as a time allows."""

import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mimctr import distributed
from mimctr.errors import RunError
from mimctr.recipes.grid import copy_made
from mimctr.recipes.pace import Pace
from mimctr.recipes.workers import Training, run_trainings
from mimctr.train.stage import Stage, read_record

logger = logging.getLogger(__name__)

NO_TIME = "no time"
AT_A_TIME = 8
"""Trainings a worker between two looks at the clock."""


class Step(NamedTuple):
    """One stage of a plan."""

    folder: Path
    """What it fills; names the step."""
    kind: str
    """Steps of one kind take as long for their size."""
    size: float
    """How much there is to do: pairs, impressions, items ..., whatever the time of its kind grows with."""
    needs: tuple[Path, ...]
    """Folders of the steps that it reads."""
    make: Callable[[], Stage | Training]
    """Called when all of ``needs`` is made: settings may be what an earlier step found best."""
    copied_from: Callable[[], Path] | None = None
    """The folder of an earlier step that made the same, called when all of ``needs`` is made; None: there is none."""


class Left(NamedTuple):
    """A step that is still to be made, and how long it should take."""

    step: Step
    seconds: float
    """Where it is made alone."""


def no_seconds(folder: Path) -> float:
    """Return 0: nothing comes after the steps."""
    return 0.0


class Plan:
    """Steps in an order in which each comes after what it needs.

    Args:
        num_workers: Trainings of CTR models that run at a time.
    """

    def __init__(self, *, num_workers: int = 1) -> None:
        self.num_workers = num_workers
        self._steps: dict[Path, Step] = {}
        self._serves: dict[Path, dict[str, None]] = {}

    def add(self, step: Step, serves: Iterable[str]) -> Path:
        """Take in a step, unless its folder is planned already, and return its folder.

        Args:
            step: What it needs is planned before it.
            serves: What needs it, and so everything that it needs.

        Raises:
            RunError: something that it needs is not planned.
        """
        missing = [need for need in step.needs if need not in self._steps]
        if missing:
            raise RunError(f"{step.folder}: needs {missing[0]}, which is not planned before it.")
        self._steps.setdefault(step.folder, step)
        self._mark(step.folder, tuple(serves))
        return step.folder

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps.values())

    def __len__(self) -> int:
        return len(self._steps)

    def serves(self, folder: Path) -> list[str]:
        """Return what needs a step."""
        return list(self._serves[folder])

    def made(self) -> set[Path]:
        """Return the folders that are made, from what they are to be made from. All processes look at the same time."""
        distributed.barrier()
        found: set[Path] = set()
        for step in self:
            if found.issuperset(step.needs) and step.make().is_made():
                found.add(step.folder)
        return found

    def left(self, pace: Pace) -> list[list[Left]]:
        """Return the steps that are still to be made, in order, those together that share the workers."""
        return [[Left(step, _seconds(step, pace)) for step in batch] for batch in self._batches(self.made())]

    def run(
        self,
        pace: Pace,
        *,
        seconds: float | None = None,
        after: Callable[[Path], float] = no_seconds,
        clock: Callable[[], float] = time.monotonic,
    ) -> dict[Path, str]:
        """Make every step that there is time for; return why the others were not made.

        What is made is kept, what was interrupted is resumed. What a step took corrects what later ones should take;
        what has begun is finished.

        Args:
            pace: How long steps should take.
            seconds: That all may take; None: any.
            after: Seconds that what a step makes takes when all steps are made; kept for it.
            clock: Tells seconds.
        """
        end = clock() + (math.inf if seconds is None else seconds)
        made = self.made()
        self.learn(pace, made)
        end -= sum(map(after, made))
        reasons: dict[Path, str] = {}
        for batch in self._batches(made):
            lacking = partial(self._lacking, batch, pace, after, end, clock, reasons)
            reasons |= distributed.from_main(lacking)
            chosen = [step for step in batch if step.folder not in reasons]
            self._make(chosen)
            end -= sum(after(step.folder) for step in chosen)
            self.learn(pace, [step.folder for step in chosen])
        return reasons

    def _batches(self, made: Collection[Path]) -> Iterator[list[Step]]:
        """Yield what is still to be made, in order: trainings that need nothing of one another, other steps alone."""
        for together, group in itertools.groupby(self, key=_is_training):
            waiting = [step for step in group if step.folder not in made]
            most = AT_A_TIME * self.num_workers if together else 1
            while waiting:
                some = _independent(waiting, most)
                waiting = waiting[len(some) :]
                yield some

    def _lacking(
        self,
        steps: Sequence[Step],
        pace: Pace,
        after: Callable[[Path], float],
        end: float,
        clock: Callable[[], float],
        reasons: Collection[Path],
    ) -> dict[Path, str]:
        left = [Left(step, _seconds(step, pace)) for step in steps]
        return fitting([left], end - clock(), num_workers=self.num_workers, without=reasons, after=after)

    def learn(self, pace: Pace, folders: Iterable[Path]) -> None:
        """Let ``pace`` know how long the steps that made ``folders`` took; a copy says what its original says."""
        for folder in folders:
            step = self._steps[folder]
            if step.copied_from is None:
                pace.learn(step.kind, step.size, read_record(folder).seconds)

    def _make(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if step.copied_from is not None:
                copy_made(step.copied_from(), step.folder)
        made = [step.make() for step in steps]
        run_trainings([one for one in made if isinstance(one, Training)], num_workers=self.num_workers)
        for one in made:
            if isinstance(one, Stage):
                logger.info("%s %s", one.name, one.out)
                one.run()

    def _mark(self, folder: Path, serves: Sequence[str]) -> None:
        self._serves.setdefault(folder, {}).update(dict.fromkeys(serves))
        for need in self._steps[folder].needs:
            self._mark(need, serves)


def fitting(
    left: Iterable[Sequence[Left]],
    seconds: float | None,
    *,
    num_workers: int = 1,
    without: Collection[Path] = (),
    after: Callable[[Path], float] = no_seconds,
) -> dict[Path, str]:
    """Return why steps cannot be made: no time for them, or for what they need. Each is taken as it comes, if it fits.

    Args:
        left: What is to be made, in order, batch by batch.
        seconds: That all may take; None: any.
        num_workers: Steps of a batch that are made at a time.
        without: Folders that are not made either.
        after: Seconds that what a step makes takes when all steps are made, one after the other.
    """
    reasons: dict[Path, str] = {}
    spent = 0.0
    for batch in left:
        taken: list[float] = []
        for step, alone in batch:
            lacking = any(need in reasons or need in without for need in step.needs)
            takes = batch_seconds([*taken, alone], num_workers) + after(step.folder)
            if lacking or (seconds is not None and spent + takes > seconds):
                reasons[step.folder] = NO_TIME
            else:
                taken.append(alone)
                spent += after(step.folder)
        spent += batch_seconds(taken, num_workers)
    return reasons


def batch_seconds(alone: Sequence[float], num_workers: int) -> float:
    """Return how long a batch takes: each step, in order, goes to the worker that is free first.

    Args:
        alone: Seconds of each step.
        num_workers: Steps that are made at a time.
    """
    free = [0.0] * num_workers
    for seconds in alone:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def added_seconds(left: Iterable[Sequence[Left]], num_workers: int) -> dict[Path, float]:
    """Return the time that each step adds to the steps before it, by its folder; arguments as :func:`fitting`."""
    added: dict[Path, float] = {}
    for batch in left:
        alone = [one.seconds for one in batch]
        upto = [batch_seconds(alone[:number], num_workers) for number in range(len(batch) + 1)]
        added |= {one.step.folder: upto[n + 1] - upto[n] for n, one in enumerate(batch)}
    return added


def _independent(steps: Sequence[Step], most: int) -> list[Step]:
    """Return the first steps, as many as need nothing of one another and at most ``most``."""
    some: list[Step] = []
    for step in steps[:most]:
        if any(one.folder in step.needs for one in some):
            break
        some.append(step)
    return some


TRAINING = "train "
"""Opens the kind of every training of a CTR model."""


def _is_training(step: Step) -> bool:
    return step.kind.startswith(TRAINING)


def _seconds(step: Step, pace: Pace) -> float:
    """Return how long a step should take alone; a copy takes no time, where nothing is in its place."""
    if step.copied_from is not None and not step.folder.exists():
        return 0.0
    return pace.seconds(step.kind, step.size)
