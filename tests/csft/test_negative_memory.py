import pytest
import torch

from csft.test_interest_loss import DIM, make_candidates
from mimctr.csft.loss import Candidates, Exclusions, multi_level_info_nce
from mimctr.csft.negatives import NegativeMemory
from mimctr.errors import ConfigError, DataError


def distinct_batch(number: int, *, rows: int, requires_grad: bool = False):
    keys = list(range(number * rows, (number + 1) * rows))
    return make_candidates(keys, seed=number, requires_grad=requires_grad)


def remembered_by(memory: NegativeMemory) -> Candidates:
    remembered = memory.extend(distinct_batch(9, rows=memory.rows)).remembered
    assert remembered is not None
    return remembered


@pytest.mark.parametrize("k", [0, 1, 3, 10])
@pytest.mark.parametrize("n", [1, 4])
def test_a_full_memory_of_distinct_items_gives_2n_times_k_plus_1_minus_1_negatives(n, k):
    memory = NegativeMemory(k, 2 * n, DIM)
    for number in range(k + 2):
        batch = distinct_batch(number, rows=2 * n)
        pool = memory.extend(batch)
        memory.enqueue(batch)
    assert len(pool) == 2 * n * (k + 1)
    assert Exclusions(pool, n).count_negatives() == 2 * n * (k + 1) - 1


def test_the_memory_fills_batch_by_batch():
    memory = NegativeMemory(3, 2, DIM)
    sizes = []
    for number in range(6):
        batch = distinct_batch(number, rows=2)
        sizes.append(len(memory.extend(batch)))
        memory.enqueue(batch)
    assert sizes == [2, 4, 6, 8, 8, 8]


def test_the_oldest_batch_leaves_first():
    memory = NegativeMemory(2, 2, DIM)
    for number in range(5):
        memory.enqueue(distinct_batch(number, rows=2))
        remembered = set(remembered_by(memory).item_keys.tolist())
        newest = {2 * number, 2 * number + 1}
        before = {2 * number - 2, 2 * number - 1} if number else set()
        assert remembered == newest | before


def test_every_column_of_a_row_stays_with_its_item():
    memory = NegativeMemory(2, 3, DIM)
    batches = [distinct_batch(number, rows=3) for number in range(2)]
    batches[1].has_text[1] = False
    for batch in batches:
        memory.enqueue(batch)
    remembered = remembered_by(memory)
    for batch in batches:
        for row in range(3):
            place = remembered.item_keys.tolist().index(int(batch.item_keys[row]))
            for mine, theirs in zip(batch, remembered, strict=True):
                assert torch.equal(mine[row], theirs[place])


def test_gradient_reaches_the_batch_and_not_the_memory():
    memory = NegativeMemory(1, 2, DIM)
    old = distinct_batch(0, rows=2, requires_grad=True)
    memory.enqueue(old)
    new = distinct_batch(1, rows=2, requires_grad=True)
    pool = memory.extend(new)
    multi_level_info_nce(torch.randn(2, DIM), pool, Exclusions(pool, 2)).backward()
    assert (new.fused.grad.abs().sum(1) > 0).all()
    assert old.fused.grad is None


def test_later_changes_of_a_batch_do_not_reach_the_memory():
    memory = NegativeMemory(1, 2, DIM)
    batch = distinct_batch(0, rows=2)
    before = batch.fused.clone()
    memory.enqueue(batch)
    batch.fused.zero_()
    assert torch.equal(remembered_by(memory).fused, before)


def test_a_positive_that_is_still_remembered_is_no_negative():
    memory = NegativeMemory(1, 2, DIM)
    memory.enqueue(make_candidates([5, 6]))
    pool = memory.extend(make_candidates([6, 7]))
    assert Exclusions(pool, 1).whole().tolist() == [[False, False, False, True]]


def test_state_is_saved_with_pointer_and_fill():
    memory = NegativeMemory(3, 2, DIM)
    for number in range(4):
        memory.enqueue(distinct_batch(number, rows=2))
    copy = NegativeMemory(3, 2, DIM)
    copy.load_state_dict(memory.state_dict())
    for one in (memory, copy):
        one.enqueue(distinct_batch(7, rows=2))
    for mine, theirs in zip(remembered_by(memory), remembered_by(copy), strict=True):
        assert torch.equal(mine, theirs)


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(DataError, match="a batch of 3 rows, made for 2"):
        NegativeMemory(1, 2, DIM).enqueue(distinct_batch(0, rows=3))


def test_a_negative_number_of_batches_is_refused():
    with pytest.raises(ConfigError, match="num_memory_batches must be at least 0, got -1"):
        NegativeMemory(-1, 2, DIM)
