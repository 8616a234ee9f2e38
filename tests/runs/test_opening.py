"""A run is opened with what it trained, and with what it froze of its sources."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ilm_jax.runs.opening import load_trained, run_of_folder
from tests.cli import small_world
from tests.cli.trained_run import DECODER, LENGTHS, trained_run


def test_a_binding_without_a_scope_holds_wherever_the_folder_binds_it():
    root, _, _ = trained_run()
    before = run_of_folder(root / "0")
    assert before.dataset.settings.history != 1
    run = run_of_folder(root / "0", {"task_settings.TaskSettings.history": 1})
    assert run.dataset.settings == before.dataset.settings.replace(history=1)
    assert [d.settings.history for d in run.train_eval.values()] == [1]
    scoped = run_of_folder(root / "0", {"train/task_settings.TaskSettings.history": 1})
    assert scoped.dataset.settings.history == 1
    assert scoped.train_eval == before.train_eval


@pytest.mark.slow
def test_a_part_that_was_trained_stands_among_the_frozen_rest_of_its_source(tmp_path):
    root, _, _ = trained_run()
    part = "trainer.TrainerConfig.trainable=('^lm/(.*/)?final_norm/',)"
    words = [*DECODER, f"--gin.LM_FROM={root}/0", LENGTHS, f"--gin.{part}"]
    words += ["--gin.task_settings.TaskSettings.text_only=True", f"--gin.CACHE_DIR={root}/cache"]
    assert small_world.train(tmp_path, "stage2_text_full", "part", *words) == 0
    before, after = (
        flatten_dict(load_trained(run_of_folder(folder)).params, sep="/")
        for folder in (root / "0", tmp_path / "part")
    )
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"lm/final_norm/scale"}


@pytest.mark.slow
def test_what_was_drawn_and_stayed_frozen_is_there_as_it_was(tmp_path):
    root, _, _ = trained_run()
    part = "trainer.TrainerConfig.trainable=('^adaptor/down/',)"
    words = [*DECODER, f"--gin.LM_FROM={root}/0", LENGTHS, f"--gin.{part}", "--gin.SEED=3"]
    words += [f"--gin.CF_TABLE={root}/cf.safetensors", f"--gin.CACHE_DIR={root}/cache"]
    assert small_world.train(tmp_path, "stage2_mlp", "part", *words) == 0
    # Whatever the seed of who opens it: the checkpoint holds it.
    runs = [run_of_folder(tmp_path / "part", [f"trainer.TrainerConfig.seed={n}"]) for n in (3, 4)]
    one, other = (flatten_dict(load_trained(run).params, sep="/") for run in runs)
    assert np.std(one["adaptor/up/kernel"]) > 0
    np.testing.assert_array_equal(one["adaptor/up/kernel"], other["adaptor/up/kernel"])
