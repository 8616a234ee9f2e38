"""Numbers of words: as P5 counts them, in rows, prompts and packed rows; refused without marks."""

import types

import numpy as np
import pytest

from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.layouts import Prompts
from ilm_jax.data.streams.packing import PackedSource, PackingConverter
from ilm_jax.data.tokenizers import OwnTokenizer, extended
from ilm_jax.decoding.config import Buckets
from ilm_jax.decoding.prompts import align, pieces
from ilm_jax.errors import UserError
from tests.data.published_tokenizers import published
from tests.data.test_converters import EOS, NO_BOS, example

# Ids 10, 20, … begin a word.
BEGINS = np.arange(100) % 10 == 0
LENGTHS = {"inputs": 8, "targets": 4}


def converter(lengths=LENGTHS, **options):
    return PromptConverter(lengths, NO_BOS, word_begins=BEGINS, **options)


@pytest.mark.parametrize("kind", ["t5", "t5_fast", "llama2", "gemma", "own"])
def test_a_token_has_the_number_of_the_word_that_its_characters_are_of(kind):
    """Words are what spaces set apart; a space by itself belongs to the word behind it."""
    text = "What should toy user_123 read after toy item_1042 , item_77 ?"
    tokenizer = published(kind) if kind != "own" else OwnTokenizer.train([text] * 20, 400)
    ids, spans = tokenizer.encode_with_spans(text)
    begins = tokenizer.word_begins
    assert begins.shape == (tokenizer.vocab_size,)
    got = np.cumsum(begins[ids])
    # The last character that is no space says which word a token is of.
    want = [len(text[:end].split()) for _, end in spans]
    first = int(kind in ("own", "gemma"))  # no mark before the first word: no dummy prefix
    alone = np.array([not text[start:end].strip() for start, end in spans])
    np.testing.assert_array_equal(got + first, np.array(want) + alone)
    assert max(want) == 11 and not begins[tokenizer.eos_id]


def test_new_words_begin_none():
    tokenizer = extended(published("t5"), ["<CI1>", "<CI2>"])
    ids = tokenizer.encode("toy item_<CI1><CI2> , item_<CI2>")
    numbers = np.cumsum(tokenizer.word_begins[ids])
    new = [n for n, token in zip(numbers, ids, strict=True) if token >= tokenizer.first_new]
    assert new == [2, 2, 4]


@pytest.mark.parametrize("kind", ["bert", "llama3", "qwen2"])
def test_a_tokenizer_whose_pieces_mark_no_beginning_is_refused_in_one_line(kind):
    with pytest.raises(UserError, match="marks where a word begins") as error:
        published(kind).word_begins  # noqa: B018
    assert "\n" not in str(error.value)


def test_rows_number_the_words_of_their_inputs_alone():
    batch = converter()([example([10, 11, 20, 30, 31], [40, 41, EOS]), None])
    assert batch["word_ids"].dtype == np.int32
    assert batch["word_ids"].tolist() == [[1, 1, 2, 3, 3, *[-1] * 7], [-1] * 12]
    prompts = converter().prompts([example([11, 20, 21], [40, EOS])])
    assert prompts["word_ids"].tolist() == [[0, 1, 1, -1, -1, -1, -1, -1]]
    assert "word_ids" not in PromptConverter(LENGTHS, NO_BOS)([None])


def test_words_are_counted_behind_what_was_cut():
    long = example([50, *[10, 11] * 4, 60], [EOS], bounds=[1, 3, 5, 7, 9])
    batch = converter()([long])
    assert batch["word_ids"][0].tolist() == [1, 2, 2, 3, 3, 4, 4, 5, -1, -1, -1, -1]


def test_examples_that_share_a_row_count_each_for_themselves():
    source = [example([10, 11, 20], [40, EOS]), example([30, 40], [41, EOS])]
    one = converter()
    packed = PackedSource(source, one, one, 4, seed=0)
    (row,) = PackingConverter(one, one)([packed[0]])["word_ids"].tolist()
    (segments,) = PackingConverter(one, one)([packed[0]])["segment_ids"].tolist()
    apart = [[w for w, s in zip(row, segments, strict=True) if s == k] for k in (1, 2)]
    assert sorted(apart) == [[1, 1, 2, -1], [1, 2, -1]]


def test_decoding_pads_and_shifts_them_with_their_tokens():
    prompts = converter().prompts([example([10, 11, 20], [EOS]), example([10], [EOS])])
    (found,) = pieces(align(prompts), Buckets(lengths=(16,), rows=(4,)))
    assert found.word_ids.shape == (4, 16)
    assert found.word_ids[0, :4].tolist() == [1, 1, 2, -1]
    assert (found.word_ids[2:] == -1).all()


def test_a_layout_asks_for_them_where_the_model_has_rows_and_they_are_enough():
    tokens = types.SimpleNamespace(pad_id=0, bos_id=None, word_begins=BEGINS)
    dataset = DatasetConfig("sequential_random", LENGTHS)
    layout = Prompts(word_rows=9)
    layout.check(dataset, None)
    _, made = layout.open(dataset, {}, tokens, None)
    blank = layout.blank(dataset)
    assert made([None])["word_ids"].shape == blank["word_ids"].shape == (1, 12)
    assert "word_ids" not in Prompts().blank(dataset)
    with pytest.raises(UserError, match="so many words need 9 whole-word embeddings"):
        Prompts(word_rows=8).check(dataset, None)
