"""ELM's mixture, and OpenP5 over two datasets at once: from raw catalogues to trained steps."""

import json
import math

import jax
import numpy as np
import pytest

from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cli import cache_tasks, gin_config
from ilm_jax.cli import main as cli
from ilm_jax.cli.fit_cf import fit_table
from ilm_jax.data import toy
from ilm_jax.data.mixtures import MIXTURES
from ilm_jax.data.prepare import catalogue_dir
from ilm_jax.data.splits import make_splits
from ilm_jax.data.task_settings import TaskSettings, tokenizer_path
from ilm_jax.training.run import Run
from tests.data.small_catalogue import small_catalogue

STEPS = 20
SMALL = (
    "--gin.BATCH_SIZE=16", "--gin.WARMUP_STEPS=0", "--gin.trainer.TrainerConfig.eval_batches=1",
    "--gin.dataset_config.DatasetConfig.truncate_targets=True",
    "--gin.decoder.DecoderConfig.num_layers=1", "--gin.decoder.DecoderConfig.mlp_dim=8",
)  # fmt: skip
LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 160, "targets": 80}'
SETTINGS = {"history": 5, "corpus_sequential_examples": 1500, "corpus_word_variants": 8}
WORLDS = ("toy", "toy/world1")


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
    """Nothing is claimed of speed or of the last bits."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two small worlds with their tables and caches, one tokenizer, and a stage 0 of one step."""
    root = tmp_path_factory.mktemp("mixtures")
    cache = root / "cache"
    settings = dict(SETTINGS)
    for number, name in enumerate(WORLDS):
        catalogue = small_catalogue(items=80 + 20 * number, users=60, seed=number, name=name)
        catalogue.save(catalogue_dir(name, cache), {"builder": toy.VERSION})
        fit_table(make_splits(catalogue), IALSConfig(dim=4, epochs=1)).save(root / f"{number}.st")
        tasks = ["openp5_random"] if number else ["openp5_random", "elm24", "text"]
        names = [task for name in tasks for task in MIXTURES.get(name, (name,))]
        words = [f"--dataset={name}", f"--cache_dir={cache}", f"--tasks={','.join(names)}"]
        cache_tasks.main([*words, f"--settings={json.dumps(settings)}", "--nowith_text_only"])
        first = tokenizer_path(
            "toy", TaskSettings(**SETTINGS), small_catalogue(80, 60, 0, "toy").fingerprint, cache
        )
        settings["tokenizer"] = str(first)
    assert cli.main(["train", "--gin_file=tiny/stage0.gin", f"--gin.MODEL_DIR={root / '0'}",
                     f"--gin.CACHE_DIR={cache}", "--gin.TRAIN_STEPS=1", *SMALL]) == 0  # fmt: skip
    return root


def words_of(place, name, mixture, *more):
    return [
        f"--gin.MODEL_DIR={place / name}", f"--gin.CACHE_DIR={place / 'cache'}",
        f"--gin.LM_FROM={place / '0'}", f"--gin.MIXTURE_OR_TASK_NAME={mixture!r}",
        f"--gin.TRAIN_STEPS={STEPS}", LENGTHS, *SMALL, *more,
    ]  # fmt: skip


def train(place, name, words):
    assert cli.main(["train", "--gin_file=tiny/stage2_mlp.gin", *words]) == 0
    assert (place / name / f"checkpoints/{STEPS}").is_dir()
    figures = json.loads((place / name / "last_run.json").read_text())["validation"]
    assert all(math.isfinite(value) for value in figures.values()) and figures
    run = gin_config.build(
        Run, ["tiny/stage2_mlp.gin"], [word.removeprefix("--gin.") for word in words]
    )
    return run, run.feed(run.train["prompt"])


@pytest.mark.slow
def test_twenty_steps_on_elms_mixture(place):
    words = words_of(place, "elm", "elm24", f"--gin.CF_TABLE={place}/0.st")
    _, feed = train(place, "elm", words)
    assert len(feed.stream.weights) == 25
    seen = {feed.stream[i]["task"] for i in range(500)}
    assert len(seen) == 25 and all(name.startswith("elm24_toy_") for name in seen)


@pytest.mark.slow
def test_twenty_steps_on_openp5_over_two_datasets(place):
    also = '--gin.dataset_config.DatasetConfig.also={"toy/world1": None}'
    tables = f"--gin.CF_TABLE={place}/0.st,{place}/1.st"
    run, feed = train(place, "openp5", words_of(place, "openp5", "openp5_random", also, tables))
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
