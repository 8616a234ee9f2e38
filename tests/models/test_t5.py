"""The encoder-decoder: packed, scanned, remade or sharded, the numbers are the same."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.stacking import unstack_layers
from ilm_jax.models.t5 import T5, T5Config
from ilm_jax.models.t5_positions import distance_buckets
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.runs.gin_config import build
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.models.small import flat, init, nested

TOKENS = jax.random.randint(jax.random.key(3), (2, 9), 2, 40)
POSITIONS = jnp.broadcast_to(jnp.arange(9), (2, 9))
ONES = jnp.ones_like(TOKENS)
# Row 0 reads 5 tokens and is told 4; row 1 reads 3.
PREDICTS = POSITIONS >= jnp.array([[4], [2]])


def config(**changes):
    sizes = dict(
        vocab_size=40,
        num_layers=2,
        num_decoder_layers=3,
        embed_dim=32,
        num_heads=4,
        head_dim=6,
        mlp_dim=48,
        position_buckets=8,
        max_distance=6,
    )
    return T5Config(**(sizes | changes))


def make(**changes):
    model = T5(config(**changes))
    return model, init(model, jnp.zeros((2, 9, 32)), POSITIONS, ONES)


@functools.partial(jax.jit, static_argnames="model")
def logits(model, params, tokens=TOKENS, positions=POSITIONS, segments=ONES, predicts=PREDICTS):
    bound = model.bind({"params": params})
    return bound.logits(bound(bound.embed(tokens), positions, segments, predicts=predicts))


@functools.partial(jax.jit, static_argnames="model")
def loss_and_grad(model, params, segments=ONES):
    def loss(params):
        return jax.nn.logsumexp(logits(model, params, segments=segments), -1).sum()

    return jax.value_and_grad(loss)(params)


def test_the_encoder_does_not_read_targets_and_the_decoder_not_the_future():
    model, params = make()
    before = logits(model, params)
    after = logits(model, params, TOKENS.at[0, 6].add(1))
    # Token 6 is the second target: it is given to the decoder at place 6, and nowhere before.
    np.testing.assert_array_equal(before[0, 4:6], after[0, 4:6])
    assert (jnp.abs(before[0, 6:] - after[0, 6:]).max(-1) > 1e-4).all()
    # A token of the inputs, the last one included, is seen by all.
    for place in (0, 4):
        after = logits(model, params, TOKENS.at[0, place].add(1))
        assert (jnp.abs(before[0, 4:] - after[0, 4:]).max(-1) > 1e-4).all()


def test_packed_segments_are_read_and_continued_apart():
    model, params = make()
    alone = logits(model, params)
    row = jnp.concatenate([TOKENS[0], TOKENS[1], jnp.zeros(2, int)])[None]
    positions = jnp.concatenate([POSITIONS[0], POSITIONS[1], jnp.zeros(2, int)])[None]
    segments = jnp.repeat(jnp.array([1, 2, 0]), jnp.array([9, 9, 2]), total_repeat_length=20)[None]
    predicts = jnp.concatenate([PREDICTS[0], PREDICTS[1], jnp.zeros(2, bool)])[None]
    packed = logits(model, params, row, positions, segments, predicts)
    np.testing.assert_allclose(packed[0, 4:9], alone[0, 4:], atol=2e-5)
    np.testing.assert_allclose(packed[0, 11:18], alone[1, 2:], atol=2e-5)
    assert np.isfinite(packed).all()


def test_a_window_of_the_decoder_is_that_part_of_the_whole():
    model, params = make()
    window = jnp.array([[4, 5, 6, 7, 8], [2, 3, 4, 5, 6]])

    @jax.jit
    def part(params):
        bound = model.bind({"params": params})
        x = bound.embed(TOKENS)
        return bound.logits(bound(x, POSITIONS, ONES, predicts=PREDICTS, window=window))

    expected = jnp.take_along_axis(logits(model, params), window[..., None], axis=1)
    np.testing.assert_allclose(part(params), expected, atol=2e-5)


def test_an_encoder_over_the_inputs_places_alone_reads_what_one_over_the_whole_row_reads():
    model, params = make()

    @jax.jit
    def loss(params, source):
        bound = model.bind({"params": params})
        x = bound.embed(TOKENS)
        hidden = bound(x, POSITIONS, ONES, predicts=PREDICTS, source=source)
        weights = PREDICTS[..., None] * jnp.sin(jnp.arange(hidden.size).reshape(hidden.shape))
        return (hidden * weights).sum()

    source = jnp.broadcast_to(jnp.arange(5), (2, 5))  # row 1 reads three of these
    (one, g_one), (all_, g_all) = (
        jax.value_and_grad(loss)(params, places) for places in (source, None)
    )
    np.testing.assert_allclose(one, all_, rtol=1e-5)
    for path, leaf in flat(g_all).items():
        np.testing.assert_allclose(flat(g_one)[path], leaf, atol=2e-4, err_msg=path)
    # One place too few, and a token of row 0 is not read.
    short, _ = jax.value_and_grad(loss)(params, source[:, :4])
    assert abs(short - all_) > 1e-2


def test_a_row_of_padding_alone_has_finite_gradients():
    model, params = make()
    _, grads = loss_and_grad(model, params, 0 * ONES)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    "kind", [pytest.param({}, marks=pytest.mark.slow), {"layer_positions": True, "gated": False}]
)
def test_scanned_and_unrolled_layers_agree_in_value_and_gradient(kind):
    model, params = make(**kind)
    one, g_one = loss_and_grad(model, params)
    unrolled = T5(config(scan_layers=False, **kind))
    two, g_two = loss_and_grad(unrolled, nested(unstack_layers(flat(params))))
    np.testing.assert_allclose(one, two, rtol=1e-6)
    g_one = unstack_layers(flat(g_one))
    for path, leaf in flat(g_two).items():
        np.testing.assert_allclose(g_one[path], leaf, atol=1e-4, err_msg=path)


def test_remade_layers_have_the_same_gradient():
    model, params = make()
    kept, g_kept = loss_and_grad(model, params)
    made, g_made = loss_and_grad(T5(config(remat="full")), params)
    np.testing.assert_allclose(kept, made, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), g_kept, g_made)


def test_a_mesh_changes_nothing_beyond_rounding():
    model, params = make()
    tokens, ones, positions, predicts = (
        jnp.tile(leaf, (2, 1)) for leaf in (TOKENS, ONES, POSITIONS, PREDICTS)
    )
    plain = logits(model, params, tokens, positions, ones, predicts)
    partitioner = Partitioner(MeshConfig(data=2, fsdp=2, tensor=2))
    with partitioner.context():
        shapes = jax.eval_shape(model.init, jax.random.key(0), plain[..., :32], positions, ones)
        axes = flat(nn.get_partition_spec(shapes)["params"])
        placed = nested(
            {
                path: jax.device_put(leaf, partitioner.sharding(axes[path], leaf.shape))
                for path, leaf in flat(params).items()
            }
        )
        tokens = jax.device_put(tokens, partitioner.batch_sharding(4))
        meshed = logits(model, placed, tokens, positions, ones, predicts)
    np.testing.assert_allclose(plain, meshed, atol=2e-5)


def test_lora_and_int8_reach_the_projections_they_name():
    model = T5(config(lora_rank=2, lora_targets=["query", "down"], quantized=True))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 9, 32)), POSITIONS, ONES)
    paths = set(flat(nn.unbox(shapes)["params"]))
    adapted = {path.split("/")[-2] for path in paths if path.endswith("lora_b")}
    assert adapted == {"query", "down"}
    assert not any(path.endswith("/kernel") for path in paths)
    assert "decoder/layers/sub_0/cross_attention/out/kernel_int8" in paths


@pytest.mark.parametrize("buckets, distance", [(16, 128), (32, 128), (4, 20), (8, 20), (12, 31)])
def test_buckets_are_those_of_the_papers_code(buckets, distance):
    """The formula as mesh-tensorflow computes it, in float32, distance by distance."""
    exact = buckets // 2
    with np.errstate(divide="ignore"):
        far = np.log(np.arange(distance + 1, dtype=np.float32) / exact) / np.log(distance / exact)
    far = np.minimum(exact + (np.maximum(far, 0) * (buckets - exact)).astype(int), buckets - 1)
    expected = [d if d < exact else far[d] for d in range(distance + 1)]
    assert list(distance_buckets(buckets, distance)) == expected


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match='activation="tanh"'):
        config(activation="tanh")
    with pytest.raises(UserError, match="position_buckets=6"):
        config(position_buckets=6)
    with pytest.raises(UserError, match="max_distance=4"):
        config(max_distance=4)


# Of the published files, without what they store twice.
PUBLISHED = {
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_recipes_have_the_published_number_of_parameters(size):
    model = build(LanguageModelling, [f"models/flan_t5_{size}.gin"], []).model.lm
    ids = jnp.ones((1, 2), jnp.int32)
    x = jnp.zeros((1, 2, model.config.embed_dim))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, ids, ids)
    count = sum(leaf.size for leaf in jax.tree.leaves(nn.unbox(shapes)))
    assert count == PUBLISHED[size]
