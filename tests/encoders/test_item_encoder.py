import json

import pytest
import torch
import torch.nn.functional as F

from encoders.small import TITLES, image_encoder, item_encoder, picture, shake, text_encoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.text import train_tokenizer
from mimctr.encoders.vectors import ItemVectors
from mimctr.errors import DataError, EncoderError
from mimctr.weights import load_tensors, save_tensors

PICTURES = [picture(number) for number in range(6)]


@pytest.fixture
def encoder() -> ItemEncoder:
    encoder = item_encoder()
    shake(encoder)
    return encoder


def test_embedding_follows_equations_2_to_4(encoder):
    vectors, known = encoder.embed_items(PICTURES, TITLES)
    with torch.no_grad():
        image = F.normalize(encoder.image_encoder(encoder.image_encoder.pixels(PICTURES)), dim=1)
        text = F.normalize(encoder.text_encoder(*encoder.text_encoder.tokenize(TITLES)), dim=1)
        state = encoder.heads_state()
        image, text = (
            (vectors - state[f"{name}_coordinates.mean"])
            @ state[f"{name}_coordinates.axes"].T
            @ state[f"{name}_head.weight"].T
            for name, vectors in (("image", image), ("text", text))
        )
        one = torch.ones(6, 1)
        z = torch.stack(
            [
                torch.outer(torch.cat([i, o]), torch.cat([t, o]))
                for i, t, o in zip(image, text, one, strict=True)
            ]
        )
        fused = encoder.fusion.skip(z.flatten(1)) + encoder.fusion.out(encoder.fusion.branch(z.flatten(1)))
        fused = fused - encoder.center
    torch.testing.assert_close(vectors, F.normalize(fused, dim=1))
    assert known.all()


def test_a_missing_picture_or_title_is_replaced_by_its_stand_in(encoder):
    vectors, known = encoder.embed_items([PICTURES[0], None, None], [None, TITLES[1], None])
    with torch.no_grad():
        image = F.normalize(encoder.image_encoder(encoder.image_encoder.pixels(PICTURES[:1])), dim=1)
        image = encoder.image_head(encoder.image_coordinates(image))
        text = F.normalize(encoder.text_encoder(*encoder.text_encoder.tokenize(TITLES[1:2])), dim=1)
        text = encoder.text_head(encoder.text_coordinates(text))
        expected = torch.cat(
            [encoder.fusion(image, encoder.no_text[None]), encoder.fusion(encoder.no_image[None], text)]
        )
    torch.testing.assert_close(vectors[:2], F.normalize(expected - encoder.center, dim=1))
    assert known.tolist() == [True, True, False]
    assert torch.equal(vectors[2], torch.zeros(6))


def test_content_of_a_missing_modality_never_matters(encoder):
    has = torch.tensor([True, False])
    image, text = torch.randn(2, 16), torch.randn(2, 16)
    garbage = torch.where(has[:, None], image, torch.tensor(torch.nan))
    views = encoder(ItemVectors(image, has, text, ~has))
    torch.testing.assert_close(
        encoder(ItemVectors(garbage, has, text, ~has)).fused, views.fused, rtol=0, atol=0
    )


def test_an_item_does_not_depend_on_its_batch(encoder):
    pictures, titles = [*PICTURES[:4], None, PICTURES[5]], [*TITLES[:3], None, *TITLES[4:]]
    together, _ = encoder.embed_items(pictures, titles)
    for row in range(6):
        alone, _ = encoder.embed_items(pictures[row : row + 1], titles[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_embedding_is_deterministic_even_if_left_in_training_mode(encoder):
    encoder.train()
    first, _ = encoder.embed_items(PICTURES, TITLES)
    encoder.train()
    assert torch.equal(encoder.embed_items(PICTURES, TITLES)[0], first)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(6))


def test_no_items_are_no_vectors(encoder):
    vectors, known = encoder.embed_items([], [])
    assert vectors.shape == (0, 6)
    assert known.shape == (0,)


def test_an_unreadable_picture_is_an_error(encoder):
    with pytest.raises(DataError, match="not JPEG"):
        encoder.embed_items([b"not an image at all"], ["title"])


def test_saved_and_loaded_encoders_are_the_same(encoder, tmp_path):
    encoder.save(tmp_path)
    loaded = ItemEncoder.load(tmp_path)
    assert torch.equal(loaded.embed_items(PICTURES, TITLES)[0], encoder.embed_items(PICTURES, TITLES)[0])
    assert torch.equal(loaded.embed_query_images(PICTURES)[0], encoder.embed_query_images(PICTURES)[0])
    assert loaded.fingerprint == encoder.fingerprint


def test_every_tensor_changes_the_fingerprint(encoder):
    before = encoder.fingerprint
    for tensor in encoder.state_dict().values():
        with torch.no_grad():
            tensor.view(-1)[-1] += 1
        changed = encoder.fingerprint
        assert changed != before
        before = changed


def test_tokenizer_and_preprocessing_change_the_fingerprint(encoder):
    before = encoder.fingerprint
    encoder.image_encoder.size = 32
    assert encoder.fingerprint != before
    encoder.image_encoder.size = 16
    assert encoder.fingerprint == before
    encoder.text_encoder.tokenizer = train_tokenizer([*TITLES, "other"], vocab_size=80)
    assert encoder.fingerprint != before


def change_heads(folder):
    tensors, _ = load_tensors(folder / "heads.safetensors")
    tensors["no_text"][0] += 1
    save_tensors(folder / "heads.safetensors", tensors)


def change_image_encoder(folder):
    image_encoder(seed=5).save(folder / "image")


def change_text_encoder(folder):
    text_encoder(seed=5).save(folder / "text")


def change_preprocessing(folder):
    record = json.loads((folder / "image" / "encoder.json").read_text())
    (folder / "image" / "encoder.json").write_text(json.dumps(record | {"mean": [0.4, 0.5, 0.5]}))


def change_tokenizer(folder):
    path = folder / "text" / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))


@pytest.mark.parametrize(
    "change",
    [change_heads, change_image_encoder, change_text_encoder, change_preprocessing, change_tokenizer],
)
def test_a_part_that_was_exchanged_is_refused(encoder, tmp_path, change):
    encoder.save(tmp_path)
    change(tmp_path)
    with pytest.raises(EncoderError, match=r"fingerprint [0-9a-f]{12}, recorded [0-9a-f]{12}. Weights"):
        ItemEncoder.load(tmp_path)


def test_a_folder_without_record_is_refused(encoder, tmp_path):
    encoder.save(tmp_path)
    (tmp_path / "encoder.json").unlink()
    with pytest.raises(EncoderError, match=r"no encoder\.json in it"):
        ItemEncoder.load(tmp_path)


def test_a_tower_is_no_item_encoder(encoder, tmp_path):
    encoder.save(tmp_path)
    with pytest.raises(EncoderError, match="kind 'image' of format 1; an item encoder of format 6 is wanted"):
        ItemEncoder.load(tmp_path / "image")


def test_after_centering_the_mean_of_the_items_is_zero(encoder):
    vectors = ItemVectors(torch.randn(9, 16), torch.ones(9).bool(), torch.randn(9, 16), torch.rand(9) > 0.5)
    with torch.no_grad():
        views = encoder(vectors)
        encoder.set_center(*views[:3], encoder.category_index([None] * 9))
        fused = encoder(vectors).fused
    assert fused.mean(0).abs().max() < 1e-5
    assert fused.std() > 0.01


def test_in_training_a_batch_is_its_own_center(encoder):
    vectors = ItemVectors(torch.randn(9, 16), torch.ones(9).bool(), torch.randn(9, 16), torch.ones(9).bool())
    encoder.train()
    assert encoder(vectors).fused.mean(0).abs().max() < 1e-5


def test_content_of_a_category_is_centered_on_it_and_an_unknown_category_is_left_alone(encoder, tmp_path):
    names = ["bags", "hats", "bags", None, "boats", "hats"]
    with torch.no_grad():
        views = encoder(
            ItemVectors(
                encoder.image_vectors(encoder.image_encoder.pixels(PICTURES)),
                torch.ones(6).bool(),
                encoder.text_vectors(*encoder.text_encoder.tokenize(TITLES)),
                torch.ones(6).bool(),
            )
        )
        encoder.set_center(*views[:3], encoder.category_index(names))
        fused = views.fused - views.fused.mean(0)
    expected = fused.clone()
    for rows in ([0, 2], [1, 5]):
        expected[rows] -= fused[rows].mean(0)
    encoder.save(tmp_path)
    for one in (encoder, ItemEncoder.load(tmp_path)):
        vectors, _ = one.embed_items(PICTURES, TITLES, names)
        torch.testing.assert_close(vectors, F.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)
    without, _ = encoder.embed_items(PICTURES, TITLES)
    torch.testing.assert_close(without, F.normalize(fused, dim=1), rtol=1e-4, atol=1e-5)


def test_precision_goes_with_the_encoder(tmp_path, bfloat16):
    exact = item_encoder()
    rough = ItemEncoder(exact.image_encoder, exact.text_encoder, dim=6, hidden=5, bf16=True)
    rough.save(tmp_path)
    loaded = ItemEncoder.load(tmp_path)
    assert loaded.bf16
    assert exact.towers_fingerprint != loaded.towers_fingerprint == rough.towers_fingerprint
    with torch.no_grad():
        vectors = [one.image_vectors(one.image_encoder.pixels(PICTURES)) for one in (rough, loaded, exact)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[1], vectors[2])
    torch.testing.assert_close(vectors[1], vectors[2], rtol=0.0, atol=0.02)
    assert vectors[1].dtype == torch.float32


@pytest.mark.parametrize("fusion", ["low_rank", "concat"])
def test_the_fusion_is_part_of_the_record_and_the_fingerprint(tmp_path, fusion):
    one = item_encoder(fusion=fusion, fusion_rank=3)
    shake(one)
    one.save(tmp_path)
    loaded = ItemEncoder.load(tmp_path)
    assert torch.equal(loaded.embed_items(PICTURES, TITLES)[0], one.embed_items(PICTURES, TITLES)[0])
    record = json.loads((tmp_path / "encoder.json").read_text())
    assert record["settings"]["fusion"] == fusion
    record["settings"]["fusion"] = "tensor"
    (tmp_path / "encoder.json").write_text(json.dumps(record))
    with pytest.raises(EncoderError, match="do not fit this item encoder"):
        ItemEncoder.load(tmp_path)


def test_a_query_is_centered_on_the_category_it_looks_like(tmp_path):
    """Two clouds of pictures far apart: each query belongs to one; what is left of it is its place in the cloud."""
    encoder = item_encoder(categories=("bags", "boats", "hats"))
    offset = torch.zeros(2, encoder.dim)
    offset[0, 0], offset[1, 1] = 50.0, 50.0
    images = torch.randn(40, encoder.dim) + offset.repeat_interleave(20, 0)
    names = ["bags"] * 20 + ["hats"] * 20  # no boat is known: nothing is ever taken for one
    other = torch.randn(40, encoder.dim)
    encoder.set_center(other, images, other, encoder.category_index(names))
    assert encoder.query_category(images).tolist() == [0] * 20 + [2] * 20
    expected = torch.cat([images[:20] - images[:20].mean(0), images[20:] - images[20:].mean(0)])
    torch.testing.assert_close(encoder.query_content(images), F.normalize(expected, dim=1))
    encoder.save(tmp_path)
    vectors, category = ItemEncoder.load(tmp_path).embed_query_images(PICTURES)
    own, own_category = encoder.embed_query_images(PICTURES)
    assert torch.equal(vectors, own)
    assert torch.equal(category, own_category)


def test_a_query_text_is_centered_on_the_category_it_reads_like(tmp_path):
    """Mutant: measure texts from the centers of the pictures."""
    encoder = item_encoder(categories=("bags", "boats", "hats"), text_queries=True)
    shake(encoder)
    with torch.no_grad():
        texts = encoder.text_view(encoder.text_vectors(*encoder.text_encoder.tokenize(TITLES)))
    names = ["bags"] * 3 + ["hats"] * 3
    other = torch.randn(6, encoder.dim)
    encoder.set_center(other, other, texts, encoder.category_index(names))
    centers = {0: texts[:3].mean(0), 2: texts[3:].mean(0)}
    nearest = [min(centers, key=lambda number: (text - centers[number]).norm().item()) for text in texts]
    expected = torch.stack([text - centers[number] for text, number in zip(texts, nearest, strict=True)])
    encoder.save(tmp_path)
    for one in (encoder, ItemEncoder.load(tmp_path)):
        vectors, category = one.embed_query_texts(TITLES)
        assert category.tolist() == nearest
        torch.testing.assert_close(vectors, F.normalize(expected, dim=1))


def test_texts_ask_only_an_encoder_that_was_made_for_them(encoder):
    with pytest.raises(
        EncoderError, match=r"made without text queries, and 2 texts ask\. Make it again with"
    ):
        encoder.embed_query_texts(["red hat", "bag"])
    assert encoder.fingerprint != item_encoder(text_queries=True).fingerprint


def test_without_categories_a_query_is_only_normalized():
    encoder = item_encoder(categories=())
    queries = torch.randn(5, encoder.dim)
    assert encoder.query_category(queries).tolist() == [-1] * 5
    assert torch.equal(encoder.query_content(queries), F.normalize(queries, dim=-1))
