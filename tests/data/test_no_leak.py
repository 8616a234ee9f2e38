"""No training stream of any stage knows a held-out interaction or a held-out item's words."""

import functools
import itertools
import json
import re

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples.prompts import ITEM_SLOT, PromptRenderer
from ilm_jax.data.examples.purchases import LumenSettings
from ilm_jax.data.examples.task_families import find_spec, task_specs
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.examples.telling import AGAIN, TELLS
from ilm_jax.data.streams.tasks_on_disk import open_tasks, open_tokenizer
from ilm_jax.data.tokenizers import OwnTokenizer
from ilm_jax.tasks.align import ItemItem
from ilm_jax.tasks.corpus import CorpusSettings, corpus_text
from ilm_jax.tasks.elm24 import Elm24Settings
from ilm_jax.tasks.regen import RegenSettings
from ilm_jax.tasks.registry import make_examples
from tests.data import telling_texts
from tests.data.cached_toy import prepared_toy, toy_world
from tests.data.small_catalogue import small_catalogue, words_of
from tests.data.small_codes import small_codes
from tests.some import some
from tests.tasks.making import made_by

SETTINGS = TaskSettings()
WORDS = SETTINGS.replace(text_only=True)
ID = r"item_(?:(?:<CI\d+>)+|\d+)|(?:<[a-z]_\d+>)+"


@pytest.fixture(scope="module")
def splits():
    return make_splits(toy_world(), SETTINGS.split)


@functools.cache
def sequences(split, text_only):
    """Sequential examples: those with slots as they are read, those in words as they would be."""
    if not text_only:
        return list(opened("sequential_random", SETTINGS, split))
    world = toy_world()
    tokenizer = open_tokenizer("toy", SETTINGS, world, prepared_toy())
    splits = make_splits(world, SETTINGS.split)
    (examples,) = made_by(["sequential_random"], splits, WORDS, tokenizer)
    index = examples.index(split)
    rows = zip(*(column.tolist() for column in index.values()), strict=True)
    return [examples.build(split, **dict(zip(index, row, strict=True))) for row in rows]


def opened(name, settings=SETTINGS, split="train"):
    tasks = open_tasks(
        "toy", settings, [name], split, cache_dir=prepared_toy(), catalogue=toy_world()
    )
    return some(tasks[find_spec("toy", name).name("toy")])


def test_toy_users_choose_no_item_twice():
    """So "the item is among the user's last two" below is the same as "the interaction is"."""
    world = toy_world()
    assert all(len(set(s)) == len(s) for s in map(world.sequence, range(world.num_users)))


def held_out_of(world, user, split):
    """Items of the user that examples of this split may not know; of short users all train."""
    if len(world.sequence(user)) < 3:
        return set()
    return set(world.sequence(user)[-2 if split == "train" else -1 :].tolist())


class Reader:
    """Finds the user and the items that an example speaks of, by slot, by id and by target."""

    def __init__(self, splits, tokenizer):
        renderer = PromptRenderer(splits, SETTINGS)
        self.tokenizer = tokenizer
        self.item = {renderer.item_id(r): r for r in range(splits.catalogue.num_items)}
        self.user = {renderer.user_id(u): u for u in range(splits.catalogue.num_users)}

    def text(self, example):
        tokens = np.concatenate([example["inputs"], example["targets"]]).astype(int)
        return self.tokenizer.decode(tokens[tokens >= 0])

    def read(self, text):
        items = {self.item[name] for name in re.findall(r"item_\d+", text)}
        users = {self.user[name] for name in re.findall(r"user_\d+", text)}
        return users, items


@pytest.fixture(scope="module")
def reader(splits):
    return Reader(splits, open_tokenizer("toy", SETTINGS, toy_world(), prepared_toy()))


@pytest.mark.parametrize("text_only", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_sequential_examples_know_no_later_interaction(text_only, split, reader):
    world = toy_world()
    row = {raw: user for user, raw in enumerate(world.user_ids)}
    earlier = 0
    for example in some(sequences(split, text_only)):
        users, items = reader.read(reader.text(example))
        user = row[example["user"]]
        assert users == {user}
        items |= {*map(int, example["slots"]), example["target_item"]}
        hidden = held_out_of(world, user, split)
        assert not items & hidden
        earlier += len(items) > 1
        assert split == "train" or example["target_item"] == world.sequence(user)[-2]
    assert earlier, "no example shows a history, in which a later item could stand"


def test_pairs_know_no_later_interaction(splits):
    world = toy_world()
    row = {raw: user for user, raw in enumerate(world.user_ids)}
    for example in opened("user_item"):
        assert example["row"] not in held_out_of(world, example["user"], "train")
    for example in opened("item_item"):
        user, position, step = re.fullmatch(r"(.+)@(\d+)-(\d+)", example["key"]).groups()
        sequence, position = world.sequence(row[user]), int(position)
        pair = (sequence[position], sequence[position + int(step)])
        assert pair == (example["row"], example["other"])
        assert not set(pair) & held_out_of(world, row[user], "train")
    folds = {name: splits.item_fold for name in ("item_item", "user_item")}
    for name, fold in folds.items():
        columns = ("row", "other") if name == "item_item" else ("row",)
        assert all(fold[example[c]] == 0 for example in opened(name) for c in columns)


def test_the_corpus_and_the_tokenizer_know_no_later_interaction(splits, reader):
    world = toy_world()
    corpus = [reader.text(example) for example in opened("text")]
    known = list(corpus_text(splits, SETTINGS).tokenizer_strings())
    assert known[: len(corpus)] == corpus
    # After the corpus come only the id strings, each by itself.
    assert all(re.fullmatch(r"(item|user)_\d+", text) for text in some(known[len(corpus) :]))
    found = 0
    for text in corpus:
        users, items = reader.read(text)
        for user in users:
            found += 1
            assert not items & held_out_of(world, user, "train")
    assert found == CorpusSettings().sequential_examples


def test_no_training_string_names_a_held_out_item_by_its_words(splits, reader):
    world = toy_world()
    prompts = [*sequences("train", False), *sequences("train", True)]
    for settings in (SETTINGS, WORDS):
        prompts += opened("long_description", settings)
    strings = [reader.text(example) for example in prompts]
    strings += [example["target_text"] for example in opened("long_description")]
    strings += [reader.tokenizer.decode(example["text"]) for example in opened("item_text")]
    strings += corpus_text(splits, SETTINGS).tokenizer_strings()
    everything = "\n".join(dict.fromkeys(strings))
    # Five items of the world describe themselves in the words of some training item, by chance.
    known = {world.texts[row] for row in splits.items_in(0)}
    for row in some(np.flatnonzero(splits.item_fold)):
        assert world.titles[row] not in everything
        assert (world.texts[row] in everything) == (world.texts[row] in known)
    assert all(text in everything for text in some(known))
    assert sum(world.texts[row] in known for row in np.flatnonzero(splits.item_fold)) == 5
    for name in ("item_text", "long_description"):
        rows = [e["row" if name == "item_text" else "target_item"] for e in opened(name)]
        assert sorted(rows) == splits.items_in(0).tolist()


def every_setting():
    """All of them; those that are not slow have every two settings together once."""
    mentions = ("slot", "title", "title+slot", "id+title")
    for number, mention in enumerate(mentions):
        for target, text_only, held_out_pairs in itertools.product((0, 1), repeat=3):
            chosen = text_only == number % 2 ^ target and held_out_pairs == number // 2 ^ target
            values = mention, ("id", "title")[target], bool(text_only), bool(held_out_pairs)
            yield pytest.param(*values, marks=() if chosen else pytest.mark.slow)


@pytest.mark.parametrize(("mention", "target", "text_only", "held_out_pairs"), [*every_setting()])
def test_no_setting_lets_held_out_words_into_training(
    tmp_path, mention, target, text_only, held_out_pairs
):
    catalogue = small_catalogue()
    splits = make_splits(catalogue, SplitConfig(0.2, item_pairs_of_held_out=held_out_pairs))
    settings = TaskSettings(
        mention_description=mention,
        mention_history=mention,
        target=target,
        text_only=text_only,
        split=splits.config,
        variants=2,
        families=(CorpusSettings(sequential_examples=0),),
        item_codes=str(tmp_path / "codes"),
    )
    small_codes(splits).save(tmp_path / "codes")
    corpus = corpus_text(splits, settings)
    tokenizer = OwnTokenizer.train([*catalogue.texts, *catalogue.titles], 600)
    strings, without = list(corpus.tokenizer_strings()), set()
    for examples in make_examples(list(task_specs().values()), splits, settings, tokenizer):
        index = examples.index("train")
        rows = list(zip(*(column.tolist() for column in index.values()), strict=True))
        without |= set() if rows else {examples.spec.task}
        for values in rows:
            example = examples.build("train", **dict(zip(index, values, strict=True)))
            for feature, form in examples.spec.features:
                if form == "text":
                    strings.append(example[feature])
                elif feature in ("inputs", "targets", "text"):
                    strings.append(tokenizer.decode(t for t in example[feature] if t >= 0))
            if isinstance(examples, ItemItem) and not held_out_pairs:
                assert splits.item_fold[[example["row"], example["other"]]].tolist() == [0, 0]
    # Nothing trains on unseen templates, and this catalogue has no ratings and no alike items.
    unseen = {spec.task for spec in task_specs().values() if spec.task.endswith("_unseen")}
    critiques = {f"{task}_critique" for task in ("next_item", "joint", "purchase")}
    assert without == unseen | critiques | {"rating", "purchase_uncritiqued"}
    everything = "\n".join(strings)
    for row in range(catalogue.num_items):
        used = any(word in everything for word in words_of(catalogue, row))
        # Training items are the positive control: their texts are all there.
        assert used == (splits.item_fold[row] == 0)


@pytest.mark.parametrize("seen", ["train", "validation"])
def test_no_prompt_of_any_task_names_what_its_user_chooses_later(tmp_path, seen):
    """Over every task with a user: no slot, id or answer is an item of a later split.

    Negatives and candidates are no choices; a task that shows some says so here.
    """
    catalogue = small_catalogue()
    splits = make_splits(catalogue)
    small_codes(splits).save(tmp_path / "codes")
    settings = TaskSettings(
        cluster_tokens=8,
        cluster_split=3,
        mention_history="id+slot",
        item_codes=str(tmp_path / "codes"),
    )
    tokenizer = OwnTokenizer.train([*catalogue.texts, *catalogue.titles], 600)
    row = {raw: user for user, raw in enumerate(catalogue.user_ids)}
    walked = 0
    for examples in make_examples(list(task_specs().values()), splits, settings, tokenizer):
        if not hasattr(examples, "renderer"):
            continue
        known = {examples.renderer.item_id(r): r for r in range(catalogue.num_items)}
        index = examples.index(seen)
        for values in zip(*(column.tolist() for column in index.values()), strict=True):
            example = examples.render(seen, **dict(zip(index, values, strict=True)))
            if not example.user:
                continue
            text = example.prompt.text + example.target_text
            items = {known[name] for name in re.findall(ID, text)}
            items |= {s.row for s in example.prompt.segments if s.kind == ITEM_SLOT}
            items |= {example.target_item} - {-1}
            assert not items & held_out_of(catalogue, row[example.user], seen), example.key
            walked += 1
    assert walked > 500


@pytest.mark.parametrize("task", telling_texts.READ)
@pytest.mark.parametrize("of_file", [True, False])
def test_texts_about_purchases_that_name_what_is_held_out_do_not_train(tmp_path, task, of_file):
    splits = make_splits(small_catalogue())
    written, file = telling_texts.about_purchases(splits), ""
    if of_file:
        file = telling_texts.file_of(tmp_path / "t.jsonl", splits)
    else:
        splits = make_splits(telling_texts.published(splits))
    own = (RegenSettings(texts_file=file), LumenSettings(past_critiques=True))
    (examples,) = made_by([task], splits, TaskSettings(families=own))
    said = telling_texts.said_in_training(examples)
    assert "So fine" in said and "So tell" not in said
    read = telling_texts.READ[task]
    of_task = [(k, u, p, t) for k, u, p, t in written if k in read and p > 0]
    told = sum("So tell" in text for *_, text in of_task)
    assert examples.truncations("train") == {TELLS: told, AGAIN: 0} and told
    assert not examples.truncations("test")
    if len(read) == 1:  # nothing but what tells is left out
        assert all(text in said for *_, text in of_task if "So fine" in text)


@pytest.mark.parametrize("task", ["user_summary", "user_profile"])
def test_texts_about_users_that_name_what_is_held_out_do_not_train(tmp_path, task):
    splits = make_splits(small_catalogue(users=80))
    file = telling_texts.file_of(tmp_path / "t.jsonl", splits, profiles=task, purchases=False)
    own = RegenSettings(texts_file=file) if task == "user_summary" else Elm24Settings(file)
    (examples,) = made_by([task], splits, TaskSettings(families=(own,)))
    said = telling_texts.said_in_training(examples)
    assert "fine" in said and "tell" not in said
    left_out = sum(examples.truncations(split).get(TELLS, 0) for split in ("train", "validation"))
    left_out += examples.truncations("test").get(TELLS, 0)
    assert left_out == sum("tell" in text for _, text in telling_texts.about_users(splits))


@pytest.mark.parametrize("task", ["summary", "long_description", "corpus/text"])
def test_texts_about_items_that_name_held_out_ones_do_not_train(tmp_path, task):
    splits = make_splits(small_catalogue())
    catalogue, rows = splits.catalogue, splits.items_in(0).tolist()
    other = catalogue.titles[int(np.flatnonzero(splits.item_fold)[0])]
    name = task if task == "summary" else "long_description"
    with (tmp_path / "t.jsonl").open("w") as lines:
        for row in rows:
            target = f"It would tell of {other}." if row % 2 else f"All is fine {row}."
            ids = {"task": name, "item_ids": [catalogue.item_ids[row]]}
            lines.write(json.dumps({**ids, "target": target}) + "\n")
    settings = TaskSettings(families=(Elm24Settings(str(tmp_path / "t.jsonl")),))
    if task == "corpus/text":
        examples = corpus_text(splits, settings)
        said = "\n".join(examples.strings("train"))
    else:
        (examples,) = made_by([task], splits, settings)
        said = telling_texts.said_in_training(examples)
    assert "would tell" not in said
    assert all(f"All is fine {row}." in said for row in rows if row % 2 == 0)
    assert examples.truncations("train")[TELLS] == sum(row % 2 for row in rows)


@pytest.mark.parametrize("held_back", [1, 2])
@pytest.mark.parametrize("task", ["purchase_reason", "purchase"])
def test_a_text_of_an_item_that_comes_again_held_back_does_not_train(tmp_path, task, held_back):
    """A file says which item, not which purchase: it may be about the one that is held back."""
    catalogue = small_catalogue()
    splits = make_splits(catalogue)
    user = int(np.argmax(np.diff(catalogue.offsets)))
    sequence = catalogue.sequence(user)
    again, twice = [p for p in range(1, len(sequence) - 2) if not splits.item_fold[sequence[p]]][:2]
    sequence[-held_back] = sequence[again]
    sequence[0] = sequence[twice]  # both of these purchases train
    with (tmp_path / "t.jsonl").open("w") as lines:
        for place in (again, twice):
            ids = {"user_id": catalogue.user_ids[user]}
            ids["item_ids"] = [catalogue.item_ids[sequence[place]]]
            row = {"task": "purchase_reason", "target": f"Chosen{place}x, once more.", **ids}
            lines.write(json.dumps(row) + "\n")
    own = RegenSettings(texts_file=str(tmp_path / "t.jsonl"))
    (examples,) = made_by([task], splits, TaskSettings(families=(own,)))
    said = telling_texts.said_in_training(examples)
    assert f"Chosen{again}x" not in said and f"Chosen{twice}x" in said
    assert examples.truncations("train") == {TELLS: 0, AGAIN: 1}
