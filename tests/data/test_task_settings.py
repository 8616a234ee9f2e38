import dataclasses
import json

import pytest

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples import item_index
from ilm_jax.data.examples.settings_json import settings_from, settings_json
from ilm_jax.data.examples.task_families import (
    DEFAULT_TASKS,
    TASK_FAMILIES,
    find_spec,
    spec_named,
    task_names,
    task_specs,
)
from ilm_jax.data.examples.task_keys import effective, naming, reads, task_key, tokenizer_key
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.errors import UserError
from ilm_jax.tasks.align import AlignmentSettings
from ilm_jax.tasks.corpus import CorpusSettings
from ilm_jax.tasks.elm24 import Elm24Settings
from ilm_jax.tasks.knowledge import KnowledgeSettings
from tests.data.small_catalogue import small_catalogue


def keys(settings, catalogue="c", tokenizer="t"):
    found = {
        spec_named(name).task: task_key(spec_named(name), settings, catalogue, tokenizer)
        for name in DEFAULT_TASKS
    }
    assert len(found) == 6
    return found


def changed(**settings):
    before, after = keys(TaskSettings()), keys(TaskSettings(**settings))
    return {name for name in before if before[name] != after[name]}


def test_names():
    assert (
        {
            "align_toy_world3_item_text",
            "align_toy_world3_item_item",
            "align_toy_world3_user_item",
            "elm24_toy_world3_long_description",
            "openp5_toy_world3_sequential_random",
            "corpus_toy_world3_text",
        }
        == {spec_named(task).name("toy/world3") for task in DEFAULT_TASKS}
        < set(task_names("toy/world3"))
    )
    assert find_spec("toy", "item_text") is find_spec("toy", "align_toy_item_text")
    with pytest.raises(UserError, match="no task 'align_toy_item_text' of dataset 'toy/world3'"):
        find_spec("toy/world3", "align_toy_item_text")


def test_a_key_changes_with_what_the_bytes_depend_on_and_nothing_else():
    assert changed(history=5) == {"sequential_random", "text"}
    assert changed(mention_description="title") == {"long_description", "text"}
    assert changed(text_only=True) == {"long_description", "sequential_random"}
    assert changed(families=(AlignmentSettings(pair_distance=2),)) == {"item_item"}
    assert changed(families=(CorpusSettings(word_variants=2),)) == {"text"}
    assert changed(families=(KnowledgeSettings(candidates=7),)) == set()
    assert changed(families=(CorpusSettings(),)) == set()
    # Items are named by ids where their titles may not be told.
    assert changed(item_index="sequential") == {"long_description", "text"}
    assert changed(split=SplitConfig(seed=1)) == set(keys(TaskSettings()))
    assert changed(tokenizer="elsewhere.model") == set()
    base = keys(TaskSettings())
    for name, other in keys(TaskSettings(), catalogue="d").items():
        assert other != base[name]
    same = {n for n, other in keys(TaskSettings(), tokenizer="u").items() if other == base[n]}
    assert same == {"item_item", "user_item"}


def test_the_tokenizer_does_not_depend_on_text_only():
    assert tokenizer_key(TaskSettings(), "c") == tokenizer_key(TaskSettings(text_only=True), "c")
    assert tokenizer_key(TaskSettings(), "c") != tokenizer_key(TaskSettings(vocab_size=900), "c")


def test_settings_survive_json():
    own = KnowledgeSettings(candidates=7, mention="id"), Elm24Settings(neighbours="text")
    settings = TaskSettings(history=3, split=SplitConfig(held_out_items=0.2), families=own)
    assert json.loads(settings_json(settings))["knowledge"]["candidates"] == 7
    assert settings_from(json.loads(settings_json(settings))) == settings
    assert settings_from({"split": {"held_out_items": 0}}).split.held_out_items == 0.0


@pytest.mark.parametrize(
    "overrides",
    [
        {"hisotry": 3},
        {"history": "3"},
        {"history": 0},
        {"history": True},
        {"target": "name"},
        {"mention_history": "none"},
        {"mention_user": "title"},
        {"split": {"sede": 1}},
        {"split": 3},
        {"text_only": 1},
        {"corpus": {"sequential_examples": -1}},
        {"knowledge": {"candidats": 3}},
        {"knowledge": 3},
        {"families": []},
        {"regen": {"similar": "1"}},
    ],
)
def test_wrong_settings_are_named(overrides):
    (name, value), *_ = overrides.items()
    inner = isinstance(value, dict) and next(iter(value))
    with pytest.raises(UserError, match=inner or name):
        settings_from(overrides)


@pytest.mark.parametrize("kind", ["sequential", "straightforward"])
@pytest.mark.parametrize("suffix", ["", "_unseen"])
def test_every_variant_of_openp5_has_its_own_ids_whatever_the_run_says(kind, suffix):
    """Who writes or ranks ids (a trie) asks for the effective settings of the task."""
    for general in (
        TaskSettings(item_index="random", cluster_tokens=8, cluster_split=3),
        TaskSettings(item_index="collaborative", target="title", cluster_tokens=8, cluster_split=3),
    ):
        found = {
            name: effective(spec_named(f"{kind}_{name}{suffix}"), general)
            for name in ("random", "sequential", "collaborative", "title", "slot")
        }
        indexed = {name: settings.item_index for name, settings in found.items()}
        assert indexed == {
            "random": "random",
            "sequential": "sequential",
            "collaborative": "collaborative",
            "title": "random",
            "slot": "random",
        }
        assert found["title"].target == "title" and found["slot"].target == "id"
        assert {naming(spec_named(f"{kind}_{name}"), general).item_index for name in found} == set(
            indexed.values()
        )
        assert found["sequential"].index_order == general.index_order
        splits = make_splits(small_catalogue())
        names = {name: item_index.item_names(splits, s) for name, s in found.items()}
        assert names["random"] == names["title"] == names["slot"]
        apart = [names[name] for name in ("random", "sequential", "collaborative")]
        assert all(a != b for k, a in enumerate(apart) for b in apart[:k])
        assert all("<CI" in name for name in names["collaborative"])


def test_a_task_sees_nothing_but_what_its_cache_is_named_by():
    """Else a cache would be read that another value of a setting had made."""
    given = TaskSettings(
        mention_description="title",
        mention_history="title",
        mention_user="none",
        target="title",
        item_index="sequential",
        index_order="long2short",
        cluster_tokens=9,
        cluster_split=3,
        text_only=True,
        seed=5,
        history=3,
        variants=2,
        prompt_file="/no/file",
        families=(KnowledgeSettings(candidates=7), CorpusSettings(word_variants=1)),
    )
    for spec in task_specs().values():
        seen = effective(spec, given)
        assert (
            seen.families
            == tuple(
                given.of(type(own)) if type(own) in (KnowledgeSettings, CorpusSettings) else own
                for own in seen.families
            )
            or spec.settings is not None
        )
        for name in ("mention_description", "history", "text_only", "prompt_file", "variants"):
            fixed = name in spec.fixes(given)
            wanted = given if name in reads(spec) else TaskSettings()
            assert fixed or getattr(seen, name) == getattr(wanted, name), (spec.full, name)
    assert effective(spec_named("item_item"), given) == TaskSettings(
        families=(AlignmentSettings(),)
    )


def test_what_a_task_fixes_may_depend_on_its_familys_settings():
    general = TaskSettings(
        item_index="sequential", mention_history="slot", families=(KnowledgeSettings("id"),)
    )
    assert effective(spec_named("retrieval"), general).mention_history == "id"
    assert effective(spec_named("next_item"), general).item_index == "sequential"
    # Prompts that people write name items as the run does where the task fixes nothing.
    assert naming(spec_named("long_description"), general) == general


def test_a_task_says_what_its_answer_is():
    """Evaluation chooses its measures by this; what ranks is told by figures of ranked lists."""
    for spec in task_specs().values():
        ranked = spec.answer in ("items", "item_then_text")
        assert ranked == ("hr@10" in spec.metrics)
        assert (spec.answer == "rating") == ("rmse" in spec.metrics)
        assert (spec.answer == "pairs") == (spec.family == "align")
    specs = task_specs().values()
    assert {spec.task for spec in specs if spec.answer == "none"} == {"text"}
    both = {spec.task for spec in specs if spec.answer == "item_and_text"}
    assert both == {"joint", "joint_critique"}


def test_every_setting_of_a_family_is_read_by_one_of_its_tasks():
    read = {name for spec in task_specs().values() for name in reads(spec)}
    for family in map(TASK_FAMILIES.__getitem__, TASK_FAMILIES):
        for field in dataclasses.fields(family.settings):
            assert f"{family.name}.{field.name}" in read
