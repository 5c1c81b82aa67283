"""Small batches with every awkward row in them, and one dense half of each kind."""

from typing import Any

import pytest
import torch

from mimctr.batch import Content, CtrBatch
from mimctr.ubm.bst import BST
from mimctr.ubm.ciubm import DenseHalf
from mimctr.ubm.content_module import ContentAwareInterest
from mimctr.ubm.dien import DIEN
from mimctr.ubm.din import DIN
from mimctr.ubm.embeddings import EmbeddingHalf, Rows, trained_rows
from mimctr.ubm.extensions import Extensions
from mimctr.ubm.interface import History, Relevance, UserBehaviorModel
from mimctr.ubm.mean import AvgPooling
from mimctr.ubm.sim import SIM
from mimctr.ubm.twin import TWIN

B, L, D, C = 5, 7, 8, 6
LENGTHS = torch.tensor([2, 7, 0, 4, 1])
MASK = torch.arange(L) >= L - LENGTHS[:, None]
UBMS = {
    "mean": lambda: AvgPooling(D),
    "din": lambda: DIN(D),
    "din-dice": lambda: DIN(D, activation="dice"),
    "din-softmax": lambda: DIN(D, softmax=True, scale=True),
    "dien": lambda: DIEN(D),
    "dien-authors": lambda: DIEN(D, cell="authors", attention="activation_unit", auxiliary="mlp"),
    "bst": lambda: BST(D, length=5, num_heads=4),
    "bst-mean": lambda: BST(D, pooling="mean"),
    "bst-target": lambda: BST(D, pooling="target"),
    "sim-hard": lambda: SIM(D, search="hard", k=3),
    "sim-soft": lambda: SIM(D, search="soft", k=3),
    "twin": lambda: TWIN(D, num_kinds=4, k=3, num_heads=2, head_dim=4),
    "twin-all": lambda: TWIN(D, num_kinds=4, k=L, num_heads=2, head_dim=4),
    "sim-content": lambda: SIM(D, search="content", k=3),
    "sim-content-mix": lambda: SIM(D, search="content", k=3, attention_mix=True),
    "sim-hard-mix": lambda: SIM(D, search="hard", k=3, attention_mix=True),
    "twin-mix": lambda: TWIN(D, num_kinds=4, k=3, num_heads=2, head_dim=4, attention_mix=True),
}


@pytest.fixture(params=UBMS)
def ubm_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def ubm(ubm_name: str) -> UserBehaviorModel:
    return strengthened(UBMS[ubm_name]()).eval()


@pytest.fixture(params=["base", "mim", "mim_plus"])
def variant(request: pytest.FixtureRequest, ubm: UserBehaviorModel) -> str:
    if request.param == "base" and ubm.needs_relevance:
        pytest.skip("Base has no content to compare")
    return request.param


@pytest.fixture
def dense(ubm: UserBehaviorModel, variant: str) -> DenseHalf:
    return make_dense(ubm, variant)


@pytest.fixture
def rows() -> Rows:
    generator = torch.Generator().manual_seed(1)
    return Rows(
        user=torch.randn(B, 4, generator=generator),
        query=torch.randn(B, 3, generator=generator),
        context=torch.randn(B, 2, generator=generator),
        target=torch.randn(B, D, generator=generator),
        behaviors=torch.randn(B, L, D, generator=generator),
        mask=MASK,
        time_gaps=torch.randint(1, 10**7, (B, L), generator=generator) * MASK,
        same_category=(torch.rand(B, L, generator=generator) < 0.7) & MASK,
        kinds=torch.randint(2, 4, (B, L), generator=generator) * MASK,
        negatives=torch.randn(B, L, D, generator=generator),
    )


@pytest.fixture
def content() -> Content:
    generator = torch.Generator().manual_seed(2)
    target_known = torch.tensor([True, True, True, False, True])
    behaviors_known = (torch.rand(B, L, generator=generator) < 0.8) & MASK
    query_known = torch.tensor([True, False, True, True, False])
    return Content(
        target=torch.randn(B, C, generator=generator) * target_known[:, None],
        target_known=target_known,
        behaviors=torch.randn(B, L, C, generator=generator) * behaviors_known[..., None],
        behaviors_known=behaviors_known,
        query=torch.randn(B, C, generator=generator) * query_known[:, None],
        query_known=query_known,
    )


@pytest.fixture
def history(rows: Rows, content: Content) -> History:
    return history_of(rows, content)


@pytest.fixture
def embedding() -> EmbeddingHalf:
    return make_embedding()


@pytest.fixture
def batch(content: Content) -> CtrBatch:
    generator = torch.Generator().manual_seed(3)
    return CtrBatch(
        user_fields=torch.randint(1, 6, (B, 2), generator=generator),
        query_fields=torch.tensor([[2], [0], [3], [1], [2]]),
        context_fields=torch.randint(1, 4, (B, 1), generator=generator),
        query=torch.tensor([1, 0, 2, 1, 0]),
        target=torch.tensor([2, 3, 4, 5, 9]),
        behaviors=torch.randint(1, 10, (B, L), generator=generator) * MASK,
        kinds=torch.randint(2, 4, (B, L), generator=generator) * MASK,
        time_gaps=torch.randint(1, 10**7, (B, L), generator=generator) * MASK,
        mask=MASK,
        clicks=torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]),
        content=content,
    )


def history_of(rows: Rows, content: Content) -> History:
    """What a user behavior model sees of a batch, cosines of content included; at padding these are what they are."""
    cosine = torch.nn.functional.cosine_similarity(content.target.unsqueeze(1), content.behaviors, dim=-1)
    known = content.behaviors_known & content.target_known.unsqueeze(1)
    return rows.history._replace(relevance=Relevance(cosine.masked_fill(~known, 0.0), known))


def make_dense(ubm: UserBehaviorModel, variant: str, **settings: Any) -> DenseHalf:
    content = None
    if variant != "base":
        extensions = Extensions(content_dim=C, dim=D, num_tiers=4, tier_dim=2, target_dim=3)
        content = ContentAwareInterest(
            id_width=ubm.width, dim=D, content_dim=C, extensions=extensions if variant == "mim_plus" else None
        )
    return DenseHalf(
        side_dim=9,
        dim=D,
        ubm=ubm,
        content=content,
        hidden_dims=(16, 8),
        activation="prelu",
        **settings,
    ).eval()


def make_embedding(**settings: Any) -> EmbeddingHalf:
    item_fields = torch.tensor([0, 1, 2, 2, 3, 3, 3, 2, 2, 3], dtype=torch.int32)
    defaults: dict[str, Any] = {
        "item_rows": trained_rows(torch.tensor([0, 0, 5, 4, 3, 2, 1, 1, 0, 0]), min_count=1),
        "user_rows": trained_rows(torch.tensor([0, 0, 5, 4, 3, 0]), min_count=1),
        "item_fields": torch.stack([item_fields, item_fields.flip(0) + 1], dim=1)
        * (torch.arange(10) > 0)[:, None],
        "fields": {
            "item": {"category": 4, "brand": 5},
            "user": {"user": 6, "age": 6},
            "query": {"query_text": 4},
            "context": {"position": 4},
            "behavior": {"kind": 4},
        },
        "embedding_dim": 4,
        "field_dim": 2,
        "unknown_rate": 0.0,
    }
    return EmbeddingHalf(**defaults | settings)


def strengthened(ubm: UserBehaviorModel) -> UserBehaviorModel:
    """Give small initial weights (time gaps, the mix of attentions) a size at which a test can see them."""
    with torch.no_grad():
        for name, parameter in ubm.named_parameters():
            if "time.table" in name:
                parameter[1:] = torch.randn(parameter[1:].shape, generator=torch.Generator().manual_seed(4))
            if "mix.weights" in name:
                parameter[:] = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    return ubm
