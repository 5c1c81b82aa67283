import pytest
import torch
from encoders.small import BERT, GPT2, TITLES, shake, text_encoder
from transformers import GPT2Config, GPT2LMHeadModel

from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.errors import EncoderError
from mimctr.pretrain.causal_language import CausalLanguageModel
from mimctr.pretrain.language import language_model
from mimctr.pretrain.masked_language import MaskedLanguageModel


def test_loss_and_gradient_of_published_weights_are_transformers_own(tmp_path):
    tokenizer = train_tokenizer(TITLES)
    ends = {"bos_token_id": None, "eos_token_id": None}
    theirs = GPT2LMHeadModel(GPT2Config(**GPT2, **ends, vocab_size=tokenizer.get_vocab_size())).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = CausalLanguageModel(TextEncoder.load(tmp_path, max_length=12)).eval()
    ids, mask = model.encoder.tokenize(TITLES)
    assert not mask.all()

    loss = model(ids, mask)
    labels = ids.masked_fill(~mask, -100)
    expected = theirs(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    ours, own = dict(model.encoder.network.named_parameters()), dict(theirs.transformer.named_parameters())
    assert ours.keys() == own.keys()
    for name, parameter in own.items():
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)


def test_padding_is_neither_predicted_nor_read():
    model = CausalLanguageModel(text_encoder("gpt2"))
    ids, mask = model.encoder.tokenize(["bag", *TITLES])
    losses, counts = [], []
    for title in ["bag", *TITLES]:  # one by one, where there is no padding
        alone = model.encoder.tokenize([title])
        counts.append(alone.ids.shape[1] - 1)
        losses.append(model(*alone).item() * counts[-1])
    assert model(torch.where(mask, ids, 7), mask).item() == pytest.approx(sum(losses) / sum(counts), rel=1e-5)


def test_a_title_of_one_token_is_no_loss():
    model = CausalLanguageModel(text_encoder("gpt2"))
    loss = model(torch.tensor([[5]]), torch.tensor([[True]]))
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize(
    ("config", "looks_back_only"),
    [
        (BERT, False),
        (GPT2, True),
        ({**BERT, "model_type": "clip_text_model", "eos_token_id": 3, "bos_token_id": 2}, True),
        ({**BERT, "model_type": "xlm-roberta", "pad_token_id": 0}, False),
        ({**BERT, "model_type": "llama", "bos_token_id": 2, "eos_token_id": 3}, True),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_the_loss_follows_from_where_the_network_looks(config, looks_back_only):
    encoder = TextEncoder.from_config(config, train_tokenizer(TITLES), max_length=12)
    assert encoder.looks_back_only == looks_back_only
    wanted = CausalLanguageModel if looks_back_only else MaskedLanguageModel
    model = language_model(encoder, ratio=0.15, head={})
    assert isinstance(model, wanted)


def test_embeddings_of_another_width_are_refused():
    config = {"model_type": "opt", "hidden_size": 16, "word_embed_proj_dim": 8, "num_hidden_layers": 1}
    others = {"num_attention_heads": 2, "ffn_dim": 16, "bos_token_id": 2, "eos_token_id": 3}
    encoder = TextEncoder.from_config({**config, **others}, train_tokenizer(TITLES), max_length=12)
    with pytest.raises(EncoderError, match="OPTModel has embeddings of 8 dimensions and vectors of 16"):
        CausalLanguageModel(encoder)
