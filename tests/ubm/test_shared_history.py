"""One user's candidates: what they share stands in the batch once, and nothing comes out differently."""

import pytest
import torch

from mimctr.batch import Content
from mimctr.ubm.ciubm import DenseHalf
from mimctr.ubm.embeddings import Rows
from ubm.conftest import LENGTHS, MASK, B

OF_ALL = ("user", "query", "context", "behaviors", "mask", "time_gaps", "kinds")
CONTENT_OF_ALL = ("behaviors", "behaviors_known", "query", "query_known")


def of_user(number: int, rows: Rows, content: Content, *, copies: int) -> tuple[Rows, Content]:
    """Return the user's side of one impression, repeated, with every target; NaN where nothing is."""

    def taken(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[number : number + 1].repeat(copies, *[1] * (tensor.ndim - 1))

    padding = ~MASK.unsqueeze(-1)
    rows = rows._replace(behaviors=rows.behaviors.masked_fill(padding, torch.nan), negatives=None)
    unknown = ~content.behaviors_known.unsqueeze(-1)
    values = {name: getattr(content, name) for name in Content.__slots__}
    values["behaviors"] = values["behaviors"].masked_fill(unknown, torch.nan)
    return (
        rows._replace(
            **{name: taken(getattr(rows, name)) for name in OF_ALL},
            same_category=rows.same_category & MASK[number],
        ),
        Content(**values | {name: taken(values[name]) for name in CONTENT_OF_ALL}),
    )


@pytest.mark.parametrize("scope", ["all", "retrieved"])
@pytest.mark.parametrize("number", range(B), ids=[f"{length}-behaviors" for length in LENGTHS.tolist()])
def test_what_is_shared_may_stand_once(
    number: int, scope: str, dense: DenseHalf, rows: Rows, content: Content
):
    """Mutant: a search that keeps for all targets what it keeps for the first."""
    if dense.content is not None:
        dense.content.scope = scope
    dense.eval()
    copied = dense(*of_user(number, rows, content, copies=B)).logit
    shared = dense(*of_user(number, rows, content, copies=1)).logit
    assert copied.isfinite().all()
    torch.testing.assert_close(shared, copied, rtol=1e-5, atol=1e-6)
    if LENGTHS[number] > 1:
        assert len(shared.unique()) == B


def test_gradients_of_what_is_shared_are_those_of_its_copies(dense: DenseHalf, rows: Rows, content: Content):
    dense.eval()
    found = []
    for copies in (B, 1):
        some, vectors = of_user(1, rows, content, copies=copies)
        behaviors = some.behaviors.clone().requires_grad_()
        dense(some._replace(behaviors=behaviors), vectors).logit.sum().backward()
        found.append(behaviors.grad.sum(dim=0))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
