"""Back-ends that run an item encoder's towers in place of PyTorch: ONNX Runtime and OpenVINO, on the CPU.

Both read the towers as ONNX, exported with any number of pictures, texts and tokens. What they say is close to what
PyTorch says, not equal: whoever uses them compares (mimctr.recipes.embed).
"""

import contextlib
import importlib
import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.export import Dim

from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.text import TextEncoder
from mimctr.encoders.vectors import Towers
from mimctr.errors import EncoderError

BackendName = Literal["torch", "onnx", "openvino"]
_VECTORS = "vectors"


def open_towers(encoder: ItemEncoder, backend: BackendName, *, num_workers: int = 1) -> Towers:
    """Return what runs the towers of ``encoder``; several threads may call it.

    Args:
        encoder: On the CPU, unless the back-end is PyTorch, which is the encoder itself.
        backend: Name.
        num_workers: Threads that will call it, each with one core of its own.

    Raises:
        EncoderError: the back-end is not installed, or a tower cannot be exported.
    """
    if backend == "torch":
        return encoder
    with tempfile.TemporaryDirectory() as name:
        files = _export(encoder, Path(name))
        if backend == "onnx":
            return OnnxTowers(*files)
        return OpenVinoTowers(*files, num_workers=num_workers, bf16=encoder.bf16)


class OnnxTowers:
    """Both towers in ONNX Runtime, in float32; a call runs on the calling thread.

    Args:
        image: Exported image tower.
        text: Exported text tower.
    """

    def __init__(self, image: Path, text: Path) -> None:
        runtime = _installed("onnxruntime", extra="onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._image, self._text = (
            runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for path in (image, text)
        )

    def image_vectors(self, pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images image"]:
        """Return L2-normalized ``F_V`` of pixels, float32."""
        return _first(self._image.run([_VECTORS], {"pixels": pixels.numpy()}))

    def text_vectors(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts text"]:
        """Return L2-normalized ``F_L`` of tokens, float32."""
        return _first(self._text.run([_VECTORS], {"ids": ids.numpy(), "mask": mask.numpy()}))


class OpenVinoTowers:
    """Both towers in OpenVINO.

    Args:
        image: Exported image tower.
        text: Exported text tower.
        num_workers: Threads that call it; each gets a stream of one thread.
        bf16: In bfloat16 where the CPU has it, as the encoder is; else in float32.
    """

    def __init__(self, image: Path, text: Path, *, num_workers: int, bf16: bool) -> None:
        core = _installed("openvino", extra="openvino").Core()
        settings = {
            "INFERENCE_NUM_THREADS": num_workers,
            "NUM_STREAMS": num_workers,
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        }
        self._image, self._text = (core.compile_model(path, "CPU", settings) for path in (image, text))
        self._own = threading.local()

    def image_vectors(self, pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images image"]:
        """Return L2-normalized ``F_V`` of pixels, float32."""
        return self._run("image", self._image, {"pixels": pixels.numpy()})

    def text_vectors(
        self, ids: Int[Tensor, "texts tokens"], mask: Bool[Tensor, "texts tokens"]
    ) -> Float[Tensor, "texts text"]:
        """Return L2-normalized ``F_L`` of tokens, float32."""
        return self._run("text", self._text, {"ids": ids.numpy(), "mask": mask.numpy()})

    def _run(self, name: str, compiled: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Run one tower in a request of the calling thread's own; its output is overwritten by the next call."""
        if not hasattr(self._own, name):
            setattr(self._own, name, compiled.create_infer_request())
        return _first(list(getattr(self._own, name).infer(dict(inputs)).values())).clone()


class _ImageTower(nn.Module):
    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.encoder(pixels), dim=-1)


class _TextTower(nn.Module):
    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return F.normalize(self.encoder(ids, mask), dim=-1)


def _export(encoder: ItemEncoder, folder: Path) -> tuple[Path, Path]:
    """Write both towers, in float32, as ONNX; return their files."""
    _installed("onnxscript", extra="onnx")
    size = encoder.image_encoder.size
    pixels = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    tokens = torch.ones(3, 5, dtype=torch.int64), torch.ones(3, 5, dtype=torch.bool)
    texts, length = Dim("texts"), Dim("tokens", max=encoder.text_encoder.max_length)
    image, text = folder / "image.onnx", folder / "text.onnx"
    _export_tower(
        _ImageTower(encoder.image_encoder), image, {"pixels": pixels}, {"pixels": {0: Dim("images")}}
    )
    _export_tower(
        _TextTower(encoder.text_encoder),
        text,
        dict(zip(("ids", "mask"), tokens, strict=True)),
        {name: {0: texts, 1: length} for name in ("ids", "mask")},
    )
    return image, text


def _export_tower(
    tower: nn.Module, path: Path, inputs: dict[str, Tensor], shapes: dict[str, dict[int, Dim]]
) -> None:
    with _quiet_exporter():
        try:
            torch.onnx.export(
                tower.eval(),
                tuple(inputs.values()),
                path,
                input_names=list(inputs),
                output_names=[_VECTORS],
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = " ".join(str(error).split())[:200]
            raise EncoderError(
                f"{type(tower.encoder).__name__}: cannot be exported to ONNX ({reason}). Use backend = 'torch'."
            ) from None


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says about itself, and about torchvision, which nothing here needs."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        registration.setLevel(level)


def _installed(module: str, *, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise EncoderError(
            f"back-end '{extra}': {module} is not installed. pip install 'mimctr[{extra}]', or use backend = 'torch'."
        ) from None


def _first(outputs: list[Any]) -> Tensor:
    return torch.from_numpy(outputs[0])
