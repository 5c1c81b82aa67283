"""MIM+ features against loops and hand-counted examples."""

import math

import pytest
import torch

from mimctr.batch import Content
from mimctr.ubm.content_interest import content_interest
from mimctr.ubm.embeddings import Rows
from mimctr.ubm.extensions import (
    ContentTensors,
    Extensions,
    Tiers,
    query_scalars,
    relevance_scalars,
    softmax_interests,
)

from .conftest import B, C, D, L


@pytest.fixture
def tensors(rows: Rows, content: Content) -> ContentTensors:
    found = content_interest(
        target_content=content.target,
        behaviors_content=content.behaviors,
        behaviors=rows.behaviors,
        mask=content.behaviors_known,
    )
    return ContentTensors(
        content.target,
        content.behaviors,
        content.query,
        content.query_known,
        rows.behaviors,
        found.relevance,
        content.behaviors_known,
    )


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0, eps=1e-12))


def test_scalars_are_mean_largest_and_log_count(tensors: ContentTensors):
    found = relevance_scalars(tensors.relevance, tensors.mask)
    for b in range(B):
        real = [float(value) for value in tensors.relevance[b, tensors.mask[b]]]
        expected = [sum(real) / len(real), max(real), math.log(1 + len(real))] if real else [0.0, 0.0, 0.0]
        torch.testing.assert_close(found[b], torch.tensor(expected))


def test_the_query_is_compared_with_the_target_and_with_the_behaviors(tensors: ContentTensors):
    # Mutant: a batch row compared with another row's target.
    found = query_scalars(tensors)
    for b in range(B):
        if not tensors.query_known[b]:
            assert torch.equal(found[b], torch.zeros(4))
            continue
        real = [cosine(tensors.query[b], vector) for vector in tensors.behaviors[b, tensors.mask[b]]]
        mean, largest = (sum(real) / len(real), max(real)) if real else (0.0, 0.0)
        expected = [cosine(tensors.query[b], tensors.target[b]), mean, largest, 1.0]
        torch.testing.assert_close(found[b], torch.tensor(expected))


def test_softmax_interests_equal_a_loop(tensors: ContentTensors):
    content, fusion = softmax_interests(tensors, temperature=0.2)
    for b in range(B):
        weights = [math.exp(float(a) / 0.2) for a in tensors.relevance[b, tensors.mask[b]]]
        weights = torch.tensor([weight / sum(weights) for weight in weights])
        torch.testing.assert_close(content[b], weights @ tensors.behaviors[b, tensors.mask[b]])
        torch.testing.assert_close(fusion[b], weights @ tensors.rows[b, tensors.mask[b]])


def test_tiers_count_relevances_over_equal_parts_of_the_cosine_s_range():
    # Mutants: padding counted in the tier of 0; the cosine 1 left outside the last tier.
    relevance = torch.tensor([[-1.0, -0.51, -0.5, 0.0, 0.49, 1.0, 0.0], [0.0] * 7])
    mask = torch.tensor([[True] * 6 + [False], [False] * 7])
    assert Tiers(4).counts(relevance, mask).tolist() == [[2, 1, 2, 1], [0, 0, 0, 0]]
    torch.testing.assert_close(Tiers(4)(relevance, mask)[0], torch.tensor([2.0, 1.0, 2.0, 1.0]).log1p())


def test_a_tier_s_embedding_depends_on_its_tier_and_the_log_of_its_count():
    tiers = Tiers(2, dim=3)
    relevance = torch.tensor([[0.5, 0.5, 0.5]])
    found = tiers(relevance, torch.ones(1, 3, dtype=torch.bool))
    table = tiers.table.weight.view(2, tiers.NUM_COUNTS, 3)
    torch.testing.assert_close(found, torch.cat([table[0, 0], table[1, 2]]).unsqueeze(0))


@pytest.mark.parametrize(
    "off",
    [
        {"scalars": False},
        {"num_tiers": 0},
        {"softmax_temperature": None},
        {"query": False},
        {"target_dim": 0},
    ],
    ids=lambda off: next(iter(off)),
)
def test_each_extension_has_a_switch(off: dict, tensors: ContentTensors):
    everything = Extensions(content_dim=C, dim=D)
    less = Extensions(content_dim=C, dim=D, **off)
    features, scalars = less(tensors)
    assert features.shape == (B, less.width)
    assert less.width < everything.width
    assert scalars.shape == (B, less.num_scalars)


def test_all_switched_off_is_no_feature_at_all(tensors: ContentTensors):
    nothing = Extensions(
        content_dim=C, dim=D, scalars=False, num_tiers=0, softmax_temperature=None, query=False, target_dim=0
    )
    features, scalars = nothing(tensors)
    assert features.shape == scalars.shape == (B, 0)


def test_relevance_has_at_most_length_behaviors(tensors: ContentTensors):
    counts = Tiers(5).counts(tensors.relevance, tensors.mask)
    assert torch.equal(counts.sum(dim=1), tensors.mask.sum(dim=1))
    assert counts.max() <= L
