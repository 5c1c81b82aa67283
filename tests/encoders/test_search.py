import pytest
import torch

from mimctr.encoders.search import search_metrics, search_ranks


def test_ranks_equal_a_written_out_loop():
    queries, items = torch.randn(7, 3), torch.randn(20, 3)
    items[4] = items[3]  # a tie
    positives = torch.tensor([3, 4, 0, 1, 2, 19, 7])
    query_times = torch.tensor([50, 5, 10, 100, 0, 60, 70])
    item_times = torch.arange(20) * 3
    shown = torch.tensor([4, -1, 1, -1, 3, -1, 6])
    found = search_ranks(
        queries, items, positives, query_times=query_times, item_times=item_times, shown=shown
    ).tolist()

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    for n, query in enumerate(queries):
        rank, own = 1.0, cosine(query, items[positives[n]])
        for row, item in enumerate(items):
            if row in (positives[n], shown[n]) or item_times[row] > query_times[n]:
                continue
            score = cosine(query, item)
            equal = torch.equal(item, items[positives[n]])
            rank += 0.5 if equal else float(score > own)
        assert found[n] == rank, n


def test_items_that_are_all_alike_rank_in_the_middle():
    ranks = search_ranks(torch.ones(1, 4), torch.ones(11, 4), torch.tensor([2]))
    assert ranks.tolist() == [6.0]


def test_metrics_by_hand():
    metrics = search_metrics(torch.tensor([1.0, 2.0, 10.0, 10.5, 400.0]))
    assert metrics == pytest.approx(
        {"recall@1": 0.2, "recall@10": 0.6, "recall@100": 0.8, "mrr": (1 + 0.5 + 0.1 + 1 / 10.5 + 0.0025) / 5}
    )
