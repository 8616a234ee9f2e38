import itertools
import re

import pytest

from ilm_jax.data.catalogue.splits import TEST, TRAIN, make_splits
from ilm_jax.data.examples import templates
from ilm_jax.data.examples.prompt_settings import MENTIONS, USER_MENTIONS
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import ITEM_SLOT, SLOT_MARKS, USER_SLOT, PromptRenderer
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.tokenizers import OwnTokenizer
from tests.data.small_catalogue import small_catalogue
from tests.some import some

CATALOGUE = small_catalogue()
SPLITS = make_splits(CATALOGUE)
TOKENIZER = OwnTokenizer.train([*CATALOGUE.texts, *CATALOGUE.titles, "item_1234567890 user_0"], 500)
TOKENS = PromptTokenizer(TOKENIZER)
ALL_MENTIONS = [
    *itertools.product(MENTIONS, MENTIONS[:3] + MENTIONS[4:], USER_MENTIONS[:1]),
    *itertools.product(MENTIONS[:1], MENTIONS[:1], USER_MENTIONS),
]


def prompts(settings, history=(3, 0, 7, 14)):
    renderer = PromptRenderer(SPLITS, settings)
    for template in range(len(templates.DESCRIPTION)):
        yield renderer.description(3, template)
    for template in range(len(templates.SEQUENTIAL_SEEN)):
        yield renderer.sequential(4, history, template)


@pytest.mark.parametrize("text_only", [False, True])
@pytest.mark.parametrize(("description", "history", "user"), ALL_MENTIONS)
def test_tokens_decode_to_the_rendered_text(description, history, user, text_only):
    settings = TaskSettings(description, history, user, text_only=text_only)
    for prompt in some(prompts(settings)):
        inputs, slots, bounds = TOKENS.prompt(prompt)
        assert TOKENS.decode_prompt(inputs) == prompt.text
        assert len(slots) == sum(token < 0 for token in inputs)
        assert bounds == sorted(bounds)
        assert prompt.text.endswith(" ") and not prompt.text.endswith("  ")
        assert not re.search(r"[{}\[\]]", prompt.text)
        assert not (text_only and slots)


def test_every_run_between_seams_is_encoded_on_its_own():
    prompt = PromptRenderer(SPLITS, TaskSettings()).sequential(4, (0, 7), 0)
    inputs, _, _ = TOKENS.prompt(prompt)
    expected = []
    for segment in prompt.segments:
        expected += [segment.kind] if segment.kind else TOKENIZER.encode(segment.text)
    assert inputs == expected


def test_an_element_of_the_history_is_one_item_with_its_separator():
    renderer = PromptRenderer(SPLITS, TaskSettings(mention_user="slot"))
    history = (5, 0, 7)
    inputs, slots, bounds = TOKENS.prompt(renderer.sequential(4, history, 0))
    assert slots == [4, 5, 0, 7] and [t for t in inputs if t < 0] == [USER_SLOT] + 3 * [ITEM_SLOT]
    mark = SLOT_MARKS[ITEM_SLOT]
    elements = [
        TOKENS.decode_prompt(inputs[start:end]) for start, end in itertools.pairwise(bounds)
    ]
    ids = [renderer.item_id(row) for row in history]
    assert elements == [f" {ids[0]}{mark},", f" {ids[1]}{mark},", f" {ids[2]}{mark}"]


def test_a_text_cannot_forge_a_slot():
    settings = TaskSettings(mention_history="title", mention_description="title")
    assert any(SLOT_MARKS[ITEM_SLOT] in prompt.text for prompt in prompts(settings))
    for prompt in some(prompts(settings)):
        inputs, slots, _ = TOKENS.prompt(prompt)
        assert not slots and min(inputs) >= 0


def test_a_recommendation_names_held_out_items_by_id():
    held_out = int(SPLITS.items_in(TEST)[0])
    known = int(SPLITS.items_in(TRAIN)[0])
    renderer = PromptRenderer(SPLITS, TaskSettings(mention_history="title+slot", target="title"))
    text = renderer.sequential(0, (known, held_out), 0).text
    assert CATALOGUE.titles[known] in text and CATALOGUE.titles[held_out] not in text
    assert renderer.item_id(held_out) in text
    assert renderer.target(known) == CATALOGUE.titles[known]
    assert renderer.target(held_out) == f"toy {renderer.item_id(held_out)}"


def test_words_alone_keep_what_a_mention_says_in_words():
    def described(mention):
        settings = TaskSettings(mention_description=mention, text_only=True)
        return PromptRenderer(SPLITS, settings).description(1, 0).text

    title = CATALOGUE.titles[1]
    assert described("slot") == described("none") == "Describe this item. "
    assert described("title+slot") == f"Describe this item: {title}. "
    settings = TaskSettings(mention_history="slot", mention_user="slot", text_only=True)
    renderer = PromptRenderer(SPLITS, settings)
    assert renderer.item_id(1) in renderer.sequential(0, (1,), 0).text
    assert renderer.user_id(0) in renderer.sequential(0, (1,), 0).text


def test_without_a_user_a_sentence_still_has_its_subject():
    settings = TaskSettings(mention_user="none", mention_history="id")
    renderer = PromptRenderer(SPLITS, settings)
    sequential = [renderer.sequential(4, (3, 0), k).text for k in range(10)]
    straight = [renderer.straightforward(4, k).text for k in range(10)]
    first, second = renderer.item_id(3), renderer.item_id(0)
    assert f"On toy, somebody went from one item to another: {first}, {second}. " in sequential[5]
    assert f"Having taken {first}, {second} from toy, somebody will want " == sequential[8]
    assert sequential[0].startswith("Somebody chose on toy, ")
    assert straight[0] == "What should somebody get from toy next? Answer: "
    assert straight[4].startswith("Somebody opens toy ")
    assert straight[9] == "Guess what somebody takes from toy after today: "
    assert not any("|" in text or "[" in text or "  " in text for text in sequential + straight)


def test_titles_have_commas_of_their_own_so_semicolons_stand_between_them():
    for mention, mark in (("title", "; "), ("id+title", "; "), ("id", ", ")):
        renderer = PromptRenderer(SPLITS, TaskSettings(mention_history=mention))
        text = renderer.sequential(4, (3, 0, 7), 3).text
        assert text.count(mark) == 2 and text.count({"; ": ", ", ", ": "; "}[mark]) == 0
