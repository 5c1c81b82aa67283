"""The dense half of a model as an ONNX file, for one user's candidates at a time."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from mimctr.errors import RunError
from mimctr.serve.dense_inputs import OF_BEHAVIORS, OF_CANDIDATES, draw_inputs, plain_inputs
from mimctr.ubm.ciubm import CiUBM, ExportableDense

LOGITS = "logits"
NEEDED = ("onnx", "onnxscript")
LONGEST_UNROLLED = 32
"""Behaviors up to which a graph with operators for each of them is written: the time goes with the square."""


def why_not_onnx(model: CiUBM, max_length: int) -> str | None:
    """Return why no ONNX file can be written of a model here, or None."""
    missing = [module for module in NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        return f"{missing[0]} is not installed (pip install 'mimctr[onnx]')"
    if model.dense.ubm.unrolls and max_length > LONGEST_UNROLLED:
        return (
            f"a {type(model.dense.ubm).__name__} has operators for each of its {max_length} behaviors, and more than "
            f"{LONGEST_UNROLLED} are not exported"
        )
    return None


def export_onnx(model: CiUBM, path: Path, *, max_length: int) -> None:
    """Write the dense half, for any number of candidates.

    The history may have any length where the user behavior model is one network at every length; elsewhere it has
    ``max_length``, padded on the left.

    Args:
        model: In evaluation mode.
        path: Of the file.
        max_length: Newest behaviors that the model sees.

    Raises:
        RunError: PyTorch cannot export it.
    """
    dense = model.dense
    rows, content = draw_inputs(model, candidates=3, behaviors=max_length, length=max_length)
    inputs = plain_inputs(rows, content)
    candidates, length = Dim("candidates", min=2), Dim("length", min=2)
    shapes: dict[str, dict[int, Any]] = {
        name: ({0: candidates} if name in OF_CANDIDATES else {})
        | ({1: length} if name in OF_BEHAVIORS and dense.ubm.any_length and max_length > 1 else {})
        for name in inputs
    }
    with _quiet_exporter():
        try:
            torch.onnx.export(
                ExportableDense(dense),
                kwargs=inputs,
                f=path,
                input_names=list(inputs),
                output_names=[LOGITS],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{path.name}: PyTorch cannot export this model to ONNX ({reason}).") from None


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about itself."""
    names = ("torch.onnx._internal.exporter._registration", "torch.onnx._internal.exporter._schemas")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
