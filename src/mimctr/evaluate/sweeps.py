"""The schema of ``sweep.json``: what a sweep searched, and what it found."""

from typing import Any, Literal

from pydantic import Field

from mimctr.evaluate.results import Record

State = Literal["finished", "pruned", "failed", "unfinished"]


class Range(Record):
    """Numbers between two ends, both included."""

    low: float
    high: float
    scale: Literal["log", "linear"]
    """What is drawn evenly: the logarithm or the number."""
    integer: bool
    """Whole numbers only."""


class Choices(Record):
    """Some values of a setting."""

    values: list[Any] = Field(min_length=2)


Space = Range | Choices


class Trial(Record):
    """One training."""

    number: int
    """Names its folder."""
    state: State
    """``pruned``: worse at a look than others were; ``failed``: see ``reason``; ``unfinished``: time was over."""
    settings: dict[str, Any]
    """Those that are searched."""
    validation_auc: float | None
    """Of the best look of a finished trial, of the last look of another one."""
    seconds: float
    reason: str | None
    """Why it failed."""


class Sweep(Record):
    """A sweep so far."""

    schema_version: Literal[1] = 1
    search: dict[str, Space]
    settings: dict[str, Any]
    """All other settings of ``mimctr train``, alike in every trial."""
    dataset: str
    dataset_hash: str
    trials: list[Trial]

    @property
    def ranked(self) -> list[Trial]:
        """The finished trials, best validation AUC first; of equals the earlier one."""
        finished = [trial for trial in self.trials if trial.state == "finished"]
        return sorted(finished, key=lambda trial: -(trial.validation_auc or 0.0))

    @property
    def best(self) -> Trial | None:
        """The finished trial with the best validation AUC; None where none has finished."""
        return next(iter(self.ranked), None)
