"""What every contestant of bench_peers.py and bench_peers_data.py has in common.

Its files are made once, then it trains in fresh processes.
"""

import argparse
import importlib.metadata
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from market import Log
from numpy import ndarray
from torch import nn

EMBEDDING_STD = 0.05


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all contestants share. Everything else is what each library's users get."""

    row: str
    """Model and variant: a key of the benchmark's ROWS."""
    seed: int
    threads: int
    epochs: int
    batch_size: int
    length: int
    dim: int
    """Width of each embedding: user, item, category."""
    attention_dims: list[int]
    hidden_dims: list[int]
    k: int
    """Behaviors that a search keeps."""
    learning_rate: float
    patience: int
    """Epochs without a better validation AUC before training stops."""
    dataset: str | None = None
    """A dataset that mimctr has prepared; what it writes itself otherwise. The others read the log alone."""
    content: str | None = None
    """Of mimctr's rows that read content."""


@dataclass(kw_only=True)
class Outcome:
    """What a training run took and what it learned."""

    seconds: dict[str, float] = field(default_factory=dict)
    """``open``: from files to a model and batches in waiting; ``fit``: the library's own fit, all epochs with loading,
    each with a look at the validation part."""
    epochs: int = 0
    """That were trained."""
    scores: dict[str, ndarray] = field(default_factory=dict)
    """Of the validation and the test part, in the order of the log, by the weights of the best epoch; higher is
    likelier."""

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Record the seconds of a phase."""
        begun = time.perf_counter()
        yield
        self.seconds[phase] = time.perf_counter() - begun


def start_alike(model: nn.Module, seed: int) -> None:
    """Draw the weights that ``model`` starts with from what all contestants draw them from.

    The libraries' own embeddings start with standard deviations from 0.0001 to 0.05, and one of them has its linear
    layers start at 0.0001 too. After one epoch that would decide the AUC, and nothing else.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Embedding):
                part.weight.normal_(std=EMBEDDING_STD, generator=generator)
                if part.padding_idx is not None:
                    part.weight[part.padding_idx] = 0
            elif isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight, generator=generator)
                if part.bias is not None:
                    part.bias.zero_()


def peak_memory() -> int:
    """Return the largest resident set of this process in bytes, and of the largest that it started (FuxiCTR's loader).

    The library itself, its imports and the scoring are within it. Linux counts in KiB.
    """
    return 1024 * sum(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def main(
    prepare: Callable[[Log, Path, Settings], None],
    train: Callable[[Path, Settings, Outcome], None],
    packages: tuple[str, ...],
) -> None:
    """Run one task: ``prepare`` or ``train``.

    Args:
        prepare: Writes the log as the library wants it.
        train: Opens that, trains, scores two parts, and writes seconds and scores into the outcome.
        packages: Whose versions are recorded.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("prepare", "train"))
    parser.add_argument("log", type=Path)
    parser.add_argument(
        "folder", type=Path, help="the contestant's own; absolute, as some change the working folder"
    )
    parser.add_argument("settings", type=json.loads)
    args = parser.parse_args()
    settings = Settings(**args.settings)
    torch.set_num_threads(settings.threads)
    if args.task == "prepare":
        args.folder.mkdir(parents=True)
        prepare(Log.load(args.log), args.folder, settings)
        return
    torch.optim.Adam(
        [nn.Parameter(torch.zeros(1))]
    )  # the first imports a compiler, a second: before, for all alike
    outcome = Outcome()
    train(args.folder, settings, outcome)
    np.savez(args.folder / "scores.npz", **outcome.scores)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy", *packages)}
    record = {
        "seconds": outcome.seconds,
        "epochs": outcome.epochs,
        "peak_memory_bytes": peak_memory(),
        "versions": versions,
        "settings": asdict(settings),
    }
    (args.folder / "outcome.json").write_text(json.dumps(record))
