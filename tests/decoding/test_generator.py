"""One program per bucket, the same answers on any mesh and with any padding, clear errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.decoding.config import Buckets, DecodingConfig
from ilm_jax.decoding.generator import Generator
from ilm_jax.decoding.soft_tokens import SoftTokenCache
from ilm_jax.decoding.trie import build_trie
from ilm_jax.errors import UserError
from ilm_jax.models.ilm import ItemLanguageModel, gather_vectors
from ilm_jax.models.readers import QFormerReader
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.decoding.test_beam import MODELS, SEQUENCES
from tests.models.small import init, qformer_config

TRIE = build_trie(SEQUENCES)
BUCKETS = Buckets(lengths=(8, 16), rows=(8,))
TEXT = DecodingConfig(max_new_tokens=5, sample=True, seed=3)


@functools.cache
def model():
    return ItemLanguageModel(
        QFormerReader(qformer_config(vocab_size=20)).build(16),
        MODELS["decoder"],
    )


@functools.cache
def params():
    one = jnp.zeros((1, 2), jnp.int32)
    return init(model(), one, one, one + 1, one - 1, one - 1, jnp.zeros((1, 1, 6)))


VECTORS = np.random.default_rng(1).normal(size=(37, 6)).astype(np.float32)


def prompts(rows=11, width=8):
    """Ragged prompts with a slot of three positions each, right-padded."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, width + 1, rows)
    tokens = rng.integers(2, 20, (rows, width)).astype(np.int32)
    entity, query = np.full((2, rows, width), -1, np.int32)
    entity[:, 1:4], query[:, 1:4] = 0, [0, 1, 2]
    entities = rng.integers(0, len(VECTORS), (rows, 1)).astype(np.int32)
    real = np.arange(width) < lengths[:, None]
    return {
        "tokens": np.where(real, tokens, 0),
        "lengths": lengths,
        "slot_entity": entity,
        "slot_query": query,
        "entities": entities,
    }


@functools.cache
def generator(devices=1):
    partitioner = None
    if devices > 1:
        partitioner = Partitioner(MeshConfig(data=devices // 2, fsdp=2))
    soft = SoftTokenCache(model(), partitioner, block=16)(params(), VECTORS).values
    placed = params()
    if partitioner is not None:
        placed = jax.device_put(placed, partitioner.replicated)
    return Generator(model(), placed, soft=soft, buckets=BUCKETS, partitioner=partitioner)


def test_eight_devices_answer_as_one_does():
    one, eight = generator(), generator(8)
    assert len(eight.soft.addressable_shards) == 8
    shard = eight.soft.addressable_shards[0].data.shape[0]
    assert shard * 8 == eight.soft.shape[0] >= len(VECTORS)
    np.testing.assert_allclose(eight.soft[: len(VECTORS)], one.soft[: len(VECTORS)], atol=3e-6)
    a, b = (g.rank(prompts(), TRIE, 4) for g in (one, eight))
    np.testing.assert_array_equal(a.items, b.items)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    a, b = (g.generate(prompts(), TEXT) for g in (one, eight))
    np.testing.assert_array_equal(a.tokens, b.tokens)


def test_one_program_for_every_bucket():
    compiled = []

    def listen(name: str, seconds: float, **_: object) -> None:
        if "backend_compile" in name:
            compiled.append(name)

    ours = dataclasses.replace(generator(), buckets=Buckets(lengths=(8, 16), rows=(4,)))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        counts = []
        for rows, width in ((3, 6), (4, 8), (1, 5), (9, 7), (4, 12), (2, 16), (7, 9)):
            ours.generate(prompts(rows, width), TEXT)
            counts.append(len(compiled))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts == [1, 1, 1, 1, 2, 2, 2]


def test_soft_tokens_are_computed_once_and_anew_for_other_parameters():
    cache = SoftTokenCache(model(), block=16)
    first = cache(params(), VECTORS)
    direct = jax.jit(lambda p, v: model().apply({"params": p}, v, method="soft_tokens"))
    want = direct(params(), VECTORS)
    np.testing.assert_allclose(first.values[: len(VECTORS)], want, atol=1e-6 * jnp.abs(want).max())
    assert cache(params(), VECTORS) is first and cache.computed == 1
    again = jax.tree.map(jnp.array, params())  # equal numbers in other arrays
    assert cache(again, VECTORS).values is first.values and cache.computed == 1
    lm_only = {**params(), "lm": jax.tree.map(lambda x: 2 * x, params()["lm"])}
    assert cache(lm_only, VECTORS).values is first.values and cache.computed == 1
    changed = {**params(), "adaptor": jax.tree.map(lambda x: 2 * x, params()["adaptor"])}
    other = cache(changed, VECTORS)
    assert cache.computed == 2 and other.fingerprint != first.fingerprint
    np.testing.assert_allclose(other.values, 2 * first.values, atol=1e-5)
    assert cache(changed, VECTORS + 1).fingerprint != other.fingerprint


def test_prompts_with_cached_soft_tokens_read_what_the_model_embeds():
    from ilm_jax.decoding.programs import embed
    from ilm_jax.decoding.prompts import align

    batch = prompts()
    found = embed(model(), params(), generator().soft, align(batch))
    want = model().apply(
        {"params": params()},
        batch["tokens"],
        batch["slot_entity"],
        batch["slot_query"],
        gather_vectors(jnp.asarray(VECTORS), batch["entities"]),
        method="embed",
    )
    real = np.arange(8) < batch["lengths"][:, None]
    np.testing.assert_allclose(np.asarray(found)[real], np.asarray(want)[real], atol=1e-6)


def test_padding_on_the_left_and_streaming_change_nothing():
    ours, batch = generator(), prompts(rows=8)
    left = {name: np.copy(value) for name, value in batch.items() if name != "lengths"}
    for row, length in enumerate(batch["lengths"]):
        for name in ("tokens", "slot_entity", "slot_query"):
            left[name][row] = np.roll(batch[name][row], 8 - length)
    left["mask"] = np.arange(8) >= 8 - batch["lengths"][:, None]
    want = ours.generate(batch, TEXT)
    np.testing.assert_array_equal(ours.generate(left, TEXT).tokens, want.tokens)
    streamed = list(ours.stream(batch, TEXT, chunk=3))
    assert [part.shape[1] for part in streamed] == [1, 3, 1]
    np.testing.assert_array_equal(np.concatenate(streamed, axis=1), want.tokens)


def test_draws_follow_seed_and_row_alone():
    ours, batch = generator(), prompts(rows=8) | {"example_index": np.arange(8) + 5}
    want = ours.generate(batch, TEXT).tokens
    some = {name: value[[6, 2]] for name, value in batch.items()}
    np.testing.assert_array_equal(ours.generate(some, TEXT).tokens, want[[6, 2]])
    assert len({tuple(row) for row in want.tolist()}) > 4


def test_wrong_input_is_a_user_error():
    ours = generator()
    with pytest.raises(UserError, match="prompt of 17 positions is longer than the longest bucket"):
        ours.generate(prompts(rows=2, width=17) | {"lengths": np.array([17, 3])}, TEXT)
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        ours.generate(prompts(rows=2) | {"lengths": np.array([5, 0])}, TEXT)
    with pytest.raises(UserError, match="beams=12: give a number from 1 to 11"):
        ours.rank(prompts(), TRIE, 12)
    with pytest.raises(UserError, match="prompt 2 excludes item row 11: its catalogue has 11"):
        ours.rank(prompts(3), TRIE, 2, excluded=np.array([[-1], [10], [11]]))
    with pytest.raises(UserError, match="catalogue 1: the trie has catalogues 0 to 0"):
        ours.rank(prompts(2), TRIE, 2, catalogue=np.array([0, 1]))
    with pytest.raises(UserError, match="the catalogue is empty"):
        build_trie([])
    with pytest.raises(UserError, match="slots, and the generator no soft tokens"):
        Generator(model(), params()).generate(prompts(), TEXT)
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"beams": 2}, {"early_stopping": "no"}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
            dataclasses.replace(TEXT, **wrong)
