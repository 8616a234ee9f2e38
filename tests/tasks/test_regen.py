"""REGEN: the published lines are read, critiques steer, and nothing held out is told."""

import dataclasses
import json
import re

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.narratives import Narratives, instruction
from ilm_jax.data.examples.task_families import TASK_FAMILIES
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.sources import regen
from ilm_jax.errors import UserError
from ilm_jax.tasks.regen import RegenSettings
from tests.data.small_catalogue import small_catalogue
from tests.some import some
from tests.tasks.making import made_by

TASKS = [spec.task for spec in TASK_FAMILIES["regen"].specs]
SETTINGS = TaskSettings(mention_history="id", history=20)


def purchase(user, place, item):
    return {
        "item": {
            "asin": f"B{item}",
            "title": f"Pen number{item}x",
            "price": 3.5,
            "category": f"Office - Pens - Kind{item % 3}",
        },
        "review": {
            "rating": 1 + (user + place) % 5,
            "text": "Fine.",
            "unix_time": 100 - place,
            "reason_text": f"Because of reason{item}x.",
        },
        "wish": f"I want wish{item}x.",
    }


def users(count=20, items=30):
    draw = np.random.default_rng(0)
    chosen = [draw.permutation(items)[:6].tolist() for _ in range(count)]
    return [
        {
            "reviewer_id": f"R{u}",
            "purchase_history": [purchase(u, p, i) for p, i in enumerate(row)],
            "user": {
                "long_summary": f"Person{u} likes number{row[0 if u % 2 else 3]}x".replace(
                    "likes number", "likes Pen number"
                )
            },
        }
        for u, row in enumerate(chosen)
    ]


KEYS = 'Keys.critique = "wish"\nKeys.purchase_reason = "reason_text"\n'


def write(folder, rows, keys=KEYS):
    (folder / "office.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if keys:
        (folder / "keys.gin").write_text(keys)
    return folder


def rendered(splits, task, split, settings=SETTINGS):
    (made,) = made_by([task], splits, settings)
    index = made.index(split)
    for values in zip(*(column.tolist() for column in index.values()), strict=True):
        integers = dict(zip(index, values, strict=True))
        yield integers, made.render(split, **integers)


@pytest.fixture
def published(tmp_path):
    return make_splits(regen.read(write(tmp_path, users()), "regen/office"))


def test_purchases_are_sorted_and_their_texts_go_with_them(published):
    catalogue = published.catalogue
    assert (catalogue.num_users, catalogue.user_ids[3]) == (20, "R3")
    wanted = users()
    for user, row in enumerate(wanted):
        items = [p["item"]["asin"] for p in row["purchase_history"]][::-1]  # times fall
        assert [catalogue.item_ids[i] for i in catalogue.sequence(user)] == items
    texts = catalogue.extras["regen"]
    assert len(texts["critique"]) == len(texts["purchase_reason"]) == 120
    for kind, word in (("critique", "wish"), ("purchase_reason", "reason")):
        for user, position, text in texts[kind]:
            raw = catalogue.item_ids[catalogue.sequence(user)[position]]
            assert f"{word}{raw[1:]}x" in text
    assert catalogue.categories[0][:2] == ["Office", "Pens"]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_examples_of_its_kind(published, task):
    for split in ("train", "validation", "test"):
        found = list(rendered(published, task, split))
        assert bool(found) == (task not in ("endorsement",)), task
        for integers, example in found:
            text = example.prompt.text
            if task.endswith("_critique"):
                item = published.catalogue.item_ids[example.target_item]
                assert f"wish{item[1:]}x" in text
            elif task != "user_summary":
                assert "wish" not in text
            if task.startswith("joint"):
                name = example.target_text.split(". ")[0]
                assert re.fullmatch(r"office item_\d+", name) and "Because" in example.target_text
                assert all(example.target_text[s:e] for s, e in some(example.content))
            if task not in ("next_item",):
                assert example.source == "published"
            assert integers


def test_no_training_example_speaks_of_a_held_out_item(published):
    catalogue = published.catalogue
    for task in TASKS:
        words = "\n".join(
            e.prompt.text + e.target_text for _, e in rendered(published, task, "train")
        )
        for row in some(np.flatnonzero(published.item_fold)):
            number = catalogue.item_ids[row][1:]
            assert not re.search(rf"(number|wish|reason){number}x", words), (task, number)


def test_summaries_that_tell_what_comes_are_left_out(published):
    texts = Narratives(published)
    kept = [user for user in range(20) if texts.summary(user)]
    # Every other summary names the first purchase of the file, which is the user's last.
    assert kept and all(user % 2 == 0 for user in kept)


def test_composed_summaries_say_so_and_which_of_their_words_carry_information():
    for _, example in some(rendered(plain_splits(), "user_summary", "train")):
        assert example.source == "metadata"
        assert all(example.target_text[start:end].strip() for start, end in some(example.content))


def test_a_key_that_is_nowhere_lists_those_that_are(tmp_path):
    write(tmp_path, users(), 'Keys.critique = "critique"\n')
    with pytest.raises(UserError, match=r"key 'critique' .*a purchase: item, review, wish"):
        regen.read(tmp_path, "regen/office")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("reviewer_id"), "no id under 'reviewer_id'; keys"),
        (lambda r: r.update(reviewer_id="R0"), "user 'R0' was given before"),
        (lambda r: r.update(purchase_history=[]), "no list of purchases"),
        (lambda r: r["purchase_history"][0].pop("item"), "without 'item'; keys"),
        (lambda r: r["purchase_history"][0]["review"].update(unix_time="x"), "unix_time 'x'"),
        (lambda r: r["purchase_history"][0]["item"].update(title=[1]), "title is a list"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, change, message):
    rows = users()
    change(rows[2])
    with pytest.raises(UserError, match=message) as error:
        regen.read(write(tmp_path, rows), "regen/office")
    assert "office.jsonl:3: " in str(error.value)


def plain_splits():
    catalogue = small_catalogue()
    for row, names in enumerate(catalogue.categories):
        names += ["Books", f"Shelf{row % 2}"]
    return make_splits(catalogue)


@pytest.mark.parametrize("similar", [1, 2])
def test_critiques_are_composed_where_neighbours_are_alike(similar):
    splits = plain_splits()
    settings = SETTINGS.with_family(RegenSettings(similar=similar))
    catalogue, count = splits.catalogue, 0
    for integers, example in rendered(splits, "next_item_critique", "train", settings):
        sequence = catalogue.sequence(integers["user"])
        before, item = sequence[integers["position"] - 1], sequence[integers["position"]]
        assert catalogue.categories[before][:similar] == catalogue.categories[item][:similar]
        wish = re.search(r"Similar, but (\w+), please", example.prompt.text)[1]
        assert wish in catalogue.texts[item] or wish in catalogue.categories[item]
        assert wish not in catalogue.texts[before] and example.source == "metadata"
        count += 1
    assert count


def test_texts_of_a_file_take_the_place_of_composed_ones(tmp_path):
    splits = plain_splits()
    catalogue = splits.catalogue
    user = int(np.flatnonzero(np.diff(catalogue.offsets) > 6)[0])
    place = next(p for p in range(1, 4) if splits.item_fold[catalogue.sequence(user)[p]] == 0)
    item = catalogue.item_ids[catalogue.sequence(user)[place]]
    line = {
        "task": "critique",
        "user_id": catalogue.user_ids[user],
        "item_ids": [item],
        "target": "Mine.",
        "source": "a-model",
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(line) + "\n")
    settings = SETTINGS.with_family(RegenSettings(texts_file=str(tmp_path / "t.jsonl")))
    ((integers, example),) = rendered(splits, "next_item_critique", "train", settings)
    assert (integers["user"], integers["position"]) == (user, place)
    assert "Mine." in example.prompt.text and example.source == "a-model"


def test_the_toy_world_knows_what_its_users_ask_for():
    from tests.data.cached_toy import toy_world

    splits = make_splits(toy_world())
    texts = Narratives(splits)
    user, position, field, word = toy_world().extras["critiques"][0]
    fields = list(toy_world().extras["fields"].values())
    text, spans, source = texts.about("critique", user, position)
    assert fields[field][word] in text and source == "generated" and spans
    assert texts.about("purchase_reason", user, position)[2] == "metadata"


def test_instructions_give_the_facts():
    text = instruction("critique", ["a pen", "a red pen"])
    assert "Item 1: a pen" in text and "Item 2: a red pen" in text and "Do not name" in text


@pytest.mark.parametrize("kind", ["critique", "purchase_reason", "endorsement"])
@pytest.mark.parametrize("texts", ["published", "composed", "generated", "file"])
def test_who_has_a_text_is_known_without_making_any(published, tmp_path, texts, kind):
    from tests.tasks.test_versions import world

    splits = published if texts == "published" else world()
    more = {}
    if texts == "generated":
        critiques = [[user, place, 0, 0] for user in range(0, 30, 3) for place in (0, 1, 4)]
        extras = {"critiques": critiques, "fields": {"mood": ["mood", ["glad"]]}}
        splits = make_splits(dataclasses.replace(splits.catalogue, extras=extras))
    if texts == "file":
        catalogue, lines = splits.catalogue, []
        for user in range(0, catalogue.num_users, 2):
            for item in dict.fromkeys(catalogue.sequence(user)[::2].tolist()):
                ids = {"user_id": catalogue.user_ids[user], "item_ids": [catalogue.item_ids[item]]}
                lines.append(json.dumps({"task": kind, "target": "A text.", **ids}))
        lines.append(json.dumps({"task": kind, "target": "x", "user_id": "?", "item_ids": ["i1"]}))
        (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")
        more = {"texts_file": str(tmp_path / "t.jsonl")}
    narratives = Narratives(splits, **more)
    lengths = np.diff(splits.catalogue.offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    positions = np.arange(len(users)) - np.repeat(splits.catalogue.offsets[:-1], lengths)
    told = [
        narratives.about(kind, user, place) is not None
        for user, place in zip(users.tolist(), positions.tolist(), strict=True)
    ]
    assert narratives.present(kind, users, positions).tolist() == told
    assert any(told) or (texts, kind) == ("published", "endorsement")
    assert narratives.present(kind, users[:0], positions[:0]).tolist() == []
