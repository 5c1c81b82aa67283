"""Large networks on small memory: frozen lower layers, low-rank adapters (LoRA), activations that are made again."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from mimctr.encoders.architecture import Network
from mimctr.errors import EncoderError


def layers(network: Network) -> Sequence[nn.Module]:
    """Return a transformer's layers, or a ConvNet's stages, from the input on.

    They are the largest list of modules of a network, which every network of transformers and timm has.

    Raises:
        EncoderError: there is none.
    """
    lists = _outermost_lists(network)
    if not lists:
        raise EncoderError(
            f"{type(network).__name__}: has no list of layers, so that none can be frozen, adapted or made again."
        )
    return list(max(lists, key=_count_parameters))


def freeze_layers(network: Network, count: int) -> None:
    """Train neither the first ``count`` layers nor what comes before them (embeddings); 0 freezes nothing.

    Raises:
        EncoderError: the network has fewer layers.
    """
    if not count:
        return
    stack = layers(network)
    if count > len(stack):
        raise EncoderError(
            f"{count} frozen layers: {type(network).__name__} has only {len(stack)}. Freeze fewer."
        )
    inside = {id(parameter) for layer in stack for parameter in layer.parameters()}
    for parameter in network.parameters():  # in the order of the data's way
        if id(parameter) in inside:
            break
        parameter.requires_grad_(False)
    for layer in stack[:count]:
        layer.requires_grad_(False)


def checkpoint_activations(network: Network) -> None:
    """Keep the inputs of each layer for the backward pass, and make what is inside again (arXiv:1604.06174).

    Loss, gradient and batch norm's statistics are those without; a step takes about a third longer.

    Raises:
        EncoderError: the network has no list of layers.
    """
    for layer in layers(network):
        for block in _blocks(layer):
            again = functools.partial(_contexts, block)
            block.forward = functools.partial(
                checkpoint, block.forward, use_reentrant=False, context_fn=again
            )


def add_adapters(network: Network, *, rank: int, alpha: float) -> None:
    """Train a low-rank change of all matrices in place of the weights (LoRA, arXiv:2106.09685).

    They are the weights of linear layers and of convolutions without groups, inside the layers that are not frozen. The
    change starts at zero: nothing that the network says is different.

    Args:
        network: Changed in place; :func:`merge_adapters` makes it an ordinary one again.
        rank: Of the change.
        alpha: The change is multiplied by ``alpha / rank``.

    Raises:
        EncoderError: peft is not installed, or every layer is frozen.
    """
    peft = _peft()
    inside = {id(module) for layer in layers(network) for module in layer.modules()}
    changed = {
        name: module
        for name, module in network.named_modules()
        if id(module) in inside and _is_matrix(module) and module.weight.requires_grad
    }
    if not changed:
        raise EncoderError(
            f"low-rank adapters: {type(network).__name__} has no matrix in a layer that is not frozen. Freeze fewer "
            "layers."
        )
    transposed = any(isinstance(module, _transposed_linear()) for module in changed.values())
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(changed), fan_in_fan_out=transposed
    )
    peft.inject_adapter_in_model(settings, network)


def merge_adapters(network: Network) -> None:
    """Add what :func:`add_adapters` trained to the weights; the network is then one as any other."""
    adapted = _peft().tuners.lora.LoraLayer
    for name, module in list(network.named_modules()):
        if isinstance(module, adapted):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, module.get_base_layer())
    del network.peft_config
    network.requires_grad_(True)


def _outermost_lists(module: nn.Module) -> list[nn.ModuleList | nn.Sequential]:
    """Return the lists of modules with weights that are in no other list."""
    found: list[nn.ModuleList | nn.Sequential] = []
    for child in module.children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)) and _count_parameters(child):
            found.append(child)
        else:
            found += _outermost_lists(child)
    return found


def _blocks(layer: nn.Module) -> list[nn.Module]:
    """Return a stage's blocks, which have parts themselves; of a layer without any, itself."""
    return [
        block
        for child in layer.children()
        if isinstance(child, (nn.ModuleList, nn.Sequential)) and all(any(block.children()) for block in child)
        for block in child
    ] or [layer]


def _is_matrix(module: nn.Module) -> bool:
    linear = (nn.Linear, _transposed_linear())
    return isinstance(module, linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _transposed_linear() -> type[nn.Module]:
    """Return GPT-2's linear layer, whose matrix is transposed."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _statistics_stay(block)


@contextlib.contextmanager
def _statistics_stay(block: nn.Module) -> Iterator[None]:
    """Let batch norm not count a batch again."""
    norms = [
        (module, module.momentum, module.num_batches_tracked)
        for module in block.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    for norm, _, _ in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in norms:
            norm.momentum, norm.num_batches_tracked = momentum, count


def _count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise EncoderError('low-rank adapters need peft. Install it: pip install "mimctr[peft]"') from None
    return peft
