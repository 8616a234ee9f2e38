"""A small item-language model over a small catalogue, ready to be asked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.examples.task_settings import TaskSettings
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.tokenizers.own import OwnTokenizer
from ilm_jax.decoding.config import Buckets
from ilm_jax.decoding.generator import Generator
from ilm_jax.decoding.soft_tokens import SoftTokenCache
from ilm_jax.models.decoder import Decoder, DecoderConfig
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.models.readers import QFormerReader
from ilm_jax.serving.answering import Answerer
from tests.data.small_catalogue import small_catalogue
from tests.models.small import init, qformer_config

ITEMS, USERS, LENGTH = 24, 12, 96
SETTINGS = TaskSettings(history=5)


@functools.cache
def splits():
    return make_splits(small_catalogue(items=ITEMS, users=USERS))


@functools.cache
def tokenizer():
    catalogue = splits().catalogue
    return OwnTokenizer.train([*catalogue.titles, *catalogue.texts, "item_1042 user_7 toy"], 400)


@functools.cache
def model():
    lm = Decoder(
        DecoderConfig(
            vocab_size=tokenizer().vocab_size,
            num_layers=1,
            embed_dim=16,
            num_heads=2,
            num_kv_heads=1,
            mlp_dim=32,
            tie_embeddings=False,
        )
    )
    return ItemLanguageModel(QFormerReader(qformer_config(num_layers=2)).build(16), lm)


@functools.cache
def params():
    """Random, with peaked predictions."""
    one = jnp.zeros((1, 2), jnp.int32)
    drawn = init(model(), one, one, one + 1, one - 1, one - 1, jnp.zeros((1, 1, 6)))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: 6 * leaf if "head" in jax.tree_util.keystr(path) else leaf, drawn
    )


def rows(block, local):
    """Items first, users behind them."""
    return np.asarray(local, np.int64) + (ITEMS if block.endswith("/user") else 0)


def answerer(batch=4):
    vectors = np.random.default_rng(1).normal(size=(ITEMS + USERS, 6)).astype(np.float32)
    soft = SoftTokenCache(model())(params(), vectors).values
    converter = PromptConverter(
        {"inputs": LENGTH, "targets": 1}, tokenizer(), num_queries=3, max_entities=6, rows=rows
    )
    buckets = Buckets(lengths=(48, 100), rows=(batch,))
    return Answerer(
        Generator(model(), params(), soft, buckets),
        converter,
        tokenizer(),
        PromptRenderer(splits(), SETTINGS),
    )
