import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from encoders.small import TITLES, item_encoder, picture
from mimctr.encoders.plain import fit_plain_geometry
from mimctr.errors import EncoderError


def unit(rows: int, dim: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, dim) + 0.5, dim=-1)


def joined(images: torch.Tensor, texts: torch.Tensor) -> np.ndarray:
    """Both modalities side by side, each with a total variance of one."""
    parts = (images.double().numpy(), texts.double().numpy())
    return np.concatenate([part / np.sqrt(part.var(axis=0).sum()) for part in parts], axis=1)


def test_both_parts_add_up_to_the_pca_of_the_concatenation():
    images, texts = unit(50, 5), unit(50, 7)
    geometry = fit_plain_geometry(images, texts, dim=6)
    found = (
        (images - geometry.image_mean) @ geometry.image_axes.T
        + (texts - geometry.text_mean) @ geometry.text_axes.T
    ).numpy()

    joint = joined(images, texts)
    expected = PCA(6, svd_solver="full").fit_transform(joint)
    scale = np.sqrt((expected**2).sum(1).mean())
    sign = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * sign, expected / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_whitening_brings_the_variances_together(whitening):
    images, texts = unit(200, 5), unit(200, 7)
    geometry = fit_plain_geometry(images, texts, dim=6, num_axes=8, whitening=whitening)
    found = (images - geometry.image_mean) @ geometry.image_axes.T
    found = found + (texts - geometry.text_mean) @ geometry.text_axes.T

    joint = joined(images, texts)
    expected = PCA(8, svd_solver="full").fit(joint).explained_variance_ ** (1 - whitening)
    variances = found.var(0).numpy()
    np.testing.assert_allclose(variances / variances[0], expected / expected[0], rtol=1e-4)
    assert found[:, :6].square().sum(1).mean().item() == pytest.approx(1, rel=1e-4)


def test_a_modality_whose_vectors_lie_far_apart_does_not_decide_alone():
    images, texts = unit(50, 5), unit(50, 7)

    def coordinates(texts: torch.Tensor) -> torch.Tensor:
        geometry = fit_plain_geometry(images, texts, dim=6)
        found = (images - geometry.image_mean) @ geometry.image_axes.T
        return found + (texts - geometry.text_mean) @ geometry.text_axes.T

    torch.testing.assert_close(coordinates(texts), coordinates(40 * texts - 3), rtol=1e-3, atol=1e-4)


def test_titles_that_are_all_alike_leave_the_pictures():
    images, texts = unit(50, 5), torch.ones(50, 7) / 7**0.5
    geometry = fit_plain_geometry(images, texts, dim=3)
    assert geometry.text_axes.abs().max() < 1e-4
    found = ((images - geometry.image_mean) @ geometry.image_axes.T).numpy()
    expected = PCA(3, svd_solver="full").fit_transform(images.double().numpy())
    sign = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(
        found * sign, expected / np.sqrt((expected**2).sum(1).mean()), rtol=1e-3, atol=1e-4
    )


def test_axes_without_variance_are_zero():
    images, texts = unit(5, 5), unit(5, 7)  # five items span four dimensions
    geometry = fit_plain_geometry(images, texts, dim=2, num_axes=8, whitening=1.0)
    norms = torch.cat([geometry.image_axes, geometry.text_axes], 1).norm(dim=1)
    assert (norms[:4] > 0).all()
    assert not norms[4:].any()


def test_the_sign_of_an_axis_does_not_depend_on_the_order_of_the_items():
    images, texts = unit(50, 5), unit(50, 7)
    order = torch.randperm(50)
    first = fit_plain_geometry(images, texts, dim=4)
    second = fit_plain_geometry(images[order], texts[order], dim=4)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_item_encoder_starts_exactly_at_the_pca():
    pictures = [picture(number) for number in range(20)]
    titles = [TITLES[number % 6] + " red" * (number % 4) + " bag" * (number % 3) for number in range(20)]
    encoder = item_encoder(dim=6)
    with torch.no_grad():
        images = encoder.image_vectors(encoder.image_encoder.pixels(pictures))
        texts = encoder.text_vectors(*encoder.text_encoder.tokenize(titles))
    encoder.start_plain(fit_plain_geometry(images, texts, dim=6, num_axes=24))

    scores = PCA(6, svd_solver="full").fit_transform(joined(images, texts))
    cosines = scores @ scores.T / np.linalg.norm(scores, axis=1)[:, None] / np.linalg.norm(scores, axis=1)
    vectors, _ = encoder.embed_items(pictures, titles)
    np.testing.assert_allclose((vectors @ vectors.T).numpy(), cosines, atol=1e-4)


def test_a_query_image_goes_through_the_image_part():
    encoder = item_encoder(dim=4)
    images, texts = unit(30, 16), unit(30, 16)
    geometry = fit_plain_geometry(images, texts, dim=4, num_axes=16)
    encoder.start_plain(geometry)
    with torch.no_grad():
        vector = encoder.image_vectors(encoder.image_encoder.pixels([picture(1)]))
    expected = F.normalize((vector - geometry.image_mean) @ geometry.image_axes[:4].T, dim=-1)
    torch.testing.assert_close(encoder.embed_query_images([picture(1)])[0], expected)


def test_a_query_text_goes_through_the_text_part():
    """Mutant: ask with the image's axes."""
    encoder = item_encoder(dim=4, text_queries=True)
    geometry = fit_plain_geometry(unit(30, 16), unit(30, 16), dim=4, num_axes=16)
    encoder.start_plain(geometry)
    with torch.no_grad():
        vector = encoder.text_vectors(*encoder.text_encoder.tokenize(["a red hat"]))
    expected = F.normalize((vector - geometry.text_mean) @ geometry.text_axes[:4].T, dim=-1)
    torch.testing.assert_close(encoder.embed_query_texts(["a red hat"])[0], expected)


@pytest.mark.parametrize(
    ("rows", "dim", "message"),
    [
        (1, 4, "1 items have both image and title; PCA needs at least 2"),
        (
            9,
            13,
            r"content dimension 13: image \(5\) and title vectors \(7\) have only 12 dimensions together",
        ),
    ],
)
def test_what_pca_cannot_do_is_said(rows, dim, message):
    with pytest.raises(EncoderError, match=message):
        fit_plain_geometry(unit(rows, 5), unit(rows, 7), dim=dim)


def test_items_that_are_all_alike_are_refused():
    with pytest.raises(EncoderError, match="the vectors of all 9 items are alike"):
        fit_plain_geometry(unit(1, 5).expand(9, 5), unit(1, 7).expand(9, 7), dim=2)
