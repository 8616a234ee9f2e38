"""Rows say which item they ask for, and where, from what caches hold already."""

import numpy as np
import pytest

from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.item_targets import ItemTargets
from ilm_jax.data.streams.layouts import Prompts
from ilm_jax.data.streams.packing import PackedSource, PackingConverter
from ilm_jax.errors import UserError
from tests.data.test_converters import BOS, EOS, IDS, NO_BOS, example, rows

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
