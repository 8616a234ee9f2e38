"""Reads items in a way of one's own: learned words, moved by what the vector says.

Adds a reader, one configuration and one module, without touching the package: each soft token is a
learned vector plus a linear map of the item's. Trains it on the toy world, through a language model
that is trained for it first: about 3 minutes on two CPU cores, most of it compiling.

    python examples/own_reader.py [FOLDER] [--steps=200]
"""

import argparse
import dataclasses
import pathlib
import tempfile

import flax.linen as nn
import jax

import ilm_jax
from ilm_jax.models.layers import Dense
from ilm_jax.models.readers import Reader

# What a recipe file of yours would say.
RECIPE = """
from __gin__ import dynamic_registration
import own_reader

include "tiny/stage2_reader.gin"

READER = @own_reader.MovedWordsReader()
own_reader.MovedWordsReader.num_queries = 4
"""


class MovedWords(nn.Module):
    """Soft token q of a vector v: word_q + W_q v."""

    num_queries: int
    lm_dim: int

    @nn.compact
    def __call__(self, vectors: jax.Array, deterministic: bool = True) -> jax.Array:
        """[..., cf] -> [..., num_queries, lm_dim]; every parameter names its axes for the mesh."""
        start = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("queries", "embed"))
        words = self.param("words", start, (self.num_queries, self.lm_dim))
        moved = Dense(self.num_queries * self.lm_dim, ("cf", "embed"), name="move")(vectors)
        return words + moved.reshape(*vectors.shape[:-1], *words.shape)


@dataclasses.dataclass(frozen=True)
class MovedWordsReader(Reader):
    """Sizes; 0 as the vectors' width is the embedding table's. Parameters: `words`, `move`."""

    num_queries: int = 8
    cf_dim: int = 0
    output_layer = "move"  # starts from the items' vectors, so that soft tokens start as words

    def build(self, lm_dim: int) -> nn.Module:
        """The module that the language model reads through."""
        return MovedWords(self.num_queries, lm_dim)


def main(folder: pathlib.Path, steps: int) -> None:
    """A language model, then the reader before it."""
    sizes = {"TRAIN_STEPS": steps, "WARMUP_STEPS": 1, "CACHE_DIR": str(folder / "cache")}
    table = folder / "cf.safetensors"
    ilm_jax.fit_cf("toy", cache_dir=sizes["CACHE_DIR"], output=table)
    ilm_jax.train("tiny/stage0.gin", MODEL_DIR=folder / "lm", **sizes)
    (folder / "own_reader.gin").write_text(RECIPE)
    where = {"MODEL_DIR": folder / "reader", "LM_FROM": folder / "lm", "CF_TABLE": table}
    metrics = ilm_jax.train(str(folder / "own_reader.gin"), **where, **sizes)
    print(f"validation nll {metrics['loss']:.3f} nats per target token")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=200)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(words.folder or pathlib.Path(temporary), words.steps)
