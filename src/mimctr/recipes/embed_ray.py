"""Shards of a catalogue over a Ray cluster, by Ray Data; every machine sees the same folders and has mimctr."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mimctr.distributed import size
from mimctr.errors import ConfigError, MimctrError, RunError
from mimctr.recipes.embed_shards import Shard, ShardEncoder, encode_in_threads

_PROBLEM = "problem"


class ShardWorker:
    """Opens dataset and encoder once, then encodes the shards that Ray hands it; after a problem none any more.

    Args:
        open_encoder: Opens them.
        num_threads: Cores that Ray gives it.
    """

    def __init__(self, open_encoder: Callable[[], ShardEncoder], num_threads: int) -> None:
        self._encoder = open_encoder()
        self._num_threads = num_threads
        self._problem = ""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shards = [Shard(*row) for row in zip(*(batch[name].tolist() for name in Shard._fields), strict=True)]
        if not self._problem:
            try:
                for _ in encode_in_threads(self._encoder, shards, self._num_threads):
                    pass
            except MimctrError as error:  # its line, without Ray's traceback and attempts
                self._problem = str(error)
        return {**batch, _PROBLEM: np.array([self._problem] * len(shards))}


def encode_on_ray(open_encoder: Callable[[], ShardEncoder], shards: list[Shard]) -> Iterator[Shard]:
    """Encode shards on the cluster that ``RAY_ADDRESS`` names, or on one of this machine; yield each one on disk.

    One worker a GPU, with its share of the cores; one a core where there is no GPU.

    Args:
        open_encoder: Opens dataset and encoder in a worker.
        shards: Which ones.

    Raises:
        ConfigError: Ray is not installed, or torchrun started several processes.
        RunError: a worker failed.
    """
    ray = _ray()
    if not shards:
        return
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        yield from _encode(ray, open_encoder, shards)
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"Ray: {reason}. What is on disk is kept; run it again.") from None
    # After an error it ends with the process: threads still at work would take the process with them.
    if started_here:
        ray.shutdown()


def _encode(ray: Any, open_encoder: Callable[[], ShardEncoder], shards: list[Shard]) -> Iterator[Shard]:
    resources = ray.cluster_resources()
    num_cores, num_gpus = int(resources["CPU"]), int(resources.get("GPU", 0))
    num_threads = max(1, num_cores // num_gpus) if num_gpus else 1
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = ray.data.from_items([shard._asdict() for shard in shards], override_num_blocks=len(shards))
    done = rows.map_batches(
        ShardWorker,
        fn_constructor_args=(open_encoder, num_threads),
        batch_size=num_threads,
        concurrency=min(len(shards), num_gpus or num_cores),
        num_cpus=num_threads,
        num_gpus=1 if num_gpus else None,
    )
    for row in done.iter_rows():
        if problem := row.pop(_PROBLEM):
            raise RunError(f"Ray: {problem}")
        yield Shard(**row)


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise ConfigError(
            "engine: Ray is not installed. pip install 'mimctr[ray]', or use 'local'."
        ) from None
    if size() > 1:
        raise ConfigError(
            f"engine: 'ray' under {size()} processes of torchrun. Start one process, or use 'local'."
        )
    return ray
