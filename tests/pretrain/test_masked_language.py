from pathlib import Path

import pytest
import torch
from encoders.small import BERT, TITLES, shake, text_encoder
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from mimctr.encoders.text import TextEncoder, train_tokenizer
from mimctr.errors import EncoderError
from mimctr.pretrain.masked_language import MaskedLanguageModel, read_head


def published_bert(folder: Path) -> BertForMaskedLM:
    """Write a BERT with its head and tokenizer as the hub has them; return it."""
    tokenizer = train_tokenizer(TITLES)
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**BERT, vocab_size=tokenizer.get_vocab_size())).eval()
    shake(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def test_masking_is_bert_s_on_real_tokens_only():
    encoder = text_encoder()
    model = MaskedLanguageModel(encoder)
    ids, mask = encoder.tokenize(TITLES * 2000)
    hidden, chosen = model.hide(ids, mask)
    ordinary = mask & (ids > 4)  # indices 0 to 4 are the special tokens
    assert not chosen[~ordinary].any()
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert chosen[ordinary].float().mean() == pytest.approx(0.15, abs=0.01)
    masked = hidden[chosen] == encoder.tokenizer.token_to_id("[MASK]")
    unchanged = hidden[chosen] == ids[chosen]
    assert masked.float().mean() == pytest.approx(0.8, abs=0.02)
    assert unchanged.float().mean() == pytest.approx(0.1, abs=0.02)
    assert len(hidden[chosen & (hidden != ids)].unique()) > 20  # the rest is anything


def test_loss_is_the_cross_entropy_of_the_chosen_tokens():
    encoder = text_encoder()
    model = MaskedLanguageModel(encoder).eval()
    ids, mask = encoder.tokenize(TITLES)
    hidden, chosen = model.hide(ids, mask)
    assert chosen.any()
    vectors = model.transform(encoder.token_vectors(hidden, mask))
    log_probability = (
        vectors @ encoder.network.embeddings.word_embeddings.weight.T + model.bias
    ).log_softmax(-1)
    losses = [
        -log_probability[n, position, ids[n, position]]
        for n in range(len(ids))
        for position in range(ids.shape[1])
        if chosen[n, position]
    ]
    torch.testing.assert_close(model(ids, mask, hidden, chosen), torch.stack(losses).mean())


def test_nothing_chosen_is_no_loss():
    encoder = text_encoder()
    model = MaskedLanguageModel(encoder)
    ids, mask = encoder.tokenize(["red"])
    loss = model(ids, mask, ids, torch.zeros_like(mask))
    loss.backward()
    assert loss == 0


def test_the_head_is_kept_apart_from_the_encoder():
    model = MaskedLanguageModel(text_encoder())
    state = model.head_state()
    assert sorted(state) == [
        "bias",
        "transform.0.bias",
        "transform.0.weight",
        "transform.2.bias",
        "transform.2.weight",
    ]
    other = MaskedLanguageModel(text_encoder())
    other.load_head({name: tensor + 1 for name, tensor in state.items()})
    for name, tensor in other.head_state().items():
        assert torch.equal(tensor, state[name] + 1)


def test_the_head_of_another_encoder_is_refused():
    wider = TextEncoder.from_config(BERT | {"hidden_size": 20}, train_tokenizer(TITLES), max_length=12)
    with pytest.raises(EncoderError, match=r"masked language head: .* does not fit the text encoder's"):
        MaskedLanguageModel(wider).load_head(MaskedLanguageModel(text_encoder()).head_state())


def published_roberta(folder: Path) -> RobertaForMaskedLM:
    """Likewise a RoBERTa, whose head has other names, and whose norms another epsilon."""
    tokenizer = train_tokenizer(TITLES)
    torch.manual_seed(0)
    sizes = BERT | {"vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0, "layer_norm_eps": 0.1}
    model = RobertaForMaskedLM(RobertaConfig(**sizes)).eval()
    shake(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


@pytest.mark.parametrize("published", [published_bert, published_roberta])
def test_loss_of_published_weights_is_transformers_own(tmp_path, published):
    """Encoder and head of the file together; what is masked is given to both."""
    theirs = published(tmp_path)
    encoder = TextEncoder.load(tmp_path, max_length=12)
    model = MaskedLanguageModel(encoder).eval()
    model.load_head(read_head(tmp_path))
    ids, mask = encoder.tokenize(TITLES)
    hidden, chosen = model.hide(ids, mask)
    assert chosen.any()
    labels = ids.masked_fill(~chosen, -100)
    with torch.no_grad():
        expected = theirs(input_ids=hidden, attention_mask=mask.long(), labels=labels).loss
        torch.testing.assert_close(model(ids, mask, hidden, chosen), expected)


def test_a_head_from_the_first_years_says_gamma_and_beta(tmp_path):
    theirs = published_bert(tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in theirs.state_dict().items()
        if name != "cls.predictions.decoder.weight" and name != "cls.predictions.decoder.bias"
    }
    save_file(old, tmp_path / "model.safetensors")
    head = read_head(tmp_path)
    assert torch.equal(head["transform.2.weight"], theirs.cls.predictions.transform.LayerNorm.weight)
    assert torch.equal(head["transform.2.bias"], theirs.cls.predictions.transform.LayerNorm.bias)


def test_weights_without_a_head_have_none(tmp_path):
    text_encoder().save(tmp_path)
    assert read_head(tmp_path) == {}
