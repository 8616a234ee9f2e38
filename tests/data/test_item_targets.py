"""Rows say which item they ask for, and where, from what caches hold already."""

import numpy as np
import pytest

from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.item_targets import ItemTargets
from ilm_jax.data.streams.layouts import Prompts
from ilm_jax.data.streams.packing import PackedSource, PackingConverter
from ilm_jax.errors import UserError
from tests.data.test_converters import BOS, EOS, HISTORY, IDS, NO_BOS, example, rows

LENGTHS = {"inputs": 8, "targets": 4}
NEXT = frozenset({"next"})


def asking(inputs, target, task="next", catalogue="toy"):
    found = example(inputs, [40, 41, EOS], slots=[5] * inputs.count(-1), catalogue=catalogue)
    return {**found, "task": task, "target_item": target}


def converter(tokenizer=IDS, lengths=LENGTHS, most=1, **options):
    return PromptConverter(
        lengths,
        tokenizer,
        num_queries=2,
        max_entities=2,
        rows=rows,
        items=ItemTargets(NEXT, most),
        **options,
    )


EXAMPLES = [
    asking([50, -1, 51], 3),
    asking([50], 4, task="describes"),
    None,
    asking([52, 53], -1),
    asking([54, 55, 56], 7, catalogue="film"),
]


@pytest.mark.parametrize(("tokenizer", "first"), [(IDS, 1), (NO_BOS, 0)])
def test_the_last_place_of_a_prompt_asks_for_the_target_of_tasks_whose_answers_are_items(
    tokenizer, first
):
    batch = converter(tokenizer)(EXAMPLES)
    assert batch["item_targets"].tolist() == [[103], [-1], [-1], [-1], [1007]]
    assert batch["item_positions"].tolist() == [[first + 3], [-1], [-1], [-1], [first + 2]]
    for row in (0, 4):  # the place whose next token is the answer's first
        place = batch["item_positions"][row, 0]
        assert batch["loss_weights"][row, : place + 1].tolist() == [0] * place + [1]
        assert batch["targets"][row, place] == 40


def test_what_an_encoder_reads_and_what_is_asked_for_stand_side_by_side():
    batch, both = converter()(EXAMPLES), converter(source=True)(EXAMPLES)
    assert both.pop("source").tolist() == [list(range(9))] * 5
    for name, array in batch.items():
        np.testing.assert_array_equal(both[name], array, err_msg=name)


def test_rows_without_answers_end_at_the_prompt():
    whole, short = (
        converter()(EXAMPLES),
        converter(lengths={**LENGTHS, "targets": 1}, answers=False),
    )
    batch = short(EXAMPLES)
    assert not short.counts
    assert batch["tokens"].shape == (5, 9)
    assert batch["tokens"][0].tolist() == [BOS, 50, 0, 0, 51, 0, 0, 0, 0]
    assert batch["segment_ids"].sum(1).tolist() == [5, 2, 0, 3, 4]
    assert batch["loss_weights"].sum(1).tolist() == [1, 1, 0, 1, 1]
    for name in ("item_targets", "item_positions"):
        np.testing.assert_array_equal(batch[name], whole[name])


@pytest.mark.parametrize("answers", [True, False])
def test_every_segment_of_a_shared_row_asks_for_its_own_item(answers):
    source = [asking([50 + i] * (1 + i % 3) + [-1], 10 + i) for i in range(9)]
    lengths = LENGTHS if answers else {**LENGTHS, "targets": 1}
    one = converter(lengths=lengths, answers=answers)
    row = converter(lengths={"inputs": 8, "targets": 22}, most=4)
    packed = PackedSource([{**x, "task": None} for x in source], one, row, 4, 0, "next")
    batch = PackingConverter(one, row)([packed[i] for i in range(len(packed))] + [None])
    assert batch["item_targets"].shape == (len(packed) + 1, 4)
    assert (batch["item_targets"][-1] == -1).all() and (batch["item_positions"][-1] == -1).all()
    found = {}
    for row_, column in np.argwhere(batch["item_targets"] >= 0):
        place = batch["item_positions"][row_, column]
        assert batch["segment_ids"][row_, place] == column + 1
        assert batch["targets"][row_, place] == 40 and batch["loss_weights"][row_, place] == 1
        word = batch["tokens"][row_][batch["segment_ids"][row_] == column + 1][1]
        found[int(word) - 50] = int(batch["item_targets"][row_, column]) - 110
    assert found == {i: i for i in range(9)}


def history_batch(inputs, most=4, entities=4, **options):
    """HISTORY, a user and three items, in a row of so many positions."""
    one = PromptConverter(
        {"inputs": inputs, "targets": 4},
        options.pop("tokenizer", IDS),
        num_queries=2,
        max_entities=entities,
        rows=rows,
        items=ItemTargets(NEXT, most, history_weight=0.25),
        **options,
    )
    asked = {**HISTORY, "task": "next", "target_item": 4}
    return one([asked, {**asked, "task": "describes"}, None])


@pytest.mark.parametrize(("tokenizer", "first"), [(IDS, 1), (NO_BOS, 0)])
@pytest.mark.parametrize("answers", [True, False])
def test_items_of_a_history_are_asked_for_at_the_place_before_their_mention(
    tokenizer, first, answers
):
    batch = history_batch(20, tokenizer=tokenizer, answers=answers)
    assert batch["item_targets"].tolist() == [[104, 102, 103, -1], [-1] * 4, [-1] * 4]
    assert batch["item_weights"].tolist() == [[1, 0.25, 0.25, 0], [0] * 4, [0] * 4]
    ends, places = batch["item_positions"][0, 0], batch["item_positions"][0, 1:3]
    assert ends == first + 19 and batch["item_positions"][0, 3] == -1
    # The tokens behind the places are the first of the mentions' own; those there, the last comma.
    assert batch["tokens"][0, places + 1].tolist() == [20, 30]
    assert batch["tokens"][0, places].tolist() == [9, 9]
    for place, item in zip(places, (102, 103), strict=True):
        read = batch["slot_entity"][0, : place + 1]
        seen = batch["entities"][0, np.unique(read[read >= 0])]
        assert item not in seen and 101 in seen, "nothing of the item itself has been read"


def test_what_a_row_has_no_room_for_is_not_asked_for():
    whole, cut = history_batch(20), history_batch(16)
    assert cut["item_targets"][0].tolist() == [104, 103, -1, -1]
    assert cut["item_positions"][0, :2].tolist() == [
        place - 5 for place in whole["item_positions"][0, [0, 2]]
    ]
    assert cut["tokens"][0, cut["item_positions"][0, 1] + 1] == 30


def test_an_item_that_is_mentioned_without_a_slot_is_not_asked_for():
    words = example([50, 10, 11, 9, 20, 21, 60], [40, EOS], bounds=[1, 4, 6])
    one = converter(most=3)
    asked = {**words, "task": "next", "target_item": 4}
    histories = PromptConverter(
        LENGTHS, IDS, num_queries=2, items=ItemTargets(NEXT, 3, 0.25), rows=rows
    )
    for name in ("item_targets", "item_positions"):
        np.testing.assert_array_equal(histories([asked])[name], one([asked])[name])


def test_segments_of_a_shared_row_ask_for_the_items_of_their_histories():
    lengths, entities = {"inputs": 20, "targets": 4}, 9
    dataset_most = 3 + entities
    items = ItemTargets(NEXT, 1 + 4, history_weight=0.25)
    one = PromptConverter(lengths, IDS, num_queries=2, max_entities=4, rows=rows, items=items)
    row = PromptConverter(
        {"inputs": 20, "targets": 34},
        IDS,
        num_queries=2,
        max_entities=entities,
        rows=rows,
        items=ItemTargets(NEXT, dataset_most, history_weight=0.25),
    )
    asked = {**HISTORY, "task": "next", "target_item": 4}
    alone = one([asked])
    batch = PackingConverter(one, row)([{"packed": [asked, EXAMPLES[1], asked]}])
    assert batch["item_targets"].shape == (1, dataset_most)
    assert batch["item_targets"][0, :6].tolist() == [104, 102, 103] * 2
    assert (batch["item_targets"][0, 6:] == -1).all()
    assert batch["item_weights"][0].tolist() == [1, 0.25, 0.25] * 2 + [0] * (dataset_most - 6)
    starts = [int(np.argmax(batch["segment_ids"][0] == segment)) for segment in (1, 3)]
    want = [start + place for start in starts for place in alone["item_positions"][0, :3]]
    assert batch["item_positions"][0, :6].tolist() == want


def test_batches_that_no_head_asks_items_of_are_as_they_were():
    plain = PromptConverter(LENGTHS, IDS, num_queries=2, max_entities=2, rows=rows)(EXAMPLES)
    with_items = converter()(EXAMPLES)
    assert set(with_items) - set(plain) == {"item_targets", "item_positions"}
    for name, array in plain.items():
        np.testing.assert_array_equal(with_items[name], array)


def test_items_without_a_table_are_refused():
    class Dataset:
        task_feature_lengths = LENGTHS
        specs = staticmethod(lambda: [])

    Prompts(2).check(Dataset(), None)
    with pytest.raises(UserError, match="an item head needs an embedding table; run ilm fit_cf"):
        Prompts(2, items=True).check(Dataset(), None)
