"""Several CTR models trained at a time, each in a process of its own.

On a CPU the operations of a CTR model are too small to be divided: two models on a thread each are done sooner than one
after the other on two.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.queues import Queue
from pathlib import Path
from typing import NamedTuple

import torch

from mimctr import distributed
from mimctr.errors import RunError
from mimctr.evaluate.machine import describe_machine
from mimctr.recipes import stages
from mimctr.recipes.ctr_config import Config
from mimctr.recipes.device import pick_device

logger = logging.getLogger(__name__)

MOST_WORKERS = 8
"""Of a machine with more cores; each holds a model and its optimizer."""


class Training(NamedTuple):
    """One call of :func:`mimctr.recipes.stages.train`."""

    dataset: Path
    content: Path | None
    folder: Path
    config: Config

    def run(self) -> None:
        """Train, unless it was done before."""
        stages.train(*self).run()

    def is_made(self) -> bool:
        """Return whether it was done before."""
        return stages.train(*self).is_made()


def run_trainings(trainings: Sequence[Training], *, num_workers: int) -> None:
    """Train every model; what was trained before is kept, what was interrupted is resumed.

    Under torchrun its processes share the models.

    Args:
        trainings: In any order; none needs another's result.
        num_workers: Processes at a time, the cores divided among them; 1: all here, one after the other; 0: one a
            core, at most 8, and 1 where there is a GPU.

    Raises:
        RunError: a process was killed from outside.
    """
    left = distributed.from_main(lambda: [n for n, one in enumerate(trainings) if not one.is_made()])
    wanted = [trainings[number] for number in left]
    for number in sorted(set(range(len(trainings))) - set(left)):
        logger.info("train: unchanged, kept %s", trainings[number].folder)
    count = min(at_a_time(num_workers, {one.config.device for one in wanted}), len(wanted))
    if distributed.size() > 1:
        own = wanted[distributed.rank() :: distributed.size()]
        with distributed.apart():
            _run_here(own)
        distributed.barrier()
    elif count < 2:
        _run_here(wanted)
    else:
        _run_in_pool(wanted, count)


def at_a_time(num_workers: int, devices: Iterable[str]) -> int:
    """Return how many models are trained at a time.

    Args:
        num_workers: As many; 0: one a core, at most 8, and 1 where there is a GPU.
        devices: Settings of the models that name theirs.
    """
    if num_workers or any(pick_device(device).type != "cpu" for device in devices):
        return num_workers or 1
    return min(describe_machine().num_cores, MOST_WORKERS)


def _run_here(trainings: Sequence[Training]) -> None:
    for training in trainings:
        logger.info("train %s", training.folder.name)
        training.run()


def _run_in_pool(trainings: Sequence[Training], count: int) -> None:
    logger.info("train %d models, %d at a time", len(trainings), count)
    begun = time.monotonic()
    with _pool(count) as pool:
        running = {pool.submit(training.run): training for training in trainings}
        for number, done in enumerate(as_completed(running), start=1):
            try:
                done.result()
            except BrokenProcessPool:
                raise RunError(
                    "train: one of its processes was killed, by a lack of memory perhaps. Run again to go on; "
                    "a smaller models.num_workers needs less memory."
                ) from None
            left = (time.monotonic() - begun) / number * (len(trainings) - number)
            logger.info(
                "trained %s, %d of %d models, %.0f s left",
                running[done].folder.name,
                number,
                len(trainings),
                left,
            )


@contextmanager
def _pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """Yield processes that log here. They share the cores, and end at once if this process fails or is killed."""
    context = multiprocessing.get_context("spawn")
    records = context.Queue()
    root = logging.getLogger()
    listener = QueueListener(records, *root.handlers, respect_handler_level=True)
    threads = max(1, describe_machine().num_cores // count)
    others = set(multiprocessing.active_children())
    listener.start()
    pool = ProcessPoolExecutor(count, context, _start_worker, (records, root.level, threads))
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        listener.stop()


def _start_worker(records: "Queue[logging.LogRecord]", level: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    torch.set_num_threads(threads)
    logging.getLogger().handlers = [QueueHandler(records)]  # without a formatter: the first process has one
    logging.getLogger().setLevel(level)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker only"
    parent.join()
    os._exit(1)
