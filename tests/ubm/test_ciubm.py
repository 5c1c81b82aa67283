"""Both halves together, and the dense half as an exporter sees it."""

from collections.abc import Iterator
from dataclasses import fields

import jaxtyping
import pytest
import torch

from mimctr.batch import Content, CtrBatch
from mimctr.errors import ConfigError
from mimctr.ubm.ciubm import CiUBM, DenseHalf, ExportableDense
from mimctr.ubm.embeddings import EmbeddingHalf, Rows
from mimctr.ubm.interface import UserBehaviorModel
from mimctr.ubm.mean import AvgPooling
from mimctr.ubm.mlp import BatchNorm, Mlp

from .conftest import LENGTHS, UBMS, B, D, make_dense


@pytest.fixture
def model(ubm: UserBehaviorModel, variant: str, embedding: EmbeddingHalf) -> CiUBM:
    dense = make_dense(ubm, variant)
    side_dim = embedding.user_dim + embedding.query_dim + embedding.context_dim
    dense.mlp = Mlp(
        dense.mlp.layers[0].in_features - 9 + side_dim, hidden_dims=(16, 8), activation="prelu", dropout=0.0
    )
    return CiUBM(embedding, dense).eval()


def plain_tensors(rows: Rows, content: Content) -> tuple[torch.Tensor, ...]:
    return (*rows[:-1], *(getattr(content, field.name) for field in fields(content)))


def test_the_halves_make_one_model_of_which_every_parameter_learns(model: CiUBM, batch: CtrBatch):
    output = model(batch)
    assert output.logit.shape == (B,)
    (output.logit.sum() + (0 if output.auxiliary is None else output.auxiliary.logits.sum())).backward()
    for name, table in model.embedding.tables.items():
        assert table.weight.grad.abs().sum() > 0, name


def test_base_and_mim_differ_in_nothing_but_the_interests(rows: Rows, content: Content):
    # Eq. (9) adds inputs to the first layer, and a learned vector for targets without one; nothing else.
    shapes = [
        {name: tuple(value.shape) for name, value in make_dense(UBMS["din"](), variant).state_dict().items()}
        for variant in ("base", "mim")
    ]
    differing = {name for name in shapes[1] if shapes[0].get(name) != shapes[1][name]}
    assert differing == {"mlp.layers.0.weight", "content.unknown_target"}


def test_base_does_not_look_at_content(rows: Rows, content: Content):
    dense = make_dense(UBMS["din"](), "base")
    assert torch.equal(dense(rows, content).logit, dense(rows).logit)


@pytest.mark.parametrize("name", ["sim-content", "sim-hard-mix", "twin-mix"])
def test_base_cannot_compare_content(name: str):
    with pytest.raises(
        ConfigError, match=r"ubm: this (SIM|TWIN) compares content vectors, and Base has none\."
    ):
        make_dense(UBMS[name](), "base")


def test_content_reaches_the_logit(rows: Rows, content: Content):
    dense = make_dense(UBMS["mean"](), "mim")
    shuffled = Content(**{field.name: getattr(content, field.name).flip(0) for field in fields(content)})
    changed = (dense(rows, content).logit - dense(rows, shuffled).logit).abs() > 1e-6
    assert changed[LENGTHS > 0].any()


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_the_interest_can_be_normalized(norm: str, rows: Rows, content: Content):
    dense = make_dense(UBMS["din"](), "mim", interest_norm=norm)
    seen = []
    dense.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    dense.train()(rows, content)
    start = 9 + 8 + 8  # side, target, product
    interest = seen[0][:, start : start + dense.content.width]
    if norm == "batch":
        torch.testing.assert_close(interest.mean(dim=0), torch.zeros(dense.content.width))
    if norm == "layer":
        full = interest[LENGTHS > 0]
        torch.testing.assert_close(full.mean(dim=1), torch.zeros(len(full)), atol=1e-5, rtol=0)


def test_batch_norm_takes_a_batch_of_one():
    # Mutant: nn.BatchNorm1d itself, which raises on the last batch of an unlucky epoch.
    norm = BatchNorm(3).train()
    x = torch.randn(1, 3)
    torch.testing.assert_close(norm(x), x)
    norm(torch.randn(50, 3) * 5)
    assert norm.statistics.variance.min() > 1


def test_dropout_is_for_training_only():
    mlp = Mlp(4, hidden_dims=(32,), activation="relu", dropout=0.5)
    x = torch.randn(B, 4)
    assert torch.equal(mlp.eval()(x), mlp(x))
    assert not torch.equal(mlp.train()(x), mlp(x))


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Shape checks compare sizes with numbers, which an exporter takes for a promise."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "name",
    [
        "mean",
        "din",
        "din-dice",
        "dien",
        "bst",
        "sim-hard",
        "sim-soft",
        "twin",
        "sim-content",
        "sim-content-mix",
        "twin-mix",
    ],
)
@pytest.mark.parametrize("variant", ["mim", "mim_plus"])
def test_the_dense_half_can_be_exported_for_any_batch_size(
    name: str, variant: str, rows: Rows, content: Content, unchecked_shapes: None
):
    # ONNX itself is not a dependency; its exporter starts from such a program. Mutant: len(x) for x.shape[0].
    dense: DenseHalf = make_dense(UBMS[name](), variant)
    inputs = plain_tensors(rows, content)
    any_batch = tuple({0: torch.export.Dim("batch", min=2, max=4096)} for _ in inputs)
    program = torch.export.export(ExportableDense(dense).eval(), inputs, dynamic_shapes=any_batch)
    fewer = tuple(tensor[1:4] for tensor in inputs)
    torch.testing.assert_close(program.module()(*fewer), dense(rows, content).logit[1:4])


def test_logits_are_in_full_precision_under_autocast(rows: Rows):
    # Mutant: rounded to bfloat16, they tie.
    dense = make_dense(AvgPooling(D), "base").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logit = dense(rows).logit
    assert logit.dtype == torch.float32
    assert not torch.equal(logit, logit.bfloat16().float())
