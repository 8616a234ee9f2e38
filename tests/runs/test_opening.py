"""A run is opened with what it trained, and with what it froze of its sources."""

import json

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ilm_jax.checkpoints.checkpoints import Checkpoints
from ilm_jax.errors import UserError
from ilm_jax.runs.opening import load_trained, run_of_folder
from tests.cli import small_world
from tests.cli.trained_run import DECODER, LENGTHS, trained_run


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
@pytest.mark.parametrize("kept", [True, False])
def test_what_was_drawn_and_stayed_frozen_is_there_as_it_was(tmp_path, monkeypatch, kept):
    root, _, _ = trained_run()
    part = "trainer.TrainerConfig.trainable=('^adaptor/down/',)"
    words = [*DECODER, f"--gin.LM_FROM={root}/0", LENGTHS, f"--gin.{part}", "--gin.SEED=3"]
    words += [f"--gin.CF_TABLE={root}/cf.safetensors", f"--gin.CACHE_DIR={root}/cache"]
    if not kept:  # as earlier versions saved it
        nothing = property(lambda self: (), lambda self, paths: None)
        monkeypatch.setattr(Checkpoints, "drawn", nothing)
    assert small_world.train(tmp_path, "stage2_mlp", "part", *words) == 0
    if not kept:
        meta = tmp_path / "part/checkpoints/1/meta/metadata"
        said = json.loads(meta.read_text())
        meta.write_text(json.dumps({name: x for name, x in said.items() if name != "drawn"}))
    run = run_of_folder(tmp_path / "part")
    drawn = flatten_dict(load_trained(run).params, sep="/")["adaptor/up/kernel"]
    assert np.std(drawn) > 0
    other = run_of_folder(tmp_path / "part", ["trainer.TrainerConfig.seed=4"])
    if kept:
        found = flatten_dict(load_trained(other).params, sep="/")["adaptor/up/kernel"]
        np.testing.assert_array_equal(found, drawn)
        return
    # Another seed draws another one, which is not taken for it.
    with pytest.raises(UserError, match="not those that it was trained with"):
        load_trained(other)
