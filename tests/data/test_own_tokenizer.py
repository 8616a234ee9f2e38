import pickle

import pytest

from ilm_jax.data.tokenizers import OwnTokenizer, open_tokenizer_at
from ilm_jax.data.tokenizers.own import BOS, CLS, DEC, EOS, PAD, UNK
from ilm_jax.errors import UserError

TEXTS = ["item_1042 and user_7 like a gloomy tale 😀", "Two  spaces,\ta tab and naïve café"] * 50
ODD = [
    "",
    " ",
    "  leading and trailing  ",
    "tab\tand\nnew line",
    "item_1042",
    "😀🏳️‍🌈 x",
    "한국어 中",
    "e\u0301 combining",
    "<pad></s><unk><s><cls><dec>",
    "<0x41>",
    "\x00\x7f\u200d\ufeff",
]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    return OwnTokenizer.train(TEXTS, 400, model_type=request.param)


@pytest.mark.parametrize("text", ODD + TEXTS[:2])
def test_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ODD + TEXTS[:2])
def test_no_text_encodes_to_a_special_id(tokenizer, text):
    assert all(token > DEC for token in tokenizer.encode(text))
    assert tokenizer.encode(text) or not text.strip()


@pytest.mark.parametrize("text", ODD + TEXTS[:2])
def test_spans_count_characters(tokenizer, text):
    ids, spans = tokenizer.encode_with_spans(text)
    assert ids == tokenizer.encode(text) == tokenizer.encode(text, continues=True)
    place = 0
    while ids:
        start, end = spans[0]
        size = spans.count((start, end))  # byte pieces of one character share its span
        assert start == place
        assert tokenizer.decode(ids[:size]) == text[start:end]
        ids, spans, place = ids[size:], spans[size:], end
    assert place == len(text)


def test_digits_stand_alone(tokenizer):
    assert [tokenizer.decode([t]) for t in tokenizer.encode("1042")] == ["1", "0", "4", "2"]


def test_ids_are_fixed(tokenizer):
    assert (PAD, EOS, UNK, BOS, CLS, DEC) == (0, 1, 2, 3, 4, 5)
    assert tokenizer.decode([BOS, *tokenizer.encode("tale"), EOS, PAD]) == "tale"
    assert tokenizer.decode([tokenizer.vocab_size, *tokenizer.encode("tale")]) == "tale"
    with pytest.raises(ValueError, match="id -1 is no token's"):
        tokenizer.decode([-1])


def test_the_same_texts_train_the_same_bytes(tmp_path):
    first = OwnTokenizer.train(TEXTS, 400, tmp_path / "a" / "t.model")
    second = open_tokenizer_at(tmp_path / "a" / "t.model")
    assert first.model == second.model == OwnTokenizer.train(iter(TEXTS), 400).model
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != OwnTokenizer.train(TEXTS[:-1], 400).fingerprint
    assert pickle.loads(pickle.dumps(first)).encode("a tale") == first.encode("a tale")


def test_a_poor_corpus_gives_fewer_pieces():
    assert OwnTokenizer.train(["ab ab"], 2048).vocab_size < 300


def test_wrong_input_is_one_line(tmp_path):
    (tmp_path / "bad.model").write_bytes(b"no model")
    for call in (
        lambda: OwnTokenizer.train(TEXTS, 100),
        lambda: OwnTokenizer.train([], 400),
        lambda: OwnTokenizer.train(TEXTS, 400, model_type="word"),
        lambda: open_tokenizer_at(tmp_path / "absent.model"),
        lambda: open_tokenizer_at(tmp_path / "bad.model"),
    ):
        with pytest.raises(UserError) as raised:
            call()
        assert "\n" not in str(raised.value)
