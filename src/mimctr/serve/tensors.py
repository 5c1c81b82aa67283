"""Tensors of the Open Inference Protocol as bytes and as Python's values, in JSON or behind it.

The binary tensor data extension: the header ``Inference-Header-Content-Length`` says how long the JSON is; behind it
come the tensors that have a ``binary_data_size``, in their order, little-endian. An element of BYTES is its length in
four bytes and then itself.
"""

import struct
from collections.abc import Sequence

import numpy as np

from mimctr.errors import DataError
from mimctr.serve.protocol import RequestInput

SIZE = "binary_data_size"
"""Parameter of a tensor that stands behind the JSON."""


def read_tensors(
    inputs: Sequence[RequestInput], binary: bytes
) -> dict[str, tuple[str, list[int] | list[str]]]:
    """Return the datatype and the values of each tensor by its name.

    Args:
        inputs: As the JSON has them.
        binary: What stands behind the JSON.

    Raises:
        DataError: a tensor is there twice, is not of one dimension, or does not hold what its shape and datatype say;
            or other bytes stand behind the JSON than the tensors' sizes say.
    """
    found: dict[str, tuple[str, list[int] | list[str]]] = {}
    start = 0
    for one in inputs:
        if one.name in found:
            raise DataError(f"inputs: {one.name!r} is there twice.")
        if len(one.shape) != 1:
            raise DataError(f"{one.name}: its shape is {one.shape}. All inputs have one dimension.")
        if one.datatype not in ("INT64", "BYTES"):
            raise DataError(f"{one.name}: its datatype is {one.datatype!r}. Known are INT64 and BYTES.")
        if SIZE not in one.parameters:
            found[one.name] = one.datatype, _of_json(one)
            continue
        size = one.parameters[SIZE]
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - start:
            raise DataError(
                f"{one.name}: its {SIZE} is {size!r}; {len(binary) - start} bytes are left behind the JSON."
            )
        if one.data is not None:
            raise DataError(f"{one.name}: it has data and a {SIZE}. Send one of them.")
        part = binary[start : start + size]
        found[one.name] = one.datatype, _integers(one, part) if one.datatype == "INT64" else _texts(one, part)
        start += size
    if start != len(binary):
        raise DataError(f"{len(binary) - start} bytes stand behind the JSON that no input has.")
    return found


def write_texts(texts: Sequence[str]) -> bytes:
    """Return a tensor of BYTES."""
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (text.encode() for text in texts))


def write_floats(values: Sequence[float]) -> bytes:
    """Return a tensor of FP64."""
    return np.asarray(values, dtype="<f8").tobytes()


def _of_json(one: RequestInput) -> list[int] | list[str]:
    if one.data is None:
        raise DataError(f"{one.name}: it has neither data nor a {SIZE}.")
    _compare(one, len(one.data))
    wanted = int if one.datatype == "INT64" else str
    wrong = next((place for place, value in enumerate(one.data) if type(value) is not wanted), None)
    if wrong is not None:
        raise DataError(f"{one.name}: data[{wrong}] is not of datatype {one.datatype}.")
    return one.data


def _integers(one: RequestInput, part: bytes) -> list[int]:
    if len(part) % 8:
        raise DataError(f"{one.name}: {len(part)} bytes are not a multiple of the 8 of INT64.")
    values: list[int] = np.frombuffer(part, "<i8").tolist()
    _compare(one, len(values))
    return values


def _texts(one: RequestInput, part: bytes) -> list[str]:
    found: list[str] = []
    start = 0
    while start < len(part):
        end = start + 4
        if end <= len(part):
            end += int.from_bytes(part[start : start + 4], "little")
        if not start + 4 <= end <= len(part):
            raise DataError(
                f"{one.name}: element {len(found)} of BYTES ends after the tensor's {len(part)} bytes."
            )
        try:
            found.append(part[start + 4 : end].decode())
        except UnicodeDecodeError:
            raise DataError(f"{one.name}: element {len(found)} is not UTF-8.") from None
        start = end
    _compare(one, len(found))
    return found


def _compare(one: RequestInput, count: int) -> None:
    if count != one.shape[0]:
        raise DataError(f"{one.name}: its shape is {one.shape}, its data has {count} elements.")
