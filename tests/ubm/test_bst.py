"""BST's block against attention written out, and what its tokens are."""

import math

import pytest
import torch
import torch.nn.functional as F

from mimctr.ubm.bst import BST
from mimctr.ubm.embeddings import Rows

from .conftest import LENGTHS, MASK, B, D, L, strengthened


def run(bst: BST, rows: Rows) -> torch.Tensor:
    return bst(rows.target, rows.history).vector


def written_out(bst: BST, rows: Rows, b: int) -> torch.Tensor:
    """The outputs of one row's real tokens, the target's last."""
    block, heads = bst.block, bst.block.num_heads
    tokens = [
        torch.cat([rows.behaviors[b, i], bst.time.table.weight[1 + int(math.log2(rows.time_gaps[b, i]))]])
        for i in range(L)
        if MASK[b, i]
    ]
    tokens = torch.stack([*tokens, torch.cat([rows.target[b], bst.target_time])])
    width = tokens.shape[1]
    size = width // heads
    queries, keys, values = (tokens @ block.projections.weight.T).split(width, dim=1)
    attended = torch.zeros_like(tokens)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = (queries[:, part] @ keys[:, part].T / math.sqrt(size)).exp()
        attended[:, part] = scores / scores.sum(dim=1, keepdim=True) @ values[:, part]
    x = normalized(tokens + attended @ block.heads.weight.T, block.attention_norm)
    hidden = x @ block.hidden.weight.T + block.hidden.bias
    hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
    return normalized(x + hidden @ block.out.weight.T + block.out.bias, block.feed_forward_norm)


def normalized(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    centered = x - x.mean(dim=1, keepdim=True)
    variance = centered.square().mean(dim=1, keepdim=True)
    return centered / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def test_the_block_equals_attention_written_out(rows: Rows):
    # Mutants: no residual; the mask forgotten; heads mixed up; the target not among the tokens.
    bst = strengthened(BST(D, length=L, num_heads=4))
    with torch.no_grad():
        for norm in (bst.block.attention_norm, bst.block.feed_forward_norm):
            norm.weight.normal_(), norm.bias.normal_()
    found = run(bst, rows).view(B, L + 1, -1)
    for b in range(B):
        if LENGTHS[b] > 0:
            expected = written_out(bst, rows, b)
            torch.testing.assert_close(found[b, L - LENGTHS[b] :], expected)
            assert torch.equal(found[b, : L - LENGTHS[b]], torch.zeros_like(found[b, : L - LENGTHS[b]]))


def test_means_and_the_target_s_token_are_those_of_the_concatenation(rows: Rows):
    models = {
        pooling: strengthened(BST(D, length=L, pooling=pooling))
        for pooling in ("concatenation", "mean", "target")
    }
    for model in models.values():
        model.load_state_dict(models["mean"].state_dict())
    tokens = run(models["concatenation"], rows).view(B, L + 1, -1)
    torch.testing.assert_close(run(models["target"], rows), tokens[:, -1])
    real = LENGTHS > 0
    mean = tokens.sum(dim=1)[real] / (LENGTHS + 1)[real].unsqueeze(1)
    torch.testing.assert_close(run(models["mean"], rows)[real], mean)


def test_a_token_s_place_is_all_that_the_order_decides(rows: Rows):
    # Mutant: index positions, as everyone has them.
    bst = strengthened(BST(D, length=L))
    order = torch.arange(L).flip(0)
    moved = rows.history
    moved = type(moved)(*(tensor[:, order] for tensor in moved if tensor is not None))
    before = run(bst, rows).view(B, L + 1, -1)
    after = bst(rows.target, moved).vector.view(B, L + 1, -1)
    torch.testing.assert_close(after[:, :L], before[:, order])
    torch.testing.assert_close(after[:, L], before[:, L])


def test_the_newest_behavior_has_its_place_whatever_the_padding(rows: Rows):
    # Mutant: padding behind the tokens, so that the newest behavior slides.
    bst = strengthened(BST(D, length=20))
    width = bst.width // 21
    alone = rows._replace(**{name: getattr(rows, name)[:, -1:] for name in rows._fields[4:]})
    for b in range(B):
        if LENGTHS[b] == 1:
            torch.testing.assert_close(run(bst, rows)[b], run(bst, alone)[b])
            assert run(bst, alone)[b, -2 * width :].abs().min() > 0
            assert not run(bst, alone)[b, : -2 * width].any()


def test_only_the_newest_behaviors_become_tokens(rows: Rows):
    bst = strengthened(BST(D, length=3))
    older = rows._replace(behaviors=rows.behaviors.clone(), time_gaps=rows.time_gaps.clone())
    older.behaviors[:, : L - 3] += 1
    older.time_gaps[:, : L - 3] += 10**6
    torch.testing.assert_close(run(bst, older), run(bst, rows), rtol=0, atol=0)
    assert torch.equal(bst(rows.target, rows.history).kept, MASK & (torch.arange(L) >= L - 3))


def test_the_target_s_position_is_none_of_a_behavior(rows: Rows):
    # A behavior of a second ago and the target: the same item, other tokens.
    bst = strengthened(BST(D, length=1))
    one = rows.history._replace(
        behaviors=rows.target.unsqueeze(1),
        mask=torch.ones(B, 1, dtype=torch.bool),
        time_gaps=torch.ones(B, 1).long(),
    )
    behavior, target = bst(rows.target, one).vector.chunk(2, dim=1)
    assert (behavior - target).abs().sum() > 1e-2


@pytest.mark.parametrize(("dim", "num_heads", "width"), [(8, 8, 16), (9, 8, 24), (24, 8, 32), (5, 3, 15)])
def test_a_position_is_as_wide_as_it_takes_for_the_heads_to_divide_a_token(
    dim: int, num_heads: int, width: int
):
    bst = BST(dim, num_heads=num_heads)
    assert bst.width == 21 * width
    assert width % num_heads == 0
    assert bst.target_time.shape[0] >= 8 or num_heads == 3


def test_dropout_is_for_training_only(rows: Rows):
    bst = strengthened(BST(D, dropout=0.5))
    exact = BST(D)
    exact.load_state_dict(bst.state_dict())
    torch.testing.assert_close(run(bst.eval(), rows), run(exact, rows), rtol=0, atol=0)
    assert not torch.equal(run(bst.train(), rows), run(exact, rows))


def test_the_feed_forward_layer_is_leaky(rows: Rows):
    # Mutant: ReLU. With hidden units that are all negative nothing but the leak is left.
    block = BST(D).block
    with torch.no_grad():
        block.hidden.weight.zero_(), block.hidden.bias.fill_(-1.0)
        block.out.weight.fill_(1.0), block.out.bias.zero_()
    x = torch.randn(1, 1, 16)
    seen = []
    block.feed_forward_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block(x, torch.ones(1, 1, dtype=torch.bool))
    attended = block.attention_norm(x + block.heads(F.linear(x, block.projections.weight[32:])))
    torch.testing.assert_close(seen[0], attended - 0.01 * 64)
