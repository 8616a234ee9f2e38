"""A conversation: items by title, a history, critiques, and recommendations of what is left."""

import pytest

from ilm_jax.cli import chat
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.serving.conversation import Conversation
from tests.decoding import small


@pytest.fixture(scope="module")
def answerer():
    return small.answerer()


def conversation(answerer, count=2):
    return Conversation(answerer, count=count, config=DecodingConfig(max_new_tokens=4))


def said(answerer, *lines):
    return list(chat.talk(conversation(answerer), [f"{line}\n" for line in lines]))


def test_what_is_asked_is_the_prompt_of_training_behind_the_critiques(answerer):
    talk = conversation(answerer)
    prompts = answerer.renderer
    empty = talk.prompt().text
    assert "{" not in empty and "user" not in empty
    talk.add(["i3", "i5"])
    names = [prompts.item_id(3), prompts.item_id(5)]
    history = talk.prompt()
    assert [s.row for s in history.segments if s.kind] == [3, 5]
    assert all(name in history.text for name in names)
    talk.criticise("shorter ones.")
    talk.criticise("no fiction")
    wanted = talk.prompt()
    assert wanted.text == f"Wanted: shorter ones, no fiction. {history.text}"
    at = [wanted.segments[n].kind for n in wanted.elements[:-1]]
    assert wanted.segments[wanted.elements[0]] == history.segments[history.elements[0]], at
    talk.user = 2
    assert prompts.user_id(2) in talk.prompt().text.lower()


def test_nothing_chosen_or_criticised_is_recommended_again(answerer):
    talk = conversation(answerer)
    talk.add(["i3"])
    seen = {3}
    for _ in range(3):
        rows = {found.row for found in talk.recommend()}
        assert len(rows) == 2 and not rows & seen
        assert {found.row for found in talk.recommend()} == rows
        seen |= rows
        talk.criticise("others")
    talk.clear()
    assert talk.history == [] and talk.refused == set()


def test_recommendations_are_the_best_items_with_a_text_each(answerer):
    talk = conversation(answerer)
    talk.add(["i1", "i2"])
    first, second = talk.recommend()
    catalogue = answerer.renderer.catalogue
    assert first.score >= second.score and first.explanation
    assert first.title == catalogue.titles[first.row] and first.id == catalogue.item_ids[first.row]


def test_a_long_history_loses_its_oldest_items(answerer):
    talk = conversation(answerer)
    talk.add([f"i{n}" for n in range(20)])
    assert len(talk.recommend()) == 2


def test_when_nothing_is_left_it_says_so(answerer):
    talk = conversation(answerer)
    talk.add([f"i{n}" for n in range(small.ITEMS)])
    with pytest.raises(UserError, match="every item was chosen or refused"):
        talk.recommend()
    with pytest.raises(UserError, match=f"give a number from 1 to {small.ITEMS}"):
        conversation(answerer, count=small.ITEMS + 1)


def test_lines_are_answered_until_quit(answerer):
    catalogue = answerer.renderer.catalogue
    word = catalogue.titles[4].split()[0]
    lines = said(
        answerer,
        f"/find {word}",
        "/find nothing of the kind",
        "/history",
        f"/history add i2 '{catalogue.titles[4]}'",
        "/history",
        "/user u3",
        "/quit",
        "/find story",
    )
    item = f"{catalogue.titles[4]} [i4]"
    assert lines == [
        item,
        "nothing found: /find WORDS of a title",
        "nothing yet: /history add ID…",
        f"added {catalogue.titles[2]} [i2]",
        f"added {item}",
        f"{catalogue.titles[2]} [i2]",
        item,
        "you are u3",
    ]


def test_words_are_a_critique_and_bring_a_new_list(answerer):
    lines = said(answerer, "/history add i2", "", "darker, please", "/history")
    ranked = [line for line in lines if line[:2] in ("1.", "2.")]
    assert len(ranked) == 4 and len({line.split("[")[1] for line in ranked}) == 4
    assert lines[-1] == "wanted: darker, please"


def test_what_is_wrong_is_answered_and_the_talk_goes_on(answerer):
    lines = said(
        answerer,
        "/history add i999",
        "/history add 'open",
        "/history add",
        "/history drop",
        "/nonsense",
        "/user nobody",
        "/help",
    )
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 6 and "no item 'i999'" in errors[0] and "/help" in errors[4]
    assert lines[-1] == chat.HELP
