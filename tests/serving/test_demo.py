"""The room behind the page: search, a history, lists that move, texts about unread items."""

import dataclasses
import threading

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import TRAIN
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.errors import UserError
from ilm_jax.serving.conversation import Conversation
from ilm_jax.serving.demo import HITS, Demo, Hit
from tests.decoding import small
from tests.serving.test_answering_by_head import answerer as by_head

CONFIG = DecodingConfig(max_new_tokens=4)


@pytest.fixture(scope="module")
def answerer():
    return small.answerer()


@pytest.fixture(scope="module")
def demo(answerer):
    return Demo(answerer, small.splits(), count=3, config=CONFIG)


def shown(listing):
    return [item.id for item in listing.items]


def test_search_is_by_words_of_titles_case_aside_and_ends_at_twenty(demo):
    catalogue = small.splits().catalogue
    assert demo.search("  ") == [] and demo.search("no such words") == []
    title = catalogue.titles[4]
    assert Hit("i4", title) in demo.search(title.upper())
    backwards = " ".join(reversed(title.split()))
    assert Hit("i4", title) in demo.search(backwards)
    letters = sorted({letter for title in catalogue.titles for letter in title.lower()} - {" "})
    hits = [len(demo.search(letter)) for letter in letters]
    assert max(hits) == HITS < catalogue.num_items


def test_a_list_is_that_of_the_conversation_with_a_text_for_every_item(demo, answerer):
    visitor = demo.visitor()
    visitor.add("i3")
    visitor.add("i3")
    visitor.add("i5")
    assert [hit.id for hit in visitor.history] == ["i3", "i5"]
    found = visitor.recommend()
    talk = Conversation(answerer, count=3, config=CONFIG)
    talk.add(["i3", "i5"])
    same = talk.recommend()
    assert [(i.id, i.explanation) for i in found.items] == [(r.id, r.explanation) for r in same]
    assert found.depth == 0 and all(item.was is None for item in found.items)


def test_after_a_critique_every_item_says_where_it_stood(demo):
    visitor = demo.visitor()
    visitor.add("i3")
    first = visitor.recommend()
    standing = [demo.catalogue.item_ids[row] for row in visitor._talk.standing(demo.depth)]
    assert standing[:3] == shown(first) and "i3" not in standing
    second = visitor.recommend("darker,  please ")
    assert second.critique == "darker, please" and second.depth == len(standing)
    assert not set(shown(first)) & set(shown(second))
    for item in second.items:
        place = standing.index(item.id) + 1 if item.id in standing else None
        assert item.was == place
    assert any(item.was for item in second.items)
    assert visitor.lists == [first, second]


def test_with_an_item_head_all_places_are_known():
    demo = Demo(by_head(), small.splits(), count=3, config=CONFIG)
    assert demo.depth == small.ITEMS
    visitor = demo.visitor()
    visitor.add("i3")
    first, second = visitor.recommend(), visitor.recommend("darker")
    assert not set(shown(first)) & set(shown(second))
    assert all(4 <= item.was < small.ITEMS for item in second.items)


def test_the_same_question_has_the_same_list_and_nothing_moves(demo):
    visitor = demo.visitor()
    first, again = visitor.recommend(), visitor.recommend()
    assert shown(first) == shown(again) and [i.was for i in again.items] == [1, 2, 3]


def test_an_item_can_be_taken_out_and_what_was_wished_stays(demo, answerer):
    visitor = demo.visitor()
    for name in ("i3", "i5", "i7"):
        visitor.add(name)
    first = visitor.recommend()
    visitor.remove("i5")
    visitor.remove("i9")
    assert [hit.id for hit in visitor.history] == ["i3", "i7"]
    second = visitor.recommend("shorter")
    assert not set(shown(first)) & set(shown(second))
    assert "Wanted: shorter" in visitor._talk.prompt().text
    visitor.clear()
    assert visitor.history == [] and visitor.lists == [] and visitor.recommend().critique == ""


def test_wishes_go_with_the_items_that_they_followed(answerer):
    talk = Conversation(answerer, count=3, config=CONFIG)
    talk.add(["i1", "i2", "i3"])
    talk._wishes = {1: ["a"], 2: ["b"], 3: ["c"]}
    talk.remove(1)
    assert talk._wishes == {1: ["b"], 2: ["c"]}
    talk.remove(3)
    assert talk._wishes == {1: ["b", "c"]} and talk.history == [2]


def test_what_cannot_be_answered_leaves_the_conversation_as_it_was(demo):
    visitor = demo.visitor()
    visitor.add("i3")
    first = visitor.recommend()
    for words, message in (("x" * 501, "501 characters"), ("more of it " * 40, "positions")):
        with pytest.raises(UserError, match=message):
            visitor.recommend(words)
    assert visitor.lists == [first] and visitor._talk.critiques == []
    assert shown(visitor.recommend()) == shown(first)
    with pytest.raises(UserError, match="no item 'i999'"):
        visitor.add("i999")
    for n in range(small.ITEMS):
        visitor.add(f"i{n}")
    with pytest.raises(UserError, match="start anew"):
        visitor.recommend()


def test_visitors_do_not_hear_each_other_and_the_model_answers_one_at_a_time(demo, monkeypatch):
    inside, most = [], []
    items = type(demo._answerer).items

    def watched(self, *words, **named):
        inside.append(1)
        most.append(len(inside))
        found = items(self, *words, **named)
        inside.pop()
        return found

    monkeypatch.setattr(type(demo._answerer), "items", watched)
    visitors = [demo.visitor() for _ in range(4)]
    alone = []
    for n, visitor in enumerate(visitors):
        visitor.add(f"i{n}")
        other = demo.visitor()
        other.add(f"i{n}")
        alone.append(shown(other.recommend()))
    threads = [threading.Thread(target=visitor.recommend) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [shown(visitor.lists[0]) for visitor in visitors] == alone
    assert max(most) == 1 and [len(v.history) for v in visitors] == [1] * 4


def test_an_unread_item_is_described_from_its_vector_beside_its_text(demo, answerer):
    splits = small.splits()
    folds, counts = splits.item_fold, splits.train_counts()
    assert demo.unread and all(folds[row] != TRAIN for row in demo.unread)
    assert len(demo.unread) == int(np.sum(folds != TRAIN))
    assert [counts[row] for row in demo.unread] == sorted(counts[demo.unread], reverse=True)
    first = demo.hit(demo.unread[0])
    assert demo.search_unread("")[0] == first and demo.search_unread(first.title)[0] == first
    read = demo.hit(int(np.flatnonzero(folds == TRAIN)[0]))
    assert read not in demo.search_unread(read.title)
    told = demo.describe(first.id)
    assert told.held_out and told.by_vector and "◆" in told.prompt
    assert first.title not in told.prompt and told.text
    assert told.reference == splits.catalogue.texts[demo.unread[0]]
    assert not demo.describe(read.id).held_out


def test_a_prompt_that_names_the_item_is_not_called_one_of_its_vector(answerer):
    settings = small.SETTINGS.replace(mention_description="id+slot")
    named = dataclasses.replace(answerer, renderer=PromptRenderer(small.splits(), settings))
    told = Demo(named, small.splits(), count=1, config=CONFIG).describe("i3")
    assert "◆" in told.prompt and not told.by_vector


def test_a_model_that_ranks_alone_is_not_made_to_write(answerer):
    demo = Demo(answerer, small.splits(), count=2, config=CONFIG, explains=False)
    found = demo.visitor().recommend()
    assert len(found.items) == 2 and [item.explanation for item in found.items] == ["", ""]
    with pytest.raises(UserError, match="writes nothing"):
        demo.describe("i3")
