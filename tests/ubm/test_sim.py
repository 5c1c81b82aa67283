"""SIM's two units, and the exactness of the searches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimctr.ubm.attention_mix import AttentionMix
from mimctr.ubm.embeddings import Rows
from mimctr.ubm.interface import History, Relevance
from mimctr.ubm.search import keep_highest, keep_most_relevant, keep_newest, kept_positions
from mimctr.ubm.sim import SIM
from mimctr.ubm.times import time_buckets

from .conftest import LENGTHS, MASK, B, D, L, strengthened


def run(sim: SIM, rows: Rows):
    return sim(rows.target, rows.history)


@pytest.mark.parametrize("k", [1, 3, 6, 7, 50])
def test_every_real_behavior_is_kept_before_any_padding(k: int):
    # Mutant (LongCTR): scores multiplied by the mask, so that padding (0) outranks negative scores.
    scores = -torch.rand(B, L) - 1
    kept = keep_highest(scores, MASK, k)
    assert torch.equal(kept.sum(dim=1), LENGTHS.clamp(max=k))
    assert not (kept & ~MASK).any()


def test_of_equal_scores_the_newest_are_kept():
    # Mutants: > instead of >= against the k-th score keeps k - 1; >= keeps all of them; the oldest of them.
    assert torch.equal(keep_highest(torch.ones(B, L), MASK, 3), keep_newest(MASK, 3))
    scores = torch.tensor([[5.0, 2.0, 9.0, 2.0, 2.0, 1.0]])
    mask = torch.tensor([[True, True, True, True, False, True]])
    assert keep_highest(scores, mask, 3).nonzero()[:, 1].tolist() == [0, 2, 3]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 14), st.randoms(use_true_random=False)
)
def test_searches_equal_a_loop(mask: list[bool], k: int, random):
    scores = [float(score) for score in random.sample(range(-50, 50), len(mask))]  # no ties
    real = [i for i, value in enumerate(mask) if value]
    newest, best = set(real[-k:]), set(sorted(real, key=lambda i: -scores[i])[:k])
    found = keep_newest(torch.tensor([mask]), k)[0]
    assert set(found.nonzero().flatten().tolist()) == newest
    found = keep_highest(torch.tensor([scores]), torch.tensor([mask]), k)
    assert set(found[0].nonzero().flatten().tolist()) == best
    positions, kept = kept_positions(found, min(k, len(mask)))
    assert positions[0][kept[0]].tolist() == sorted(best)
    assert kept[0].tolist() == sorted(kept[0].tolist())  # right-aligned


def test_hard_search_keeps_the_newest_of_the_target_s_category(rows: Rows):
    kept = run(SIM(D, search="hard", k=2), rows).kept
    for b in range(B):
        same = [i for i in range(L) if MASK[b, i] and rows.same_category[b, i]]
        assert kept[b].nonzero().flatten().tolist() == same[-2:]


def test_soft_search_keeps_the_highest_inner_products(rows: Rows):
    sim = SIM(D, search="soft", k=2)
    kept = run(sim, rows).kept
    target = (rows.target @ sim.soft.target.weight.T).detach()
    behaviors = (rows.behaviors @ sim.soft.behaviors.weight.T).detach()
    for b in range(B):
        scores = {i: float(target[b] @ behaviors[b, i]) for i in range(L) if MASK[b, i]}
        assert kept[b].nonzero().flatten().tolist() == sorted(sorted(scores, key=lambda i: -scores[i])[:2])


def test_hard_search_needs_no_loss_of_its_own(rows: Rows):
    assert run(SIM(D, search="hard"), rows).auxiliary is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.integers(1, 14),
    st.randoms(use_true_random=False),
)
def test_the_content_search_equals_a_loop(flags: list[tuple[bool, bool]], k: int, random):
    # Mutants: a missing vector taken for a cosine of 0, above negative ones; k - 1 kept; the oldest of those without.
    cosines = [value / 50 for value in random.sample(range(-50, 51), len(flags))]  # no ties
    real = [i for i, (is_real, _) in enumerate(flags) if is_real]
    compared = sorted((i for i in real if flags[i][1]), key=lambda i: -cosines[i])
    others = [i for i in reversed(real) if not flags[i][1]]
    relevance = Relevance(torch.tensor([cosines]), torch.tensor([[known for _, known in flags]]))
    kept = keep_most_relevant(relevance, torch.tensor([[is_real for is_real, _ in flags]]), k)
    assert set(kept[0].nonzero().flatten().tolist()) == set((compared + others)[:k])


def test_the_least_alike_is_kept_before_what_nothing_is_known_of():
    # Cosines in bfloat16, as under autocast, among 600 behaviors: all of them -1, and the newest 300 without a vector.
    known = torch.arange(600)[None] < 300
    relevance = Relevance(torch.full((1, 600), -1.0, dtype=torch.bfloat16).where(known, 0.0), known)
    kept = keep_most_relevant(relevance, torch.ones(1, 600, dtype=torch.bool), 400)
    assert kept[0].nonzero().flatten().tolist() == [*range(300), *range(500, 600)]


def test_a_target_without_a_vector_keeps_the_newest_behaviors(rows: Rows, history: History):
    cosine, known = history.relevance
    nothing = history._replace(relevance=Relevance(cosine, torch.zeros_like(known)))
    sim = SIM(D, search="content", k=3)
    assert torch.equal(sim(rows.target, nothing).kept, keep_newest(MASK, 3))
    assert not torch.equal(sim(rows.target, history).kept, keep_newest(MASK, 3))


def test_the_content_search_has_no_loss_and_no_weights_of_its_own(rows: Rows, history: History):
    sim, hard = SIM(D, search="content"), SIM(D, search="hard")
    assert sim(rows.target, history).auxiliary is None
    assert {name: value.shape for name, value in sim.state_dict().items()} == {
        name: value.shape for name, value in hard.state_dict().items()
    }


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("search", ["hard", "soft", "content"])
def test_k_at_least_the_length_equals_no_search(search: str, mix: bool, rows: Rows, history: History):
    # Mutant: the gather shifted by one position, or time gaps or cosines left where they were.
    history = history._replace(same_category=rows.mask)
    models = [strengthened(SIM(D, search=search, k=k, attention_mix=mix)) for k in (L - 1, L, 10 * L)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    vectors = [model(rows.target, history).vector for model in models]
    torch.testing.assert_close(vectors[1], vectors[2], rtol=0, atol=0)
    # With k = L - 1 the rows that are shorter than k lose nothing either, though they went through the gather.
    short = LENGTHS < L
    torch.testing.assert_close(vectors[0][short], vectors[1][short])


@pytest.mark.parametrize("mix", [False, True])
def test_the_exact_search_equals_attention_written_out(mix: bool, rows: Rows, history: History):
    # Mutants of the mix: its weights in another order; the cosine of another behavior.
    sim = strengthened(SIM(D, search="soft", k=L, num_heads=2, head_dim=3, time_dim=4, attention_mix=mix))
    unit = sim.exact
    found = sim(rows.target, history).vector.view(B, 2, D + 4)
    for b in range(B):
        for head in range(2):
            if LENGTHS[b] == 0:
                continue
            real = MASK[b].nonzero().flatten()
            timed = torch.stack(
                [
                    torch.cat(
                        [
                            rows.behaviors[b, i],
                            unit.time.table.weight[1 + int(math.log2(rows.time_gaps[b, i]))],
                        ]
                    )
                    for i in real
                ]
            )
            query = unit.queries(rows.target[b])[head * 3 : head * 3 + 3]
            scores = torch.stack([query @ (unit.keys[head] @ z) for z in timed]) / math.sqrt(3)
            if mix:
                first, second, third = sim.exact.mix.weights[:, head]
                cosines = history.relevance.cosine[b][real]
                scores = first * scores + second * cosines + third * scores * cosines
            weights = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(found[b, head], (weights.unsqueeze(-1) * timed).sum(dim=0))


def test_the_mix_is_found_in_the_exact_search_over_the_kept(rows: Rows, history: History):
    # Mutant: the cosines of the whole history's first k behaviors, not of those that were kept.
    sim = strengthened(SIM(D, search="content", k=2, attention_mix=True))
    interest = sim(rows.target, history)
    only_kept = history._replace(mask=interest.kept)
    torch.testing.assert_close(sim.exact(rows.target, only_kept), interest.vector)


def test_the_mix_starts_as_the_attention_of_ids(rows: Rows, history: History):
    # Mutant: the authors' start (1, 1, 1), or the weights of IDs and content exchanged.
    plain, mixed = SIM(D, search="hard", k=3), SIM(D, search="hard", k=3, attention_mix=True)
    mixed.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(
        mixed(rows.target, history).vector, plain(rows.target, history).vector, rtol=0, atol=0
    )


def test_the_mix_of_two_heads_by_hand():
    # 2 a + 3 R + 4 a R for the first head, a - R for the second; a = 1, 2, R = 0.5, -0.25, and one that is padding.
    mix = AttentionMix(2)
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([[2.0, 1.0], [3.0, -1.0], [4.0, 0.0]]))
    logits = torch.tensor([[[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]]])
    mixed = mix(logits, torch.tensor([[0.5, -0.25, float("nan")]]), torch.tensor([[True, True, False]]))
    assert mixed[0, :, :2].tolist() == [[5.5, 1.25], [0.5, 2.25]]
    assert mixed.isfinite().all()


def test_the_auxiliary_task_trains_the_search_and_the_click_does_not(rows: Rows):
    # Mutant: the search trained through nothing, its projections random for ever.
    sim = SIM(D, search="soft", k=3)
    run(sim, rows).vector.sum().backward()
    assert sim.soft.target.weight.grad is None
    run(sim, rows).auxiliary.logits.sum().backward()
    assert sim.soft.target.weight.grad.abs().sum() > 0
    assert sim.soft.behaviors.weight.grad.abs().sum() > 0


def test_time_buckets_double_in_length():
    gaps = torch.tensor([[0, 1, 2, 3, 4, 7, 8, 86_400, 10**9]])
    assert time_buckets(gaps, 30).tolist() == [[0, 1, 2, 2, 3, 3, 4, 17, 29]]
