"""ELM's mixture, and OpenP5 over two datasets at once: from raw catalogues to trained steps."""

import json
import math

import numpy as np
import pytest

from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from tests.cli import small_world
from tests.cli.small_world import DECODER

STEPS = 20
LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 160, "targets": 80}'
WORLDS = ("toy", "toy/world1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two small worlds with their tables, one tokenizer, and a stage 0 of one step."""
    root = tmp_path_factory.mktemp("mixtures")
    for number, name in enumerate(WORLDS):
        small_world.save_world(
            root, items=80 + 20 * number, seed=number, name=name, table=f"{number}.st"
        )
    assert small_world.train(root, "stage0", "0", *DECODER) == 0
    return root


def words_of(place, mixture, *more):
    return [
        f"--gin.LM_FROM={place / '0'}",
        f"--gin.MIXTURE_OR_TASK_NAME={mixture!r}",
        "--gin.BATCH_SIZE=16",
        f"--gin.TRAIN_STEPS={STEPS}",
        LENGTHS,
        *DECODER,
        *more,
    ]


def train(place, name, words):
    assert small_world.train(place, "stage2_mlp", name, *words) == 0
    assert (place / name / f"checkpoints/{STEPS}").is_dir()
    figures = json.loads((place / name / "last_run.json").read_text())["validation"]
    assert all(math.isfinite(value) for value in figures.values()) and figures
    run = gin_config.build(
        Run, [str(place / name / "config.gin")], [f"MODEL_DIR={str(place / name)!r}"]
    )
    return run, run.feed(run.train["prompt"])


@pytest.mark.slow
def test_twenty_steps_on_elms_mixture(place):
    words = words_of(place, "elm24", f"--gin.CF_TABLE={place}/0.st")
    _, feed = train(place, "elm", words)
    assert len(feed.stream.weights) == 25
    seen = {feed.stream[i]["task"] for i in range(500)}
    assert len(seen) == 25 and all(name.startswith("elm24_toy_") for name in seen)


@pytest.mark.slow
def test_twenty_steps_on_openp5_over_two_datasets(place):
    also = '--gin.dataset_config.DatasetConfig.also={"toy/world1": None}'
    tables = f"--gin.CF_TABLE={place}/0.st,{place}/1.st"
    run, feed = train(place, "openp5", words_of(place, "openp5_random", also, tables))
    assert len(feed.stream.weights) == 4
    examples = [feed.stream[i] for i in range(64)]
    assert {example["catalogue"] for example in examples} == set(WORLDS)
    assert {example["target_text"].split()[0] for example in examples} == {"toy", "toyworld1"}
    batch = feed.rows(np.arange(64))
    blocks = run.tables.blocks
    for example, entities in zip(examples, batch["entities"], strict=True):
        block = blocks[f"{example['catalogue']}/item"]
        slots = entities[entities >= 0]
        assert ((slots >= block.start) & (slots < block.start + block.size)).all()
