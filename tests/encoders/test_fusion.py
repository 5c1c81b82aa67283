import pytest
import torch

from mimctr.encoders.fusion import FusionMLP, LowRankFusion, tensor_fusion
from mimctr.errors import ConfigError


def test_tensor_fusion_equals_a_written_out_loop():
    image, text = torch.randn(3, 4), torch.randn(3, 2)
    expected = torch.empty(3, 5 * 3)
    for n in range(3):
        left = [*image[n].tolist(), 1.0]
        right = [*text[n].tolist(), 1.0]
        for i, a in enumerate(left):
            for j, b in enumerate(right):
                expected[n, i * 3 + j] = a * b
    torch.testing.assert_close(tensor_fusion(image, text), expected)


def test_tensor_fusion_holds_both_unimodal_vectors_and_the_constant():
    image, text = torch.randn(3, 4), torch.randn(3, 4)
    z = tensor_fusion(image, text).view(3, 5, 5)
    assert torch.equal(z[:, :4, 4], image)
    assert torch.equal(z[:, 4, :4], text)
    assert torch.equal(z[:, 4, 4], torch.ones(3))


@pytest.mark.parametrize("kind", ["tensor", "low_rank", "concat"])
def test_fusion_starts_as_the_sum_of_both_views(kind):
    image, text = torch.randn(5, 7), torch.randn(5, 7)
    torch.testing.assert_close(FusionMLP(7, kind=kind, rank=3, hidden=3)(image, text), image + text)


def test_low_rank_fusion_is_a_linear_map_of_the_products():
    """LMF's tensor, summed up from its factors, applied to TFN's z (arXiv:1806.00064, Eq. 5)."""
    fusion = LowRankFusion(4, rank=3)
    torch.nn.init.normal_(fusion.text)
    image, text = torch.randn(6, 4), torch.randn(6, 4)
    weights = torch.zeros(4, 5, 5)
    for r in range(3):
        for component in range(4):
            weights[component] += torch.outer(fusion.image[r, :, component], fusion.text[r, :, component])
    expected = tensor_fusion(image, text) @ weights.flatten(1).T
    torch.testing.assert_close(fusion(image, text), expected, rtol=1e-4, atol=1e-4)


def test_every_rank_of_low_rank_fusion_learns_from_the_first_step():
    fusion = FusionMLP(3, kind="low_rank", rank=4, hidden=4).eval()
    fusion(torch.randn(6, 3), torch.randn(6, 3)).square().sum().backward()
    assert (fusion.join.text.grad.abs().amax((1, 2)) > 0).all()


def test_a_rank_below_two_cannot_hold_both_views():
    with pytest.raises(ConfigError, match="fusion_rank: must be at least 2, got 1"):
        LowRankFusion(4, rank=1)


def test_concatenation_knows_no_products():
    """The mixed second difference of a function without products vanishes; tensor fusion's does not."""
    a, b, c, d = torch.randn(4, 5, 3)
    for kind, mixes in (("concat", False), ("tensor", True), ("low_rank", True)):
        join = FusionMLP(3, kind=kind, rank=4).join
        for parameter in join.parameters():
            torch.nn.init.normal_(parameter)
        mixed = join(a, c) - join(b, c) - join(a, d) + join(b, d)
        assert (mixed.abs().max() > 1e-3) == mixes


def test_products_and_hidden_layer_learn_from_the_first_step():
    fusion = FusionMLP(3, hidden=4).eval()
    fusion(torch.randn(6, 3), torch.randn(6, 3)).square().sum().backward()
    assert fusion.skip.weight.grad.view(3, 4, 4)[:, :3, :3].abs().min() > 0  # image x text entries of z
    assert fusion.out.weight.grad.abs().max() > 0


def test_dropout_is_off_in_evaluation():
    fusion = FusionMLP(3, hidden=64, dropout=0.9)
    torch.nn.init.normal_(fusion.out.weight)
    image, text = torch.randn(2, 3), torch.randn(2, 3)
    assert not torch.equal(fusion(image, text), fusion(image, text))
    fusion.eval()
    assert torch.equal(fusion(image, text), fusion(image, text))
