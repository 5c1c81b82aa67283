"""Every foundation model, minuscule: vectors, gradients, saving and loading, DDA, DMA and C-SFT."""

import math
from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from encoders.small import SIZE, TITLES, picture
from mimctr.csft.loss import Exclusions, Pool
from mimctr.csft.model import InterestModel
from mimctr.csft.objectives import MultiLevelInfoNCE
from mimctr.encoders.image import ImageEncoder
from mimctr.encoders.item import ItemEncoder
from mimctr.encoders.registry import FOUNDATIONS, Foundation, find
from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.encoders.vectors import ItemVectors, QueryVectors
from mimctr.errors import EncoderError
from mimctr.pretrain.alignment import AlignmentModel, symmetric_info_nce
from mimctr.pretrain.masked_image import MaskedImageModel
from mimctr.pretrain.masked_language import MaskedLanguageModel


def cases(*modalities: str) -> list:
    """Return the rows as cases named like them; those of timm run where it is installed."""
    return [
        pytest.param(row, id=row.name, marks=[pytest.mark.needs_timm] if row.needs_timm else [])
        for row in FOUNDATIONS
        if row.modality in modalities
    ]


def small(row: Foundation) -> ImageEncoder | TextEncoder:
    torch.manual_seed(0)
    config = {"model_type": row.network["model_type"], **row.small}
    if row.modality == "image":
        return ImageEncoder.from_config(config, size=SIZE, pooling=row.pooling)
    return TextEncoder.from_config(config, tokenizer(), max_length=12, pooling=row.pooling)


def pair(row: Foundation) -> tuple[ImageEncoder, TextEncoder]:
    """Return the row's encoder and a plain one of the other modality."""
    image = small(row if row.modality == "image" else find("vit-base"))
    text = small(row if row.modality == "text" else find("bert-base"))
    return image, text


def fit(model: torch.nn.Module, loss_of: Callable[[], torch.Tensor], *, num_steps: int = 60) -> float:
    """Train on one batch; return the last loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(num_steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def tokenizer() -> Tokenizer:
    return train_tokenizer(TITLES, vocab_size=80)


@pytest.mark.parametrize("row", cases("image"))
def test_every_vision_network_gives_vectors_gradients_and_the_same_after_loading(row, tmp_path):
    encoder = small(row)
    pixels = encoder.pixels([picture(number) for number in range(3)])
    vectors = encoder(pixels)
    assert vectors.shape == (3, encoder.dim)
    assert vectors.isfinite().all()
    assert not torch.allclose(vectors[0], vectors[1])
    vectors.square().sum().backward()
    trained = [parameter.grad is not None for parameter in encoder.parameters()]
    assert (
        sum(trained) / len(trained) > 0.8
    )  # layer norms and mask tokens that this pooling does not read stay out
    encoder.save(tmp_path)
    loaded = ImageEncoder.load(tmp_path)
    assert loaded.fingerprint == encoder.fingerprint
    with torch.no_grad():
        assert torch.equal(loaded(pixels), encoder.eval()(pixels))


@pytest.mark.parametrize("row", cases("image"))
def test_every_vision_network_can_be_trained_on_masked_pictures(row):
    model = MaskedImageModel(small(row), patch=8)
    pixels = model.encoder.pixels([picture(number) for number in range(4)])
    loss = model(pixels, model.draw_mask(4))
    loss.backward()
    assert loss.isfinite()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.encoder.parameters())


@pytest.mark.parametrize("row", cases("text"))
def test_every_language_network_gives_vectors_without_looking_at_padding(row, tmp_path):
    encoder = small(row)
    ids, mask = encoder.tokenize(TITLES)
    vectors = encoder(ids, mask)
    assert vectors.shape == (len(TITLES), encoder.dim)
    for number, title in enumerate(TITLES):
        torch.testing.assert_close(
            encoder(*encoder.tokenize([title]))[0], vectors[number], rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(encoder(torch.where(mask, ids, 7), mask), vectors, rtol=1e-4, atol=1e-5)
    vectors.square().sum().backward()
    trained = [parameter.grad is not None for parameter in encoder.parameters()]
    assert sum(trained) / len(trained) > 0.8
    encoder.save(tmp_path)
    loaded = TextEncoder.load(tmp_path)
    assert loaded.pooling == row.pooling
    with torch.no_grad():
        assert torch.equal(loaded(ids, mask), vectors)


@pytest.mark.parametrize("row", [case for case in cases("text") if case.values[0].pooling != "last"])
def test_every_network_that_looks_both_ways_learns_hidden_words(row):
    model = MaskedLanguageModel(small(row), ratio=0.3)
    ids, mask = model.encoder.tokenize(TITLES)
    hidden, chosen = model.hide(ids, mask)
    assert fit(model, lambda: model(ids, mask, hidden, chosen)) < 0.5 * math.log(len(model.bias))


@pytest.mark.parametrize("row", cases("image", "text"))
def test_every_row_learns_which_picture_and_title_belong_together(row):
    """Chance is ln 6, six pairs."""
    model = AlignmentModel(*pair(row))
    pixels = model.image_encoder.pixels([picture(number) for number in range(6)])
    tokens = model.text_encoder.tokenize(TITLES)
    content = torch.arange(6).unsqueeze(1).expand(6, 2)  # no two alike

    def loss() -> torch.Tensor:
        return symmetric_info_nce(
            model.encode_images(pixels), model.encode_texts(*tokens), content, scale=model.scale
        )

    assert fit(model, loss) < 0.5 * math.log(6)
    encoder = model.image_encoder if row.modality == "image" else model.text_encoder
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("row", cases("image", "text"))
def test_every_row_learns_which_item_a_picture_asks_for(row):
    """Chance is 2 ln 6: six items, three levels with weights 1, 1/2 and 1/2."""
    encoder = ItemEncoder(*pair(row), dim=8, hidden=8)
    torch.nn.init.normal_(encoder.image_head.weight)
    torch.nn.init.normal_(encoder.text_head.weight)
    model = InterestModel(encoder, MultiLevelInfoNCE(), drop_modality=0.0)
    asked = encoder.image_encoder.pixels([picture(number) for number in range(6, 12)])
    shown = encoder.image_encoder.pixels([picture(number) for number in range(6)])
    tokens = encoder.text_encoder.tokenize(TITLES)
    keys, all_there = torch.arange(6), torch.ones(6, dtype=torch.bool)

    def loss() -> torch.Tensor:
        items = ItemVectors(encoder.image_vectors(shown), all_there, encoder.text_vectors(*tokens), all_there)
        image = encoder.image_vectors(asked)
        query, own = model(
            QueryVectors(image, image.new_zeros(0, encoder.text_encoder.dim), keys), items, keys
        )
        return model.objective(query, own, Pool(own), Exclusions(Pool(own), len(query)), keys)

    assert fit(model, loss, num_steps=100) < 0.5 * 2 * math.log(6)
    tower = encoder.image_encoder if row.modality == "image" else encoder.text_encoder
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in tower.parameters())


@pytest.mark.parametrize("row", cases("image", "text"))
def test_every_row_makes_item_embeddings(row, tmp_path):
    encoder = ItemEncoder(*pair(row), dim=4, hidden=3)
    torch.nn.init.normal_(encoder.image_head.weight)
    torch.nn.init.normal_(encoder.text_head.weight)
    vectors, known = encoder.embed_items([picture(1), None, picture(2)], ["red shoe", "bag", None])
    assert known.all()
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    encoder.save(tmp_path)
    again, _ = ItemEncoder.load(tmp_path).embed_items(
        [picture(1), None, picture(2)], ["red shoe", "bag", None]
    )
    assert torch.equal(again, vectors)


def test_the_last_real_token_can_be_the_vector():
    encoder = small(find("gpt2"))
    ids, mask = encoder.tokenize(TITLES)
    hidden = encoder.token_vectors(ids, mask)
    for number in range(len(TITLES)):
        assert torch.equal(encoder(ids, mask)[number], hidden[number, mask[number].nonzero().max()])


@pytest.mark.parametrize("texts", [[""], ["", "red shoe"]])
def test_a_text_without_any_token_has_a_finite_vector(texts):
    """GPT-2's tokenizer adds no special tokens; a text of none is one token of padding."""
    bare = tokenizer()
    bare.post_processor = None
    bare = Tokenizer.from_str(bare.to_str())
    config = {"model_type": "gpt2", **find("gpt2").small}
    encoder = TextEncoder.from_config(config, bare, max_length=12, pooling="last")
    ids, mask = encoder.tokenize(texts)
    assert mask.any(1).all()
    assert encoder(ids, mask).isfinite().all()


def test_of_a_model_with_two_towers_the_wanted_one_is_loaded(tmp_path):
    """CLIP's folder holds both; its vectors are those of its own towers."""
    vocabulary = tokenizer().get_vocab_size()
    text = {**find("clip-text-base").small, "vocab_size": vocabulary}
    torch.manual_seed(0)
    both = CLIPModel(CLIPConfig(vision_config=find("clip-vit-base").small, text_config=text)).eval()
    both.save_pretrained(tmp_path)
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    image, language = (
        ImageEncoder.load(tmp_path, size=SIZE, pooling="own"),
        TextEncoder.load(tmp_path, max_length=12, pooling="last"),
    )
    pixels = image.pixels([picture(number) for number in range(3)])
    ids, mask = language.tokenize(TITLES)
    with torch.no_grad():
        expected = both.vision_model(image.normalize(pixels)).pooler_output
        torch.testing.assert_close(image(pixels), expected, rtol=1e-4, atol=1e-5)
        hidden = both.text_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        ends = hidden[torch.arange(len(ids)), mask.sum(1) - 1]
        torch.testing.assert_close(language(ids, mask), ends, rtol=1e-4, atol=1e-5)


def test_a_tower_that_is_not_supported_is_refused_by_name(tmp_path):
    """SigLIP's text tower reads padding; without this its whole model would pass for a text network."""
    text = {**find("clip-text-base").small, "vocab_size": 50}
    text.pop("eos_token_id")
    SiglipModel(SiglipConfig(vision_config=find("siglip-base").small, text_config=text)).save_pretrained(
        tmp_path
    )
    assert ImageEncoder.load(tmp_path, size=SIZE).dim == 16
    with pytest.raises(EncoderError, match="of siglip only the tower that reads pixel_values is supported"):
        TextEncoder.load(tmp_path)


def test_full_sizes_are_known_without_weights():
    """Parameters as the models' own papers and pages print them, without heads: 23.5 M, 86.6 M, 124 M ...

    BEiT-3's page gives 222 M and 674 M for both branches, 87 M and 305 M for the vision branch alone.
    """
    sizes = {row.name: (round(row.sizes().parameters / 1e6, 1), row.sizes().width) for row in FOUNDATIONS}
    assert sizes["resnet-50"] == (23.5, 2048)
    assert sizes["dinov2-base"] == (86.6, 768)
    assert sizes["gpt2"] == (124.4, 768)
    assert sizes["beit3-base"][0] == pytest.approx(222 - 87, abs=1)
    assert sizes["beit3-large"][0] == pytest.approx(674 - 305, abs=1)
    assert sizes["minilm"][1] == 384
    assert len(sizes) == len(FOUNDATIONS)


def test_an_unknown_name_is_a_folder_or_a_hub_name():
    assert find("some/model") is None
    with pytest.raises(EncoderError):
        ImageEncoder.load("surely/not/there")


def test_every_foundation_model_of_the_paper_is_a_row():
    """Figure 5, and the defaults of Section 4."""
    vision = {"resnet-50", "swin-base", "convnext-base", "convnextv2-base", "convnextv2-large", "eva02-base"}
    language = {"bert-base", "gpt2", "beit3-base", "beit3-large", "bge-base"}
    assert vision <= {row.name for row in FOUNDATIONS if row.modality == "image"}
    assert language <= {row.name for row in FOUNDATIONS if row.modality == "text"}


def test_a_row_whose_weights_have_to_be_converted_says_so():
    with pytest.raises(
        EncoderError, match=r"^beit3-base: its weights are published as a pickle\. Convert them once"
    ):
        find("beit3-base").weights()
    assert not find("beit3-base").is_here()
