"""A plan: the stages of several experiments as one graph, each made once, as many as a time allows."""

import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mimctr import distributed
from mimctr.errors import RunError
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


class Left(NamedTuple):
    """A step that is still to be made, and how long it should take."""

    step: Step
    seconds: float


class Plan:
    """Steps in an order in which each comes after what it needs.

    Args:
        num_workers: Trainings of CTR models that run at a time.
    """

    def __init__(self, *, num_workers: int = 1) -> None:
        self._num_workers = num_workers
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

    def left(self, pace: Pace) -> list[Left]:
        """Return the steps that are still to be made, in order, with the time that each adds."""
        made = self.made()
        return [Left(step, self._seconds(step, pace)) for step in self if step.folder not in made]

    def run(
        self, pace: Pace, *, seconds: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> dict[Path, str]:
        """Make every step that there is time for; return why the others were not made.

        What is made is kept, what was interrupted is resumed. What a step took corrects what later ones should take;
        what has begun is finished.

        Args:
            pace: How long steps should take.
            seconds: That all may take; None: any.
            clock: Tells seconds.
        """
        end = None if seconds is None else clock() + seconds
        made = self.made()
        self.learn(pace, made)
        reasons: dict[Path, str] = {}
        for together, group in itertools.groupby(self, key=_is_training):
            waiting = [step for step in group if step.folder not in made]
            most = AT_A_TIME * self._num_workers if together else 1
            while waiting:
                some = _independent(waiting, most)
                waiting = waiting[len(some) :]
                reasons |= distributed.from_main(partial(self._lacking, some, pace, end, clock, reasons))
                chosen = [step for step in some if step.folder not in reasons]
                self._make(chosen)
                self.learn(pace, [step.folder for step in chosen])
        return reasons

    def _lacking(
        self,
        steps: Sequence[Step],
        pace: Pace,
        end: float | None,
        clock: Callable[[], float],
        reasons: Collection[Path],
    ) -> dict[Path, str]:
        left = [Left(step, self._seconds(step, pace)) for step in steps]
        return fitting(left, None if end is None else end - clock(), without=reasons)

    def learn(self, pace: Pace, folders: Iterable[Path]) -> None:
        """Let ``pace`` know how long the steps that made ``folders`` took."""
        for folder in folders:
            step = self._steps[folder]
            pace.learn(step.kind, step.size, read_record(folder).seconds)

    def _make(self, steps: Sequence[Step]) -> None:
        made = [step.make() for step in steps]
        run_trainings([one for one in made if isinstance(one, Training)], num_workers=self._num_workers)
        for one in made:
            if isinstance(one, Stage):
                logger.info("%s %s", one.name, one.out)
                one.run()

    def _seconds(self, step: Step, pace: Pace) -> float:
        """Return the time that a step adds: trainings share the cores."""
        return pace.seconds(step.kind, step.size) / (self._num_workers if _is_training(step) else 1)

    def _mark(self, folder: Path, serves: Sequence[str]) -> None:
        self._serves.setdefault(folder, {}).update(dict.fromkeys(serves))
        for need in self._steps[folder].needs:
            self._mark(need, serves)


def fitting(
    left: Sequence[Left], seconds: float | None, *, without: Collection[Path] = ()
) -> dict[Path, str]:
    """Return why steps cannot be made: no time for them, or for what they need. Each is taken as it comes, if it fits.

    Args:
        left: What is to be made, in order.
        seconds: That all may take; None: any.
        without: Folders that are not made either.
    """
    reasons: dict[Path, str] = {}
    spent = 0.0
    for step, takes in left:
        lacking = any(need in reasons or need in without for need in step.needs)
        if lacking or (seconds is not None and spent + takes > seconds):
            reasons[step.folder] = NO_TIME
        else:
            spent += takes
    return reasons


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
