"""Which titles a text names, and which of them are no names."""

import dataclasses

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import SplitConfig, Splits
from ilm_jax.data.examples.telling import names_held_out, names_own
from tests.data.small_catalogue import small_catalogue


def splits_of(held_out, known=(), texts=()):
    """The first items are held out; then come training items of these titles and texts."""
    catalogue = small_catalogue()
    titles, told = list(catalogue.titles), list(catalogue.texts)
    fold = np.zeros(len(titles), np.int8)
    fold[: len(held_out)] = 1 + np.arange(len(held_out)) % 2
    titles[: len(held_out)] = held_out
    first = len(held_out)
    titles[first : first + len(known)] = known
    told[first : first + len(texts)] = texts
    content = [[]] * len(titles)
    catalogue = dataclasses.replace(catalogue, titles=titles, texts=told, content=content)
    return Splits(catalogue, SplitConfig(), fold)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("It goes with The Red Lamp, bought before.", True),
        ("it goes with the red lamp", True),
        ("THE RED-LAMP!", True),
        ("The red lamps", False),
        ("The lamp is red", False),
        ("A heat-proof pan", True),
        ("Preheated", False),
        ("Amelie, naïve", True),
        ("Amelie, nai\u0308ve", True),
        ("我喜歡千と千尋的歌", True),
        ("我喜歡千尋的歌", False),
        ("The The red lamp", True),
        ("", False),
        ("?!", False),
    ],
)
def test_titles_are_named_word_for_word_in_any_letters(text, named):
    splits = splits_of(["The Red Lamp", "Heat", "Amelie (naïve)", "千と千尋", "?!"])
    assert names_held_out(splits, text) == named


def test_titles_that_training_items_say_too_are_no_names():
    titles = ["Her", "It", "The Game", "Red Mug", "Zyx"]
    assert names_held_out(splits_of(titles), "for her")
    splits = splits_of(
        titles, ["It Happened One Night", "A red mug, large"], ["She plays the game with her Zyx."]
    )
    for text in ("for her", "it is fine", "the game", "The Game", "a red mug"):
        assert not names_held_out(splits, text), text
    # Their texts name it, as a name: nobody says so in small letters.
    assert names_held_out(splits, "a Zyx for her") and names_held_out(splits, "a zyx")


def test_a_users_own_held_out_items_are_named_inside_other_words_too():
    splits = splits_of(["Her", "It"], ["It Happened One Night"])
    catalogue = splits.catalogue
    user = next(
        u for u in range(30) if 1 in catalogue.sequence(u) and 0 not in catalogue.sequence(u)
    )
    other = next(u for u in range(30) if not {0, 1} & set(catalogue.sequence(u).tolist()))
    assert names_own(splits, user, "A kit.") and not names_own(splits, other, "A kit.")
    assert not names_own(splits, user, "There.") and not names_own(splits, user, "")


def test_a_users_held_back_items_may_not_be_named_but_by_a_text_about_that_item():
    splits = splits_of(["Zyx"])
    catalogue = splits.catalogue
    user = int(np.argmax(np.diff(catalogue.offsets)))
    *before, valid, test = [catalogue.titles[row] for row in catalogue.sequence(user)]
    for title in (valid, test):
        assert names_own(splits, user, f"Loves {title.upper()} above all.")
        assert not names_own(splits, user, f"Loves {title} above all.", about=title)
    assert not names_own(splits, user, " ".join(before).replace("Zyx", ""))


def test_nothing_is_named_where_nothing_is_held_out():
    splits = splits_of([])
    assert not names_held_out(splits, " ".join(splits.catalogue.titles))


def test_every_held_out_title_of_many_is_found_and_no_training_title():
    catalogue = small_catalogue(items=5000)
    titles = [f"{a} {b} {a}" for a in catalogue.titles[:71] for b in catalogue.titles[71:142]]
    titles = (titles + catalogue.titles)[:5000]
    catalogue = dataclasses.replace(catalogue, titles=titles)
    fold = (np.arange(5000) % 3).astype(np.int8)
    splits = Splits(catalogue, SplitConfig(), fold)
    for row in range(0, 5000, 7):
        assert names_held_out(splits, f"With {titles[row]} at hand") == (fold[row] > 0)
