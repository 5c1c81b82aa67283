"""Progress of long work: a bar with rate and time left on a terminal, a log line a minute elsewhere."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger(__name__)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 60.0


class RateColumn(ProgressColumn):
    """Units per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Return the rate of ``task`` as text."""
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:,.0f} {self.unit}/s")


def track(
    values: Iterable[T],
    *,
    total: int | None,
    description: str,
    unit: str = "steps",
    start: int = 0,
    size: Callable[[T], int] = lambda _: 1,
) -> Iterator[T]:
    """Yield ``values``, showing progress on stderr; of several processes the first one does.

    Args:
        values: What is worked through.
        total: How many there are in all, those before ``start`` included; None: nobody knows.
        description: What is being done; opens the line.
        unit: What is counted, in the plural.
        start: How many were done by an earlier, interrupted run.
        size: How many of them a value counts as.
    """
    if os.environ.get("RANK", "0") != "0":  # set by torchrun
        yield from values
        return
    show = _bar if sys.stderr.isatty() else _lines
    yield from show(values, total=total, description=description, unit=unit, start=start, size=size)


def _bar(
    values: Iterable[T],
    *,
    total: int | None,
    description: str,
    unit: str,
    start: int,
    size: Callable[[T], int],
) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:,.0f}" + ("" if total is None else "/{task.total:,.0f}")),
        RateColumn(unit),
        *([] if total is None else [TimeRemainingColumn()]),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total, completed=start)
        for value in values:
            yield value
            progress.advance(task, size(value))


def _lines(
    values: Iterable[T],
    *,
    total: int | None,
    description: str,
    unit: str,
    start: int,
    size: Callable[[T], int],
) -> Iterator[T]:
    begun = said = time.monotonic()
    done = 0
    for value in values:
        yield value
        done += size(value)
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            rate = done / (now - begun)
            of, left = "", ""
            if total is not None:
                of, left = f" of {total}", f", {(total - start - done) / rate:.0f} s left"
            logger.info("%s: %s%s %s, %.1f/s%s", description, start + done, of, unit, rate, left)
            said = now
