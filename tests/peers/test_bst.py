"""BST against Torch-RecHub's: its block with copied weights, and what its tokens are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mimctr.ubm.bst import BST, TransformerBlock
from mimctr.ubm.interface import History

pytestmark = [
    pytest.mark.needs_peers,
    pytest.mark.filterwarnings(
        "ignore:enable_nested_tensor is True"
    ),  # PyTorch's, about the peer's activation
]

B, L, D, HEADS = 6, 7, 8, 4
NUM_ITEMS = 12
LENGTHS = torch.tensor([3, 7, 1, 5, 2, 6])
MASK = torch.arange(L) >= L - LENGTHS[:, None]
DAY = 86_400


def make_peer(length: int = L) -> nn.Module:
    """Torch-RecHub's BST on item ids alone."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.ranking import BST as Peer

    def item(name: str, kind: type, **settings: Any) -> Any:
        return kind(name, vocab_size=NUM_ITEMS, embed_dim=D, padding_idx=0, **settings)

    model = Peer(
        features=[item("user", SparseFeature)],
        history_features=[item("history", SequenceFeature, pooling="concat", shared_with="item")],
        target_features=[item("item", SparseFeature)],
        mlp_params={"dims": [8], "activation": "relu"},
        nhead=HEADS,
        max_seq_len=length + 1,
    )
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Embedding | nn.LayerNorm):
                for parameter in part.parameters():
                    parameter.normal_(std=0.5)
        model.embedding.embed_dict["item"].weight[0] = 0
    return model.eval()


def copy_block(theirs: nn.TransformerEncoderLayer, ours: TransformerBlock) -> None:
    """Copy PyTorch's encoder layer, which is Torch-RecHub's block.

    What the paper has not is taken from theirs: the biases of the attention, and hidden units above four times the
    width (PyTorch's default: 2048).
    """
    attention, hidden = theirs.self_attn, ours.hidden.out_features
    with torch.no_grad():
        attention.in_proj_bias.zero_()
        attention.out_proj.bias.zero_()
        theirs.linear2.weight[:, hidden:] = 0
        ours.projections.weight.copy_(attention.in_proj_weight)
        ours.heads.weight.copy_(attention.out_proj.weight)
        ours.hidden.weight.copy_(theirs.linear1.weight[:hidden])
        ours.hidden.bias.copy_(theirs.linear1.bias[:hidden])
        ours.out.weight.copy_(theirs.linear2.weight[:, :hidden])
        ours.out.bias.copy_(theirs.linear2.bias)
    ours.attention_norm.load_state_dict(theirs.norm1.state_dict())
    ours.feed_forward_norm.load_state_dict(theirs.norm2.state_dict())


def tokens_of(peer: nn.Module, history: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what goes into its block, what comes out, and its prediction."""
    found: list[Tensor] = []
    hook = peer.transformer_layers.register_forward_hook(
        lambda _, inputs, output: found.extend([*inputs, output])
    )
    with torch.no_grad():
        prediction = peer({"history": history, "item": target, "user": torch.ones_like(target)})
    hook.remove()
    return found[0], found[1], prediction


@pytest.fixture
def items() -> tuple[Tensor, Tensor]:
    """Histories padded on the left, and targets."""
    return torch.randint(1, NUM_ITEMS, (B, L)) * MASK, torch.randint(1, NUM_ITEMS, (B,))


def test_the_block_is_torch_rechub_s(items: tuple[Tensor, Tensor]):
    """``models/ranking/bst.py``: PyTorch's ``TransformerEncoderLayer`` with LeakyReLU, the norms behind each part, the
    target as the last token. In evaluation mode: PyTorch drops attention weights too.

    Mutants: no residual; the mask forgotten; heads mixed up.
    """
    peer, block = make_peer(), TransformerBlock(D, num_heads=HEADS, dropout=0.0)
    copy_block(peer.transformer_layers.layers[0], block)
    tokens, theirs, _ = tokens_of(peer, *items)
    mask = torch.cat([MASK, torch.ones(B, 1, dtype=torch.bool)], dim=1)
    ours = block(tokens, mask)
    torch.testing.assert_close(ours[mask], theirs[mask])


def test_torch_rechub_s_positions_are_indices_that_padding_moves(items: tuple[Tensor, Tensor]):
    """It numbers the positions of the padded sequence, so that one history with more padding before it is another one
    to it; and it has no times: whether the user did something a minute ago or last year is the same. The paper's
    position is the time gap, and ours is.

    Mutants: index positions; padding moves the newest behavior.
    """
    (history, target), peer = items, make_peer(2 * L)
    longer = torch.cat([torch.zeros_like(history), history], dim=1)
    _, _, short = tokens_of(peer, history, target)
    _, _, moved = tokens_of(peer, longer, target)
    assert ((short - moved).abs() > 1e-3).all()

    bst = BST(D, length=2 * L, num_heads=HEADS)
    with torch.no_grad():
        bst.time.table.weight[1:].normal_(), bst.target_time.normal_()
    gaps = torch.randint(1, DAY, (B, L)) * MASK
    ours = interest(bst, peer, history, target, gaps)
    more_padding = interest(bst, peer, longer, target, torch.cat([torch.zeros_like(gaps), gaps], dim=1))
    torch.testing.assert_close(more_padding, ours)
    long_ago = interest(bst, peer, history, target, gaps + 400 * DAY)
    assert ((ours - long_ago).abs().amax(dim=1) > 1e-3).all()


def interest(bst: BST, peer: nn.Module, history: Tensor, target: Tensor, time_gaps: Tensor) -> Tensor:
    """Return what our BST finds, with the peer's item table."""
    table, mask = peer.embedding.embed_dict["item"], history > 0
    found = History(table(history), mask, time_gaps, mask, torch.zeros_like(history))
    return bst(table(target), found).vector.detach()
