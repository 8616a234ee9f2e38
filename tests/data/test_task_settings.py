import json

import pytest

from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
from ilm_jax.data.examples import item_index
from ilm_jax.data.examples.task_settings import (
    SPECS,
    TaskSettings,
    effective,
    find_spec,
    settings_from,
    settings_json,
    task_key,
    task_names,
    tokenizer_key,
)
from ilm_jax.data.examples.task_specs import DEFAULT_TASKS
from ilm_jax.errors import UserError
from tests.data.small_catalogue import small_catalogue


def keys(settings, catalogue="c", tokenizer="t"):
    found = {n: task_key(SPECS[n], settings, catalogue, tokenizer) for n in DEFAULT_TASKS}
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
        == {SPECS[task].name("toy/world3") for task in DEFAULT_TASKS}
        < set(task_names("toy/world3"))
    )
    assert find_spec("toy", "item_text") is find_spec("toy", "align_toy_item_text")
    with pytest.raises(UserError, match="no task 'align_toy_item_text' of dataset 'toy/world3'"):
        find_spec("toy/world3", "align_toy_item_text")


def test_a_key_changes_with_what_the_bytes_depend_on_and_nothing_else():
    assert changed(history=5) == {"sequential_random", "text"}
    assert changed(mention_description="title") == {"long_description", "text"}
    assert changed(text_only=True) == {"long_description", "sequential_random"}
    assert changed(pair_distance=2) == {"item_item"}
    assert changed(split=SplitConfig(seed=1)) == set(DEFAULT_TASKS)
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
    settings = TaskSettings(history=3, split=SplitConfig(held_out_items=0.2))
    assert settings_from(json.loads(settings_json(settings))) == settings
    assert settings_from({"split": {"held_out_items": 0}}).split.held_out_items == 0.0


@pytest.mark.parametrize(
    "overrides",
    [
        {"hisotry": 3}, {"history": "3"}, {"history": 0}, {"history": True}, {"target": "name"},
        {"mention_history": "none"}, {"mention_user": "title"}, {"split": {"sede": 1}},
        {"split": 3}, {"text_only": 1}, {"corpus_sequential_examples": -1},
    ],
)  # fmt: skip
def test_wrong_settings_are_named(overrides):
    with pytest.raises(UserError, match=next(iter(overrides))):
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
            name: effective(SPECS[f"{kind}_{name}{suffix}"], general)
            for name in ("random", "sequential", "collaborative", "title", "slot")
        }
        indexed = {name: settings.item_index for name, settings in found.items()}
        assert indexed == {
            "random": "random", "sequential": "sequential", "collaborative": "collaborative",
            "title": "random", "slot": "random",
        }  # fmt: skip
        assert found["title"].target == "title" and found["slot"].target == "id"
        assert {s.prompts for s in found.values()} == {"unseen" if suffix else "seen"}
        assert found["sequential"].index_order == general.index_order
        splits = make_splits(small_catalogue())
        names = {name: item_index.item_names(splits, s) for name, s in found.items()}
        assert names["random"] == names["title"] == names["slot"]
        apart = [names[name] for name in ("random", "sequential", "collaborative")]
        assert all(a != b for k, a in enumerate(apart) for b in apart[:k])
        assert all("<CI" in name for name in names["collaborative"])


def test_tasks_that_fix_nothing_keep_the_settings_of_the_run():
    general = TaskSettings(item_index="sequential", mention_knowledge="id", mention_history="slot")
    for spec in SPECS.values():
        assert effective(spec, general) == general or spec.fixed
    # A fixed value may be another setting's.
    assert effective(SPECS["retrieval"], general).mention_history == "id"
    assert effective(SPECS["next_item"], general).item_index == "sequential"


def test_a_task_says_what_its_answer_is():
    """Evaluation chooses its measures by this; what ranks is told by figures of ranked lists."""
    for spec in SPECS.values():
        assert (spec.answer == "items") == ("hr@10" in spec.metrics)
        assert (spec.answer == "rating") == ("rmse" in spec.metrics)
        assert (spec.answer == "pairs") == (spec.family == "align")
    assert {task for task, spec in SPECS.items() if spec.answer == "none"} == {"text"}
    both = {task for task, spec in SPECS.items() if spec.answer == "item_and_text"}
    assert both == {"joint", "joint_critique"}
