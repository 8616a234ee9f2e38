"""A language model with new words: as one whose table holds them, with the table left as it is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.data.tokenizers import OwnTokenizer, extended
from ilm_jax.errors import UserError
from ilm_jax.models.ilm import token_rms
from ilm_jax.models.new_tokens import ExtendedLM, NewTokens, extend, started
from ilm_jax.models.output_layer import NEVER
from ilm_jax.models.t5 import T5Config
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.freezing import split_by_patterns
from tests.models.small import decoder_config, flat, init, nested
from tests.training import models

ROWS, LENGTH, NEW = 2, 6, 4
ONES = jnp.ones((ROWS, LENGTH), jnp.int32)
POSITIONS = jnp.broadcast_to(jnp.arange(LENGTH), ONES.shape)
T5 = T5Config(vocab_size=40, num_layers=1, embed_dim=32, num_heads=4, mlp_dim=48)
CONFIGS = {
    "tied": decoder_config(),
    "gemma": decoder_config(scale_embeddings=True, logits_softcap=5.0),
    "untied": decoder_config(tie_embeddings=False),
    "t5": T5,
    "tied t5": dataclasses.replace(T5, tie_embeddings=True),
}


def both(config, first):
    """(the language model, the same with new words, parameters of the latter)."""
    lm = config.build()
    more = extend(lm, NewTokens(NEW, first))
    x = jnp.zeros((ROWS, LENGTH, config.embed_dim))
    return lm, more, init(more, x, POSITIONS, ONES)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("first", [40, 34, 43])
def test_other_words_are_read_and_said_as_before(config, first):
    """Behind the table's 40 rows, in the place of its padding, and with a gap."""
    lm, more, params = both(config, first)
    own = {"params": {k: v for k, v in params.items() if k != "new_tokens"}}
    words = jnp.asarray(np.random.default_rng(0).integers(0, 34, (ROWS, LENGTH)), jnp.int32)
    assert np.array_equal(
        lm.apply(own, words, method="embed"), more.apply({"params": params}, words, method="embed")
    )
    new = jnp.asarray([[first, first + NEW - 1]])
    read = more.apply({"params": params}, new, method="embed")
    np.testing.assert_array_equal(read[0], params["new_tokens"]["input"][jnp.array([0, NEW - 1])])
    hidden = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 32)), jnp.float32)
    before = np.asarray(lm.apply(own, hidden, method="logits"))
    after = np.asarray(more.apply({"params": params}, hidden, method="logits"))
    assert after.shape[-1] == max(40, first + NEW)
    np.testing.assert_array_equal(after[..., : min(first, 40)], before[..., : min(first, 40)])
    np.testing.assert_array_equal(after[..., first + NEW :], before[..., first + NEW :])
    assert (after[..., 40:first] == NEVER).all()
    layer = more.apply({"params": params}, method="output_layer")
    raw = layer.scale * np.einsum("btd,vd->btv", hidden, params["new_tokens"]["output"])
    raw = raw if layer.softcap is None else layer.softcap * np.tanh(raw / layer.softcap)
    np.testing.assert_allclose(after[..., first : first + NEW], raw, atol=1e-5)
    some = jnp.asarray([3, first + 1, 0, first])
    picked = more.apply({"params": params}, hidden, some, method="logits")
    np.testing.assert_allclose(picked, after[..., some], atol=1e-5)


@pytest.mark.parametrize("config", [CONFIGS["gemma"], T5], ids=["gemma", "t5"])
def test_new_words_start_as_words(config):
    lm, _, params = both(config, 36)
    drawn = np.random.default_rng(2).normal(size=(2, 5000, 32)).astype(np.float32)
    params["new_tokens"] = dict(zip(("input", "output"), map(jnp.asarray, drawn), strict=True))
    table = "embedding" if config.vocab_size == 40 and "head" not in params else "head"
    params["embedding"]["embedding"] = params["embedding"]["embedding"] + 2.0
    # Rows for padding, and rows of zeros, are no words.
    params["embedding"]["embedding"] = (
        params["embedding"]["embedding"].at[36:].set(1e3).at[7].set(0)
    )
    rows = started(lm, params, NewTokens(5000, 36), 40)
    words = lm.apply({"params": params}, jnp.arange(36)[None], method="embed")[0]
    words = np.delete(np.asarray(words), 7, axis=0)
    np.testing.assert_allclose(rows["new_tokens/input"].mean(0), words.mean(0), atol=0.05)
    np.testing.assert_allclose(rows["new_tokens/input"].std(0), words.std(0), rtol=0.1)
    said = np.asarray(params[table]["embedding"])[:36]
    said = np.delete(said, 7, axis=0) if table == "embedding" else said
    np.testing.assert_allclose(rows["new_tokens/output"].std(0), said.std(0), rtol=0.1)
    rms = token_rms(lm, params, 36)
    own = np.sqrt(np.mean(np.square(rows["new_tokens/input"])))
    assert own == pytest.approx(float(rms), rel=0.05)


def objective_with(count):
    lm = dataclasses.replace(models.LM, vocab_size=models.VOCAB)
    new = NewTokens(count, models.VOCAB) if count else NewTokens()
    return LanguageModelling(lm, new_tokens=new)


def value(objective, params, batch):
    sums = objective.loss(params, "prompt", batch, jnp.zeros((1, 1)), None)["loss"]
    return sums.total / sums.weight


def test_without_a_new_word_losses_and_parameters_are_the_same():
    plain, none = models.TEXT_ONLY, objective_with(0)
    batch = models.prompt_batch(slots=False)
    params = nn_unboxed(plain)
    assert jax.tree.structure(params) == jax.tree.structure(nn_unboxed(none))
    assert float(value(plain, params, batch)) == float(value(none, params, batch))
    assert isinstance(objective_with(3).model.lm, ExtendedLM)
    assert not isinstance(none.model.lm, ExtendedLM)


def nn_unboxed(objective):
    import flax.linen as nn

    return nn.unbox(objective.init(jax.random.key(0)))


def test_new_words_train_and_the_rest_gets_no_gradient():
    objective = objective_with(3)
    params = flat(nn_unboxed(objective))
    trainable, frozen = split_by_patterns(params, ("^lm/new_tokens/",))
    assert set(trainable) == {"lm/new_tokens/input", "lm/new_tokens/output"}
    batch = models.prompt_batch(slots=False)
    for name in ("tokens", "targets"):
        batch[name][:, ::2] = models.VOCAB + batch[name][:, ::2] % 3

    def loss(trainable):
        return value(objective, nested(trainable | frozen), batch)

    gradients = jax.jit(jax.grad(loss))(trainable)
    assert set(gradients) == set(trainable)
    assert all(np.abs(g).sum(-1).all() for g in gradients.values())


def test_a_model_of_a_given_size_has_no_rows_for_new_words_unless_it_is_given_some():
    plain = OwnTokenizer.train(["a film from 1999 and another"] * 3, 400)
    tokenizer = extended(plain, ("<a_0>", "<a_1>"))
    for padded in (0, 50):
        lm = decoder_config(vocab_size=plain.vocab_size + padded)
        with pytest.raises(UserError, match="appends 2 words .*bind language.LanguageModelling"):
            LanguageModelling(lm).with_sizes(tokenizer=tokenizer)
        sized = LanguageModelling(lm, new_tokens=NewTokens()).with_sizes(tokenizer=tokenizer)
        assert sized.lm.vocab_size == plain.vocab_size + padded
        assert sized.new_tokens == NewTokens(2, plain.vocab_size)
        assert sized.with_sizes(tokenizer=tokenizer) == sized
        assert sized.with_sizes(cf_dim=3).new_tokens == sized.new_tokens
    # One that is trained from the start has rows for all of them.
    fresh = LanguageModelling(decoder_config(vocab_size=0)).with_sizes(tokenizer=tokenizer)
    assert fresh.lm.vocab_size == plain.vocab_size + 2 and fresh.new_tokens is None
    beside = LanguageModelling(decoder_config(vocab_size=0), new_tokens=NewTokens())
    assert beside.with_sizes(tokenizer=tokenizer).lm.vocab_size == plain.vocab_size
    assert not beside.with_sizes(tokenizer=plain).new_tokens.count
    with pytest.raises(UserError, match="NewTokens of 3 words"):
        LanguageModelling(decoder_config(), new_tokens=NewTokens(3)).with_sizes(tokenizer=tokenizer)
