"""SIM's two units, and the exactness of the searches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimctr.ubm.embeddings import Rows
from mimctr.ubm.search import keep_highest, keep_newest, kept_positions
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


def test_equal_scores_keep_exactly_k():
    # Mutants: > instead of >= against the k-th score keeps k - 1; >= keeps all of them.
    kept = keep_highest(torch.ones(B, L), MASK, 3)
    assert torch.equal(kept.sum(dim=1), LENGTHS.clamp(max=3))


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


@pytest.mark.parametrize("search", ["hard", "soft"])
def test_k_at_least_the_length_equals_no_search(search: str, rows: Rows):
    # Mutant: the gather shifted by one position, or time gaps left where they were.
    rows = rows._replace(same_category=rows.mask)
    models = [strengthened(SIM(D, search=search, k=k)) for k in (L - 1, L, 10 * L)]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    torch.testing.assert_close(run(models[1], rows).vector, run(models[2], rows).vector, rtol=0, atol=0)
    # With k = L - 1 the rows that are shorter than k lose nothing either, though they went through the gather.
    short = LENGTHS < L
    torch.testing.assert_close(run(models[0], rows).vector[short], run(models[1], rows).vector[short])


def test_the_exact_search_equals_attention_written_out(rows: Rows):
    sim = strengthened(SIM(D, search="soft", k=L, num_heads=2, head_dim=3, time_dim=4))
    unit = sim.exact
    found = run(sim, rows).vector.view(B, 2, D + 4)
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
            weights = scores.exp() / scores.exp().sum()
            torch.testing.assert_close(found[b, head], (weights.unsqueeze(-1) * timed).sum(dim=0))


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
