"""An item head with its arrays, small: two catalogues, rows without a vector, and what is asked."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.objectives.heads import Read
from ilm_jax.objectives.item_head import ItemHead

CF, LM_DIM, BATCH, LENGTH, MOST = 8, 16, 8, 5, 2
# "a" has 24 rows, the last four free; "b" 8 rows, all taken.
COUNTS = {"a": np.arange(1, 21), "b": np.arange(8, 0, -1)}
BLOCKS = (ItemRows("a", 0, 24, COUNTS["a"]), ItemRows("b", 40, 8, COUNTS["b"]))
COLD = 7  # an item of "a" without a vector


def table():
    """Items of "a", users, items of "b"."""
    found = np.random.default_rng(0).normal(size=(48, CF)).astype(np.float32)
    found[[COLD, *range(20, 24)]] = 0
    return found


def head(**changes):
    return dataclasses.replace(ItemHead(**changes), cf_dim=CF, catalogues=BLOCKS)


def parameters(given, seed=1):
    """None of them at a special value."""
    shapes = nn.unbox(
        jax.eval_shape(functools.partial(given.init, lm_dim=LM_DIM), jax.random.key(0))
    )
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * draw.normal(size=x.shape), jnp.float32), shapes)


def batch():
    """Places and items that rows ask for; some ask for one item, or none."""
    draw = np.random.default_rng(2)
    known = np.setdiff1d(np.arange(20), [COLD])
    targets = draw.choice(known, (BATCH, MOST))
    targets[::3, 1] = 40 + draw.integers(0, 8, len(targets[::3]))
    targets[1], targets[2, 1] = -1, -1
    positions = np.where(targets >= 0, draw.integers(0, LENGTH, (BATCH, MOST)), -1)
    return {"item_targets": jnp.asarray(targets), "item_positions": jnp.asarray(positions)}


def hidden():
    draw = np.random.default_rng(3)
    return jnp.asarray(draw.normal(size=(BATCH, LENGTH, LM_DIM)), jnp.float32)


def read(params, key=None, asked=None, states=None, vectors=None):
    """What the language model has read, all places of the rows."""
    return Read(
        model=None,
        params=params,
        batch=batch() if asked is None else asked,
        table=jnp.asarray(table()) if vectors is None else vectors,
        hidden=hidden() if states is None else states,
        at=None,
        key=key,
    )


def scores(given, params, block, vectors=None):
    """The formula: <u, k> / t + bias of every place and item of a block, -inf without a vector."""
    own = jax.tree.map(np.asarray, params["item_head"])
    rows = (table() if vectors is None else np.asarray(vectors))[block.start :][: block.rows]
    first = 0 if block is BLOCKS[0] else BLOCKS[0].rows
    u = np.asarray(hidden()) @ own["user"]["kernel"] + own["user"]["bias"]
    k = rows
    if given.vectors == "table":
        k = rows + rows @ own["update"]["kernel"]
    if given.vectors == "row":
        k = rows + own["rows"]["embedding"][first : first + block.rows]
    if given.similarity == "cosine":
        u, k = (x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-12) for x in (u, k))
    found = u @ k.T / np.exp(own["log_temperature"])
    if given.item_bias:
        found = found + own["item_bias"]["bias"][first : first + block.rows]
    return np.where(rows.any(-1), found, -np.inf)
