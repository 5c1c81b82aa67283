import pytest
import torch
from encoders.small import asking, item_encoder, shake

from mimctr.csft.model import InterestModel
from mimctr.csft.objectives import MultiLevelInfoNCE
from mimctr.encoders.vectors import ItemVectors, QueryVectors


def vectors(count: int) -> ItemVectors:
    everything = torch.ones(count, dtype=torch.bool)
    return ItemVectors(torch.randn(count, 16), everything, torch.randn(count, 16), everything.clone())


def test_query_and_item_share_the_image_head():
    encoder = item_encoder()
    shake(encoder)
    model = InterestModel(encoder, MultiLevelInfoNCE()).eval()
    items = vectors(4)
    query, candidates = model(asking(items.image[:2]), items, torch.arange(4))
    torch.testing.assert_close(query, candidates.image[:2])
    torch.testing.assert_close(candidates.fused, encoder.fusion(candidates.image, candidates.text))


def test_pictures_and_texts_ask_each_through_its_head_in_the_order_of_the_batch():
    """One query at a time, by hand. Mutant: forget the order, pictures first."""
    encoder = item_encoder()
    shake(encoder)
    model = InterestModel(encoder, MultiLevelInfoNCE()).eval()
    items, keys = vectors(5), torch.arange(5)
    picture, text = torch.randn(2, 16), torch.randn(3, 16)
    order = [("text", 0), ("image", 0), ("text", 1), ("text", 2), ("image", 1)]
    place = torch.tensor([number + (2 if kind == "text" else 0) for kind, number in order])
    query, _ = model(QueryVectors(picture, text, place), items, keys)
    for found, (kind, number) in zip(query, order, strict=True):
        row = slice(number, number + 1)
        one = encoder.query_view(picture[row]) if kind == "image" else encoder.text_view(text[row])
        torch.testing.assert_close(found, one[0])


def test_an_item_asks_with_its_fused_vector_and_stands_apart_from_the_candidates():
    encoder = item_encoder()
    shake(encoder)
    model = InterestModel(encoder, MultiLevelInfoNCE(), drop_modality=0.0)
    asking, items = vectors(3), vectors(5)
    keys = torch.arange(5)
    query, candidates = model.eval()(asking, items, keys)
    torch.testing.assert_close(query, encoder(asking).fused)
    torch.testing.assert_close(candidates.fused, encoder(items).fused)
    query, candidates = model.train()(asking, items, keys)
    assert len(query) == 3
    torch.testing.assert_close(torch.cat([query, candidates.fused]).mean(0), torch.zeros(encoder.dim))


def test_dropping_takes_one_modality_and_never_both():
    model = InterestModel(item_encoder(), MultiLevelInfoNCE(), drop_modality=0.4)
    items = vectors(5000)
    items.has_text[:1000] = False
    dropped = model.drop(items)
    assert (dropped.has_image | dropped.has_text).all()
    assert torch.equal(dropped.has_image[:1000], items.has_image[:1000])
    assert (~dropped.has_image[1000:]).float().mean() == pytest.approx(0.2, abs=0.03)
    assert (~dropped.has_text[1000:]).float().mean() == pytest.approx(0.2, abs=0.03)


def test_dropping_happens_in_training_only_and_teaches_the_stand_ins():
    encoder = item_encoder()
    shake(encoder)
    model = InterestModel(encoder, MultiLevelInfoNCE(), drop_modality=0.9).train()
    _, candidates = model(asking(torch.randn(2, 16)), vectors(50), torch.arange(50))
    assert not (candidates.has_image & candidates.has_text).all()
    candidates.fused.square().sum().backward()
    assert encoder.no_image.grad.abs().max() > 0
    assert encoder.no_text.grad.abs().max() > 0
    _, candidates = model.eval()(asking(torch.randn(2, 16)), vectors(50), torch.arange(50))
    assert (candidates.has_image & candidates.has_text).all()


def test_a_common_part_of_all_items_does_not_reach_the_training_candidates():
    encoder = item_encoder()
    shake(encoder)
    model = InterestModel(encoder, MultiLevelInfoNCE(), drop_modality=0.0).train()
    encoder.fusion.eval()  # no dropout
    items = vectors(6)
    items.has_text[2] = False
    _, plain = model(asking(items.image[:2]), items, torch.arange(6))
    with torch.no_grad():
        for coordinates in (encoder.image_coordinates, encoder.text_coordinates):
            coordinates.mean += 3 * torch.randn_like(coordinates.mean)
    _, moved = model(asking(items.image[:2]), items, torch.arange(6))
    torch.testing.assert_close(moved.image, plain.image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved.text[items.has_text], plain.text[items.has_text], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.fused.mean(0), torch.zeros(6), rtol=0, atol=1e-5)
