"""Recommendation knowledge: what is hidden is asked for, and negatives are nobody's own."""

import dataclasses
import json
import re

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.task_families import TASK_FAMILIES, spec_named
from ilm_jax.data.examples.task_keys import slots_at_most
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.tokenizers import OwnTokenizer
from ilm_jax.errors import UserError
from ilm_jax.tasks.knowledge import KnowledgeSettings
from tests.data.small_catalogue import small_catalogue
from tests.some import some
from tests.tasks.making import made_by

CATALOGUE = small_catalogue()
CATALOGUE.ratings[:] = np.random.default_rng(0).integers(1, 11, len(CATALOGUE.ratings)) / 2
CATALOGUE.ratings[::9] = np.nan
OWN = KnowledgeSettings(candidates=7, mention="id")
SETTINGS = TaskSettings(history=4, variants=2, families=(OWN,))
SPLIT = make_splits(CATALOGUE, SETTINGS.split)
ROW = {raw: row for row, raw in enumerate(CATALOGUE.user_ids)}
WORDS = ("mlm", "mlm_item")
FROM_HISTORY = [spec.task for spec in TASK_FAMILIES["knowledge"].specs if spec.task not in WORDS]


def knowing(**changes):
    return SETTINGS.with_family(dataclasses.replace(OWN, **changes))


def rendered(task, split, settings=SETTINGS):
    (made,) = made_by([task], SPLIT, settings)
    index = made.index(split)
    for values in some(zip(*(column.tolist() for column in index.values()), strict=True)):
        integers = dict(zip(index, values, strict=True))
        yield integers, made.render(split, **integers), made


def ids_in(text, made):
    known = {made.renderer.item_id(row): row for row in range(CATALOGUE.num_items)}
    return [known[name] for name in re.findall(r"item_\d+", text)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", FROM_HISTORY)
def test_prompts_show_the_history_and_no_user(task, split):
    count = 0
    for integers, example, made in rendered(task, split):
        user, position = integers["user"], integers["position"]
        sequence = CATALOGUE.sequence(user).tolist()
        named = ids_in(example.prompt.text, made)
        elements = example.prompt.elements
        texts = [s.text for s in example.prompt.segments[elements[0] : elements[-1]]]
        shown = ids_in("".join(texts), made)
        before = sequence[max(0, position - 4) : position]
        if task == "mim":
            known = len(SPLIT.train_sequence(user))
            assert set(shown) <= set(sequence[:known] if split != "test" else sequence[:-1])
            assert sequence[position] not in shown and "___" in example.prompt.text
            assert len(shown) <= 4
        else:
            assert shown == before
        assert "user_" not in example.prompt.text
        assert example.target_item == sequence[position]
        beside = {"bpr": 2, "ranking": 7, "rating": 1}.get(task, 0)
        assert len(named) == len(shown) + beside
        count += 1
    assert count


@pytest.mark.parametrize("task", ["bpr", "ranking"])
@pytest.mark.parametrize("held_out", [False, True])
def test_negatives_are_none_of_the_users_items(task, held_out):
    settings = knowing(negatives_may_be_held_out=held_out, candidates=40)
    later = places = total = 0
    for integers, example, made in rendered(task, "train", settings):
        user = integers["user"]
        own = set(CATALOGUE.sequence(user).tolist())
        offered = ids_in(example.prompt.text, made)[-40 if task == "ranking" else -2 :]
        assert len(set(offered)) == len(offered) and example.target_item in offered
        negatives = set(offered) - {example.target_item}
        assert not negatives & set(SPLIT.train_sequence(user).tolist())
        later += len(negatives & own)
        places += offered.index(example.target_item)
        total += 1
    assert bool(later) == held_out
    mean = places / total / (len(offered) - 1)
    assert 0.35 < mean < 0.65  # the right one stands anywhere


def test_items_go_by_title_unless_they_are_held_out():
    settings = knowing(mention="title")
    held_out = set(np.flatnonzero(SPLIT.item_fold).tolist())
    seen = {True: 0, False: 0}
    for _, example, made in rendered("retrieval", "test", settings):
        kept = example.target_item in held_out
        title = CATALOGUE.titles[example.target_item]
        wanted = f"toy {made.renderer.item_id(example.target_item)}" if kept else title
        assert example.target_text == wanted
        seen[kept] += 1
    assert all(seen.values())


def test_answers_name_items_by_any_kind_of_id():
    settings = knowing(answer="id").replace(item_index="sequential")
    for task in ("retrieval", "mim", "bpr", "ranking"):
        for _, example, made in rendered(task, "test", settings):
            name = made.renderer.item_id(example.target_item)
            assert example.target_text == f"toy {name}", task
            assert made.settings.target == "id"


@pytest.mark.parametrize("split", SPLITS)
def test_an_item_whose_words_are_hidden_is_named_without_words_if_it_is_held_out(split):
    for mention in ("title", "id", "id+title"):
        for _, example, made in rendered("mlm_item", split, knowing(mention=mention)):
            row, prompt = example.target_item, example.prompt.text
            title, named = CATALOGUE.titles[row], made.renderer.item_id(row)
            shown = "title" in mention and split == "train"
            assert (title in prompt) == shown, (mention, split)
            assert (named in prompt) == ("id" in mention or not shown)
            assert bool(SPLIT.item_fold[row]) == (split != "train")


@pytest.mark.parametrize("task", WORDS)
def test_missing_words_restore_the_text(task):
    for _, example, _made in rendered(task, "train"):
        words = example.target_text.split()
        shown = example.prompt.text
        assert len(words) == shown.count("___") >= 1
        for word in words:
            shown = shown.replace("___", word, 1)
        assert " ".join(CATALOGUE.texts[example.target_item].split()) in " ".join(shown.split())


def test_ratings_are_those_of_the_source():
    (made,) = made_by(["rating"], SPLIT, SETTINGS)
    for integers, example, _ in rendered("rating", "test"):
        entry = CATALOGUE.offsets[integers["user"]] + integers["position"]
        assert float(example.target_text) == CATALOGUE.ratings[entry]
    blank = small_catalogue()
    (empty,) = made_by(["rating"], make_splits(blank), SETTINGS)
    assert not len(empty.index("train")["user"]) and len(made.index("train")["user"])


def candidates_file(path, change=None):
    lines = []
    for split in ("validation", "test"):
        for integers, example, _made in rendered("ranking", split):
            others = [r for r in range(5) if r != example.target_item]
            names = [CATALOGUE.item_ids[r] for r in (*others, example.target_item)]
            raw = CATALOGUE.user_ids[integers["user"]]
            lines.append({"user": raw, "split": split, "candidates": names})
    if change:
        change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return knowing(candidates_file=str(path))


def test_a_file_fixes_the_candidates(tmp_path):
    settings = candidates_file(tmp_path / "lists.jsonl")
    tokenizer = OwnTokenizer.train([*CATALOGUE.texts, "item_1234567890"], 600)
    (made,) = made_by(["ranking"], SPLIT, settings, tokenizer)
    index = made.index("test")
    for values in some(zip(*(column.tolist() for column in index.values()), strict=True)):
        features = made.build("test", **dict(zip(index, values, strict=True)))
        assert features["candidates"][-1] == features["target_item"]
        assert set(features["candidates"][:-1]) <= set(range(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.pop(), "no candidates for user"),
        (lambda lines: lines.append(lines[0]), "a list given twice"),
        (lambda lines: lines[0].update(candidates=["i0", "i1"]), "without the right item|repeat"),
        (lambda lines: lines[0].update(candidates=["none"]), "item 'none' is not"),
        (lambda lines: lines[0].update(user="nobody"), "user 'nobody'"),
        (lambda lines: lines[0].update(candidates="i0"), "must be a list"),
    ],
)
def test_a_wrong_file_of_candidates_is_refused(tmp_path, change, message):
    settings = candidates_file(tmp_path / "lists.jsonl", change)
    with pytest.raises(UserError, match=message):
        list(rendered("ranking", "test", settings))


def test_slots_at_most_are_the_slots_that_there_are():
    settings = knowing(mention="title+slot")
    for task in (*FROM_HISTORY, "mlm_item"):
        most = slots_at_most(spec_named(task), settings)
        found = max(
            sum(s.kind < 0 for s in example.prompt.segments)
            for _, example, _ in rendered(task, "test", settings)
        )
        assert found <= most <= found + 1, task
