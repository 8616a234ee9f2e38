"""The optimizer's updates are those of its formulas, written out in NumPy and float64."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.models.t5 import T5Config
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.state import describe_variables, nested
from ilm_jax.training.optimizers import OptimizerConfig, global_norm
from tests.training import models

TOTAL = 100
T5_LM = LanguageModelling(
    T5Config(vocab_size=64, num_layers=2, embed_dim=32, num_heads=4, mlp_dim=64)
)


def rate_by_formula(config, total, step):
    """Linear from 0 to the peak, then the schedule over what is left of `total`."""
    warmup, peak, end = config.warmup_steps, config.learning_rate, config.end_fraction
    if step < warmup:
        return peak * step / warmup
    done = min(1.0, (step - warmup) / (total - warmup))
    if config.schedule == "cosine":
        return peak * (end + (1 - end) * 0.5 * (1 + np.cos(np.pi * done)))
    if config.schedule == "linear":
        return peak * (1 + (end - 1) * done)
    return peak


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup_steps", [0, 20])
@pytest.mark.parametrize("end_fraction", [0.0, 0.1, 0.5])
def test_the_rate_of_every_step_is_the_formulas(schedule, warmup_steps, end_fraction):
    config = OptimizerConfig(
        learning_rate=0.02, schedule=schedule, warmup_steps=warmup_steps, end_fraction=end_fraction
    )
    rate = config.learning_rate_at(TOTAL)
    got = [float(rate(step)) for step in range(TOTAL + 20)]
    want = [rate_by_formula(config, TOTAL, step) for step in range(TOTAL + 20)]
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-9)


def test_rates_by_hand_at_the_start_the_middle_and_the_end():
    def rates(schedule, *steps):
        config = OptimizerConfig(
            learning_rate=1.0, schedule=schedule, warmup_steps=20, end_fraction=0.2
        )
        return [round(float(config.learning_rate_at(TOTAL)(step)), 5) for step in steps]

    # The warm-up's first step stands still; its middle; the peak; half way down; the last step.
    assert rates("cosine", 0, 10, 20, 60, 100) == [0.0, 0.5, 1.0, 0.6, 0.2]
    assert rates("linear", 0, 10, 20, 60, 100) == [0.0, 0.5, 1.0, 0.6, 0.2]
    assert rates("constant", 0, 10, 20, 60, 100) == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert rates("cosine", 40) == [round(0.2 + 0.8 * 0.5 * (1 + np.cos(np.pi / 4)), 5)]
    assert rates("linear", 40) == [0.8]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_with_an_end_of_its_own_ends_there_whatever_the_run_does(schedule):
    config = OptimizerConfig(schedule=schedule, warmup_steps=10, decay_steps=50)
    for total in (30, 50, 100):
        rate = config.learning_rate_at(total)
        got = [float(rate(step)) for step in range(100)]
        want = [rate_by_formula(config, 50, step) for step in range(100)]
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-9)


def test_a_warm_up_as_long_as_the_run_reaches_the_peak_at_its_end():
    rate = OptimizerConfig(learning_rate=1.0, warmup_steps=10).learning_rate_at(10)
    assert [float(rate(step)) for step in (0, 5, 10)] == [0.0, 0.5, 1.0]


def parameters(seed=0):
    """{path: array}, one of every kind that matters for the decay."""
    rng = np.random.default_rng(seed)
    shapes = {
        "lm/layers/mlp/up/kernel": (3, 4),
        "lm/layers/mlp/up/bias": (4,),
        "lm/layers/mlp_norm/scale": (3,),
        "qformer/queries/embedding": (2, 3),
        "qformer/log_temperature/item_text": (),
    }
    return {path: rng.normal(size=shape) for path, shape in shapes.items()}


def adamw_by_formula(config, params, gradients, total):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) on gradients clipped by their global norm."""
    params = dict(params)
    first = {path: np.zeros_like(p) for path, p in params.items()}
    second = {path: np.zeros_like(p) for path, p in params.items()}
    for step, grads in enumerate(gradients):
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        shrink = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
        rate = rate_by_formula(config, total, step)
        for path, gradient in grads.items():
            g = gradient * shrink
            first[path] = config.b1 * first[path] + (1 - config.b1) * g
            second[path] = config.b2 * second[path] + (1 - config.b2) * g**2
            mean = first[path] / (1 - config.b1 ** (step + 1))
            square = second[path] / (1 - config.b2 ** (step + 1))
            decay = config.weight_decay * params[path] if path.endswith("kernel") else 0.0
            params[path] = params[path] - rate * (mean / (np.sqrt(square) + config.eps) + decay)
    return params


def run(config, params, gradients, total):
    optimizer = config.build(total)
    params = jax.tree.map(jnp.float32, params)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for grads in gradients:
        changes, state = update(jax.tree.map(jnp.float32, grads), state, params)
        params = jax.tree.map(jnp.add, params, changes)
    return params


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_adamw_is_its_formula_over_several_steps(clip_norm, schedule):
    config = OptimizerConfig(
        learning_rate=0.03,
        schedule=schedule,
        warmup_steps=2,
        weight_decay=0.3,
        eps=1e-3,
        clip_norm=clip_norm,
        b1=0.8,
        b2=0.9,
    )
    # Norms differ from step to step, so that what is clipped, and when, changes the moments.
    gradients = [
        jax.tree.map(lambda g, scale=scale: g * scale, parameters(seed))
        for seed, scale in enumerate([0.05, 5.0, 0.3, 1.0, 20.0], start=1)
    ]
    want = adamw_by_formula(config, parameters(), gradients, 8)
    got = run(config, parameters(), gradients, 8)
    for path, value in want.items():
        np.testing.assert_allclose(got[path], value, rtol=2e-5, atol=2e-6, err_msg=path)


def test_the_defaults_are_the_documented_ones():
    config = OptimizerConfig()
    assert (config.b1, config.b2, config.eps) == (0.9, 0.98, 1e-8)
    assert (config.weight_decay, config.clip_norm) == (0.05, 1.0)
    assert (config.warmup_steps, config.end_fraction) == (0, 0.1)
    gradients = [parameters(seed) for seed in (1, 2, 3)]
    want = adamw_by_formula(config, parameters(), gradients, 3)
    got = run(config, parameters(), gradients, 3)
    for path, value in want.items():
        np.testing.assert_allclose(got[path], value, rtol=1e-5, err_msg=path)


def test_weight_decay_alone_shrinks_kernels_by_rate_times_decay():
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.3)
    still = [jax.tree.map(np.zeros_like, parameters())]
    after = run(config, parameters(), still, 5)
    for path, before in parameters().items():
        factor = 1 - 0.1 * 0.3 if path.endswith("kernel") else 1.0
        np.testing.assert_allclose(after[path], before * factor, rtol=1e-6, err_msg=path)


@pytest.mark.parametrize(("norm", "rate"), [(5.0, 0.1), (5.0, 10.0), (0.5, 10.0)])
def test_the_gradient_is_clipped_and_not_the_update(norm, rate):
    """A clip behind the update would let the first case through and cut down the last."""
    config = OptimizerConfig("sgd", learning_rate=rate, schedule="constant", clip_norm=1.0)
    direction = {"a": np.array([0.6, 0.0]), "b": np.array([[0.8]])}
    zeros = jax.tree.map(np.zeros_like, direction)
    after = run(config, zeros, [jax.tree.map(lambda g: g * norm, direction)], 1)
    for path, along in direction.items():
        np.testing.assert_allclose(after[path], -rate * min(norm, 1.0) * along, rtol=1e-6)


def test_no_clip_norm_leaves_large_gradients():
    config = OptimizerConfig("sgd", learning_rate=1.0, schedule="constant", clip_norm=0.0)
    after = run(config, {"a": np.zeros(2)}, [{"a": np.array([300.0, 400.0])}], 1)
    np.testing.assert_allclose(after["a"], [-300.0, -400.0])


def test_the_global_norm_is_taken_over_all_leaves_in_float32():
    tree = {"a": jnp.full(4096, 0.1, jnp.bfloat16), "b": jnp.array([[3.0]])}
    tenth = float(jnp.bfloat16(0.1))
    want = np.sqrt(4096 * tenth**2 + 9.0)
    np.testing.assert_allclose(global_norm(tree), want, rtol=1e-5)


def decayed(objective, **config):
    """(paths that decay, all variables) of an objective's real parameters."""
    variables = describe_variables(objective)
    leaves = {path: jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in variables.items()}
    mask = OptimizerConfig(**config).decays(leaves)
    inside = OptimizerConfig(**config).decays(nested(leaves))
    assert inside == nested(mask)  # flat or nested, the path decides
    return {path for path, does in mask.items() if does}, variables


@pytest.mark.parametrize(
    "objective",
    [
        models.ALIGNMENT,
        models.ILM,
        models.TEXT_ONLY,
        T5_LM,
        dataclasses.replace(
            models.ALIGNMENT, qformer=dataclasses.replace(models.QFORMER, scan_layers=False)
        ),
    ],
    ids=["stage 1", "stage 2", "text only", "t5", "unstacked"],
)
def test_exactly_matrices_decay_but_for_the_queries(objective):
    """BLIP-2's rule; whether a leaf is a vector or a matrix is told by its axes, not its name."""
    got, variables = decayed(objective)
    matrices = {
        path
        for path, v in variables.items()
        if len([axis for axis in v.axes if axis != "layers"]) >= 2 and "/queries/" not in path
    }
    assert got == matrices
    assert got and len(got) < len(variables)


def test_biases_scales_temperatures_and_queries_of_the_real_model_do_not_decay():
    got, variables = decayed(models.ALIGNMENT)
    still = set(variables) - got
    for path in (
        "qformer/layers/sub_0/attention/query/bias",
        "qformer/layers/sub_1/text_mlp/up/bias",
        "qformer/layers/sub_0/cross_attention_norm/scale",
        "qformer/layers/sub_0/query_mlp_norm/bias",
        "qformer/vector_norm/scale",
        "qformer/text_head/bias",
        "qformer/text_head/norm/scale",
        "qformer/queries/embedding",
        "qformer/log_temperature/item_text",
        "qformer/log_temperature/user_item",
    ):
        assert path in still, path
    for path in (
        "qformer/layers/sub_0/attention/query/kernel",
        "qformer/layers/sub_1/query_mlp/down/kernel",
        "qformer/text_embedding/token/embedding",
        "qformer/text_embedding/position/embedding",
        "qformer/vector_projection/kernel",
        "qformer/match_head/kernel",
    ):
        assert path in got, path


def test_no_decay_names_other_paths():
    got, variables = decayed(models.TEXT_ONLY, no_decay=(r"(^|/)mlp/",))
    assert set(variables) - got == {path for path in variables if re.search("/mlp/", path)}
    assert decayed(models.TEXT_ONLY, no_decay=())[0] == set(variables)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="choose one of"):
        OptimizerConfig(schedule="cosin").learning_rate_at(10)
    with pytest.raises(UserError, match="choose adamw or sgd"):
        OptimizerConfig("adam").build(10)
