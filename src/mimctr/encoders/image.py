"""Image encoder ``F_V`` of Eq. (2): any vision network of transformers, with its pooling and preprocessing."""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from mimctr.encoders.architecture import (
    TIMM,
    Network,
    architecture,
    build_network,
    fit_input_size,
    load_network,
    read_hub_json,
    read_record,
    save_network,
)
from mimctr.encoders.batch_norm import share_batch_norm
from mimctr.errors import EncoderError
from mimctr.files import hash_json
from mimctr.images import OVERSAMPLING, decode_image
from mimctr.weights import digest_tensors

Pooling = Literal["cls", "mean", "own"]
"""First token; mean over the feature map; the network's own (the default of ConvNets and of timm's networks)."""
Filter = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""How a picture is resized; in Pillow's order, which Hugging Face's files count by."""
_HALF = (0.5, 0.5, 0.5)


class ImageEncoder(nn.Module):
    """Turn pictures into one vector each, and into a feature map.

    Batch norm of a loaded network keeps its stored statistics, also while training, unless it is told otherwise: a
    small batch, or one with masked patches, is no sample of the pictures they were taken from.

    Args:
        network: A vision network of transformers.
        size: Height and width in pixels that every picture is resized to: the whole picture, nothing cropped
            (docs/departures.md#whole-pictures).
        resize: Filter of the resizing.
        mean: Per-channel mean that normalization subtracts, of values in [0, 1].
        std: Per-channel standard deviation that normalization divides by.
        pooling: How the feature map becomes one vector.
        adapt_batch_norm: Let batch norm's statistics follow the batches in training mode.
    """

    def __init__(
        self,
        network: Network,
        *,
        size: int,
        resize: Filter = "bilinear",
        mean: Sequence[float] = _HALF,
        std: Sequence[float] = _HALF,
        pooling: Pooling = "mean",
        adapt_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        share_batch_norm(network)
        self.network = network
        self.size = size
        self.resize = resize
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.pooling = pooling
        self.adapt_batch_norm = adapt_batch_norm
        self._mean: Tensor
        self._std: Tensor
        self.register_buffer("_mean", torch.tensor(self.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(self.std).view(1, 3, 1, 1), persistent=False)
        self.eval()
        fit_input_size(network, size)
        with torch.no_grad():
            probe = torch.zeros(1, 3, size, size)
            _, self.map_dim, _, self.map_size = self.feature_map(probe).shape
            self.dim = self.pool(probe).shape[-1]
        if size % self.map_size:
            raise EncoderError(
                f"image size {size}: {type(network).__name__} makes a feature map of {self.map_size} of it, which does "
                "not divide it. Choose a size that is a multiple of the network's stride."
            )

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        size: int,
        pooling: Pooling | None = None,
    ) -> "ImageEncoder":
        """Return an untrained encoder; weights come from PyTorch's global generator.

        Args:
            config: ``model_type`` and fields of a transformers configuration.
            size: Height and width in pixels.
            pooling: None takes the mean over the feature map, or the own pooling of a ConvNet or a network of timm.
        """
        network = build_network(config, modality="pixel_values")
        return cls(
            network, size=size, pooling=pooling or _default_pooling(network, size), adapt_batch_norm=True
        )

    @classmethod
    def load(
        cls, source: Path | str, *, size: int | None = None, pooling: Pooling | None = None
    ) -> "ImageEncoder":
        """Return an encoder with given weights.

        Args:
            source: Folder written by :meth:`save`, folder in Hugging Face's layout, or a model's name on the hub.
            size: Overrides the recorded height and width, e.g. 112 instead of ImageNet's 224.
            pooling: Overrides the recorded pooling.

        Raises:
            EncoderError: nothing loadable there, damaged weights, no recorded image size, or an unknown resize filter.
        """
        network = load_network(source, modality="pixel_values")
        record = read_record(source) or _hub_preprocessing(source)
        size = size or record.get("size") or getattr(network.config, "image_size", None)
        if not isinstance(size, int):
            raise EncoderError(f"{source}: says no image size. Give one, in pixels.")
        return cls(
            network,
            size=size,
            resize=record.get("resize", "bilinear"),
            mean=record.get("mean", _HALF),
            std=record.get("std", _HALF),
            pooling=pooling or record.get("pooling") or _default_pooling(network, size),
        )

    def save(self, folder: Path) -> None:
        """Write the encoder into ``folder``, in Hugging Face's layout plus, last, ``encoder.json``."""
        save_network(self.network, folder, record=self.preprocessing)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Everything outside the weights that the vectors depend on."""
        return {
            "kind": "image",
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.resize,
            "jpeg_oversampling": OVERSAMPLING,
            "pooling": self.pooling,
        }

    @property
    def fingerprint(self) -> str:
        """Hash (hex) of weights, architecture, preprocessing, pooling, dimension and dtype."""
        weights = self.network.state_dict()
        return hash_json(
            {
                "weights": digest_tensors(weights),
                "architecture": architecture(self.network),
                "preprocessing": self.preprocessing,
                "dim": self.dim,
                "dtype": "float32",
            }
        )

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Set training mode; batch norm stays in evaluation mode where frozen, or unless ``adapt_batch_norm``."""
        super().train(mode)
        for module in self._batch_norms():
            frozen = not any(parameter.requires_grad for parameter in module.parameters())
            module.train(mode and self.adapt_batch_norm and not frozen)
        return self

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network normalizes by statistics of the batch."""
        return any(True for _ in self._batch_norms())

    def _batch_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))

    def pixels(self, images: Iterable[bytes]) -> UInt8[Tensor, "images 3 height width"]:
        """Decode and resize encoded pictures.

        Raises:
            DataError: a picture cannot be decoded.
        """
        decoded = [torch.from_numpy(self._decode(image)) for image in images]
        if not decoded:
            return torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)
        return torch.stack(decoded).permute(0, 3, 1, 2).contiguous()  # (images, 3, H, W)

    def normalize(
        self, pixels: UInt8[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images 3 height width"]:
        """Return pixels as the network reads them: in [0, 1], minus the mean, divided by the standard deviation."""
        return (pixels.float() / 255 - self._mean) / self._std

    def feature_map(
        self, inputs: Float[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images channels rows columns"]:
        """Return the last spatial feature map of *normalized* pixels, without class and register tokens."""
        return self._as_map(_outputs(self.network, inputs).last_hidden_state)

    def pool(self, inputs: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Return one vector for each picture of *normalized* pixels."""
        outputs = _outputs(self.network, inputs)
        if self.pooling == "own":
            return outputs.pooler_output.flatten(1)
        if self.pooling == "cls":
            return outputs.last_hidden_state[:, 0]
        return self._as_map(outputs.last_hidden_state).mean((2, 3))

    def forward(self, pixels: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images dim"]:
        """Return ``F_V(pixels)``, not normalized to length one."""
        return self.pool(self.normalize(pixels))

    def _decode(self, image: bytes) -> np.ndarray:
        picture = decode_image(image, size=self.size)
        if picture.size != (self.size, self.size):
            picture = picture.resize((self.size, self.size), Image.Resampling[self.resize.upper()])
        return np.array(picture)

    def _as_map(self, hidden: Tensor) -> Tensor:
        if hidden.ndim == 4:
            channels_last = getattr(getattr(self.network, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
            return hidden.permute(0, 3, 1, 2) if channels_last else hidden
        registers = getattr(self.network.config, "num_register_tokens", 0)
        side = math.isqrt(hidden.shape[1] - registers)
        patches = hidden[:, hidden.shape[1] - side * side :]  # (images, side * side, D)
        return patches.transpose(1, 2).unflatten(2, (side, side))  # (images, D, side, side)


def _outputs(network: Network, inputs: Tensor) -> Any:
    """Run the network; position embeddings are interpolated where it has them and the size is another."""
    inputs = inputs.contiguous(
        memory_format=torch.channels_last
    )  # convolutions are a quarter faster on a CPU
    if "interpolate_pos_encoding" in inspect.signature(network.forward).parameters:
        return network(pixel_values=inputs, interpolate_pos_encoding=True)
    return network(pixel_values=inputs)


def _default_pooling(network: Network, size: int) -> Pooling:
    if network.config.model_type == TIMM:
        return "own"
    with torch.no_grad():
        outputs = _outputs(network, torch.zeros(1, 3, size, size))
    return "own" if outputs.last_hidden_state.ndim == 4 else "mean"


def _hub_preprocessing(source: Path | str) -> dict[str, Any]:
    """Return size, filter, mean and std as the model's own files say: Hugging Face's, or timm's in config.json."""
    saved = read_hub_json(source, "preprocessor_config.json")
    if not saved:
        return _timm_preprocessing(read_hub_json(source, "config.json").get("pretrained_cfg", {}), source)
    cropped = saved.get("crop_size") if saved.get("do_center_crop", True) else None
    size = cropped or saved.get("size") or {}
    found = {"size": size.get("height", size.get("shortest_edge")) if isinstance(size, dict) else size}
    if saved.get("do_normalize", True) and "image_mean" in saved:
        found |= {"mean": saved["image_mean"], "std": saved["image_std"]}
    if saved.get("resample") is not None:
        filters = dict(enumerate(get_args(Filter)))
        found["resize"] = _known_filter(filters.get(saved["resample"], saved["resample"]), source)
    return found


def _timm_preprocessing(saved: Mapping[str, Any], source: Path | str) -> dict[str, Any]:
    names = {"mean": "mean", "std": "std", "interpolation": "resize"}
    found = {ours: saved[theirs] for theirs, ours in names.items() if theirs in saved}
    if "resize" in found:
        _known_filter(found["resize"], source)
    if "input_size" in saved:
        found["size"] = saved["input_size"][-1]  # (channels, height, width)
    return found


def _known_filter(name: Any, source: Path | str) -> Filter:
    if name not in get_args(Filter):
        raise EncoderError(
            f"{source}: says that pictures are resized with the filter {name!r}. Known: {', '.join(get_args(Filter))}."
        )
    return name
