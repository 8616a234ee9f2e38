"""Constrained beam search finds what exhaustive scoring finds."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.trie import build_trie
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import Decoder, DecoderConfig
from ilm_jax.models.new_tokens import NewTokens, extend
from ilm_jax.models.t5 import T5, T5Config
from tests.marks import slow_but_for

LENGTHS = np.array([5, 2, 7])
SEQUENCES = [
    [4, 5, 1],
    [4, 6, 1],
    [4, 6, 7, 1],
    [8, 1],
    [8, 9, 1],
    [8, 9, 10, 11, 1],
    [9, 1],
    [10, 4, 4, 4, 1],
    [10, 4, 4, 5, 1],
    [11, 12, 1],
    [11, 13, 1],
]


SIZES = {"vocab_size": 20, "num_layers": 2, "embed_dim": 16, "num_heads": 4, "mlp_dim": 32}
MODELS = {
    "decoder": Decoder(DecoderConfig(**SIZES, num_kv_heads=2)),
    # Ids from 10 on, which most strings hold, are words beside the table.
    "new words": extend(
        Decoder(DecoderConfig(**{**SIZES, "vocab_size": 12}, num_kv_heads=2)), NewTokens(10, 10)
    ),
    "encoder-decoder": T5(T5Config(**SIZES, position_buckets=8, max_distance=9)),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """A small model with peaked predictions, and random prompts of vectors."""
    decoder = MODELS[request.param]
    one = jnp.ones((1, 1), jnp.int32)
    init = jax.jit(decoder.init)
    params = nn.meta.unbox(init(jax.random.key(0), jnp.zeros((1, 1, 16)), one, one)["params"])
    # T5 starts with large embeddings, and so with peaks.
    params = jax.tree.map(lambda leaf: leaf * (1.0 if isinstance(decoder, T5) else 3.0), params)
    if "new_tokens" in params:  # drawn from N(0, 1), and as words then
        params["new_tokens"] = jax.tree.map(lambda leaf: 0.02 * leaf, params["new_tokens"])
    prompts = jax.random.normal(jax.random.key(1), (len(LENGTHS), int(LENGTHS.max()), 16))
    return decoder, params, prompts


@pytest.fixture(scope="module")
def exhaustive(model):
    """log p(tokens | prompt) of every user and item, by uncached passes over prompt and tokens."""
    decoder, params, prompts = model
    tokens = np.zeros((len(SEQUENCES), max(map(len, SEQUENCES))), np.int32)
    for row, sequence in enumerate(SEQUENCES):
        tokens[row, : len(sequence)] = sequence
    real = tokens > 0

    @functools.partial(jax.jit, static_argnums=1)
    def scores(prompt, length):
        words = decoder.apply({"params": params}, tokens, method="embed")
        prompt = jnp.broadcast_to(prompt[:length], (len(tokens), length, prompt.shape[-1]))
        row = jnp.concatenate([prompt, words], axis=1)
        positions = jnp.broadcast_to(jnp.arange(row.shape[1]), row.shape[:2])
        ones = jnp.ones_like(positions)
        # Of an encoder-decoder, all that is not predicted is read.
        told = {"predicts": positions >= length - 1} if isinstance(decoder, T5) else {}
        hidden = decoder.apply({"params": params}, row, positions, ones, **told)
        logits = decoder.apply({"params": params}, hidden, method="logits")
        predicted = jax.nn.log_softmax(logits)[:, length - 1 : -1]
        return jnp.sum(jnp.take_along_axis(predicted, tokens[..., None], 2)[..., 0] * real, 1)

    return np.array([scores(prompts[user], int(n)) for user, n in enumerate(LENGTHS)])


def search(model, beams: int, sequences=SEQUENCES):
    decoder, params, prompts = model
    trie = build_trie(sequences)
    items, scores = beam_search(decoder, params, trie, prompts, jnp.asarray(LENGTHS), beams)
    return np.asarray(items), np.asarray(scores)


def test_all_items_as_beams_equals_exhaustive_scoring(model, exhaustive):
    items, scores = search(model, len(SEQUENCES))
    np.testing.assert_array_equal(items, np.argsort(-exhaustive, axis=1))
    np.testing.assert_allclose(scores, -np.sort(-exhaustive, axis=1), atol=1e-4)


@pytest.mark.parametrize("beams", slow_but_for([1, 3, 6], 6))
def test_fewer_beams_give_distinct_items_with_their_true_scores(model, exhaustive, beams):
    items, scores = search(model, beams)
    assert all(len(set(row)) == beams and min(row) >= 0 for row in items.tolist())
    np.testing.assert_allclose(scores, np.take_along_axis(exhaustive, items, 1), atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("rows", "stem"), [([1, 2], 2), pytest.param([7, 8], 3, marks=pytest.mark.slow)]
)
def test_tokens_that_all_items_begin_with_count_in_their_scores(model, exhaustive, rows, stem):
    sequences = [SEQUENCES[row] for row in rows]
    assert build_trie(sequences).stem.shape == (1, stem)
    items, scores = search(model, 2, sequences)
    want = exhaustive[:, rows]
    np.testing.assert_array_equal(items, np.argsort(-want, axis=1))
    np.testing.assert_allclose(scores, -np.sort(-want, axis=1), atol=1e-4)


def test_padding_behind_a_prompt_changes_nothing(model):
    decoder, params, prompts = model
    noisy = jnp.where((jnp.arange(7) < LENGTHS[:, None])[..., None], prompts, 1e3)
    items, scores = search((decoder, params, noisy), 5)
    np.testing.assert_array_equal(items, search(model, 5)[0])
    np.testing.assert_allclose(scores, search(model, 5)[1], atol=1e-5)


def test_an_item_of_one_token_needs_no_step(model):
    items, scores = search(model, 1, sequences=[[6]])
    assert items.tolist() == [[0]] * 3 and (scores < 0).all()
    assert (scores[:, 0] > search(model, 2, sequences=[[6, 7, 1], [6, 8, 1]])[1][:, 0]).all()


def test_more_beams_than_items_is_a_user_error(model):
    with pytest.raises(UserError, match="beams=12: give a number from 1 to 11"):
        search(model, 12)
    with pytest.raises(UserError, match="beams=0"):
        search(model, 0)
