"""Answers that begin with an item's slot: a head is asked for it, and no token predicts it."""

import numpy as np
import pytest

from ilm_jax.data.examples.mentions import with_item
from ilm_jax.data.examples.task_specs import ITEM_THEN_TEXT
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.item_targets import ItemTargets
from ilm_jax.data.streams.layouts import Prompts
from ilm_jax.data.streams.packing import PackedSource, PackingConverter
from ilm_jax.errors import UserError
from tests.data.test_converters import BOS, EOS, IDS, example, rows

LENGTHS = {"inputs": 6, "targets": 6}


def answered(inputs, words, item, queries_of=1):
    """A prompt, and an answer that begins with an item; no words: it ends there."""
    targets = [-1, *words, EOS] if words else [-1]
    content = [0, *[1] * len(words), 0][: len(targets)]
    found = example(inputs, targets, slots=[5] * inputs.count(-1), content=content)
    return {**found, "task": "next", "target_item": item}


def converter(lengths=LENGTHS, most=1, **options):
    settings = {
        "num_queries": 2,
        "max_entities": 2,
        "items": ItemTargets(frozenset({"next"}), most),
    }
    return PromptConverter(lengths, IDS, rows=rows, **{**settings, **options})


def test_the_item_is_asked_for_at_the_prompts_last_place_and_read_behind_it():
    batch = converter()([answered([50, -1, 51], [40, 41], 7)])
    assert {name: array[0].tolist() for name, array in batch.items()} == {
        "tokens": [BOS, 50, 0, 0, 51, 0, 0, 40, 41, 0, 0, 0],
        "targets": [50, 0, 0, 51, 0, 0, 40, 41, EOS, 0, 0, 0],
        # Neither of the item's soft tokens is predicted; the last of them predicts a word.
        "loss_weights": [0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0],
        "content_weights": [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
        "positions": [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0],
        "segment_ids": [1] * 9 + [0] * 3,
        "slot_entity": [-1, -1, 0, 0, -1, 1, 1, -1, -1, -1, -1, -1],
        "slot_query": [-1, -1, 0, 1, -1, 0, 1, -1, -1, -1, -1, -1],
        "entities": [105, 107],
        "example_index": 0,
        "item_positions": [4],
        "item_targets": [107],
    }


def test_an_answer_that_is_an_item_alone_ends_the_row_where_it_is_asked_for():
    batch = converter()([answered([50, -1, 51], [], 7)])
    assert batch["segment_ids"].sum() == 5 and not batch["loss_weights"].any()
    assert batch["entities"].tolist() == [[105, -1]]
    assert (batch["item_positions"].item(), batch["item_targets"].item()) == (4, 107)
    short = converter(answers=False)([answered([50, -1, 51], [40], 7)])
    assert short["segment_ids"].sum() == 5 and short["item_positions"].item() == 4


def test_what_does_not_fit_is_told_with_its_positions():
    long = answered([50], [40, 41, 42, 43], 7)
    with pytest.raises(UserError, match="targets take 7 tokens, there is room for 6"):
        converter()([long])
    cut = converter(truncate_targets=True)
    assert cut([long])["targets"][0, 3:7].tolist() == [40, 41, 42, 43] and cut.counts["targets"]
    # The item of the answer needs one of the row's entities.
    two = answered([50, -1, -1], [40], 7)
    with pytest.raises(UserError, match="there is room for 6 and 1"):
        converter()([{**two, "history_bounds": np.array([], np.int32)}])


def test_a_prompt_is_followed_by_an_item_as_in_training():
    given = answered([50, -1, 51], [40, 41], 7)
    trained = converter()([given])
    asked = converter().with_room_for_an_item().prompts([with_item(given, 7)])
    length = asked["lengths"].item()
    assert length == 7
    for name in ("tokens", "slot_entity", "slot_query", "positions", "segment_ids"):
        assert asked[name][0, :length].tolist() == trained[name][0, :length].tolist()
    assert asked["entities"][0, :2].tolist() == trained["entities"][0].tolist()


def test_rows_that_are_shared_hold_every_item_with_its_words():
    words = [[], [40], [41, 42], [43, 44, 45]]
    source = [answered([50 + i, -1], words[i % 4], i) for i in range(12)]
    one = converter()
    row = converter({"inputs": 6, "targets": 24}, max_entities=12, most=4)
    packed = PackedSource([{**x, "task": None} for x in source], one, row, 4, 0, "next")
    batch = PackingConverter(one, row)([packed[i] for i in range(len(packed))])
    found = {}
    for line, column in np.argwhere(batch["item_targets"] >= 0):
        place = batch["item_positions"][line, column]
        mine = batch["segment_ids"][line] == column + 1
        item = int(batch["item_targets"][line, column]) - 100
        said = batch["targets"][line][mine & (batch["loss_weights"][line] > 0)]
        behind = batch["slot_entity"][line][mine & (np.arange(len(mine)) > place)]
        if len(said):
            assert batch["entities"][line][behind[behind >= 0]].tolist() == [100 + item] * 2
        found[item] = [int(token) for token in said if token != EOS]
    assert found == {i: words[i % 4] for i in range(12)}


def test_a_decoder_that_reads_no_soft_tokens_is_refused():
    class Dataset:
        task_feature_lengths = LENGTHS

        class Spec:
            task, answer = "purchase", ITEM_THEN_TEXT
            features = (("inputs", "ints"), ("targets", "ints"))

        specs = classmethod(lambda cls: [cls.Spec])

    Prompts(2).check(Dataset(), rows)
    with pytest.raises(UserError, match="purchase: .*an encoder-decoder does not read"):
        Prompts(2, slots_in_answers=False).check(Dataset(), rows)
