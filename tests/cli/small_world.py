"""A small catalogue in the toy world's place, and training on it from the command line."""

import numpy as np

from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cli import main as cli
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from ilm_jax.runs.fitting import fit_method
from tests.data.small_catalogue import small_catalogue

SMALL = (
    "--gin.BATCH_SIZE=8",
    "--gin.TRAIN_STEPS=1",
    "--gin.WARMUP_STEPS=0",
    "--gin.dataset_config.DatasetConfig.truncate_targets=True",
    "--gin.trainer.TrainerConfig.eval_batches=1",
)
DECODER = ("--gin.decoder.DecoderConfig.num_layers=1", "--gin.decoder.DecoderConfig.mlp_dim=8")
SETTINGS = {"history": 5, "corpus": {"sequential_examples": 1500, "word_variants": 8}}


def rated_catalogue(items=80, users=60, seed=0, name="toy"):
    """A small catalogue with ratings from 0.5 to 5."""
    catalogue = small_catalogue(items, users, seed, name)
    catalogue.ratings[:] = np.random.default_rng(0).integers(1, 11, len(catalogue.ratings)) / 2
    return catalogue


def save_world(root, items=80, users=60, seed=0, name="toy", table="cf.safetensors"):
    """Puts the catalogue under root/cache and its table into root; returns the catalogue."""
    catalogue = rated_catalogue(items, users, seed, name)
    catalogue.save(catalogue_dir(name, root / "cache"), {"builder": toy.VERSION})
    fit_method(make_splits(catalogue), IALSConfig(dim=4, epochs=1)).save(root / table)
    return catalogue


def train(root, recipe, name, *words):
    """`ilm train` of a tiny recipe into root/name; returns the exit code."""
    return cli.main(
        [
            "train",
            f"--gin_file=tiny/{recipe}.gin",
            f"--gin.CACHE_DIR={root / 'cache'}",
            f"--gin.MODEL_DIR={root / name}",
            *SMALL,
            *words,
        ]
    )
