"""Words appended to a tokenizer: its own ids stay, texts come back, and rows of it are no words."""

import json
import pickle
import shutil

import pytest

from ilm_jax.data.examples.prompt_tokens import PromptTokenizer, spoken
from ilm_jax.data.tokenizers import (
    OwnTokenizer,
    extended,
    formatted,
    new_tokens,
    open_tokenizer_at,
    record_of_new,
    without_new_tokens,
)
from ilm_jax.errors import UserError
from tests.data.published_tokenizers import KINDS, folder, published
from tests.parity.chat_cases import CHATML

WORDS = ("<a_0>", "<a_1>", "<a_10>", "<b_0>")
TEXTS = ("A film, from 1999.", "it <a_1><b_0>", "<a_10><b_0>, <a_1>", "<a_1>", "", " a<a_2>b ")


@pytest.fixture(scope="module")
def own():
    return OwnTokenizer.train(["a film from 1999 and another, not so good"] * 3, 400)


def every_kind(own):
    return {"own": own, **{kind: published(kind) for kind in KINDS}}


def test_other_words_keep_their_ids_and_new_ones_stand_behind_them(own):
    for kind, plain in every_kind(own).items():
        both = extended(plain, WORDS)
        for text in ("A film, from 1999.", "another", "", " a<a_2>b "):
            for continues in (False, True):
                assert both.encode(text, continues=continues) == plain.encode(
                    text, continues=continues
                ), kind
        first, words = new_tokens(both)
        assert words == WORDS and first >= max(plain.vocab_size, plain.cls_id + 1, plain.dec_id + 1)
        assert [both.encode(word) for word in WORDS] == [[first + k] for k in range(4)], kind
        assert both.vocab_size == both.least_vocab_size == first + 4
        assert (both.pad_id, both.eos_id, both.bos_id) == (plain.pad_id, plain.eos_id, plain.bos_id)
        assert without_new_tokens(both) is plain and both.fingerprint != plain.fingerprint


def test_texts_come_back_as_they_do_without_new_words(own):
    for kind, plain in every_kind(own).items():
        both = extended(plain, WORDS)
        for text in TEXTS:
            ids, spans = both.encode_with_spans(text)
            assert ids == both.encode(text)
            back = both.decode(ids)
            if kind in ("own", "llama3", "qwen2"):  # which lose nothing
                assert back == text, kind
            found = [word for word in WORDS if word in text]
            assert all(word in back for word in found), (kind, text, back)
            for token, (start, end) in zip(ids, spans, strict=True):
                if token >= both.first_new:
                    assert text[start:end] == WORDS[token - both.first_new]
                    assert not any(start < s < end for s, _ in spans)


def test_the_same_words_are_the_same_tokenizer_wherever_it_is(own):
    both = extended(own, WORDS)
    again = pickle.loads(pickle.dumps(both))
    assert again.fingerprint == both.fingerprint != extended(own, WORDS[:3]).fingerprint
    assert again.encode("it <a_1>") == both.encode("it <a_1>")
    assert extended(own, ()) is own and record_of_new(own) == {}
    assert record_of_new(both)["count"] == 4
    with pytest.raises(UserError, match="once"):
        extended(own, ("<a_0>", "<a_0>"))


def test_it_is_saved_with_its_words_beside_it(own, tmp_path):
    extended(own, WORDS).save(tmp_path / "tokenizer.model")
    assert (tmp_path / "tokenizer.model").read_bytes() == own.model
    assert "<a_10>" in (tmp_path / "new_tokens.json").read_text()
    extended(published("qwen2"), WORDS).save(tmp_path / "folder")
    assert (tmp_path / "folder" / "new_tokens.json").is_file()


def test_a_chat_format_lays_out_what_is_extended(tmp_path):
    place = tmp_path / "qwen2"
    shutil.copytree(folder() / "qwen2", place)
    file = place / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": CHATML}))
    plain = open_tokenizer_at(place)
    laid = formatted(extended(plain, WORDS), "chat")
    assert laid.chat is not None and laid.encode("<a_1>") == [new_tokens(laid)[0] + 1]
    assert new_tokens(laid)[1] == WORDS and without_new_tokens(laid) is plain
    inputs, _, _ = PromptTokenizer(laid).prompt(spoken("after <a_0><b_0> comes"))
    first = new_tokens(laid)[0]
    assert [token - first for token in inputs if token >= first] == [0, 3]
    answer, _ = PromptTokenizer(laid).answer("toy <a_10>")
    assert first + 2 in answer
