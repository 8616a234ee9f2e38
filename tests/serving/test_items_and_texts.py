"""A run that learnt LUMEN's rows is asked by them: ranked, and spoken of behind the item itself."""

import dataclasses

import numpy as np
import pytest

from ilm_jax.cli import chat
from ilm_jax.data.examples.mentions import with_item
from ilm_jax.data.examples.purchases import PurchasePrompts
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.serving.conversation import Conversation
from tests.decoding import small
from tests.serving import test_answering_by_head as by_head

CONFIG = DecodingConfig(max_new_tokens=4)


def answerer(past=False):
    plain = by_head.answerer()
    return dataclasses.replace(plain, purchases=PurchasePrompts(plain.renderer, past=past))


def conversation(given, count=2):
    return Conversation(given, count=count, config=CONFIG)


def requests(given, *prompts):
    return given.ask(prompts)


def test_the_text_continues_the_prompt_and_the_items_soft_tokens():
    given = answerer()
    asked = requests(given, "after {item:i1} and {item:i2}, what", "{item:i3} then")
    rows = [4, 9]
    found = given.narratives(asked, rows, CONFIG)
    # The same prompts with the item written into them.
    written = [
        dataclasses.replace(request, example=with_item(request.example, row))
        for request, row in zip(asked, rows, strict=True)
    ]
    wide = dataclasses.replace(given, converter=given.converter.with_room_for_an_item())
    batch = wide._prompts(written)
    assert batch["entities"][0, :3].tolist() == [1, 2, 4]
    direct = given.generator.generate(batch, CONFIG)
    assert [row["tokens"] for row in found] == [
        tokens[:n].tolist() for tokens, n in zip(direct.tokens, direct.lengths, strict=True)
    ]
    others = given.narratives(asked, [7, 1], CONFIG)
    assert [row["tokens"] for row in others] != [row["tokens"] for row in found]


def test_the_first_of_the_list_is_spoken_of():
    given = answerer()
    asked = requests(given, "after {item:i1}, what", "{item:i3} then")
    found = given.items_and_texts(asked, 3, CONFIG, [[], list(range(small.ITEMS))])
    ranked = given.items(asked, 3, [[], list(range(small.ITEMS))])
    assert [row["items"] for row in found] == [row["items"] for row in ranked]
    first = given.renderer.catalogue.item_row[found[0]["items"][0]["id"]]
    (text,) = given.narratives(asked[:1], [first], CONFIG)
    assert found[0]["text"] == text["text"] and found[0]["score"] == ranked[0]["score"]
    assert found[1]["items"] == [] and found[1]["text"] == ""


def test_what_cannot_be_spoken_of_is_told():
    given = answerer()
    asked = requests(given, "after {item:i1}, what")
    with pytest.raises(UserError, match="did not learn to speak behind an item"):
        dataclasses.replace(given, purchases=None).narratives(asked, [1], CONFIG)
    with pytest.raises(UserError, match="no item head to rank by"):
        dataclasses.replace(given, shelf=None).items_and_texts(asked, 1, CONFIG)
    vectors = by_head.VECTORS.copy()
    vectors[6] = 0
    cold = dataclasses.replace(given, shelf=dataclasses.replace(given.shelf, vectors=vectors))
    with pytest.raises(UserError, match="item 'i6' has no vector"):
        cold.narratives(asked, [6], CONFIG)
    with pytest.raises(UserError, match=f"a list of {small.ITEMS + 1} items"):
        given.items_and_texts(asked, small.ITEMS + 1, CONFIG)


def test_a_conversation_asks_as_the_task_did():
    given = answerer()
    talk = conversation(given)
    talk.add(["i3", "i5"])
    prompts = given.purchases
    assert talk.prompt() == prompts.prompt([3, 5])
    talk.criticise("shorter ones.")
    talk.criticise("no fiction")
    said = {2: "shorter ones. no fiction."}
    assert talk.prompt().text == prompts.prompt([3, 5], said).text
    talk.add(["i7"])  # taken: what was wished before it is answered
    assert talk.prompt() == prompts.prompt([3, 5, 7])
    talk.criticise("greener")
    assert talk.prompt() == prompts.prompt([3, 5, 7], {3: "greener."})
    past = conversation(answerer(past=True))
    past.add(["i3"])
    past.criticise("shorter ones")
    past.add(["i7"])
    assert "(wanted: shorter ones.)" in past.prompt().text
    # Of a long history the last items are read, with their critiques.
    past.add([f"i{n}" for n in range(8, 13)])
    past.criticise("redder")
    shown = past.prompt()
    assert len(shown.elements) == small.SETTINGS.history + 1
    assert "redder" in shown.text and "shorter" not in shown.text


def test_a_list_a_critique_another_list_each_with_its_texts():
    talk = conversation(answerer())
    talk.add(["i3"])
    first = talk.recommend()
    assert len({found.row for found in first}) == 2
    asked = [talk.turns.alone(talk.prompt())] * 2
    texts = answerer().narratives(asked, [found.row for found in first], CONFIG)
    assert [found.explanation for found in first] == [text["text"] for text in texts]
    talk.criticise("others")
    second = talk.recommend()
    assert not {found.row for found in first} & {found.row for found in second}


def test_a_critique_before_any_item_is_refused_and_the_talk_goes_on():
    lines = list(
        chat.talk(conversation(answerer()), ["greener\n", "/history add i2\n", "greener\n"])
    )
    assert lines[0].startswith("error: a critique steers from an item to the next, and there is")
    assert "/history add" in lines[0]
    assert sum(line[:2] in ("1.", "2.") for line in lines) == 2
    assert np.isfinite([float(line.split()[-1]) for line in lines if line[:2] == "1."]).all()
