import pytest
import torch
from encoders.small import NETWORKS, SIZE, image_encoder, picture

from mimctr.errors import EncoderError
from mimctr.pretrain.masked_image import MaskedImageModel


def test_every_image_hides_the_same_number_of_patches():
    model = MaskedImageModel(image_encoder(), patch=4, ratio=0.6)
    mask = model.draw_mask(50)
    assert mask.shape == (50, 4, 4)
    assert mask.sum((1, 2)).tolist() == [10] * 50  # 0.6 of 16, rounded
    assert mask.float().mean(0).min() > 0.2  # every place is hidden at times


@pytest.mark.parametrize("network", NETWORKS)
def test_loss_is_the_mean_absolute_error_of_hidden_pixels(network):
    encoder = image_encoder(network)
    model = MaskedImageModel(encoder, patch=8, ratio=0.5).eval()
    pixels = encoder.pixels([picture(1), picture(2)])
    mask = torch.tensor([[[True, False], [False, False]], [[False, True], [True, False]]])

    inputs = encoder.normalize(pixels)
    seen = inputs.clone()
    hidden = torch.zeros(2, 1, SIZE, SIZE, dtype=torch.bool)
    for image in range(2):
        for row in range(SIZE):
            for column in range(SIZE):
                if mask[image, row // 8, column // 8]:
                    seen[image, :, row, column] = 0.0
                    hidden[image, :, row, column] = True
    predicted = model.decoder(encoder.feature_map(seen))
    assert predicted.shape == inputs.shape
    expected = (predicted - inputs).abs()[hidden.expand_as(inputs)].mean()
    torch.testing.assert_close(model(pixels, mask), expected)


def test_the_encoder_cannot_see_what_it_must_predict():
    encoder = image_encoder()
    model = MaskedImageModel(encoder, patch=8)
    seen = []
    encoder.network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    mask = torch.tensor([[[True, False], [False, False]]])
    pixels = encoder.pixels([picture(1)])
    model(pixels, mask)
    changed = pixels.clone()
    changed[:, :, :8, :8] = 255 - changed[:, :, :8, :8]
    model(changed, mask)
    assert torch.equal(seen[0], seen[1])


def test_the_encoder_learns():
    encoder = image_encoder()
    model = MaskedImageModel(encoder, patch=8)
    model(encoder.pixels([picture(1)]), model.draw_mask(1)).backward()
    assert encoder.network.embeddings.patch_embeddings.projection.weight.grad.abs().max() > 0


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(EncoderError, match="masked patch of 5 pixels does not divide the image size 16"):
        MaskedImageModel(image_encoder(), patch=5)
