"""Another library's weights in our modules. They are read from its modules; nothing is computed in its place."""

import torch
from torch import nn

from mimctr.ubm.activation_unit import ActivationUnit
from mimctr.ubm.activations import Dice
from mimctr.ubm.ciubm import DenseHalf
from mimctr.ubm.dien import AUGRU


def randomize(module: nn.Module) -> None:
    """Give every weight, and every running statistic, a size at which a wrong use of it would be seen."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.PReLU | nn.Embedding | nn.GRU):
                for parameter in part.parameters():
                    parameter.normal_(std=0.5)
                if isinstance(part, nn.GRU):
                    second_bias(part.bias_hh_l0).zero_()
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


def copy_network(theirs: nn.Module, ours: DenseHalf, *, dim: int) -> None:
    """Copy a deep network over ``[target, h_B]``; ours also reads ``h_B * target``, here with weights of zero."""
    linears = [part for part in theirs.modules() if isinstance(part, nn.Linear)]
    with torch.no_grad():
        first = ours.mlp.layers[0]
        first.weight.zero_()
        first.weight[:, :dim] = linears[0].weight[:, :dim]  # target
        first.weight[:, 2 * dim :] = linears[0].weight[:, dim:]  # h_B
        first.bias.copy_(linears[0].bias)
    for their_layer, our_layer in zip(linears[1:], [*ours.mlp.layers[1:], ours.mlp.out], strict=True):
        our_layer.load_state_dict(their_layer.state_dict())


def second_bias(bias: torch.Tensor) -> torch.Tensor:
    """Return the candidate's bias within the reset gate's product, which other GRUs have and the paper has not.

    Args:
        bias: Of the state's part of the gates, the candidate last.
    """
    return bias.chunk(3)[2]


def copy_gru(theirs: nn.GRU, ours: AUGRU) -> None:
    """Copy PyTorch's GRU, ``h' = (1 - z) n + z h``: our update gate is ``1 - z``."""
    assert not second_bias(theirs.bias_hh_l0).any()
    reset, keep, candidate = theirs.weight_ih_l0.chunk(3)
    state_reset, state_keep, state_candidate = theirs.weight_hh_l0.chunk(3)
    with torch.no_grad():
        bias_reset, bias_keep, bias_candidate = (theirs.bias_ih_l0 + theirs.bias_hh_l0).chunk(3)
        ours.inputs.weight.copy_(torch.cat([reset, -keep, candidate]))
        ours.inputs.bias.copy_(torch.cat([bias_reset, -bias_keep, bias_candidate]))
        ours.gates.weight.copy_(torch.cat([state_reset, -state_keep]))
        ours.candidate.weight.copy_(state_candidate)


def copy_update_first(inputs: nn.Linear, states: nn.Linear, ours: AUGRU) -> None:
    """Copy FuxiCTR's AUGRU, whose gates stand in the order update, reset, candidate."""
    assert not second_bias(states.bias).any()
    with torch.no_grad():
        update, reset, candidate = inputs.weight.chunk(3)
        ours.inputs.weight.copy_(torch.cat([reset, update, candidate]))
        update, reset, candidate = (inputs.bias + states.bias).chunk(3)
        ours.inputs.bias.copy_(torch.cat([reset, update, candidate]))
        update, reset, candidate = states.weight.chunk(3)
        ours.gates.weight.copy_(torch.cat([reset, update]))
        ours.candidate.weight.copy_(candidate)
