"""Losses read every target of a row, however many examples share it."""

import numpy as np
import pytest

from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.runs.opening import run_of_recipe
from tests.data.cached_toy import prepared_toy

LENGTHS = "{'inputs': 20, 'targets': %d}"
LONGER = f"train_eval/dataset_config.DatasetConfig.task_feature_lengths={LENGTHS % 300}"
# Descriptions in words, whose caches other tests make too.
TOY = (
    "MIXTURE_OR_TASK_NAME='long_description'",
    "task_settings.TaskSettings.text_only=True",
    f"TASK_FEATURE_LENGTHS={LENGTHS % 40}",
)


@pytest.mark.parametrize(
    "bindings",
    [(), ("PACK=0",), ("PACK_ROOM=1.0",), ("PACK=0", LONGER)],
    ids=["recipe", "one-example", "no-more-room", "validation-is-longer"],
)
def test_a_row_has_no_more_targets_than_losses_read(tmp_path, bindings):
    places = [f"MODEL_DIR={str(tmp_path)!r}", f"CACHE_DIR={str(prepared_toy())!r}"]
    run = run_of_recipe("tiny/stage0.gin", [*places, *TOY, *bindings])
    size = run.sized_objective.target_length
    most = {}
    for name, dataset in {"train": run.train, "validation": run.train_eval}.items():
        feed = run.feed(dataset["prompt"])
        most[name] = int(feed.rows(np.arange(64))["loss_weights"].sum(1).max())
    assert max(most.values()) <= size
    if not bindings:
        assert most["train"] > 80 and most["validation"] <= 40
    if len(bindings) == 2:
        assert size == 300


def test_a_shared_row_has_the_room_of_several_examples():
    alone = DatasetConfig("text", {"inputs": 10, "targets": 30})
    assert alone.row_lengths == {"inputs": 10, "targets": 30}
    shared = alone.replace(pack=4, pack_room=2.5)
    assert shared.row_lengths == {"inputs": 10, "targets": 90}
    assert shared.replace(repeat=False).row_lengths == alone.row_lengths
    texts = DatasetConfig("item_text", {"text": 30}, pack=4, pack_room=2.5)
    assert texts.row_lengths == {"text": 30}  # pairs share no rows
