"""The Q-Former's masks, its stage-1 leaves, and its behaviour on rows that mean nothing."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.layers import unit
from ilm_jax.models.qformer import TEXT_ONLY_PATTERNS, QFormer
from ilm_jax.models.qformer_layers import LogTemperatures
from ilm_jax.models.stacking import unstack_layers
from tests.models.small import flat, init, nested, qformer_config

CONFIG = qformer_config()
VECTORS = jax.random.normal(jax.random.key(5), (2, 6))
TEXT = jnp.array([[4, 7, 8, 9, 10], [4, 11, 12, 0, 0]])


@pytest.fixture(scope="module")
def params():
    return init(QFormer(CONFIG), VECTORS, TEXT, method="init_all")


@functools.partial(jax.jit, static_argnames=("method", "config"))
def call(params, *args, method=None, config=CONFIG):
    return QFormer(config).apply({"params": params}, *args, method=method)


@functools.partial(jax.jit, static_argnames="config")
def caption_grad(params, config):
    def loss(params):
        logits = QFormer(config).apply({"params": params}, VECTORS, TEXT, method="caption_logits")
        return jax.nn.logsumexp(logits, -1).sum()

    return jax.value_and_grad(loss)(params)


def test_stage_2_leaves_are_those_without_a_text_only_pattern(params):
    shapes = jax.eval_shape(QFormer(CONFIG).init, jax.random.key(0), VECTORS)
    stage_2 = set(flat(nn.unbox(shapes)["params"]))
    assert stage_2 == {
        path
        for path in flat(params)
        if not any(re.search(pattern, path) for pattern in TEXT_ONLY_PATTERNS)
    }
    assert all(
        any(re.search(pattern, f"qformer/{path}") for pattern in TEXT_ONLY_PATTERNS)
        for path in set(flat(params)) - stage_2
    )


def test_every_leaf_has_a_name_for_every_dimension():
    shapes = jax.eval_shape(
        lambda key: QFormer(CONFIG).init(key, VECTORS, TEXT, method="init_all"), jax.random.key(0)
    )
    axes = flat(nn.get_partition_spec(shapes)["params"])
    for path, leaf in flat(nn.unbox(shapes)["params"]).items():
        assert len(axes[path]) == leaf.ndim, path
        assert ("layers" in axes[path]) == path.startswith("layers/"), path


def test_leading_dimensions_are_free(params):
    single = call(params, VECTORS)
    assert single.shape == (2, 3, 32)
    np.testing.assert_allclose(call(params, VECTORS[:, None])[:, 0], single, atol=1e-5)


def test_features_are_unit_vectors_in_float32():
    config = qformer_config(dtype="bfloat16")
    params = init(QFormer(config), VECTORS, TEXT, method="init_all")
    items = call(params, VECTORS, method="entity_features", config=config)
    texts = call(params, TEXT, method="text_features", config=config)
    assert items.shape == (2, 3, 8) and texts.shape == (2, 8)
    for features in (items, texts):
        assert features.dtype == jnp.float32
        np.testing.assert_allclose(jnp.linalg.norm(features, axis=-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_features_in_one_pass_are_those_of_two(params):
    weights = jax.random.normal(jax.random.key(1), (2, 4, 8))

    def apart(model):
        return model.entity_features(VECTORS), model.text_features(TEXT)

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.grad, has_aux=True)
    def slope_and_features(params, features):
        items, texts = features(QFormer(CONFIG).bind({"params": params}))
        return (jnp.concatenate([items, texts[:, None]], axis=1) * weights).sum(), (items, texts)

    together = slope_and_features(params, lambda model: model.features(VECTORS, TEXT))
    separate = slope_and_features(params, apart)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        together[0],
        separate[0],
    )
    for one, two in zip(together[1], separate[1], strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6)


@pytest.mark.parametrize("method", ["text_features", "match_logits", "caption_logits"])
def test_more_padding_changes_nothing(params, method):
    args = (TEXT,) if method == "text_features" else (VECTORS, TEXT)
    longer = jnp.pad(TEXT, ((0, 0), (0, 3)))
    short = call(params, *args, method=method)
    long = call(params, *args[:-1], longer, method=method)
    if method == "caption_logits":
        long = long[:, :5]
    np.testing.assert_allclose(short[0], long[0], atol=1e-5)
    real = slice(0, 3) if method == "caption_logits" else slice(None)
    np.testing.assert_allclose(short[1][real], long[1][real], atol=1e-5)


def test_captions_see_the_past_and_the_vector_but_not_the_future(params):
    before = call(params, VECTORS, TEXT, method="caption_logits")
    assert before.shape == (2, 5, 40) and before.dtype == jnp.float32
    after = call(params, VECTORS, TEXT.at[0, 2].set(30), method="caption_logits")
    np.testing.assert_array_equal(before[0, :2], after[0, :2])
    assert (jnp.abs(before[0, 2:] - after[0, 2:]).max(-1) > 1e-4).all()
    moved = call(params, VECTORS + 1, TEXT, method="caption_logits")
    assert (jnp.abs(before - moved).max(-1) > 1e-4)[0].all()


def test_captions_start_from_the_decoder_token_whatever_stands_there(params):
    cls = call(params, VECTORS, TEXT, method="caption_logits")
    dec = call(params, VECTORS, TEXT.at[:, 0].set(CONFIG.dec_id), method="caption_logits")
    np.testing.assert_array_equal(cls, dec)


def test_matching_sees_the_whole_text_and_the_vector(params):
    before = call(params, VECTORS, TEXT, method="match_logits")
    assert before.shape == (2, 2)
    for vectors, text in ((VECTORS, TEXT.at[0, 4].set(30)), (VECTORS + 1, TEXT)):
        after = call(params, vectors, text, method="match_logits")
        assert jnp.abs(before[0] - after[0]).max() > 1e-4


def test_temperatures_start_at_their_published_value_and_train_apart():
    kinds = ("item_text", "item_item", "user_item")
    model = LogTemperatures(tuple((kind, 0.07) for kind in kinds))
    params = nn.unbox(model.init(jax.random.key(0), "item_text"))["params"]
    for kind in kinds:
        value, grads = jax.value_and_grad(lambda p, kind=kind: model.apply({"params": p}, kind))(
            params
        )
        np.testing.assert_allclose(value, 0.07, rtol=1e-6)
        assert {name for name, grad in grads.items() if grad != 0} == {kind}


def test_absent_entities_and_empty_texts_give_finite_values_and_gradients(params):
    def total(params, vectors):
        model = QFormer(CONFIG).bind({"params": params})
        return model.caption_logits(vectors, 0 * TEXT).sum() + unit(vectors).sum()

    value, grads = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(params, 0 * VECTORS)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("tokens, learns", [(1, False), (2, True)])
def test_attention_to_a_single_item_token_cannot_learn_where_to_look(tokens, learns):
    config = qformer_config(num_item_tokens=tokens, num_layers=2)
    params = init(QFormer(config), VECTORS)
    grads = jax.jit(
        jax.grad(lambda p: (QFormer(config).apply({"params": p}, VECTORS)[..., 0] ** 2).sum())
    )(params)
    kernel = flat(grads)["layers/sub_0/cross_attention/query/kernel"]
    assert (jnp.abs(kernel).max() > 1e-6) == learns


def test_scanned_and_unrolled_layers_agree_in_value_and_gradient(params):
    unrolled = qformer_config(scan_layers=False)
    apart = nested(unstack_layers(flat(params)))
    expected = jax.eval_shape(
        lambda: QFormer(unrolled).init(jax.random.key(0), VECTORS, TEXT, method="init_all")
    )
    assert jax.tree.map(jnp.shape, apart) == jax.tree.map(jnp.shape, nn.unbox(expected)["params"])
    one, g_one = caption_grad(params, CONFIG)
    two, g_two = caption_grad(apart, unrolled)
    np.testing.assert_allclose(one, two, rtol=1e-6)
    g_one = unstack_layers(flat(g_one))
    for path, leaf in flat(g_two).items():
        np.testing.assert_allclose(g_one[path], leaf, atol=1e-4, err_msg=path)


def test_remade_layers_have_the_same_gradient(params):
    kept, g_kept = caption_grad(params, CONFIG)
    made, g_made = caption_grad(params, qformer_config(remat="minimal"))
    np.testing.assert_allclose(kept, made, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), g_kept, g_made)


def test_dropout_acts_only_when_asked(params):
    @jax.jit
    def run(key):
        model = QFormer(qformer_config(dropout=0.5))
        return model.apply({"params": params}, VECTORS, False, rngs={"dropout": key})

    still = call(params, VECTORS)
    one, two = run(jax.random.key(0)), run(jax.random.key(1))
    assert not np.allclose(one, two) and not np.allclose(one, still)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="num_heads=5"):
        qformer_config(num_heads=5)
    with pytest.raises(UserError, match="cross_attention_period=3"):
        qformer_config(cross_attention_period=3)
    qformer_config(cross_attention_period=3, scan_layers=False)


def test_a_match_is_the_mean_over_queries_of_the_heads_logits(params):
    """The queries' states are those of `read_tokens`; the head is one matrix and one bias."""

    def states(params, vectors, text):
        tokens = QFormer(CONFIG).apply({"params": params}, vectors, method="_project")
        return QFormer(CONFIG).apply({"params": params}, tokens, text, method="read_tokens")[0]

    queries = np.asarray(jax.jit(states)(params, VECTORS, TEXT), np.float64)
    head = jax.tree.map(np.asarray, params["match_head"])
    want = (queries @ head["kernel"] + head["bias"]).mean(axis=1)
    assert queries.shape[1] == CONFIG.num_queries > 1
    np.testing.assert_allclose(
        call(params, VECTORS, TEXT, method="match_logits"), want, rtol=1e-4, atol=1e-5
    )
