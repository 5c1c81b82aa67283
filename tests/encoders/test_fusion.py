import torch

from mimctr.encoders.fusion import FusionMLP, tensor_fusion


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


def test_fusion_starts_as_the_sum_of_both_views():
    image, text = torch.randn(5, 7), torch.randn(5, 7)
    torch.testing.assert_close(FusionMLP(7, hidden=3)(image, text), image + text)


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
