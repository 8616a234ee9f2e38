import itertools

import numpy as np
import pytest

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompt_tokens import target_tokens
from ilm_jax.data.examples.prompts import ITEM_SLOT, USER_SLOT
from ilm_jax.data.examples.task_families import DEFAULT_TASKS, find_specs
from ilm_jax.data.examples.task_keys import plain_settings
from ilm_jax.data.examples.task_settings import SPLITS, TaskSettings
from ilm_jax.data.streams import task_cache
from ilm_jax.data.streams.streams import Mixture
from ilm_jax.data.streams.task_tokenizer import train_tokenizer
from ilm_jax.metrics.seqio_metrics import metric_fns, ranking_metrics
from ilm_jax.tasks import common, corpus, registry
from ilm_jax.tasks.align import AlignmentSettings
from ilm_jax.tasks.corpus import CorpusSettings
from ilm_jax.tasks.prompted import overlaps
from tests.data.small_catalogue import small_catalogue
from tests.some import some
from tests.tasks.making import made_by

CATALOGUE = small_catalogue()
SETTINGS = TaskSettings(history=3, variants=2, mention_user="slot")
SPLIT = make_splits(CATALOGUE, SETTINGS.split)
TOKENIZER = train_tokenizer(SPLIT, SETTINGS)
EXAMPLES = {
    spec.task: made_by([spec.full], SPLIT, SETTINGS, TOKENIZER)[0]
    for spec in find_specs("toy", DEFAULT_TASKS)
}


def built(examples, split):
    index = examples.index(split)
    rows = zip(*(column.tolist() for column in index.values()), strict=True)
    return [examples.build(split, **dict(zip(index, row, strict=True))) for row in rows]


def registered():
    return registry.register("toy", SETTINGS, SPLIT, TOKENIZER, list(EXAMPLES))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", EXAMPLES)
def test_seqio_gives_what_the_examples_say(task, split):
    examples = EXAMPLES[task]
    name = examples.spec.name("toy")
    assert name in registered()
    expected = built(examples, split)
    found = list(common.task_examples(name, examples.spec, split))
    assert common.num_examples(name, split) == len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        for feature, _ in examples.spec.features:
            assert np.array_equal(left[feature], right[feature]), feature


def test_seqio_trims_and_shards_a_task_like_any_other():
    import seqio

    registered()
    examples = EXAMPLES["sequential_random"]
    expected = [example["inputs"][:5] for example in built(examples, "test")]
    found = []
    for shard in range(2):
        dataset = seqio.get_mixture_or_task(examples.spec.name("toy")).get_dataset(
            {"inputs": 5, "targets": 99},
            "test",
            shuffle=False,
            num_epochs=1,
            shard_info=seqio.ShardInfo(shard, 2),
        )
        found.append([example["inputs"].tolist() for example in dataset.as_numpy_iterator()])
    assert found == [expected[0::2], expected[1::2]]


@pytest.mark.parametrize("task", EXAMPLES)
def test_keys_are_unique_over_all_splits(task):
    keys = [example["key"] for split in SPLITS for example in built(EXAMPLES[task], split)]
    assert keys and len(set(keys)) == len(keys)


@pytest.mark.parametrize("task", ["sequential_random", "text"])
def test_batches_of_any_size_write_the_same_bytes(tmp_path, monkeypatch, task):
    spec = EXAMPLES[task].spec
    files = []
    for size in (1, 7, 256):
        monkeypatch.setattr(common, "_BATCH", size)
        registered()
        rows = common.task_examples(spec.name("toy"), spec, "train")
        task_cache.write(tmp_path / str(size), spec.features, rows, {})
        files.append((tmp_path / str(size) / "part-00000.array_record").read_bytes())
    assert files[0] == files[1] == files[2]


def test_registering_twice_changes_nothing_and_other_settings_replace():
    import seqio

    names = registered()
    before = [seqio.TaskRegistry.get(name) for name in names]
    assert registered() == names
    assert all(seqio.TaskRegistry.get(n) is t for n, t in zip(names, before, strict=True))
    registry.register("toy", SETTINGS.replace(variants=1), SPLIT, TOKENIZER, ["long_description"])
    description = EXAMPLES["long_description"].spec.name("toy")
    assert common.num_examples(description, "train") == len(SPLIT.items_in(0))
    registered()
    assert common.num_examples(description, "train") == 2 * len(SPLIT.items_in(0))


def test_every_task_brings_the_functions_of_its_figures():
    import seqio

    for name in registered():
        functions = seqio.get_mixture_or_task(name).metric_fns
        wanted = common.registered(name).spec.metrics
        assert [f.__name__ for f in functions] == [f.__name__ for f in metric_fns(wanted)]
    ranked = seqio.get_mixture_or_task(EXAMPLES["sequential_random"].spec.name("toy"))
    assert ranked.metric_fns == [ranking_metrics]


def test_a_mixture_carries_its_shares_to_seqio():
    import seqio

    names = [EXAMPLES[task].spec.name("toy") for task in ("long_description", "sequential_random")]
    registered()
    common.register_mixture("toy_mix", Mixture({names[0]: 3, names[1]: 1}))
    mixture = seqio.MixtureRegistry.get("toy_mix")
    assert mixture.get_rate(seqio.TaskRegistry.get(names[0])) == pytest.approx(0.75)


def test_the_seqio_vocabulary_is_our_tokenizer():
    import tensorflow as tf

    vocabulary = common.seqio_vocabulary(TOKENIZER)
    text = CATALOGUE.texts[0]
    assert vocabulary.encode(text) == TOKENIZER.encode(text)
    assert vocabulary.encode_tf(text).numpy().tolist() == TOKENIZER.encode(text)
    assert vocabulary.decode(TOKENIZER.encode(text)) == text
    assert vocabulary.decode_tf(tf.constant(TOKENIZER.encode(text))).numpy().decode() == text
    assert vocabulary.vocab_size == TOKENIZER.vocab_size
    assert vocabulary == common.seqio_vocabulary(TOKENIZER)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)


def test_descriptions_mark_the_words_that_carry_information():
    for example in some(built(EXAMPLES["long_description"], "test")):
        row = example["target_item"]
        content = np.array(example["targets_content"], bool)
        targets = np.array(example["targets"])
        assert targets[-1] == TOKENIZER.eos_id and not content[-1]
        assert TOKENIZER.decode(targets) == example["target_text"] == CATALOGUE.texts[row]
        for start, end in CATALOGUE.content[row]:
            assert CATALOGUE.texts[row][start:end] in TOKENIZER.decode(targets[content])
        boilerplate = TOKENIZER.decode(targets[~content])
        assert "tells of" in boilerplate and len(boilerplate) > 20


def test_overlaps():
    spans = [(0, 2), (2, 2), (2, 5), (5, 6), (6, 9), (9, 12)]
    assert overlaps(spans, [(4, 6), (8, 9)]) == [0, 0, 1, 1, 1, 0]
    assert overlaps(spans, []) == [0] * 6


def test_sequences_are_leave_one_out_with_a_bounded_history():
    examples = EXAMPLES["sequential_random"]
    for split, back in (("validation", 2), ("test", 1)):
        index = examples.index(split)
        lengths = np.diff(CATALOGUE.offsets)[index["user"]]
        assert (index["position"] == lengths - back).all() and (lengths >= 3).all()
    assert examples.truncations("test")["history"] > 0
    for split in SPLITS:
        for example in some(built(examples, split)):
            user, position = example["key"].split("#")[0].split("@")
            position = int(position)
            sequence = CATALOGUE.sequence(CATALOGUE.user_ids.index(user)).tolist()
            assert example["target_item"] == sequence[position]
            history = sequence[max(0, position - 3) : position]
            kinds = [token for token in example["inputs"] if token < 0]
            slots = list(zip(kinds, example["slots"], strict=True))
            assert [row for kind, row in slots if kind == USER_SLOT] == [int(user[1:])]
            assert [row for kind, row in slots if kind == ITEM_SLOT] == history
            assert len(example["history_bounds"]) == len(history) + 1
            for start, end in itertools.pairwise(example["history_bounds"]):
                assert example["inputs"][start:end].count(-1) == 1


def test_every_item_as_an_answer_is_the_target_that_training_sees():
    examples = EXAMPLES["sequential_random"]
    answers = target_tokens(examples.renderer, TOKENIZER)
    assert len(set(map(tuple, answers))) == CATALOGUE.num_items
    for example in some(built(examples, "test")):
        assert answers[example["target_item"]] == example["targets"]


def test_training_positions_start_at_the_second_interaction():
    index = EXAMPLES["sequential_random"].index("train")
    expected = [
        (user, position)
        for user in range(CATALOGUE.num_users)
        for position in range(1, len(SPLIT.train_sequence(user)))
        for _ in range(2)
    ]
    assert list(zip(index["user"].tolist(), index["position"].tolist(), strict=True)) == expected


def test_variants_read_different_templates_and_evaluation_reads_the_first():
    for task in ("long_description", "sequential_random"):
        train = built(EXAMPLES[task], "train")
        assert all(
            first["template"] != second["template"]
            for first, second in zip(train[::2], train[1::2], strict=True)
        )
        templates = {"long_description": 5, "sequential_random": 10}[task]
        assert len({example["template"] for example in train}) == templates
        tested = {example["template"] for example in built(EXAMPLES[task], "test")}
        assert tested == {f"{task}/0"}


def test_the_corpus_names_training_items_by_their_content_words_and_no_others():
    catalogue, renderer = SPLIT.catalogue, EXAMPLES["text"]
    for split in ("train", "validation", "test"):
        index = renderer.index(split)
        rows = index["row"][index["kind"] == 3]
        assert (SPLIT.item_fold[rows] == 0).all() and bool(len(rows)) == (split == "train")
    row = int(rows[0]) if len(rows) else int(renderer.index("train")["row"][0])
    prompt = renderer.render("train", 3, row, 0, 1).prompt.text
    for start, end in some(catalogue.content[row]):
        assert catalogue.texts[row][start:end] in prompt


def test_the_corpus_holds_the_texts_of_the_tasks_that_it_is_told_of():
    tasks = ("summary", "why_like_nn")
    settings = SETTINGS.with_family(CorpusSettings(word_variants=2, elm_tasks=tasks))
    (corpus_of_tasks,) = made_by(["text"], SPLIT, settings, TOKENIZER)
    plain = {example["key"]: example["targets"] for example in built(EXAMPLES["text"], "train")}
    texts = {example["key"]: example["targets"] for example in built(corpus_of_tasks, "train")}
    for asked in made_by(tasks, SPLIT, SETTINGS.replace(text_only=True), TOKENIZER):
        task = asked.spec.task
        examples = built(asked, "train")
        for example in examples:
            assert texts[f"{task}/{example['key']}"] == example["inputs"] + example["targets"]
        in_words = [key for key in texts if key.startswith(f"words/{task}/")]
        assert len(in_words) == len(examples)  # as many orders as prompts here
        raws = in_words[0].split("/")[2].partition("#")[0].split(",")
        named = [CATALOGUE.item_ids.index(raw) for raw in raws]
        assert len(named) == asked.spec.elm.items
        number = 1 + tasks.index(task)
        prompt = corpus_of_tasks.render("train", 3, named[0], 0, 0, ([*named[1:], -1])[0], number)
        for row in named:
            for start, end in some(CATALOGUE.content[row]):
                assert CATALOGUE.texts[row][start:end] in prompt.prompt.text
    of_tasks = {key for key in texts if any(task in key for task in tasks)}
    others = {key for key in plain if not key.startswith("words/")}
    assert others == {key for key in texts if key not in of_tasks and not key.startswith("words/")}
    test = {example["key"].split("/")[0] for example in built(corpus_of_tasks, "test")}
    assert test == {"item", "description", "sequential", *tasks}
    # Caches that were made before there was the setting are still read.
    assert "corpus.elm_tasks" not in plain_settings(EXAMPLES["text"].spec, SETTINGS)
    assert "corpus.elm_tasks" in plain_settings(EXAMPLES["text"].spec, settings)


def test_a_corpus_text_is_the_prompt_and_its_answer():
    words = SETTINGS.replace(text_only=True)
    prompts = {}
    for task, prefix in (("long_description", "description"), ("sequential_random", "sequential")):
        (examples,) = made_by([task], SPLIT, words, TOKENIZER)
        for example in built(examples, "train"):
            prompts[f"{prefix}/{example['key']}"] = example["inputs"] + example["targets"]
    texts = {example["key"]: example["targets"] for example in built(EXAMPLES["text"], "train")}
    kinds = {key: text for key, text in texts.items() if not key.startswith(("item/", "words/"))}
    assert kinds == prompts
    for row in some(SPLIT.items_in(0)):
        text = texts[f"item/{CATALOGUE.item_ids[row]}"]
        assert text == [*TOKENIZER.encode(CATALOGUE.texts[row]), TOKENIZER.eos_id]


def test_the_corpus_takes_a_fixed_sample_of_sequences(monkeypatch):
    def chosen(limit):
        settings = SETTINGS.with_family(CorpusSettings(sequential_examples=limit))
        (examples,) = made_by(["text"], SPLIT, settings, TOKENIZER)
        index = examples.index("train")
        columns = [index[n].tolist() for n in ("kind", "row", "position", "variant")]
        return {row for row in zip(*columns, strict=True) if row[0] == 2}

    assert len(chosen(20)) == 20 and chosen(20) < chosen(40) < chosen(0)
    whole = chosen(0)
    monkeypatch.setattr(corpus, "MOST_DRAWN", len(whole) // 3)  # of so many, an even part is drawn
    assert len(chosen(20)) == 20 and chosen(20) < chosen(30) < whole


def test_a_tokenizer_of_very_many_strings_is_trained_on_an_even_part(monkeypatch):
    (examples,) = made_by(["text"], SPLIT, SETTINGS)
    whole = list(examples.tokenizer_strings())
    assert len(whole) > CATALOGUE.num_items + len(examples.index("train")["kind"])
    monkeypatch.setattr(corpus, "MOST_STRINGS", len(whole) // 3)
    part = list(examples.tokenizer_strings())
    assert len(whole) // 3 <= len(part) <= len(whole) // 3 + 3 and set(part) <= set(whole)
    assert part[:2] == [whole[0], whole[3]]


def test_pairs_are_of_one_user_and_belong_to_the_split_of_the_later():
    settings = SETTINGS.with_family(AlignmentSettings(pair_distance=2))
    (examples,) = made_by(["item_item"], SPLIT, settings)
    found = {split: built(examples, split) for split in SPLITS}
    expected = {split: [] for split in SPLITS}
    for user in range(CATALOGUE.num_users):
        sequence = CATALOGUE.sequence(user).tolist()
        trained = len(SPLIT.train_sequence(user))
        for later in range(1, len(sequence)):
            for earlier in range(max(0, later - 2), later):
                pair = sequence[earlier], sequence[later]
                if not SPLIT.item_fold[list(pair)].any():
                    split = SPLITS[max(0, later - trained + 1)]
                    expected[split].append(pair)
    for split in SPLITS:
        pairs = [(example["row"], example["other"]) for example in found[split]]
        assert sorted(pairs) == sorted(expected[split]) and pairs
