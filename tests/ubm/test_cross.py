"""Cross layers against the formula of DCN-v2, and where the deep network puts them."""

import pytest
import torch

from mimctr.batch import Content
from mimctr.errors import ConfigError
from mimctr.ubm.ciubm import DenseHalf, ExportableDense
from mimctr.ubm.cross import CrossNetwork
from mimctr.ubm.embeddings import Rows

from .conftest import UBMS, B, make_dense
from .test_ciubm import plain_tensors, unchecked_shapes  # noqa: F401

DIM, LAYERS = 5, 3
CROSSED = [
    {"cross_layers": 2, "cross_structure": structure, "cross_rank": rank}
    for structure in ("stacked", "parallel")
    for rank in (None, 3)
]


def crossed_by_hand(network: CrossNetwork, x: torch.Tensor) -> torch.Tensor:
    """x_{l+1} = x_0 ∘ (W_l x_l + b_l) + x_l, one number at a time."""
    result = torch.zeros_like(x)
    for row, start in enumerate(x.tolist()):
        at = start
        for layer in network.layers:
            last = layer[-1] if isinstance(layer, torch.nn.Sequential) else layer
            matrix = last.weight if last is layer else layer[1].weight @ layer[0].weight
            weights, bias = matrix.tolist(), last.bias.tolist()
            at = [
                start[i] * (sum(weights[i][j] * at[j] for j in range(len(at))) + bias[i]) + at[i]
                for i in range(len(at))
            ]
        result[row] = torch.tensor(at)
    return result


@pytest.mark.parametrize("rank", [None, 1, 2, DIM])
def test_cross_layers_are_the_papers_formula(rank: int | None):
    # Mutants: x_l in place of x_0 (powers of powers); the residual left out; the bias outside of the product.
    network = CrossNetwork(DIM, num_layers=LAYERS, rank=rank)
    x = torch.randn(B, DIM)
    with torch.no_grad():
        torch.testing.assert_close(network(x), crossed_by_hand(network, x))


def test_every_layer_adds_one_order():
    # Inputs t·x give a polynomial in t: finite differences of order L + 2 vanish, those of order L + 1 do not.
    network = CrossNetwork(DIM, num_layers=LAYERS).double()
    x = torch.randn(1, DIM, dtype=torch.float64)
    values = torch.cat([network(t * x) for t in range(LAYERS + 3)]).detach()  # t = 0 ... L + 2
    assert values.diff(n=LAYERS + 1, dim=0).abs().max() > 1e-3
    torch.testing.assert_close(values.diff(n=LAYERS + 2, dim=0), torch.zeros(1, DIM, dtype=torch.float64))


def test_a_low_rank_has_the_papers_number_of_weights():
    sizes = [
        sum(parameter.numel() for parameter in CrossNetwork(DIM, num_layers=1, rank=rank).parameters())
        for rank in (None, 2)
    ]
    assert sizes == [DIM * DIM + DIM, 2 * 2 * DIM + DIM]


def test_a_rank_above_the_width_is_refused():
    with pytest.raises(
        ConfigError, match=r"cross_rank: 6 is above 5, .* Choose a lower one, or 0 for full rank"
    ):
        CrossNetwork(DIM, num_layers=1, rank=DIM + 1)


@pytest.fixture(params=CROSSED, ids=str)
def crossed(request: pytest.FixtureRequest) -> DenseHalf:
    return make_dense(UBMS["din"](), "mim_plus", **request.param)


def test_the_deep_network_reads_what_the_structure_says(crossed: DenseHalf, rows: Rows, content: Content):
    # Mutants: parallel layers that read the hidden layers' output; stacked ones that the hidden layers bypass.
    read: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []
    crossed.mlp.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    crossed.cross.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    logit = crossed(rows, content).logit
    products = crossed_by_hand(crossed.cross, inputs[0]).detach()
    if crossed.cross_out is None:
        torch.testing.assert_close(read[0], products)
        expected = crossed.mlp(read[0])
    else:  # one linear layer over both outputs, side by side
        hidden: list[torch.Tensor] = []
        crossed.mlp.out.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
        crossed.mlp(inputs[0])
        weight = torch.cat([crossed.cross_out.weight, crossed.mlp.out.weight], dim=1)[0]
        expected = torch.cat([products, hidden[0]], dim=1) @ weight + crossed.mlp.out.bias
    torch.testing.assert_close(
        logit - crossed.wide(wide_scalars(crossed, rows, content)).squeeze(-1), expected
    )


def wide_scalars(dense: DenseHalf, rows: Rows, content: Content) -> torch.Tensor:
    interest = dense.ubm(rows.target, rows.history)
    return dense.content(interest, rows.behaviors, rows.mask, content).scalars


def test_every_cross_weight_learns(crossed: DenseHalf, rows: Rows, content: Content):
    crossed(rows, content).logit.sum().backward()
    for name, parameter in crossed.named_parameters():
        if name.startswith("cross"):
            assert parameter.grad.abs().sum() > 0, name


def test_without_cross_layers_nothing_is_there():
    dense = make_dense(UBMS["din"](), "mim", cross_rank=2, cross_structure="parallel")
    assert not [name for name, _ in dense.named_parameters() if name.startswith("cross")]


def test_cross_layers_can_be_exported_for_any_batch_size(
    crossed: DenseHalf,
    rows: Rows,
    content: Content,
    unchecked_shapes: None,  # noqa: F811
):
    inputs = plain_tensors(rows, content)
    any_batch = tuple({0: torch.export.Dim("batch", min=2, max=4096)} for _ in inputs)
    program = torch.export.export(ExportableDense(crossed).eval(), inputs, dynamic_shapes=any_batch)
    fewer = tuple(tensor[1:4] for tensor in inputs)
    torch.testing.assert_close(program.module()(*fewer), crossed(rows, content).logit[1:4])
