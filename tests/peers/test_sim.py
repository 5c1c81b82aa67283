"""Where FuxiCTR's SIM is not the paper's, and what ours does in its place."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mimctr.ubm.search import keep_highest

from .longctr import ITEM_DIM, NUM_ITEMS, longctr_inputs, make_longctr
from .weights import randomize

pytestmark = pytest.mark.needs_peers

B, L, K, SHORT = 4, 8, 3, 5
LENGTHS = torch.tensor([3, 8, 5, 4])
MASK = torch.arange(L) >= L - LENGTHS[:, None]


@pytest.fixture
def sim(tmp_path: Path) -> nn.Module:
    model = make_longctr("SIM", tmp_path, topk=K, short_seq_len=SHORT, attention_dim=4, dnn_hidden_units=[8])
    randomize(model)
    return model.eval()


@pytest.fixture
def inputs() -> tuple[dict, dict, Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(1, NUM_ITEMS, (B,), generator=generator)
    return longctr_inputs(target, torch.randint(1, NUM_ITEMS, (B, L), generator=generator) * MASK)


def seen_by(part: nn.Module) -> list[Tensor]:
    """Return the list that ``part`` fills with its arguments when it is called."""
    seen: list[Tensor] = []
    part.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments))
    return seen


def item_rows(model: nn.Module, inputs: tuple[dict, dict, Tensor]) -> Tensor:
    """Return the rows of the behaviors and, last, of the target."""
    return model.embedding_layer(inputs[1], flatten_emb=True).view(B, L + 1, ITEM_DIM)


def test_fuxictr_s_search_takes_padding_before_real_behaviors(
    sim: nn.Module, inputs: tuple[dict, dict, Tensor]
):
    """``model_zoo/LongCTR/SIM/SIM.py::SIM.forward`` multiplies the inner products by the mask: padding scores 0, above
    every real behavior of a negative score, and takes its place among the top k. Ours keeps as many as there are.

    Mutant: scores multiplied by the mask.
    """
    kept = seen_by(sim.long_attention)
    with torch.no_grad():
        rows = item_rows(sim, inputs)
        sim.W_b.weight.copy_(-sim.W_a.weight)  # an item like the target has a negative score
        rows_alike = rows[:, -1:].expand(B, L, ITEM_DIM)
        scores = torch.einsum("ba,bla->bl", sim.W_a(rows[:, -1]), sim.W_b(rows_alike))
        assert (scores < 0).all()
        target = inputs[1]["item_id"].view(B, L + 1)[:, -1]
        sim(longctr_inputs(target, target.unsqueeze(1).expand(B, L) * MASK))
    _, _, mask_of_kept = kept
    num_kept = mask_of_kept.sum(dim=1)
    assert num_kept.tolist() == [0, K, 0, 0]  # only the full history keeps any real behavior
    assert keep_highest(scores, MASK, K).sum(dim=1).tolist() == [K] * B


def test_fuxictr_s_short_part_reads_the_mask_of_the_behavior_before(
    sim: nn.Module, inputs: tuple[dict, dict, Tensor]
):
    """``SIM.forward`` and ``TWIN.forward`` cut the short-term part, ``[-short_seq_len:-1]``, from rows that end with
    the target and from a mask that ends with the newest behavior: each row gets the mask of the behavior before it, the
    oldest real one is lost, and ``short_seq_len`` of 5 means 4 behaviors.
    """
    seen = seen_by(sim.short_attention)
    with torch.no_grad():
        sim(inputs)
        rows = item_rows(sim, inputs)
    _, short_rows, short_mask = seen
    assert short_rows.shape[1] == SHORT - 1
    torch.testing.assert_close(short_rows, rows[:, L - SHORT + 1 : L])
    right = MASK[:, L - SHORT + 1 :].float()
    assert torch.equal(short_mask, MASK[:, L - SHORT : L - 1].float())
    assert not torch.equal(short_mask, right)


def test_a_search_for_everything_is_no_search_in_both(sim: nn.Module, inputs: tuple[dict, dict, Tensor]):
    """With k at the length FuxiCTR's pads come along too, but its attention masks them: only their order differs."""
    sim.topk = L
    kept = seen_by(sim.long_attention)
    with torch.no_grad():
        sim(inputs)
    _, _, mask_of_kept = kept
    assert mask_of_kept.sum(dim=1).tolist() == LENGTHS.tolist()
    scores = torch.randn(B, L)
    assert torch.equal(keep_highest(scores, MASK, L), MASK)
