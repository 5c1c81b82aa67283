import json

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from encoders.small import BERT, TITLES, image_encoder, shake, text_encoder
from mimctr.encoders.text import (
    LETTERS_PER_TOKEN,
    TextEncoder,
    mask_token_index,
    special_token_indices,
    train_tokenizer,
)
from mimctr.errors import DataError, EncoderError


def test_padding_is_invisible():
    encoder = text_encoder()
    shake(encoder)
    ids, mask = encoder.tokenize(TITLES)
    assert not mask.all()
    together = encoder(ids, mask)
    for row, title in enumerate(TITLES):
        torch.testing.assert_close(
            encoder(*encoder.tokenize([title]))[0], together[row], rtol=1e-4, atol=1e-5
        )
    garbage = torch.where(mask, ids, 7)
    torch.testing.assert_close(encoder(garbage, mask), together, rtol=1e-4, atol=1e-5)


def test_the_mean_is_over_real_tokens():
    encoder = text_encoder()
    ids, mask = encoder.tokenize(TITLES)
    hidden = encoder.token_vectors(ids, mask)
    expected = torch.stack([hidden[row, : mask[row].sum()].mean(0) for row in range(len(TITLES))])
    torch.testing.assert_close(encoder(ids, mask), expected)


def test_the_first_token_can_be_the_vector():
    encoder = TextEncoder.from_config(BERT, train_tokenizer(TITLES), max_length=12, pooling="cls")
    ids, mask = encoder.tokenize(TITLES)
    torch.testing.assert_close(encoder(ids, mask), encoder.token_vectors(ids, mask)[:, 0])


def test_tokenizers_of_the_same_texts_are_equal():
    letters = "abcdefghijklmnop"
    words = [
        letters[i % 16] + letters[i * 7 % 16] + letters[i * 3 % 16] + letters[i * i % 16] for i in range(300)
    ]
    texts = [" ".join(words[i : i + 5]) for i in range(290)]
    assert len({train_tokenizer(texts, vocab_size=100).to_str() for _ in range(5)}) == 1


def test_words_and_letters_of_the_texts_are_known():
    tokenizer = train_tokenizer(TITLES * 20, vocab_size=200)
    assert tokenizer.encode("Red SHOE").tokens == ["[CLS]", "red", "shoe", "[SEP]"]
    assert "[UNK]" not in tokenizer.encode("habed").tokens
    assert tokenizer.encode("日").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert special_token_indices(tokenizer) == [0, 1, 2, 3, 4]
    assert tokenizer.id_to_token(mask_token_index(tokenizer)) == "[MASK]"


def byte_pair_tokenizer():
    """Return a tokenizer of GPT-2's kind: no special token around a text, spaces belong to the word behind them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TITLES * 20, trainer)
    return tokenizer


PIECES = [
    "red",
    " ",
    "   ",
    "\n",
    "shoe",
    "a-b",
    "leather" * 40,
    "赤い",
    "👟",
    "\u200b",
    "é",
    "e\u0301",
    "x",
    ".",
]


@pytest.mark.parametrize("tokenizer", [train_tokenizer(TITLES, vocab_size=80), byte_pair_tokenizer()])
@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=60), st.integers(1, 60))
@example(["a-b", "leather" * 40], 2)  # no space at which to cut
def test_a_long_text_is_tokenized_as_if_it_were_read_whole(tokenizer, pieces, repeat):
    """Mutant: cut at a number of letters; a word longer than that, or much space, then gives other tokens."""
    encoder = TextEncoder.from_config(BERT, tokenizer, max_length=12)
    text = "".join(pieces) * repeat
    whole = tokenizer.encode(text)
    ids, mask = encoder.tokenize([text])
    if whole.ids:
        assert ids[0].tolist() == whole.ids
        assert mask[0].tolist() == [True] * len(whole.ids)


@pytest.mark.parametrize("text", ["red shoe " * 11_000, "赤" * 100_000, "red, " * 20_000])
def test_of_a_very_long_text_little_is_tokenized(text):
    """Mutant: tokenize it whole, which takes a second and keeps every token that is cut off."""

    class Recorder:
        def __init__(self, tokenizer):
            self.tokenizer, self.letters = tokenizer, 0

        def encode(self, text):
            self.letters += len(text)
            return self.tokenizer.encode(text)

        def encode_batch(self, texts):
            self.letters += sum(map(len, texts))
            return self.tokenizer.encode_batch(texts)

    encoder = text_encoder()
    encoder.tokenizer = Recorder(encoder.tokenizer)
    assert encoder.tokenize([text]).ids.shape == (1, 12)
    assert encoder.tokenizer.letters <= 2 * 12 * LETTERS_PER_TOKEN


def test_half_a_surrogate_pair_is_an_error():
    with pytest.raises(DataError, match=r"text 'red \\ud83d shoe': letter 4 is half of a surrogate pair"):
        text_encoder().tokenize(["blue hat", "red \ud83d shoe"])


@pytest.mark.parametrize(
    "text",
    ["", "   ", "\x00", "\u200b\ufeff", "\u0301", "red\x00shoe", "red " * 25_000, "👟🎒 \u200b", "赤い靴"],
)
def test_odd_titles_have_a_finite_vector(text):
    encoder = text_encoder()
    ids, mask = encoder.tokenize([text])
    assert 1 <= ids.shape[1] <= 12
    assert encoder(ids, mask).isfinite().all()


def test_no_texts_are_no_tokens():
    assert text_encoder().tokenize([]).ids.shape == (0, 1)


def test_saved_and_loaded_encoders_are_the_same(tmp_path):
    encoder = text_encoder()
    shake(encoder)
    encoder.save(tmp_path / "text")
    loaded = TextEncoder.load(tmp_path / "text")
    assert torch.equal(loaded(*loaded.tokenize(TITLES)), encoder(*encoder.tokenize(TITLES)))
    assert loaded.fingerprint == encoder.fingerprint


def test_every_weight_and_setting_changes_the_fingerprint():
    encoder = text_encoder()
    before = encoder.fingerprint
    for parameter in encoder.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 0.5
        changed = encoder.fingerprint
        assert changed != before
        before = changed
    for change in ({"max_length": 11}, {"pooling": "cls"}):
        settings = {"max_length": 12, "pooling": "mean"} | change
        assert TextEncoder(encoder.network, encoder.tokenizer, **settings).fingerprint != before


def test_another_tokenizer_of_the_same_size_changes_the_fingerprint():
    encoder = text_encoder()
    swapped = json.loads(encoder.tokenizer.to_str())
    vocabulary = swapped["model"]["vocab"]
    vocabulary["red"], vocabulary["bag"] = vocabulary["bag"], vocabulary["red"]
    other = TextEncoder(encoder.network, type(encoder.tokenizer).from_str(json.dumps(swapped)), max_length=12)
    assert other.fingerprint != encoder.fingerprint


def hub_folder(folder, network, **pooling):
    """Write an encoder as sentence-transformers would, with what it says of the pooling."""
    text_encoder(network).save(folder)
    (folder / "encoder.json").unlink()
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))
    return folder


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({}, "mean"),
    ],
)
@pytest.mark.parametrize("network", ["bert", "gpt2"])
def test_pooling_of_sentence_transformers_is_read(tmp_path, network, said, pooling):
    """Mutant: whatever is not the first token is the mean."""
    assert TextEncoder.load(hub_folder(tmp_path, network, **said), max_length=12).pooling == pooling


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls_token and mean_tokens"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode": ["cls", "max"]}, "cls and max"),
    ],
)
def test_another_pooling_of_sentence_transformers_is_named(tmp_path, said, named):
    folder = hub_folder(tmp_path, "bert", **said)
    with pytest.raises(
        EncoderError, match=f"asks for the pooling {named}, which is none of ours. Give one: cls, mean, last"
    ):
        TextEncoder.load(folder, max_length=12)
    assert TextEncoder.load(folder, max_length=12, pooling="mean").pooling == "mean"


@pytest.mark.parametrize(("network", "pooling"), [("bert", "mean"), ("gpt2", "last")])
def test_the_pooling_of_an_untrained_network_is_its_own(tmp_path, network, pooling):
    """Mutant: the mean for all; the loaded one would be another encoder."""
    encoder = text_encoder(network)
    encoder.save(tmp_path)
    (tmp_path / "encoder.json").unlink()
    assert encoder.pooling == TextEncoder.load(tmp_path, max_length=12).pooling == pooling


def test_a_tokenizer_of_another_network_is_refused():
    tokenizer = train_tokenizer([*TITLES, "a longer vocabulary than the network was made for"])
    with pytest.raises(
        EncoderError, match=r"tokenizer with \d+ tokens: the text encoder has only \d+ embeddings"
    ):
        TextEncoder(text_encoder().network, tokenizer, max_length=12)


def test_more_tokens_than_positions_are_refused():
    encoder = text_encoder()
    with pytest.raises(EncoderError, match="max_length 17: the text encoder has only 16 positions"):
        TextEncoder(encoder.network, encoder.tokenizer, max_length=17)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    encoder = text_encoder()
    encoder.save(tmp_path / "text")
    (tmp_path / "text" / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"text: no tokenizer in it\. Add its tokenizer\.json"):
        TextEncoder.load(tmp_path / "text")


def test_a_damaged_tokenizer_is_told(tmp_path):
    encoder = text_encoder()
    encoder.save(tmp_path / "text")
    (tmp_path / "text" / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"tokenizer\.json: damaged \(.*\)\. Copy it again\."):
        TextEncoder.load(tmp_path / "text")


def test_an_image_network_is_no_text_encoder(tmp_path):
    image_encoder().save(tmp_path / "image")
    with pytest.raises(EncoderError, match="ViTModel reads pixel_values, not input_ids"):
        TextEncoder.load(tmp_path / "image")


def test_no_word_is_no_tokenizer():
    with pytest.raises(EncoderError, match="no word in 2 texts"):
        train_tokenizer(["", " "])
