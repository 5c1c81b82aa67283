"""Operations are those that a hand counts: oracles are closed forms, and the same work written another way."""

import torch
import torch.nn.functional as F

from mimctr.train.flops import count_operations
from mimctr.ubm.linear import HAS_ONEDNN, Linear

B, L, D, H = 5, 7, 12, 9


def products(work) -> int:
    with count_operations() as counted:
        work()
    return counted.products


def test_a_network_costs_what_its_matrices_say():
    """Forward 2 (D H + H) a row; backward as much for weights, and for the hidden layer's input."""
    model = torch.nn.Sequential(torch.nn.Linear(D, H), torch.nn.ReLU(), torch.nn.Linear(H, 1))
    x = torch.randn(B, D)
    with torch.no_grad():
        assert products(lambda: model(x)) == 2 * B * (D * H + H)
    assert products(lambda: model(x).sum().backward()) == 2 * B * (D * H + H) + 2 * B * (D * H + 2 * H)


def test_a_product_that_onednn_makes_is_counted():
    rows, inputs, outputs = 2048, 64, 64
    layer, x = Linear(inputs, outputs), torch.randn(rows, inputs, requires_grad=True)
    assert HAS_ONEDNN
    assert products(lambda: layer(x).sum().backward()) == 3 * 2 * rows * inputs * outputs


def test_a_matrix_times_a_vector_is_counted():
    matrix, vector = torch.randn(B, D), torch.randn(D)
    assert products(lambda: matrix @ vector) == 2 * B * D
    assert products(lambda: torch.addmv(torch.zeros(B), matrix, vector)) == 2 * B * D
    assert products(lambda: vector.dot(vector)) == 2 * D


def test_attention_costs_its_two_products_forward_and_five_backward():
    """PyTorch's own counter finds nothing of what a CPU does here; backward makes the scores once more."""
    query, key, value = (torch.randn(1, 2, L, D, requires_grad=True) for _ in range(3))
    one = 2 * 2 * L * L * D
    with torch.no_grad():
        assert products(lambda: F.scaled_dot_product_attention(query, key, value)) == 2 * one
    whole = products(lambda: F.scaled_dot_product_attention(query, key, value).sum().backward())
    assert whole == 2 * one + 5 * one


def test_what_is_computed_number_by_number_is_counted_apart():
    x, y = torch.randn(B, L), torch.randn(B, L)
    with count_operations() as counted:
        (x * y).sum(dim=1).sigmoid()
    assert counted.products == 0
    assert counted.elementwise == B * L + B * L + B
    with count_operations() as counted:
        F.layer_norm(x, (L,)), x.softmax(dim=1), F.batch_norm(x, torch.zeros(L), torch.ones(L))
    assert counted.elementwise == 3 * B * L
