"""Every kind of tokenizer through the tasks, SeqIO, the converters and a ranking's answers."""

import types

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompt_tokens import target_tokens
from ilm_jax.data.examples.prompts import ITEM_SLOT
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.streams.alignment_converter import AlignmentConverter, Entity, Text
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.decoding.trie import build_trie
from ilm_jax.tasks import common, registry
from ilm_jax.tasks.corpus import CorpusSettings
from tests.data.published_tokenizers import BERT, KINDS, published
from tests.data.small_catalogue import small_catalogue
from tests.some import some
from tests.tasks.making import made_by

CATALOGUE = small_catalogue(items=30, users=12)
SETTINGS = TaskSettings(history=3, mention_user="slot", families=(CorpusSettings(word_variants=1),))
SPLIT = make_splits(CATALOGUE, SETTINGS.split)


def made(task, tokenizer, settings=SETTINGS):
    return made_by([task], SPLIT, settings, tokenizer)[0]


LENGTHS = {"inputs": 250, "targets": 250}


def built(examples, split):
    index = examples.index(split)
    rows = zip(*(column.tolist() for column in index.values()), strict=True)
    found = [examples.build(split, **dict(zip(index, row, strict=True))) for row in rows]
    arrays = [k for k, kind in examples.spec.features if kind == "ints"]
    return [
        example | {k: np.array(example[k], np.int32) for k in arrays} | {"catalogue": "toy"}
        for example in found
    ]


def rows_of(block, local):
    return np.asarray(local)


@pytest.mark.parametrize("kind", ["t5", "llama2", "llama3", "bert"])
def test_seqio_gives_what_the_examples_say(kind):
    tokenizer = published(kind)
    registry.register("toy", SETTINGS, SPLIT, tokenizer)
    for task in ("long_description", "item_text"):
        examples = made(task, tokenizer)
        name = examples.spec.name("toy")
        expected = built(examples, "test")
        found = list(common.task_examples(name, examples.spec, "test"))
        assert len(found) == len(expected) > 0
        for left, right in zip(found, expected, strict=True):
            for feature, _ in examples.spec.features:
                assert np.array_equal(left[feature], right[feature]), feature


@pytest.mark.parametrize("kind", KINDS)
def test_the_seqio_vocabulary_is_the_tokenizer(kind):
    tokenizer = published(kind)
    vocabulary = common.seqio_vocabulary(tokenizer)
    ids = vocabulary.encode("item_7 tells of it")
    assert (
        ids
        == tokenizer.encode("item_7 tells of it")
        == vocabulary.encode_tf("item_7 tells of it").numpy().tolist()
    )
    assert vocabulary.decode([*ids, tokenizer.eos_id]) == tokenizer.decode(ids)
    names = ("pad_id", "eos_id", "bos_id", "unk_id", "vocab_size")
    for name in names:
        assert getattr(vocabulary, name) == getattr(tokenizer, name)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_read_prompt_and_answer_as_one_text(kind):
    tokenizer = published(kind)
    words = SETTINGS.replace(text_only=True)
    examples = made("sequential_random", tokenizer, words)
    converter = PromptConverter(LENGTHS, tokenizer, rows=rows_of)
    opening = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    for example in some(built(examples, "test")[:4]):
        user, position = example["key"].split("#")[0].split("@")
        prompt = examples.render("test", CATALOGUE.user_ids.index(user), int(position), 0).prompt
        whole = tokenizer.encode(prompt.text + example["target_text"])
        batch = {name: array[0] for name, array in converter([example]).items()}
        length = int(batch["segment_ids"].sum())
        assert batch["tokens"][:length].tolist() == [*opening, *whole]
        said = batch["targets"][batch["loss_weights"] > 0].tolist()
        assert said == [*whole[len(whole) - len(said) + 1 :], tokenizer.eos_id]
        assert set(batch["tokens"][length:].tolist()) <= {tokenizer.pad_id}
        answer = tokenizer.decode(said, continues=True).strip()
        if kind not in BERT and tokenizer.unk_id not in said:
            assert answer == example["target_text"]


@pytest.mark.parametrize("kind", KINDS)
def test_content_weights_mark_the_words_that_carry_information(kind):
    tokenizer = published(kind)
    for example in some(built(made("long_description", tokenizer), "test")):
        content = example["targets_content"].astype(bool)
        targets = example["targets"]
        assert targets[-1] == tokenizer.eos_id and not content[-1]
        said = tokenizer.decode(targets[content], continues=True).replace(" ", "")
        rest = tokenizer.decode(targets[~content], continues=True)
        for start, end in CATALOGUE.content[example["target_item"]]:
            word = CATALOGUE.texts[example["target_item"]][start:end]
            assert word in said or tokenizer.unk_id in targets[content]
        assert "tells of" in rest and "at length" in rest
        assert example["inputs"].tolist().count(ITEM_SLOT) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_a_ranking_are_the_targets_of_training(kind):
    tokenizer = published(kind)
    examples = made("sequential_random", tokenizer)
    answers = target_tokens(examples.renderer, tokenizer)
    if kind in ("t5", "t5_fast", *BERT):  # these may lack a character
        assert all(len(answer) > 1 for answer in answers)
    else:
        assert build_trie(answers).num_items == CATALOGUE.num_items
    for example in some(built(examples, "test")):
        assert answers[example["target_item"]] == example["targets"].tolist()


COLUMNS = {"entities": Entity("row"), "text": Text()}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_stage_1_open_with_cls_and_end_in_pads(kind):
    tokenizer = published(kind)
    examples = built(made("item_text", tokenizer), "test")
    text = AlignmentConverter(COLUMNS, rows_of, tokenizer, text_length=200)(examples)["text"]
    assert (text[:, 0] == tokenizer.cls_id).all()
    for row, example in zip(text, some(examples), strict=True):
        length = len(example["text"])
        assert row[1 : 1 + length].tolist() == example["text"].tolist()
        # The mask is the pad's value: no word of a text may share it.
        assert (row[1:] != tokenizer.pad_id).sum() == length
    assert text.max() < tokenizer.text_vocab_size


def test_a_corpus_text_opens_its_row():
    tokenizer = published("llama2")
    examples = made("text", tokenizer)
    texts = {example["key"]: example["targets"].tolist() for example in built(examples, "train")}
    row = int(SPLIT.items_in(0)[0])
    expected = [*tokenizer.encode(CATALOGUE.texts[row]), tokenizer.eos_id]
    assert texts[f"item/{CATALOGUE.item_ids[row]}"] == expected


def test_a_converter_needs_no_more_than_bos_and_pad():
    ids = types.SimpleNamespace(bos_id=None, pad_id=7)
    assert PromptConverter(LENGTHS, ids)([None])["tokens"].tolist() == [[7] * 500]
