"""A run folder: metrics.jsonl, one checkpoint, exact resume. Knows nothing of models.

Of several processes the first one writes; all read. Where each holds rows of its own (``distributed.OwnRows``), each
has a checkpoint of its own: the first process's is written last, and counts together with the others' of its step.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mimctr import distributed
from mimctr.errors import RunError
from mimctr.files import atomic_path
from mimctr.train.events import EventFiles
from mimctr.weights import load_meta, load_tensors, save_tensors


class Run:
    """Record of one training run, in a folder.

    The folder holds ``metrics.jsonl`` (a line per logged step) and ``checkpoint.safetensors`` (weights, optimizer
    state, step and whatever else the run needs to go on). Both are replaced or appended such that a kill at any
    moment leaves a state to resume from.

    Args:
        folder: Created if missing. A checkpoint in it is what :meth:`restore` resumes.
        checkpoint_seconds: Least time between two checkpoints of :meth:`checkpoint_if_due`.
        tensorboard: Write the metrics as event files too; such a run is restored before it logs, and closed.

    Raises:
        ConfigError: ``tensorboard``, and it is not installed.
    """

    def __init__(self, folder: Path, *, checkpoint_seconds: float = 60.0, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self._saved_at = time.monotonic()
        self._events = EventFiles(folder) if tensorboard else None

    def close(self) -> None:
        """Close the event files."""
        if self._events is not None:
            self._events.close()

    @property
    def metrics_path(self) -> Path:
        """Where the metrics are, one JSON object a line."""
        return self.folder / "metrics.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint is."""
        return self.folder / "checkpoint.safetensors"

    def log(self, step: int, **metrics: float) -> None:
        """Append one line to ``metrics.jsonl``.

        Raises:
            RunError: a metric is not finite: training has diverged.
        """
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunError(
                    f"{self.folder}: {name} is {value} at step {step}; training has diverged. "
                    "Lower the learning rate, or look for extreme values in the input."
                )
        if distributed.is_main():
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            if self._events is not None:
                self._events.write(step, metrics)

    def refuse_if_not_finite(self, step: int, loss: Tensor, batch: Mapping[str, Tensor | np.ndarray]) -> None:
        """Stop a run that has diverged, and keep what it met last.

        Args:
            step: Of the loss.
            loss: This process's share.
            batch: What the loss was computed from, by name.

        Raises:
            RunError: the loss is not finite; the batch is in ``diverged.safetensors``.
        """
        if loss.isfinite():
            return
        number = distributed.rank()
        path = self.folder / (f"diverged.{number}.safetensors" if number else "diverged.safetensors")
        save_tensors(
            path, {name: torch.as_tensor(value) for name, value in batch.items()}, meta={"step": step}
        )
        raise RunError(
            f"{self.folder}: loss is {loss.item()} at step {step}; training has diverged. Its batch is in {path.name}. "
            "Lower the learning rate, or look for extreme values in the input."
        )

    def metrics(self) -> list[dict[str, float]]:
        """Return every logged line, in order, to all processes."""
        return distributed.from_main(self._read_metrics)

    def checkpoint(
        self,
        step: int,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        *,
        extra: Mapping[str, Tensor] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Save everything that step ``step`` (the next one to run) starts from; every process calls this."""
        num_parts = _num_parts(modules)
        if not distributed.is_main() and num_parts == 1:
            return
        tensors = {f"extra.{name}": value for name, value in (extra or {}).items()}
        for prefix, module in modules.items():
            tensors |= {f"module.{prefix}.{name}": value for name, value in module.state_dict().items()}
        state = optimizer.state_dict()
        for index, values in state["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        saved = {
            "step": step,
            "num_parts": num_parts,
            "groups": state["param_groups"],
            "meta": dict(meta or {}),
        }
        if not distributed.is_main():
            save_tensors(self._part_path(step), tensors, meta=saved)
        if num_parts > 1:
            distributed.barrier()
        if distributed.is_main():
            save_tensors(self.checkpoint_path, tensors, meta=saved)
            self._remove_parts_but(step)
        self._saved_at = time.monotonic()

    def checkpoint_if_due(
        self,
        step: int,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        *,
        extra: Mapping[str, Tensor] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """:meth:`checkpoint`, if the last one is older than ``checkpoint_seconds``."""
        is_due = time.monotonic() - self._saved_at >= self.checkpoint_seconds
        if _num_parts(modules) > 1:
            is_due = distributed.from_main(lambda: is_due)
        if is_due:
            self.checkpoint(step, modules, optimizer, extra=extra, meta=meta)

    def restore(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        """Load the checkpoint into ``modules`` and ``optimizer``; drop metrics that were logged after it.

        Returns:
            step: The next step to run; 0 where there is no checkpoint.
            extra, meta: As given to :meth:`checkpoint`; empty where there is no checkpoint.

        Raises:
            RunError: the checkpoint is damaged, or belongs to other modules, or to rows in another number of parts.
        """
        try:
            return self._restore(modules, optimizer)
        finally:
            distributed.barrier()  # the first process may now write

    def _restore(
        self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
    ) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        if not self.checkpoint_path.exists():
            self._keep_metrics_before(0)
            return 0, {}, {}
        saved = load_meta(self.checkpoint_path)
        num_parts = _num_parts(modules)
        num_parts_before = saved.get("num_parts", 1)  # older checkpoints know of no parts
        if num_parts_before != num_parts:
            raise RunError(
                f"{self.folder}: its tables were held in {num_parts_before} parts, with {distributed.size()} processes "
                f"they would be in {num_parts}. Go on with as many processes as before, or remove the folder."
            )
        is_part = num_parts > 1 and not distributed.is_main()
        tensors, saved = load_tensors(self._part_path(saved["step"]) if is_part else self.checkpoint_path)
        for prefix, module in modules.items():
            try:
                module.load_state_dict(_below(tensors, f"module.{prefix}."))
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise RunError(f"{self.checkpoint_path}: does not fit this model ({reason}).") from None
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": saved["groups"]})
        self._keep_metrics_before(saved["step"])
        return saved["step"], _below(tensors, "extra."), saved["meta"]

    def _part_path(self, step: int) -> Path:
        return self.folder / f"checkpoint.{step}.{distributed.rank()}.safetensors"

    def _remove_parts_but(self, step: int) -> None:
        for path in self.folder.glob("checkpoint.*.*.safetensors"):
            if not path.name.startswith(f"checkpoint.{step}."):
                path.unlink()

    def _read_metrics(self) -> list[dict[str, float]]:
        if not self.metrics_path.exists():
            return []
        return [json.loads(line) for line in self.metrics_path.read_text(encoding="utf-8").splitlines()]

    def _keep_metrics_before(self, step: int) -> None:
        if self._events is not None and distributed.is_main():
            self._events.start(step)
        if not (distributed.is_main() and self.metrics_path.exists()):
            return
        complete = self.metrics_path.read_text(encoding="utf-8").split("\n")[:-1]
        kept = [line for line in complete if json.loads(line)["step"] < step]
        with atomic_path(self.metrics_path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _num_parts(modules: Mapping[str, nn.Module]) -> int:
    """Return how many processes hold rows of their own; 1 where every process has everything."""
    parameters = (parameter for module in modules.values() for parameter in module.parameters())
    return distributed.size() if any(isinstance(p, distributed.OwnRows) for p in parameters) else 1


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
