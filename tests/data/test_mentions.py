"""Written prompts mention items and users by id or title, and say what is wrong with one."""

import dataclasses
import unicodedata

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.mentions import Names, render
from ilm_jax.data.examples.prompts import ITEM_SLOT, USER_SLOT, PromptRenderer, Segment
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue

CATALOGUE = small_catalogue(items=20, users=8)
NAMES = Names(CATALOGUE)


def renderer(**settings):
    return PromptRenderer(make_splits(CATALOGUE), TaskSettings(**settings))


def test_a_mention_is_rendered_as_the_history_of_a_task_is():
    found, items = render("After {item:i4} and {item:i7}, what?", renderer(), NAMES)
    prompts = renderer()
    id4, id7 = prompts.item_id(4), prompts.item_id(7)
    assert found.segments == (
        Segment(0, f"After {id4}"),
        Segment(ITEM_SLOT, "", 4),
        Segment(0, f" and {id7}"),
        Segment(ITEM_SLOT, "", 7),
        Segment(0, ", what? "),
    )
    assert items == [4, 7]


def test_forms_of_mentions():
    slot = render("{item:i4}", renderer(), NAMES, "slot")[0].segments
    assert slot == (Segment(ITEM_SLOT, "", 4), Segment(0, " "))
    title = render("{item:i4}", renderer(), NAMES, "title")[0].segments
    assert title == (Segment(0, f"{CATALOGUE.titles[4]} "),)
    words = render("{item:i4}, {user:u2}", renderer(text_only=True), NAMES)[0].segments
    prompts = renderer()
    assert words == (Segment(0, f"{prompts.item_id(4)}, {prompts.user_id(2)} "),)
    user = render("{user:u2}", renderer(mention_user="slot"), NAMES)[0].segments
    assert user[0] == Segment(USER_SLOT, "", 2)


def test_a_title_will_do_and_braces_can_be_written():
    title = CATALOGUE.titles[5]
    found, items = render(f"{{{{x}}}} {{item:{title.upper()}}}", renderer(), NAMES, "id")
    assert items == [5]
    assert found.text == f"{{x}} {renderer().item_id(5)} "


@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        ("{item:i99}", r"no item 'i99' .*did you mean 'i9'"),
        ("{item:no such title at all}", "no item 'no such title at all' in toy, by id or by title"),
        ("{user:u19}", r"no user 'u19' in toy \(did you mean 'u1'\?\)"),
        ("{itm:i4}", r"mention '{itm:i4}': there are {item:ID} and {user:ID}"),
        ("  ", "an empty prompt"),
    ],
)
def test_what_is_unknown_is_named(prompt, what):
    with pytest.raises(UserError, match=what):
        render(prompt, renderer(), NAMES)


def test_a_title_of_several_items_asks_for_an_id():
    twice = dataclasses.replace(CATALOGUE, titles=["Same", "same", *CATALOGUE.titles[2:]])
    with pytest.raises(UserError, match="2 items are called 'SAME': name one by id, i0, i1"):
        Names(twice).item("SAME")


def test_an_empty_catalogue_says_so():
    nothing = dataclasses.replace(
        CATALOGUE,
        item_ids=[],
        titles=[],
        texts=[],
        content=[],
        categories=[],
        items=np.array([], np.int32),
        ratings=np.array([], np.float32),
        timestamps=np.array([], np.int64),
        offsets=np.zeros_like(CATALOGUE.offsets),
    )
    with pytest.raises(UserError, match="the catalogue toy is empty"):
        Names(nothing).item("i1")


def test_search_takes_all_words_and_shows_short_titles_first():
    titles = ["Big red fox", "Red fox", "Fox", "Redder foxes run", *CATALOGUE.titles[4:]]
    names = Names(dataclasses.replace(CATALOGUE, titles=titles))
    assert names.search("FOX red") == [1, 0, 3]
    assert names.search("fox", limit=1) == [2]
    assert names.search("badger") == []


def test_a_title_is_found_however_its_letters_are_composed():
    titles = ["Île d’été", "Straße", *CATALOGUE.titles[2:]]
    names = Names(dataclasses.replace(CATALOGUE, titles=titles))
    decomposed = unicodedata.normalize("NFD", "ÎLE D’ÉTÉ")
    assert names.item(decomposed) == names.search(decomposed)[0] == 0
    assert names.item("STRASSE") == 1
