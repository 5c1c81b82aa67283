"""TWIN: one relevance for both units, and a search that finds what the exact one would."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimctr.ubm.embeddings import Rows
from mimctr.ubm.interface import History, Relevance
from mimctr.ubm.search import keep_in_turn
from mimctr.ubm.twin import TWIN

from .conftest import LENGTHS, MASK, B, D, L, strengthened

NUM_KINDS = 4


def long_history(length: int, seed: int = 0) -> tuple[torch.Tensor, History]:
    """A target and a history of 300 to ``length`` behaviors for each of four users."""
    generator = torch.Generator().manual_seed(seed)
    num_real = torch.tensor([length, 300, length - 1, length // 2 + 150])
    mask = torch.arange(length) >= length - num_real[:, None]
    history = History(
        behaviors=torch.randn(4, length, D, generator=generator),
        mask=mask,
        time_gaps=torch.randint(1, 10**7, (4, length), generator=generator) * mask,
        same_category=mask,
        kinds=torch.randint(2, NUM_KINDS, (4, length), generator=generator) * mask,
        relevance=Relevance(2 * torch.rand(4, length, generator=generator) - 1, mask),
    )
    return torch.randn(4, D, generator=generator), history


def written_out(twin: TWIN, target: torch.Tensor, history: History, b: int) -> dict[int, torch.Tensor]:
    """The relevance of each real behavior of a row, a value per head, in float64."""
    heads, size = twin.num_heads, twin.head_dim
    query = (twin.queries.weight.double() @ target[b].double()).view(heads, size)
    found = {}
    for i in history.mask[b].nonzero().flatten().tolist():
        key = (twin.keys.weight.double() @ history.behaviors[b, i].double()).view(heads, size)
        crosses = [twin.time.table.weight[1 + int(math.log2(history.time_gaps[b, i]))]]
        if twin.kind is not None:
            crosses.append(twin.kind.weight[history.kinds[b, i]])
        value = (query * key).sum(dim=1) / math.sqrt(size)
        for j, cross in enumerate(crosses):
            value = value + (twin.cross[:, j].double() @ cross.double()) * twin.cross_weights[:, j].double()
        if twin.mix is not None:
            first, second, third = twin.mix.weights.double()
            cosine = history.relevance.cosine[b, i].double()
            value = first * value + second * cosine + third * value * cosine
        found[i] = value.detach()
    return found


def in_turn(relevance: dict[int, list[float]], k: int) -> set[int]:
    """The first ``k`` different behaviors when the heads take turns."""
    num_heads = len(next(iter(relevance.values()), []))
    rankings = [sorted(relevance, key=lambda i: -relevance[i][head]) for head in range(num_heads)]
    found: list[int] = []
    for turn in range(len(relevance)):
        for ranking in rankings:
            if ranking[turn] not in found and len(found) < k:
                found.append(ranking[turn])
    return set(found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 14),
    st.randoms(use_true_random=False),
)
def test_the_search_of_several_heads_equals_a_loop(mask: list[bool], num_heads: int, k: int, random):
    # Mutants: the heads' scores summed; k behaviors of each head; fewer than k when heads agree.
    scores = [[float(value) for value in random.sample(range(-50, 50), len(mask))] for _ in range(num_heads)]
    relevance = {i: [scores[h][i] for h in range(num_heads)] for i, real in enumerate(mask) if real}
    kept = keep_in_turn(torch.tensor([scores]), torch.tensor([mask]), k)[0]
    assert set(kept.nonzero().flatten().tolist()) == in_turn(relevance, k)
    assert int(kept.sum()) == min(k, sum(mask))


def test_heads_that_agree_still_keep_k():
    scores = torch.randn(B, 1, L).expand(B, 3, L)
    assert torch.equal(keep_in_turn(scores, MASK, 3).sum(dim=1), LENGTHS.clamp(max=3))


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("num_kinds", [0, NUM_KINDS])
def test_the_relevance_equals_the_formula_written_out(
    num_kinds: int, mix: bool, rows: Rows, history: History
):
    twin = strengthened(TWIN(D, num_kinds=num_kinds, num_heads=3, head_dim=4, attention_mix=mix))
    with torch.no_grad():
        twin.cross_weights.normal_()
    found = twin.relevance(rows.target, history)
    for b in range(B):
        for i, expected in written_out(twin, rows.target, history, b).items():
            torch.testing.assert_close(found[b, :, i].double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_the_search_keeps_the_oracle_s_hundred_of_a_hundred(cached: bool, mix: bool):
    # Mutants: cross features, or content, left out of the search; another projection there than in the attention.
    twin = strengthened(TWIN(D, num_kinds=NUM_KINDS, k=100, num_heads=4, attention_mix=mix))
    target, history = long_history(700)
    keys = twin.item_keys(history.behaviors) if cached else None
    kept = twin.search(target, history, keys)
    for b in range(len(target)):
        oracle = in_turn({i: x.tolist() for i, x in written_out(twin, target, history, b).items()}, 100)
        found = set(kept[b].nonzero().flatten().tolist())
        assert len(found) == len(oracle) == len(found & oracle) == 100


def test_keys_kept_per_item_serve_every_user(rows: Rows):
    # What a server does: one key per item of the catalogue, looked up by whoever has it in the history.
    twin = strengthened(TWIN(D, num_kinds=NUM_KINDS, k=3, num_heads=2))
    catalogue = torch.randn(9, D)
    table = twin.item_keys(catalogue)
    assert table.shape == (9, 2, 16)
    items = torch.randint(0, 9, (B, L))
    history = rows.history._replace(behaviors=catalogue[items])
    looked_up = twin.relevance(rows.target, history, table[items])
    torch.testing.assert_close(looked_up, twin.relevance(rows.target, history))
    assert torch.equal(twin.search(rows.target, history, table[items]), twin(rows.target, history).kept)


def test_keys_do_not_depend_on_user_time_or_kind(rows: Rows):
    twin = TWIN(D, num_kinds=NUM_KINDS)
    rows.history.behaviors[0, 0] = rows.target[1]
    torch.testing.assert_close(twin.item_keys(rows.behaviors)[0, 0], twin.item_keys(rows.target)[1])


@pytest.mark.parametrize("num_kinds", [0, NUM_KINDS])
def test_the_exact_search_equals_attention_over_all_features(num_kinds: int, rows: Rows):
    twin = strengthened(TWIN(D, num_kinds=num_kinds, k=4, num_heads=2, head_dim=3))
    interest = twin(rows.target, rows.history)
    for b in range(B):
        relevance = written_out(twin, rows.target, rows.history, b)
        kept = [i for i in relevance if interest.kept[b, i]]
        expected = torch.zeros(2, 3, dtype=torch.double)
        total = sum((relevance[i].exp() for i in kept), torch.zeros(2))
        for i in kept:
            features = [
                rows.behaviors[b, i],
                twin.time.table.weight[1 + int(math.log2(rows.time_gaps[b, i]))],
            ]
            if num_kinds:
                features.append(twin.kind.weight[rows.kinds[b, i]])
            features = torch.cat(features).double()
            for head in range(2):
                weight = relevance[i][head].exp() / total[head]
                expected[head] += weight * (features @ twin.values[head].double())
        torch.testing.assert_close(interest.vector[b].double(), expected.flatten(), rtol=1e-5, atol=1e-5)


def test_k_at_least_the_length_equals_no_search(rows: Rows):
    models = [strengthened(TWIN(D, num_kinds=NUM_KINDS, k=k)) for k in (L - 1, L, 10 * L)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    vectors = [model(rows.target, rows.history).vector for model in models]
    torch.testing.assert_close(vectors[1], vectors[2], rtol=0, atol=0)
    short = LENGTHS < L
    torch.testing.assert_close(vectors[0][short], vectors[1][short])


def test_every_weight_of_the_attention_is_seen(rows: Rows):
    # Mutant: a bias of the keys, which is constant over the history and which a softmax does not see.
    twin = strengthened(TWIN(D, num_kinds=NUM_KINDS, k=L))
    before = twin(rows.target, rows.history).vector
    for name, parameter in twin.named_parameters():
        saved = parameter.detach().clone()
        with torch.no_grad():
            parameter += torch.randn_like(parameter)
        assert (twin(rows.target, rows.history).vector - before).abs().max() > 1e-3, name
        with torch.no_grad():
            parameter.copy_(saved)


def test_a_kind_that_everything_shares_is_invisible_to_the_weights_alone(rows: Rows):
    # One number for all behaviors of a history: the softmax does not see it, the values do.
    twin = strengthened(TWIN(D, num_kinds=NUM_KINDS, k=L))
    scores = [
        twin.relevance(rows.target, rows.history._replace(kinds=torch.full_like(rows.kinds, kind)))
        for kind in (2, 3)
    ]
    assert (scores[0] - scores[1]).abs().max() > 1e-3
    torch.testing.assert_close(scores[0].softmax(-1), scores[1].softmax(-1))
    assert twin(rows.target, rows.history).auxiliary is None
