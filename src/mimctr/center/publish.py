"""Bring a parameter store up to date from the window log: from its own watermark, in order, each window once."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from mimctr.center.log import CenterLog, Pruned
from mimctr.center.snapshot import Snapshot
from mimctr.center.stores.interface import Outcome, ParameterStore, Space, Watermark
from mimctr.errors import CenterError, Fenced

logger = logging.getLogger(__name__)

TRIES = 8
"""How often a store may fall behind what it said itself before it is given up."""


def bring_up_to_date(
    log: CenterLog, store: ParameterStore, generation: int, open_base: Callable[[], Snapshot]
) -> int:
    """Apply to ``store`` what the log has of a generation and the store has not; return how many windows that was.

    A store that holds nothing, or is too far behind for the windows that are kept, is loaded from the base, in all
    partitions. A store that lost what it had acknowledged (a fail-over does that) says how far it still is, and goes on
    from there. What comes in meanwhile may be left for the next call.

    Args:
        log: The system of record.
        store: Any.
        generation: Its number.
        open_base: Opens the newest snapshot of the generation.

    Raises:
        Fenced: the store has seen windows of a newer producer than the log has: it is another center's.
        CenterError: the store does not keep what it is given.
        StoreUnavailable: the store cannot be reached; call again.
    """
    space = log.generations.space(generation)
    heads = [log.head(generation, partition) for partition in range(space.num_partitions)]
    late = [partition for partition, mark in enumerate(store.watermarks(space)) if mark != heads[partition]]
    applied = rounds = 0
    while late:
        if rounds == TRIES:
            raise _fickle(f"generation {generation}", rounds)
        applied += sum(_bring_partition(log, store, space, partition, open_base) for partition in late)
        marks = store.watermarks(space)  # a partition that was loaded took the others back to the base
        late = [one for one, mark in enumerate(marks) if mark is None or mark.seq < heads[one].seq]
        rounds += 1
    return applied


class Behind(NamedTuple):
    """How far a store is behind the log."""

    num_windows: int
    """All, if it holds nothing."""
    seconds: float
    """Since the first of them was written."""


def behind(log: CenterLog, store: ParameterStore, generation: int) -> Behind:
    """Return how far ``store`` is behind in a generation.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    num_windows, seconds = 0, 0.0
    for partition, mark in enumerate(store.watermarks(log.generations.space(generation))):
        held = mark.seq if mark else 0
        num_windows += max(log.head(generation, partition).seq - held, 0)
        seconds = max(seconds, log.seconds_waiting(generation, partition, held))
    return Behind(num_windows, seconds)


def _bring_partition(
    log: CenterLog, store: ParameterStore, space: Space, partition: int, open_base: Callable[[], Snapshot]
) -> int:
    applied = setbacks = 0
    mark = store.watermarks(space)[partition]
    while setbacks <= TRIES:
        if mark is None:
            store.load(space, open_base())
            mark, setbacks = store.watermarks(space)[partition], setbacks + 1
            continue
        _refuse_ahead(log, space, partition, mark)
        try:
            windows = log.windows_after(space.generation, partition, mark.seq)
        except Pruned as pruned:
            logger.warning("%s", pruned)
            mark, setbacks = None, setbacks + 1
            continue
        if not windows:
            return applied
        for window in windows:
            outcome, mark = store.apply(space, window)
            applied += outcome == Outcome.APPLIED
            if outcome == Outcome.FENCED:
                raise Fenced(
                    f"{_where(space, partition)}: window {window.seq} is of epoch {window.epoch}, {_FOREIGN}"
                )
            if outcome in (Outcome.GAP, Outcome.EMPTY):
                setbacks += 1
                back = "nothing" if mark is None else f"window {mark.seq}"
                logger.warning(
                    "%s: the store fell back to %s; applying again", _where(space, partition), back
                )
                break
    raise _fickle(_where(space, partition), setbacks)


_FOREIGN = (
    "but the store has more than that: it follows another center, or this one was put back to an older copy. Give the "
    "store another name, or drop the generation there."
)


def _refuse_ahead(log: CenterLog, space: Space, partition: int, mark: Watermark) -> None:
    head = log.head(space.generation, partition)
    if mark.seq > head.seq:
        raise Fenced(f"{_where(space, partition)}: the log ends with window {head.seq}, {_FOREIGN}")
    epoch = log.epoch_of(space.generation, partition, mark.seq)
    if epoch is not None and epoch != mark.epoch:
        raise Fenced(
            f"{_where(space, partition)}: window {mark.seq} of the log is of epoch {epoch}, the store's of epoch "
            f"{mark.epoch}, {_FOREIGN}"
        )


def _fickle(where: str, setbacks: int) -> CenterError:
    return CenterError(
        f"{where}: the store fell back {setbacks} times while windows were applied; it does not keep what it is given. "
        "See its own log."
    )


def _where(space: Space, partition: int) -> str:
    return f"generation {space.generation}, partition {partition}"
