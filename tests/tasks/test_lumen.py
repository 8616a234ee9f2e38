"""LUMEN: rows are history, item, narrative; nothing held out is told, and critiques steer."""

import re

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompts import ITEM_SLOT, PromptRenderer
from ilm_jax.data.examples.purchases import LumenSettings, PurchasePrompts
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import regen
from ilm_jax.data.tokenizers.own import OwnTokenizer
from ilm_jax.errors import UserError
from tests.some import some
from tests.tasks.making import made_by
from tests.tasks.test_regen import users, write

TASKS = ("purchase", "purchase_critique", "purchase_uncritiqued")
SETTINGS = TaskSettings(mention_history="title+slot", mention_user="none", history=20)
ALL = SETTINGS.with_family(LumenSettings(past_critiques=True))


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regen")
    return make_splits(regen.read(write(folder, users()), "regen/office"))


def rendered(splits, task, split, settings=SETTINGS):
    (made,) = made_by([task], splits, settings)
    index = made.index(split)
    for values in zip(*(column.tolist() for column in index.values()), strict=True):
        integers = dict(zip(index, values, strict=True))
        yield integers, made.render(split, **integers)


def test_every_purchase_is_asked_for_and_the_same_ones_with_and_without_critique(splits):
    for split in ("train", "validation", "test"):
        keys = {task: [e.key for _, e in rendered(splits, task, split)] for task in TASKS}
        assert keys["purchase_critique"] == keys["purchase_uncritiqued"]
        assert set(keys["purchase_critique"]) <= set(keys["purchase"])
        count = 20 * (3 if split == "train" else 1)
        assert len(keys["purchase"]) == count
    told = [e.prompt.text for _, e in rendered(splits, "purchase_critique", "test")]
    plain = [e.prompt.text for _, e in rendered(splits, "purchase_uncritiqued", "test")]
    assert all("wish" in text for text in told) and not any("wish" in text for text in plain)


@pytest.mark.parametrize("settings", [SETTINGS, ALL])
def test_no_training_example_tells_a_word_of_a_held_out_item(splits, settings):
    catalogue = splits.catalogue
    for task in TASKS:
        found = [e for _, e in rendered(splits, task, "train", settings)]
        words = "\n".join(e.prompt.text + e.target_text for e in found)
        for row in some(np.flatnonzero(splits.item_fold)):
            number = catalogue.item_ids[row][1:]
            assert not re.search(rf"(number|wish|reason){number}x", words), (task, number)
    silent = [e for _, e in rendered(splits, "purchase", "train") if not e.target_text]
    # It is asked for all the same: its place in the table is no word.
    assert {e.target_item for e in silent} and all(splits.item_fold[e.target_item] for e in silent)


def test_answers_begin_with_the_items_slot_and_end_there_where_nothing_may_be_said(splits):
    catalogue = splits.catalogue
    tokenizer = OwnTokenizer.train([*catalogue.titles, "Because of reason1x. I want wish2x."], 400)
    for task in TASKS:
        (made,) = made_by([task], splits, SETTINGS, tokenizer)
        index = made.index("train")
        for values in zip(*(column.tolist() for column in index.values()), strict=True):
            found = made.build("train", **dict(zip(index, values, strict=True)))
            targets = list(found["targets"])
            assert targets[0] == ITEM_SLOT and ITEM_SLOT not in targets[1:]
            assert len(targets) == len(found["targets_content"]) and not found["targets_content"][0]
            held_out = splits.item_fold[found["target_item"]] != 0
            assert (len(targets) == 1) == held_out == (not found["target_text"])
            if not held_out:
                assert targets[-1] == tokenizer.eos_id
                said = tokenizer.decode(targets[1:-1], continues=True).strip()
                assert said == found["target_text"]
    # Text-only models read no slot: the narrative stands behind the prompt.
    (made,) = made_by(["purchase"], splits, SETTINGS.replace(text_only=True), tokenizer)
    index = {name: int(column[0]) for name, column in made.index("train").items()}
    assert ITEM_SLOT not in made.build("train", **index)["targets"]


def test_earlier_critiques_stand_before_the_items_that_they_led_to(splits):
    catalogue = splits.catalogue
    shown = 0
    for integers, example in rendered(splits, "purchase_critique", "test", ALL):
        sequence = catalogue.sequence(integers["user"])[: integers["position"] + 1]
        for place, row in enumerate(sequence):
            wish = f"wish{catalogue.item_ids[row][1:]}x"
            open_ = splits.item_fold[row] == 0 or place == len(sequence) - 1
            assert (wish in example.prompt.text) == (open_ and place > 0)
            if wish in example.prompt.text and place < len(sequence) - 1:
                title = catalogue.titles[row]
                assert example.prompt.text.index(wish) < example.prompt.text.index(title)
                shown += 1
        # An element goes with its critique where a prompt is cut.
        assert len(example.prompt.elements) == len(sequence)
    assert shown


def test_a_critique_without_an_item_before_it_is_refused(splits):
    prompts = PurchasePrompts(PromptRenderer(splits, SETTINGS))
    assert "redder" in prompts.prompt([3], {1: "redder"}).text
    for history, place in (([], 0), ([3], 0), ([3], 2)):
        with pytest.raises(UserError, match="no item before 'redder': name an item before it"):
            prompts.prompt(history, {place: "redder"})
