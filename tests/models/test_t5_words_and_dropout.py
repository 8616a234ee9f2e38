"""What an encoder-decoder that trains has beside a frozen one: dropout, and vectors of words."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models import dropout
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.models.new_tokens import NewTokens, extend
from ilm_jax.models.t5 import T5
from ilm_jax.objectives.language import LanguageModelling
from tests.models.small import decoder_config, init
from tests.models.test_t5 import ONES, POSITIONS, PREDICTS, TOKENS, config

# Words of what the encoder reads: 5 tokens of row 0 (it is told 4), 3 of row 1.
WORDS = jnp.array([[1, 1, 2, 3, 3, -1, -1, -1, -1], [0, 1, 1, -1, -1, -1, -1, -1, -1]])
EOS, ROWS = 1, 6


def parameters(model):
    return init(model, jnp.zeros((2, 9, 32)), POSITIONS, ONES)


@functools.partial(jax.jit, static_argnames=("model", "deterministic"))
def hidden(model, params, tokens, words=None, key=None, deterministic=True):
    bound = model.bind({"params": params}, rngs={} if key is None else {"dropout": key})
    x = bound.embed(tokens) if words is None else bound.embed(tokens, words)
    return bound(x, POSITIONS, ONES, predicts=PREDICTS, deterministic=deterministic)


def test_vectors_of_words_are_added_to_what_the_encoder_reads_and_to_nothing_else():
    """Against a model without them whose token vectors have them in: a token of its own for each
    place that the encoder reads, the end among them."""
    model = T5(config(word_rows=ROWS, vocab_size=60))
    params = parameters(model)
    plain = {name: part for name, part in params.items() if name != "word_embedding"}
    rows = params["word_embedding"]["embedding"]
    assert rows.shape == (ROWS, 32)
    read = np.asarray(WORDS) >= 0
    own = np.where(read, 40 + np.cumsum(read).reshape(read.shape), TOKENS)
    table = np.array(plain["embedding"]["embedding"])
    table[own[read]] = table[np.asarray(TOKENS)[read]] + np.asarray(rows)[np.asarray(WORDS)[read]]
    table[EOS] += np.asarray(rows)[0]
    changed = {**plain, "embedding": {"embedding": jnp.asarray(table)}}
    want = hidden(T5(config(vocab_size=60)), changed, jnp.asarray(own))
    got = hidden(model, params, TOKENS, WORDS)
    told = np.asarray(PREDICTS)
    np.testing.assert_allclose(got[told], want[told], atol=2e-5)
    other = hidden(model, params, TOKENS, jnp.where(WORDS > 0, WORDS + 1, WORDS))
    assert np.abs(got[told] - other[told]).max() > 1e-3


def test_words_stand_beside_new_tokens_too():
    lm = config(word_rows=ROWS).build()
    both = extend(lm, NewTokens(3, 40))
    params = parameters(both)
    tokens = jnp.array([[5, 41, 42]])
    words = jnp.array([[2, 2, 3]])
    with_words = both.apply({"params": params}, tokens, words, method="embed")
    without = both.apply({"params": params}, tokens, method="embed")
    rows = params["word_embedding"]["embedding"]
    np.testing.assert_allclose(with_words - without, rows[words], atol=1e-6)


def test_new_words_that_are_tied_are_said_by_the_vector_they_are_read_by():
    both = extend(config().build(), NewTokens(3, 40, tied=True))
    params = parameters(both)
    assert set(params["new_tokens"]) == {"input"}
    output = both.apply({"params": params}, method="output_layer")
    np.testing.assert_array_equal(output.new, params["new_tokens"]["input"])


def test_a_decoder_alone_has_no_vectors_of_words():
    with pytest.raises(UserError, match="an encoder reads, and a DecoderConfig has none") as error:
        LanguageModelling(decoder_config(), word_rows=ROWS)
    assert "\n" not in str(error.value)
    assert LanguageModelling(config(), word_rows=ROWS).lm.word_rows == ROWS
    assert LanguageModelling(config(word_rows=ROWS)).word_rows == ROWS
    assert LanguageModelling(decoder_config()).word_rows == 0


def test_a_prompt_without_the_numbers_of_its_words_is_refused():
    from ilm_jax.decoding.soft_tokens import embed_prompts

    model = ItemLanguageModel(None, config(word_rows=ROWS).build())
    with pytest.raises(UserError, match="the prompts have no word_ids"):
        embed_prompts(model, {}, None, {"tokens": TOKENS})


@pytest.mark.parametrize("gated", [True, False])
def test_dropout_is_drawn_where_t5_has_it_and_nowhere_else(monkeypatch, gated):
    """Per stack its input and output, per layer the attention weights and every update, and inside
    the feed-forward."""
    shapes = []

    def keep(key, shape, rate):
        shapes.append((shape, rate))
        return jnp.ones(shape, bool)

    monkeypatch.setattr(dropout, "keep_mask", keep)
    model = T5(config(dropout=0.25, scan_layers=False, gated=gated))
    params = parameters(model)

    def run(params, key):
        bound = model.bind({"params": params}, rngs={"dropout": key})
        x = bound.embed(TOKENS)
        return bound(x, POSITIONS, ONES, predicts=PREDICTS, deterministic=False)

    jax.eval_shape(run, params, jax.random.key(0))
    reads, writes = (2, 10, 32), (2, 9, 32)  # the encoder's row has a place more, for the end
    encoder = [(2, 4, 1, 10, 10), reads, (2, 10, 48), reads]
    decoder = [(2, 4, 1, 9, 9), writes, (2, 4, 1, 9, 10), writes, (2, 9, 48), writes]
    want = [reads, *encoder * 2, reads, writes, *decoder * 3, writes]
    assert [shape for shape, _ in shapes] == want and {rate for _, rate in shapes} == {0.25}


def test_without_a_rate_or_a_key_nothing_is_dropped():
    params = parameters(T5(config()))
    plain = hidden(T5(config()), params, TOKENS)
    key = jax.random.key(2)
    np.testing.assert_array_equal(hidden(T5(config(dropout=0.3)), params, TOKENS), plain)
    np.testing.assert_array_equal(
        hidden(T5(config()), params, TOKENS, key=key, deterministic=False), plain
    )
    dropped = hidden(T5(config(dropout=0.3)), params, TOKENS, key=key, deterministic=False)
    again = hidden(T5(config(dropout=0.3)), params, TOKENS, key=key, deterministic=False)
    np.testing.assert_array_equal(dropped, again)
    assert np.abs(dropped - plain)[np.asarray(PREDICTS)].max() > 0.05


def test_layers_that_are_made_again_drop_what_they_dropped():
    model, rngs = T5(config(dropout=0.5)), jax.random.key(3)
    with_remat = T5(config(dropout=0.5, remat="full"))
    params = parameters(model)
    kept = hidden(model, params, TOKENS, key=rngs, deterministic=False)
    made = hidden(with_remat, params, TOKENS, key=rngs, deterministic=False)
    np.testing.assert_allclose(kept, made, atol=2e-5)
