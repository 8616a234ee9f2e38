"""ELM's 24 tasks and the user profile: slots, targets, sources, and nothing of held-out items."""

import json
import os
import pathlib

import numpy as np
import pytest

from ilm_jax.data.catalogue.neighbours import nearest
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples import composed, elm_templates
from ilm_jax.data.examples.task_families import TASK_FAMILIES, spec_named
from ilm_jax.data.examples.task_keys import plain_settings, slots_at_most
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.formats.text_records import read_texts
from ilm_jax.errors import UserError
from ilm_jax.tasks.elm24 import Elm24Settings
from ilm_jax.tasks.elm24_texts import ARITY
from tests.data.small_catalogue import small_catalogue, words_of
from tests.some import some
from tests.tasks.making import made_by

CATALOGUE = small_catalogue()
CATALOGUE.ratings[:] = np.random.default_rng(0).integers(1, 11, len(CATALOGUE.ratings)) / 2
SETTINGS = TaskSettings(variants=2)
SPLIT = make_splits(CATALOGUE, SETTINGS.split)
TASKS = TASK_FAMILIES["elm24"].specs


def rendered(task, split, settings=SETTINGS):
    (made,) = made_by([task], SPLIT, settings)
    index = made.index(split)
    for values in zip(*(column.tolist() for column in index.values()), strict=True):
        integers = dict(zip(index, values, strict=True))
        yield integers, made.render(split, **integers)


def test_there_are_24_tasks_and_the_profile_each_with_prompts_and_an_instruction():
    assert len(elm_templates.TASKS) == 24
    assert {spec.task for spec in TASKS} == {*elm_templates.TASKS, "user_profile"}
    instructions = {task.instruction for task in elm_templates.TASKS.values()}
    assert len(instructions) == 24
    prompts = [p for task in elm_templates.TASKS.values() for p in task.prompts]
    assert len(set(prompts)) == len(prompts) >= 48
    for name, task in elm_templates.TASKS.items():
        text = elm_templates.instruction(name, ["fact one", "fact two"][: task.items])
        assert "fact one" in text and task.instruction in text
    assert "these items" in elm_templates.instruction("user_profile", ["a", "b", "c"])


@pytest.mark.parametrize("spec", TASKS, ids=[spec.task for spec in TASKS])
def test_every_task_yields_examples_with_its_number_of_slots(spec):
    wanted = 1 if spec.task == "user_profile" else elm_templates.TASKS[spec.task].items
    assert slots_at_most(spec, SETTINGS) == wanted
    for split in SPLITS:
        found = list(rendered(spec.task, split))
        assert found
        for integers, example in found:
            slots = [s.row for s in example.prompt.segments if s.kind < 0]
            assert len(slots) == wanted == len(set(slots))
            assert slots[0] == integers.get("row", integers.get("user"))
            assert example.target_text and example.source in ("metadata", "catalogue")
            assert all(example.target_text[s:e].strip() for s, e in example.content or [])
            if "row" in integers:
                fold = {"train": 0, "validation": 1, "test": 2}[split]
                assert SPLIT.item_fold[integers["row"]] == fold
                assert integers["other"] < 0 or SPLIT.item_fold[integers["other"]] == 0


@pytest.mark.parametrize("spec", TASKS, ids=[spec.task for spec in TASKS])
def test_no_training_target_speaks_of_a_held_out_item(spec):
    text = "\n".join(
        example.prompt.text + example.target_text
        for _, example in some(rendered(spec.task, "train"))
    )
    for row in some(np.flatnonzero(SPLIT.item_fold)):
        assert not any(word in text for word in some(words_of(CATALOGUE, row)))
    # The positive control: the words of training items, by which the targets are composed.
    told = [any(word in text for word in words_of(CATALOGUE, row)) for row in SPLIT.items_in(0)]
    assert any(told)


def test_words_alone_need_no_slot():
    settings = SETTINGS.replace(text_only=True, mention_description="title+slot")
    for task in ("summary", "similarities"):
        for integers, example in some(rendered(task, "train", settings)):
            assert not any(s.kind < 0 for s in example.prompt.segments)
            assert CATALOGUE.titles[integers["row"]] in example.prompt.text


def test_neighbours_are_those_of_a_slow_count():
    users, items = SPLIT.train_interactions()
    chosen = [set(users[items == row].tolist()) for row in range(CATALOGUE.num_items)]
    near = nearest(SPLIT, "cf")
    assert (near >= 0).any()
    for row in range(CATALOGUE.num_items):
        alike = [
            len(mine & chosen[row]) / np.sqrt(max(1, len(mine) * len(chosen[row])))
            if SPLIT.item_fold[k] == 0 and k != row
            else 0
            for k, mine in enumerate(chosen)
        ]
        assert (near[row] < 0) == (max(alike) == 0)
        if near[row] >= 0:
            assert alike[near[row]] == pytest.approx(max(alike))


def test_neighbours_know_no_held_out_interaction():
    catalogue = small_catalogue()
    before = nearest(make_splits(catalogue), "cf")
    ends = catalogue.offsets[1:][np.diff(catalogue.offsets) >= 3]
    catalogue.items[ends - 1], catalogue.items[ends - 2] = (
        catalogue.items[ends - 2],
        catalogue.items[ends - 1].copy(),
    )
    other = small_catalogue()
    assert (other.items != catalogue.items).any() and (before >= 0).any()
    assert (nearest(make_splits(catalogue), "cf") == before).all()


def test_opinions_are_means_of_training_ratings():
    book = composed.FactBook(SPLIT)
    assert any(book.of(row).opinion for row in range(CATALOGUE.num_items))
    for row in range(CATALOGUE.num_items):
        mine = CATALOGUE.ratings[(CATALOGUE.items == row) & SPLIT.train_mask]
        wanted = f"{mine.astype(float).mean():.1f} on average" if len(mine) >= 3 else ""
        assert book.of(row).opinion == wanted
        assert book.of(row).choosers == len(mine)


def written(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return SETTINGS.replace(variants=1).with_family(Elm24Settings(texts_file=str(path)))


def test_a_file_of_texts_takes_the_place_of_composed_ones(tmp_path):
    known = SPLIT.items_in(0)
    held_out = int(np.flatnonzero(SPLIT.item_fold == 2)[0])
    names = [CATALOGUE.item_ids[row] for row in (*known[:2], held_out)]
    settings = written(
        tmp_path / "texts.jsonl",
        [
            {"task": "summary", "item_ids": names[:1], "target": "One  of mine.", "source": "me"},
            {"task": "summary", "item_ids": names[2:], "target": "Held out."},
            {"task": "summary", "item_ids": ["gone"], "target": "Unknown."},
            {"task": "similarities", "item_ids": names[:2], "target": "Both."},
            {"task": "similarities", "item_ids": [names[0], names[2]], "target": "No."},
            {"task": "user_profile", "user_id": "u5", "target": "Likes it."},
        ],
    )
    ((_, one),) = rendered("summary", "train", settings)
    assert (one.target_text, one.source, one.target_item) == ("One of mine.", "me", known[0])
    ((_, other),) = rendered("summary", "test", settings)
    assert (other.target_text, other.source) == ("Held out.", "file")
    ((integers, both),) = rendered("similarities", "train", settings)
    assert [integers["row"], integers["other"]] == known[:2].tolist()
    profiles = [e for split in SPLITS for _, e in rendered("user_profile", split, settings)]
    assert [example.user for example in profiles] == ["u5"]
    (summary, similar) = made_by(["summary", "similarities"], SPLIT, settings)
    assert summary.truncations("train")["texts_of_unknown_items"] == 1
    assert similar.truncations("train")["texts_with_a_held_out_second_item"] == 1
    assert {e.source for _, e in rendered("pitch", "train", settings)} == {"metadata"}


def test_caches_of_written_texts_are_kept_apart_by_which_of_them_train(tmp_path):
    line = {"task": "summary", "item_ids": ["i0"], "target": "x"}
    of_file = plain_settings(spec_named("summary"), written(tmp_path / "t.jsonl", [line]))
    assert of_file["texts_told"] == 2
    assert "texts_told" not in plain_settings(spec_named("summary"), SETTINGS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"task": "sumary", "item_ids": ["i1"], "target": "x"}, "task 'sumary'"),
        ({"task": "summary", "item_ids": ["i1", "i2"], "target": "x"}, "with 2 items"),
        ({"task": "summary", "item_ids": "i1", "target": "x"}, "must be a list"),
        ({"task": "summary", "item_ids": [1], "target": "x"}, "must be a list"),
        ({"task": "summary", "item_ids": ["i1"], "target": " "}, "target must be a text"),
        ({"task": "summary", "item_ids": ["i1"], "target": 3}, "target must be a text"),
        ({"task": "summary", "item_ids": ["i1"], "target": "x", "note": 1}, "key 'note'"),
        ({"task": "user_profile", "item_ids": ["i1"], "target": "x"}, "and a user_id"),
        ({"task": "summary", "item_ids": ["i0"], "target": "x"}, "was given before"),
        ({"task": "summary", "item_ids": ["i1"], "target": "x", "source": ""}, "source must be"),
    ],
)
def test_a_text_outside_the_schema_is_refused_with_file_and_line(tmp_path, line, message):
    first = {"task": "summary", "item_ids": ["i0"], "target": "x"}
    written(tmp_path / "t.jsonl", [first, line])
    with pytest.raises(UserError, match=message) as error:
        read_texts(str(tmp_path / "t.jsonl"), ARITY)
    assert f"{tmp_path}/t.jsonl:2: " in str(error.value)


ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("ILM_TEST_DATA", ROOT.parent / "shared/data"))
REAL = DATA / "ml-1m"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no ml-1m at {REAL} (set ILM_TEST_DATA)")
def test_real_descriptions_by_a_language_model_are_read():
    texts = read_texts(str(REAL / "llm_item_descriptions.json"), ARITY)
    assert len(texts) == 3882
    assert all(task == "long_description" for task, _, _ in texts)
    assert 900 < np.mean([len(text.target) for text in texts.values()]) < 1200


def test_composed_sentences_do_not_say_a_title_twice_and_count_in_grammar():
    bare, full = (
        composed.Facts("T, 5 oz", (), "3.5 on average", 1),
        composed.Facts("U", ("red, round", "big"), "", 2),
    )
    assert composed.compose("summary", [bare])[0] == (
        "No more is on record than T, 5 oz. Rated 3.5 on average."
    )
    assert composed.compose("similarities", [bare, bare])[0] == (
        "No more is on record than T, 5 oz; T, 5 oz."
    )
    assert composed.compose("summary", [full])[0] == "U in short: red, round; big."
    for task in some(composed._ONE):
        text, spans = composed.compose(task, [full])
        assert "U" in text or "characteristics" in task
        assert text.endswith(".") and [text[s:e] for s, e in spans]
    assert "2 takers so far" in composed.compose("pitch", [full])[0]
    one = composed.Facts("U", ("big",), "", 1)
    assert composed.compose("convince_3", [one])[0] == "So far 1 person chose U."


def test_fewer_training_items_are_among_more_and_measure_on_the_same_ones():
    def items(split, count):
        settings = SETTINGS.with_family(Elm24Settings(train_items=count))
        return {integers["row"] for integers, _ in rendered("summary", split, settings)}

    everything = items("train", 0)
    assert everything == set(SPLIT.items_in(0).tolist())
    few, more = items("train", 3), items("train", 7)
    assert len(few) == 3 and len(more) == 7 and few < more < everything
    assert items("train", len(everything) + 1) == everything
    for split in ("validation", "test"):
        assert items(split, 3) == items(split, 0) != set()
    # By a hash, not the catalogue's first, and the same ones whatever else is asked of them.
    assert more != set(sorted(everything)[:7])
    settings = SETTINGS.with_family(Elm24Settings(train_items=3))
    assert {
        integers["row"] for integers, _ in rendered("long_description", "train", settings)
    } == few
