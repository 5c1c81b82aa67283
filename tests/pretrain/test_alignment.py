import math

import pytest
import torch
import torch.nn.functional as F
from encoders.small import TITLES, image_encoder, picture, text_encoder

from mimctr.pretrain.alignment import AlignmentModel, retrieval_metrics, symmetric_info_nce


def different(count: int) -> torch.Tensor:
    """Numbers of titles and pictures of which no two are alike."""
    return torch.arange(count).unsqueeze(1).expand(count, 2)


def test_loss_equals_a_written_out_double_loop_with_duplicate_titles():
    images, texts = F.normalize(torch.randn(5, 3), dim=1), F.normalize(torch.randn(5, 3), dim=1)
    title = [0, 1, 0, 2, 1]
    total = 0.0
    for one, other in ((images, texts), (texts, images)):
        for n in range(5):
            own = math.exp(8.0 * float(one[n] @ other[n]))
            others = sum(math.exp(8.0 * float(one[n] @ other[m])) for m in range(5) if title[m] != title[n])
            total -= math.log(own / (own + others)) / 10
    assert symmetric_info_nce(
        images, texts, torch.tensor([title, [*range(5)]]).T, scale=8.0
    ).item() == pytest.approx(total, rel=1e-5)


def test_equal_similarities_give_the_logarithm_of_the_batch():
    vectors = F.normalize(torch.ones(7, 3), dim=1)
    found = symmetric_info_nce(vectors, vectors, different(7), scale=3.0)
    assert found.item() == pytest.approx(math.log(7))


def test_the_temperature_is_learned_and_clamped():
    model = AlignmentModel(image_encoder(), text_encoder(), temperature=0.05)
    assert model.scale.item() == pytest.approx(20.0)
    with torch.no_grad():
        model.log_scale.fill_(math.log(250.0))
    model.clamp_scale()
    assert model.scale.item() == pytest.approx(100.0)
    model.scale.backward()
    assert model.log_scale.grad > 0


def test_both_encoders_learn():
    image, text = image_encoder(), text_encoder()
    model = AlignmentModel(image, text)
    images = model.encode_images(image.pixels([picture(n) for n in range(6)]))
    texts = model.encode_texts(*text.tokenize(TITLES))
    torch.testing.assert_close(images.norm(dim=1), torch.ones(6))
    symmetric_info_nce(images, texts, different(6), scale=model.scale).backward()
    assert image.network.embeddings.patch_embeddings.projection.weight.grad.abs().max() > 0
    assert text.network.embeddings.word_embeddings.weight.grad.abs().max() > 0
    assert model.log_scale.grad.abs() > 0


def test_items_of_equal_titles_or_pictures_are_no_errors_of_the_search():
    """By a loop. Mutant: let them compete; a picture then has to guess which of two equal titles is its own."""
    images, texts = torch.randn(12, 3), torch.randn(12, 3)
    title = [0, 1, 2, 3, 0, 4, 5, 6, 1, 7, 8, 9]
    texts = texts[title]
    shown = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3]
    images = images[shown]
    found = retrieval_metrics(images, texts, torch.tensor([title, shown]).T)

    for way, one, other in (("image_to_title", images, texts), ("title_to_image", texts, images)):
        ranks = []
        for n in range(12):
            cosines = F.cosine_similarity(one[n : n + 1], other)
            wrong = [m for m in range(12) if title[m] != title[n] and shown[m] != shown[n]]
            ranks.append(1 + sum(float(cosines[m] > cosines[n]) for m in wrong))
        for depth in (1, 10, 100):
            share = sum(rank <= depth for rank in ranks) / 12
            assert found.pop(f"{way}_recall@{depth}") == pytest.approx(share)
        assert found.pop(f"{way}_mrr") == pytest.approx(sum(1 / rank for rank in ranks) / 12)
    assert found == {}


def test_a_perfect_alignment_with_duplicates_finds_everything_at_once():
    texts = torch.eye(4)[[0, 0, 1, 2, 3]]
    content = torch.tensor([[0, 0, 1, 2, 3], [0, 0, 1, 2, 3]]).T
    assert set(retrieval_metrics(texts, texts, content).values()) == {1.0}
