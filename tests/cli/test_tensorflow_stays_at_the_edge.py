"""`import ilm_jax` and the help are quick; neither they nor a training run import TensorFlow."""

import os
import subprocess
import sys
import time

import pytest

from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from tests.data.small_catalogue import small_catalogue

HEAVY = ("tensorflow", "seqio", "tensorflow_datasets", "t5")
TELL = f"""
import sys
from ilm_jax.cli.main import main
code = main(sys.argv[1:])
print("imported", [name for name in {HEAVY} if name in sys.modules], "code", code)
"""
# About 2 s when the machine is idle; tests share it with others.
QUICK = 6.0


def python(*words, **environment):
    """What a fresh process prints."""
    return subprocess.run(
        [sys.executable, *words],
        env=os.environ | environment,
        check=True,
        text=True,
        capture_output=True,
    ).stdout


def test_importing_the_package_is_quick_and_imports_neither_tensorflow_nor_jax():
    start = time.monotonic()
    program = "import sys, ilm_jax; print([n for n in ('jax', *sys.argv[1:]) if n in sys.modules])"
    assert python("-c", program, *HEAVY) == "[]\n"
    assert time.monotonic() - start < QUICK


def test_the_help_of_training_is_quick_and_shows_its_flags():
    start = time.monotonic()
    shown = python("-m", "ilm_jax", "train", "--help")
    assert time.monotonic() - start < QUICK
    assert "--gin_file" in shown and "--gin.NAME=VALUE" in shown


@pytest.mark.slow
def test_a_whole_training_run_imports_no_tensorflow(tmp_path):
    cache_dir = tmp_path / "cache"
    small_catalogue(items=80, users=60).save(
        catalogue_dir("toy", cache_dir), {"builder": toy.VERSION}
    )
    printed = python(
        "-c",
        TELL,
        "train",
        "--gin_file=tiny/stage0.gin",
        f"--gin.MODEL_DIR={tmp_path}/model",
        f"--gin.CACHE_DIR={cache_dir}",
        "--gin.BATCH_SIZE=8",
        "--gin.TRAIN_STEPS=2",
        "--gin.WARMUP_STEPS=0",
        "--gin.decoder.DecoderConfig.num_layers=1",
        "--gin.trainer.TrainerConfig.eval_batches=1",
        "--gin.dataset_config.DatasetConfig.truncate_targets=True",
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    )
    assert printed.splitlines()[-1] == "imported [] code 0"
    assert (tmp_path / "model/checkpoints/2").is_dir()
