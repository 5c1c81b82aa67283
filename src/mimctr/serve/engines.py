"""What computes the logits of a request: PyTorch, or ONNX Runtime with the graph that the bundle carries.

ONNX Runtime is taken only where it says what PyTorch says, and, unless one of them is named, only where it is faster.
"""

import importlib.util
import itertools
import logging
import statistics
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from mimctr.batch import Content
from mimctr.errors import RunError
from mimctr.serve.bundle import ONNX, Bundle
from mimctr.serve.dense_inputs import OF_BEHAVIORS, draw_inputs, plain_inputs
from mimctr.ubm.ciubm import CiUBM, DenseHalf
from mimctr.ubm.embeddings import Rows

logger = logging.getLogger(__name__)

EngineName = Literal["torch", "onnx"]
EngineSetting = Literal["auto", "torch", "onnx"]
LOGIT_TOLERANCE, PROBABILITY_TOLERANCE = 1e-4, 1e-5
"""Largest differences; that of logits is relative where they are above 1."""
NEAR_TIES = 0.01
"""Share of a request's candidates that may differ by more where a search keeps some behaviors: two of nearly the same
relevance stand in either order."""
TYPICAL_CANDIDATES, WARM_UP, ROUNDS = 200, 5, 30


class Engine(Protocol):
    """Computes logits; safe to call from several threads."""

    def logits(self, rows: Rows, content: Content | None) -> Float[Tensor, "candidates"]:
        """Return the logit of each candidate.

        Args:
            rows: Of one user's candidates; what they share stands there once.
            content: Vectors, shared as ``rows`` are; None for Base.
        """
        ...


class TorchEngine:
    """The dense half as it was trained.

    Args:
        dense: In evaluation mode.
    """

    def __init__(self, dense: DenseHalf) -> None:
        self.dense = dense

    def logits(self, rows: Rows, content: Content | None) -> Float[Tensor, "candidates"]:
        """Return the logit of each candidate."""
        with torch.inference_mode():
            return self.dense(rows, content).logit


class OnnxEngine:
    """ONNX Runtime, on CUDA where it has it; on the CPU a call runs on the calling thread alone.

    Args:
        path: Written by :func:`mimctr.serve.onnx_export.export_onnx`.

    Raises:
        RunError: ONNX Runtime is not installed, or cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        why = why_no_runtime()
        if why is not None:
            raise RunError(f"{path}: {why}.")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        available = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=wanted)
        except Exception as error:  # noqa: BLE001 - its own classes have no base but this one
            reason = " ".join(str(error).split())[:200]
            raise RunError(
                f"{path}: ONNX Runtime cannot read it ({reason}). Run 'mimctr export' again."
            ) from None
        shapes = {one.name: one.shape for one in self._session.get_inputs()}
        self._names = tuple(shapes)
        length = shapes["behaviors"][1] if "behaviors" in shapes else None
        self.length: int | None = length if isinstance(length, int) else None
        """To which a history is padded; None: to none."""

    def logits(self, rows: Rows, content: Content | None) -> Float[Tensor, "candidates"]:
        """Return the logit of each candidate."""
        tensors = plain_inputs(rows, content)
        feed = {name: self._padded(name, tensors[name].numpy()) for name in self._names}
        found: list[Any] = self._session.run(None, feed)
        return torch.from_numpy(found[0])

    def _padded(self, name: str, values: ndarray) -> ndarray:
        """Return an input with as many behaviors as the graph has."""
        if self.length is None or name not in OF_BEHAVIORS or values.shape[1] == self.length:
            return values
        padded = np.zeros((len(values), self.length, *values.shape[2:]), values.dtype)
        padded[:, -values.shape[1] :] = values
        return padded


class Chosen(NamedTuple):
    """The engine of a bundle, and why it is this one."""

    engine: Engine
    name: EngineName
    why: str
    milliseconds: dict[EngineName, float]
    """Median of a typical request, of the engines that were timed."""
    largest_difference: float | None
    """Between the logits of both; None where there was one engine."""

    def said(self) -> dict[str, Any]:
        """Return what an operator wants to know, as JSON has it."""
        return {
            "engine": self.name,
            "why": self.why,
            "milliseconds": {name: round(value, 3) for name, value in self.milliseconds.items()},
            "largest_difference": self.largest_difference,
        }


class Parity(NamedTuple):
    """How two engines' logits differ."""

    largest: float
    wrong: int
    """Logits that differ by more than they may."""
    compared: int


def why_no_runtime() -> str | None:
    """Return why ONNX Runtime cannot be used, or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install 'mimctr[serve]')"
    return None


def choose_engine(bundle: Bundle, model: CiUBM, setting: EngineSetting = "auto") -> Chosen:
    """Return the engine that a bundle is served with.

    Args:
        bundle: With an ONNX file or without one.
        model: The bundle's, in evaluation mode.
        setting: ``auto``: the faster of those that can be used.

    Raises:
        RunError: ``onnx`` is asked for, and is not there, or does not say what PyTorch says.
    """
    chosen = _choose(bundle, model, setting)
    logger.info("%s: engine %s: %s", bundle.folder, chosen.name, chosen.why)
    return chosen


def _choose(bundle: Bundle, model: CiUBM, setting: EngineSetting) -> Chosen:
    plain = TorchEngine(model.dense)
    if setting == "torch":
        return Chosen(plain, "torch", "it is set", {}, None)
    path = bundle.folder / ONNX
    missing = (
        None if ONNX in bundle.manifest.files else f"the bundle has no {ONNX}: {bundle.manifest.without_onnx}"
    )
    try:
        if missing is not None:
            raise RunError(f"{bundle.folder}: {missing}.")
        onnx = OnnxEngine(path)
        parity = compare(plain, onnx, model, bundle.manifest.max_length)
        if parity.wrong:
            raise RunError(
                f"{path}: {parity.wrong:,} of {parity.compared:,} logits differ from PyTorch's, by up to "
                f"{parity.largest:.2g}: it is not this model's graph. Run 'mimctr export' again."
            )
    except RunError as error:
        if setting == "onnx":
            raise
        level = logging.INFO if missing is not None else logging.WARNING
        logger.log(level, "engine: PyTorch, because of: %s", error)
        return Chosen(plain, "torch", str(error), {}, None)
    spent = time_engines({"torch": plain, "onnx": onnx}, model, bundle.manifest.max_length)
    name: EngineName = "onnx" if setting == "onnx" or spent["onnx"] <= spent["torch"] else "torch"
    why = f"{spent['onnx']:.2f} ms with ONNX Runtime, {spent['torch']:.2f} ms with PyTorch"
    if setting == "onnx":
        why = f"it is set; {why}"
    return Chosen(onnx if name == "onnx" else plain, name, why, spent, parity.largest)


def compare(one: Engine, other: Engine, model: CiUBM, max_length: int) -> Parity:
    """Compare two engines on drawn requests: one candidate and many, no history and all of it, vectors missing.

    Args:
        one: An engine.
        other: Another one.
        model: Whose inputs are drawn.
        max_length: Newest behaviors that it sees.
    """
    largest, wrong, compared = 0.0, 0, 0
    lengths = sorted({0, 1, max_length // 2, max_length})
    cases = itertools.product((1, 2, TYPICAL_CANDIDATES), lengths, (0.0, 0.3, 1.0))
    for seed, (candidates, behaviors, missing) in enumerate(cases):
        rows, content = draw_inputs(
            model, candidates=candidates, behaviors=behaviors, missing=missing, seed=seed
        )
        first, second = (engine.logits(rows, content).double() for engine in (one, other))
        apart = (first - second).abs()
        far = ~(apart <= LOGIT_TOLERANCE * first.abs().clamp(min=1))  # NaN is far
        far |= ~((torch.sigmoid(first) - torch.sigmoid(second)).abs() <= PROBABILITY_TOLERANCE)
        near_ties = int(NEAR_TIES * candidates) if model.dense.ubm.searches else 0
        wrong += int(far.sum()) if int(far.sum()) > near_ties else 0
        largest = max(largest, float(apart.nan_to_num(nan=float("inf")).max()))
        compared += candidates
    return Parity(largest, wrong, compared)


def time_engines(engines: dict[EngineName, Engine], model: CiUBM, max_length: int) -> dict[EngineName, float]:
    """Return the median milliseconds of a typical request with each engine, the engines in turn."""
    rows, content = draw_inputs(model, candidates=TYPICAL_CANDIDATES, behaviors=max_length, missing=0.02)
    spent: dict[EngineName, list[float]] = {name: [] for name in engines}
    for round_ in range(WARM_UP + ROUNDS):
        for name, engine in engines.items():
            begun = time.perf_counter()
            engine.logits(rows, content)
            if round_ >= WARM_UP:
                spent[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(times) for name, times in spent.items()}
