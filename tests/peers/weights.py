"""Another library's weights in our modules. They are read from its modules; nothing is computed in its place."""

import torch
from torch import nn

from mimctr.ubm.activations import Dice
from mimctr.ubm.din import ActivationUnit


def randomize(module: nn.Module) -> None:
    """Give every weight, and every running statistic, a size at which a wrong use of it would be seen."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.PReLU | nn.Embedding):
                for parameter in part.parameters():
                    parameter.normal_(std=0.5)
            elif isinstance(part, nn.BatchNorm1d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
            elif isinstance(getattr(part, "alpha", None), nn.Parameter):
                part.alpha.normal_()


def copy_linears(theirs: nn.Module, ours: list[nn.Linear]) -> None:
    """Copy the linear layers of a peer's network, first to last."""
    linears = [part for part in theirs.modules() if isinstance(part, nn.Linear)]
    for their_layer, our_layer in zip(linears, ours, strict=True):
        our_layer.load_state_dict(their_layer.state_dict())


def copy_dice(theirs: nn.Module, ours: Dice) -> None:
    """Copy a peer's Dice; its batch norm must have no affine part, or one that changes nothing."""
    norm = theirs.bn
    if norm.affine:
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
        assert torch.equal(norm.bias, torch.zeros_like(norm.bias))
    with torch.no_grad():
        ours.alpha.copy_(theirs.alpha.flatten())
        ours.statistics.mean.copy_(norm.running_mean)
        ours.statistics.variance.copy_(norm.running_var)
    ours.epsilon, ours.statistics.momentum = norm.eps, norm.momentum


def copy_activation_unit(theirs: nn.Module, ours: ActivationUnit) -> None:
    """Copy a peer's attention MLP: linear layers, and the Dice or PReLU between them."""
    copy_linears(theirs, [ours.first, *ours.hidden, ours.out])
    kinds = {"Dice": copy_dice, "PReLU": lambda peer, own: own.load_state_dict(peer.state_dict())}
    learned = [part for part in theirs.modules() if type(part).__name__ in kinds]
    own = [part for part in ours.activations if type(part).__name__ in kinds]
    for peer, activation in zip(learned, own, strict=True):
        kinds[type(activation).__name__](peer, activation)
