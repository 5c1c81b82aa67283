"""Networks of Hugging Face transformers: built from a configuration or loaded from safetensors, never from pickles.

transformers' ``timm_wrapper`` adds the networks of timm, as far as the extra ``mimctr[timm]`` is installed.
"""

import contextlib
import functools
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mimctr.errors import EncoderError
from mimctr.files import read_json, write_json
from mimctr.weights import digest_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel as Network
else:  # transformers takes seconds to load, and what only reads vectors never runs a network
    Network = nn.Module

RECORD = "encoder.json"
"""Our file beside the Hugging Face ones: pooling, preprocessing and the digest of the weights."""
FORMAT = 1
WEIGHTS = "model.safetensors"
TIMM = "timm_wrapper"
"""``model_type`` of every network of timm."""
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")
_TWO_TOWERS: dict[str, dict[str, str]] = {
    "clip": {"pixel_values": "CLIPVisionModel", "input_ids": "CLIPTextModel"},
    # SigLIP's text tower was trained to read padding, which nothing here does: its vision tower only.
    "siglip": {"pixel_values": "SiglipVisionModel"},
}
"""Classes of transformers, by what they read."""
_NOT_ARCHITECTURE = {
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "id2label",
    "label2id",
    "_name_or_path",
    "label_names",
    "num_classes",
    "pretrained_cfg",
    "use_cache",
}


@functools.cache
def load_transformers() -> ModuleType:
    """Return transformers, which knows BEiT-3 from now on. It takes seconds: servers do so before a first request."""
    import transformers

    import mimctr.encoders.beit3  # noqa: F401 - registers its network

    return transformers


def build_network(config: Mapping[str, Any], *, modality: str) -> Network:
    """Return a network with weights drawn from PyTorch's global generator.

    Args:
        config: ``model_type`` and the fields of that transformers configuration that differ from its defaults.
        modality: ``pixel_values`` or ``input_ids``: what the network must read.

    Raises:
        EncoderError: transformers does not know the type, or refuses a field; it needs timm, which is not installed.
    """
    fields = dict(config)
    model_type = fields.pop("model_type", None)
    try:
        network = load_transformers().AutoModel.from_config(
            load_transformers().AutoConfig.for_model(model_type, **fields)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        _check_timm(error, where=f"model type '{model_type}'")
        raise EncoderError(
            f"encoder configuration {dict(config)}: transformers refuses it ({_one_line(error)}). "
            "Correct 'model_type' and its fields."
        ) from None
    return _prepared(network, modality=modality, where=f"model type '{model_type}'")


def load_network(source: Path | str, *, modality: str) -> Network:
    """Return a network with given float32 weights.

    Args:
        source: A folder in Hugging Face's layout (config.json, model.safetensors), or the name of a model on the hub.
        modality: ``pixel_values`` or ``input_ids``: what the network must read.

    Raises:
        EncoderError: the folder or model does not exist, has no safetensors, misses weights, was damaged after
            :func:`save_network` wrote it, is of another modality, or needs timm, which is not installed.
    """
    if isinstance(source, Path):
        _check_folder(source)
    try:
        with _quiet_transformers():
            config = _read_config(source)
            loader = _loader(config, modality=modality, where=str(source))
            network, found = loader.from_pretrained(
                source,
                config=config if loader is load_transformers().AutoModel else None,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (
        *(OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError),
        SafetensorError,
    ) as error:
        _check_timm(error, where=str(source))
        raise EncoderError(
            f"{source}: no encoder can be loaded from it ({_one_line(error)}). Give a folder with config.json and "
            "model.safetensors, or a model's name on the hub."
        ) from None
    network = _prepared(network, modality=modality, where=str(source))
    _check_weights(network, found, where=str(source))
    record = read_record(source)
    if record and record["digest"] != digest_tensors(network.state_dict()):
        raise EncoderError(
            f"{source}: its weights are not those that were saved; the file was changed or damaged."
        )
    return network


def save_network(network: Network, folder: Path, *, record: Mapping[str, Any]) -> None:
    """Write config.json, model.safetensors and, last, ``record`` with the weights' digest into ``folder``."""
    (folder / RECORD).unlink(missing_ok=True)
    with _quiet_transformers():
        network.save_pretrained(folder)
    write_json(folder / RECORD, {"format": FORMAT, **record, "digest": digest_tensors(network.state_dict())})


def read_record(source: Path | str) -> dict[str, Any]:
    """Return what :func:`save_network` recorded; empty where another tool wrote the folder."""
    path = Path(source) / RECORD
    if not path.is_file():
        return {}
    record = read_json(path)
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise EncoderError(f"{path}: format {found}, this version reads {FORMAT}. Make it again.")
    return record


def read_published(source: Path | str, names: Collection[str]) -> dict[str, Tensor]:
    """Return those of the named tensors that are in a published model's model.safetensors, float32.

    Args:
        source: A folder in Hugging Face's layout, or the name of a model on the hub.
        names: As the file calls them. Checkpoints of the first years say gamma and beta for a norm's weight and bias.
    """
    path = _hub_file(source, WEIGHTS)
    if path is None:
        return {}
    with safe_open(path, framework="pt") as file:
        stored = {_modern(name): name for name in file.keys()}  # noqa: SIM118 - not a mapping
        return {name: file.get_tensor(stored[name]).float() for name in names if name in stored}


def read_hub_json(source: Path | str, name: str) -> dict[str, Any]:
    """Return a JSON file of a model's folder, or of a model on the hub; empty where there is none.

    Raises:
        EncoderError: it holds something else than names and values.
    """
    path = _hub_file(source, name)
    found = {} if path is None else read_json(path)
    if not isinstance(found, dict):
        raise EncoderError(f"{path}: holds no names and values. It was damaged or edited by hand.")
    return found


def require_timm(where: str) -> None:
    """Raise EncoderError if timm is not installed.

    Args:
        where: Opens the message.
    """
    if not load_transformers().utils.is_timm_available():
        raise EncoderError(
            f'{where}: its network comes from timm, which is not installed. pip install "mimctr[timm]"'
        )


def fit_input_size(network: Network, size: int) -> None:
    """Make a network of timm read pictures of another size; networks of transformers adapt as they run.

    Positions are interpolated once, and the size becomes part of the network's configuration.
    """
    if network.config.model_type == TIMM and hasattr(network.timm_model, "set_input_size"):
        network.timm_model.set_input_size(img_size=size)
        network.config.model_args = {**(network.config.model_args or {}), "img_size": size}


def architecture(network: Network) -> dict[str, Any]:
    """Return every configuration field that differs from transformers' defaults and can change the output."""
    fields = network.config.to_diff_dict()
    return json.loads(
        json.dumps({name: value for name, value in fields.items() if name not in _NOT_ARCHITECTURE})
    )


def _check_folder(folder: Path) -> None:
    """Raise EncoderError where there is no folder, or weights only as pickles."""
    if not folder.is_dir():
        raise EncoderError(
            f"{folder}: no such folder. Give one that holds an encoder: config.json and {WEIGHTS}."
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise EncoderError(
                f"{folder}: holds its weights as a pickle only ({pickles[0]}), which could run any program and is not "
                f"read. Convert it to {WEIGHTS} (docs/encoders.md)."
            )


def _check_weights(network: Network, found: Mapping[str, Any], *, where: str) -> None:
    """Raise EncoderError where weights were not in the file, or had another shape."""
    own = network.state_dict()
    reason = "The weights belong to another architecture than config.json names."
    misfits = sorted(entry for entry in found["mismatched_keys"] if entry[0] in own)
    if misfits:
        name, given, wanted = misfits[0]
        raise EncoderError(
            f"{where}: {len(misfits)} of {len(own)} tensors of {type(network).__name__} have another shape in its "
            f"weights. First: {name}, {list(given)} instead of {list(wanted)}. {reason}"
        )
    missing = sorted(set(found["missing_keys"]) & set(own))
    if missing:
        raise EncoderError(
            f"{where}: {len(missing)} of {len(own)} tensors of {type(network).__name__} are not in its weights. First: "
            f"{missing[0]}. {reason}"
        )


def _check_timm(error: Exception, *, where: str) -> None:
    """Raise EncoderError where transformers failed because timm is not installed."""
    if isinstance(error, ImportError) and "timm" in str(error):
        require_timm(where)


def _read_config(source: Path | str) -> Any:
    """Return a model's configuration, without the number of classes that recent timm repeats among the arguments."""
    config = load_transformers().AutoConfig.from_pretrained(source)
    if config.model_type == TIMM and config.model_args:
        config.model_args = {
            name: value for name, value in config.model_args.items() if name != "num_classes"
        }
    return config


def _hub_file(source: Path | str, name: str) -> Path | None:
    """Return where a file of a model's folder, or of a model in the hub's cache, is; None where there is none."""
    path = load_transformers().utils.cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(path) if path else None


def _loader(config: Any, *, modality: str, where: str) -> Any:
    """Return the class that loads the wanted tower: of a model with two of them, only that one."""
    towers = _TWO_TOWERS.get(config.model_type, {modality: "AutoModel"})
    if modality not in towers:
        raise EncoderError(
            f"{where}: of {config.model_type} only the tower that reads {', '.join(towers)} is supported."
        )
    return getattr(load_transformers(), towers[modality])


def _prepared(network: Network, *, modality: str, where: str) -> Network:
    """Check what the network reads; drop what nothing here uses: a pooler with weights, the cache of a decoder."""
    if network.main_input_name != modality:
        raise EncoderError(
            f"{where}: {type(network).__name__} reads {network.main_input_name}, not {modality}."
        )
    pooler = getattr(network, "pooler", None)
    if isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters()):
        network.pooler = None
    if hasattr(network.config, "use_cache"):
        network.config.use_cache = False
    return network.float().eval()


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence progress bars and load reports; what matters of them is checked by the caller."""
    reports = load_transformers().utils.logging
    verbosity, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(verbosity)
        if bars:
            reports.enable_progress_bar()


def _modern(name: str) -> str:
    return (
        name.removesuffix(".gamma") + ".weight" if name.endswith(".gamma") else name.replace(".beta", ".bias")
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
