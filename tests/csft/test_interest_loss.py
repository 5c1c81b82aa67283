import math

import pytest
import torch
import torch.nn.functional as F

from mimctr.csft import loss
from mimctr.csft.loss import Candidates, Exclusions, Pool, info_nce, multi_level_info_nce

DIM = 4


def make_candidates(keys, *, seed=0, requires_grad=False) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    count = len(keys)
    fused, image, text = (
        torch.randn(count, DIM, generator=generator).requires_grad_(requires_grad) for _ in range(3)
    )
    everything = torch.ones(count, dtype=torch.bool)
    return Candidates(
        item_keys=torch.tensor(keys),
        fused=fused,
        image=image,
        text=text,
        has_image=everything,
        has_text=everything.clone(),
    )


def known(*pairs: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and the item keys that are no negatives of them, beside their own."""
    queries, keys = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return queries, keys


def joined(pool: Pool) -> Candidates:
    """A copy of all rows of a pool."""
    parts = [pool.fresh] if pool.remembered is None else [pool.fresh, pool.remembered]
    return Candidates(*(torch.cat(columns).detach() for columns in zip(*parts, strict=True)))


def split(candidates: Candidates, fresh: int) -> Pool:
    """The first rows are of this step, the others remembered."""
    return Pool(
        Candidates(*(column[:fresh] for column in candidates)),
        Candidates(*(column[fresh:] for column in candidates)),
    )


def written_out(query, view, candidates, has, *, temperature, bought=frozenset()) -> float:
    """Eq. (5), pair by pair."""

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    losses = []
    for n in range(len(query)):
        if not has[n]:
            continue
        denominator = 0.0
        for c in range(len(view)):
            twin = candidates.item_keys[c] == candidates.item_keys[n]
            if c != n and (twin or (n, int(candidates.item_keys[c])) in bought or not has[c]):
                continue
            denominator += math.exp(cosine(query[n], view[c]) / temperature)
        losses.append(-math.log(math.exp(cosine(query[n], view[n]) / temperature) / denominator))
    return sum(losses) / len(losses)


BOUGHT = [(0, 7), (0, 9), (0, 1), (2, 8), (2, 6), (2, 8), (3, 77)]
"""An item bought twice, one that is in no pool, and nothing but its own item of query 1."""


@pytest.mark.parametrize("bought", [BOUGHT, []])
@pytest.mark.parametrize("num_remembered", [0, 4, 12])
def test_loss_equals_a_written_out_double_loop_with_duplicates(num_remembered, bought):
    keys = [7, 8, 7, 9, 8, 5, 7, 4, 8, 8, 1, 2, 3, 7, 5, 6, 9, 9, 4, 7][: 8 + num_remembered]
    candidates = make_candidates(keys)
    candidates.has_text[[1, 5]] = False
    candidates.has_image[[2, 6]] = False
    query = torch.randn(4, DIM)
    pool = split(candidates, 8)
    exclusions = Exclusions(pool, 4, known=known(*bought))
    found = multi_level_info_nce(query, pool, exclusions, text_weight=0.3, image_weight=0.7, temperature=0.2)

    everything = torch.ones(len(keys), dtype=torch.bool)
    levels = (
        (1.0, candidates.fused, everything),
        (0.3, candidates.text, candidates.has_text),
        (0.7, candidates.image, candidates.has_image),
    )
    expected = sum(
        weight * written_out(query, view, candidates, has, temperature=0.2, bought=set(bought))
        for weight, view, has in levels
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fresh", [4, 7, 20])
@pytest.mark.parametrize("block", [1, 3, 20, 64])
def test_blocks_change_neither_loss_nor_gradient(monkeypatch, block, fresh):
    """Against autograd over all logits at once, in float64; the first block holds nothing that query 3 may see."""
    monkeypatch.setattr(loss, "BLOCK", block)
    keys = [7, 8, 7, 9, 8, 5, 7, 4, 8, 8, 1, 2, 3, 7, 5, 6, 9, 9, 4, 7]
    there = torch.ones(20, dtype=torch.bool)
    there[[2, 11]] = False
    bought = known((3, 7), (3, 8), (0, 5))
    exclusions = Exclusions(Pool(make_candidates(keys)), 4, known=bought).without(~there)
    tensors = [torch.randn(4, DIM), torch.randn(fresh, DIM), torch.tensor(0.3)]
    ours, dense = ([tensor.double().requires_grad_() for tensor in tensors] for _ in range(2))
    remembered = torch.randn(20 - fresh, DIM).double()

    found = info_nce(ours[0], ours[1], exclusions, temperature=ours[2], remembered=remembered)
    items = torch.cat([dense[1], remembered])
    logits = F.normalize(dense[0], dim=-1) @ F.normalize(items, dim=-1).T / dense[2]
    logits = logits.masked_fill(exclusions.whole(), -torch.inf)
    expected = F.cross_entropy(logits[[0, 1, 3]], torch.tensor([0, 1, 3]))
    torch.testing.assert_close(found, expected)
    assert exclusions.count_negatives() == float((~exclusions.whole()).sum()) / 4 - 1
    (2 * found).backward()
    (2 * expected).backward()
    for one, other in zip(ours, dense, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("num_negatives", [1, 5, 200])
def test_equal_similarities_give_log_of_one_plus_the_negatives(num_negatives):
    candidates = make_candidates(list(range(num_negatives + 1)))
    exclusions = Exclusions(Pool(candidates), 1)
    found = info_nce(torch.randn(1, DIM), torch.ones(num_negatives + 1, DIM), exclusions, temperature=0.07)
    assert found.item() == pytest.approx(math.log(1 + num_negatives), rel=1e-5)


def test_no_negatives_is_no_loss():
    candidates = make_candidates([3, 3, 3])
    exclusions = Exclusions(Pool(candidates), 1)
    assert info_nce(torch.randn(1, DIM), candidates.fused, exclusions, temperature=0.07) == 0
    assert exclusions.count_negatives() == 0


def test_duplicates_of_the_positive_change_nothing():
    query = torch.randn(2, DIM)
    plain = make_candidates([5, 6, 7, 8])
    more = Candidates(*(torch.cat([column, column[[0, 1, 0]]]) for column in plain))
    one = multi_level_info_nce(query[:1], Pool(plain), Exclusions(Pool(plain), 1))
    two = multi_level_info_nce(query[:1], Pool(more), Exclusions(Pool(more), 1))
    again = 1 + torch.tensor([0.0, 0.0])  # item 6 stands there twice: it counts twice for query 0
    assert again.sum() == 2
    assert two > one
    only_own = Candidates(*(torch.cat([column, column[[0, 0]]]) for column in plain))
    three = multi_level_info_nce(query[:1], Pool(only_own), Exclusions(Pool(only_own), 1))
    torch.testing.assert_close(three, one)


def test_items_that_the_user_bought_are_no_negatives_whosever_candidates_they_are():
    pool = split(make_candidates([1, 2, 3, 4, 1, 3]), 4)
    exclusions = Exclusions(pool, 2, known=known((0, 1), (0, 3)))
    others, own_again = [False, False, True, False, True, True], [False] * 6
    assert exclusions.whole().tolist() == [others, own_again]
    for columns, expected in (([0, 1], [False, False]), ([2, 2], [True, False]), ([5, 3], [True, False])):
        assert exclusions.at(torch.tensor(columns)).tolist() == expected
    missing = torch.tensor([False, False, False, True, False, False])
    assert exclusions.without(missing).at(torch.tensor([3, 3])).all()
    assert not exclusions.at(torch.tensor([3, 3])).any()


def test_queries_of_a_later_process_exclude_from_their_own_rows_on():
    pool = Pool(make_candidates([5, 6, 7, 6, 5, 7]))
    exclusions = Exclusions(pool, 2, first=1, known=known((0, 7)))  # the positives are items 6 and 7
    row = [False, False, True, True, False, True], [False, False, False, False, False, True]
    assert exclusions.whole().tolist() == list(row)


def test_gradient_reaches_query_and_every_candidate_of_the_batch():
    candidates = make_candidates([1, 2, 3, 4], requires_grad=True)
    query = torch.randn(2, DIM, requires_grad=True)
    multi_level_info_nce(query, Pool(candidates), Exclusions(Pool(candidates), 2)).backward()
    for view in (query, candidates.fused, candidates.image, candidates.text):
        assert (view.grad.abs().sum(1) > 0).all()


def test_a_view_that_is_not_there_gets_no_gradient():
    candidates = make_candidates([1, 2, 3, 4], requires_grad=True)
    candidates.has_text[1] = False
    multi_level_info_nce(torch.randn(2, DIM), Pool(candidates), Exclusions(Pool(candidates), 2)).backward()
    assert (candidates.text.grad[1] == 0).all()
    assert (candidates.text.grad[0] != 0).any()


def test_levels_of_weight_zero_are_left_out():
    candidates = make_candidates([1, 2, 3])
    query = torch.randn(3, DIM)
    exclusions = Exclusions(Pool(candidates), 3)
    only = multi_level_info_nce(query, Pool(candidates), exclusions, text_weight=0.0, image_weight=0.0)
    torch.testing.assert_close(only, info_nce(query, candidates.fused, exclusions, temperature=0.07))


def test_no_title_in_the_whole_batch_is_no_title_level():
    candidates = make_candidates([1, 2, 3])
    candidates.has_text[:] = False
    query = torch.randn(2, DIM)
    exclusions = Exclusions(Pool(candidates), 2)
    with_level = multi_level_info_nce(query, Pool(candidates), exclusions, image_weight=0.0)
    without = multi_level_info_nce(query, Pool(candidates), exclusions, text_weight=0.0, image_weight=0.0)
    torch.testing.assert_close(with_level, without)
