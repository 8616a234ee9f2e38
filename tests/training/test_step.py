"""One update, by value: the mean's gradient, keys of its own for every step and row, the guard."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, make_state
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.step import make_eval_step, make_train_step

ROWS, WIDTH = 8, 3
ONE = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))


class Parameters(Objective):
    """Two vectors that start at one; nothing of them is special to a kind."""

    kinds = ("plain",)
    size = WIDTH

    def init(self, key):
        ones = nn.with_logical_partitioning(nn.initializers.ones, ("embed",))
        return {"a": {"kernel": ones(key, (self.size,))}, "b": {"kernel": ones(key, (self.size,))}}


class Regression(Parameters):
    """Weighted squares of x . a + b_0 - y: both sums are of row weights, not of rows."""

    def loss(self, params, kind, batch, table, key):
        error = batch["x"] @ params["a"]["kernel"] + params["b"]["kernel"][0] - batch["y"]
        weights = batch["weights"]
        return {"loss": Sums((weights * error**2).sum(), weights.sum())}


class Noise(Parameters):
    """The gradient of a's entry r is what row r drew; without a key every row draws 7."""

    size = ROWS

    def loss(self, params, kind, batch, table, key):
        rows = batch["row"]
        drawn = jnp.full(rows.shape, 7.0) if key is None else jax.random.uniform(key, rows.shape)
        total = (params["a"]["kernel"][rows] * drawn).sum() + 0 * params["b"]["kernel"].sum()
        return {"loss": Sums(total, jnp.float32(len(rows) / ROWS))}


@jax.custom_vjp
def cliff(x, slope):
    """The number itself, with a slope that is told."""
    return x


cliff.defvjp(lambda x, slope: (x, slope), lambda slope, g: (g * slope, jnp.zeros_like(slope)))


@dataclasses.dataclass(frozen=True)
class Broken(Parameters):
    """A finite loss whose gradient is not, where the batch says so; or a loss that is not."""

    finite_loss: bool

    def loss(self, params, kind, batch, table, key):
        a, bad = params["a"]["kernel"], batch["bad"].max() > 0
        steep = cliff(a[0], jnp.where(bad & self.finite_loss, jnp.inf, 1.0))
        total = (a**2).sum() + steep + jnp.where(bad & (not self.finite_loss), jnp.inf, 0.0)
        total += (params["b"]["kernel"] ** 2).sum()
        return {"loss": Sums(total, jnp.float32(1))}


def start(objective, optimizer):
    variables = describe_variables(objective)
    drawn = initialise(objective, variables, list(variables), ONE, jax.random.key(0))
    return make_state(drawn, {}, optimizer)


def take(objective, batches, optimizer, key=0, **options):
    """(state, report) after each of the batches."""
    state = start(objective, optimizer)
    step = make_train_step(objective, "plain", optimizer, ONE, state, ROWS, **options)
    found = []
    with ONE.context():
        for batch in batches:
            placed = ONE.global_batch(batch, ROWS)
            state, report = step(state, placed, jnp.zeros((1, 1)), jax.random.key(key))
            found.append(jax.tree.map(np.array, (state.trainable, state.opt_state, report)))
    return found


SGD = optax.sgd(1.0)


def regression_batch(seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, ROWS).astype(np.float32)
    return {
        "x": rng.normal(size=(ROWS, WIDTH)).astype(np.float32),
        "y": rng.normal(size=ROWS).astype(np.float32),
        "weights": weights,
        "segment_ids": np.array([[1, 1, 2, 0]] * (ROWS - 1) + [[0, 0, 0, 0]], np.int32),
    }


@pytest.mark.parametrize("microbatches", [1, 2, 8])
def test_the_gradient_is_the_weighted_means_and_its_norm_is_reported(microbatches):
    batch = regression_batch()
    ((after, _, report),) = take(Regression(), [batch], SGD, microbatches=microbatches)
    x, weights = batch["x"].astype(float), batch["weights"].astype(float)
    error = x.sum(1) + 1 - batch["y"]
    slope = 2 * weights * error / weights.sum()
    want = {"a/kernel": slope @ x, "b/kernel": np.array([slope.sum(), 0, 0])}
    for path, gradient in want.items():
        np.testing.assert_allclose(1 - after[path], gradient, rtol=2e-5, atol=2e-6)
    norm = np.sqrt(sum((g**2).sum() for g in want.values()))
    np.testing.assert_allclose(report["grad_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(report["sums"]["loss"].total, (weights * error**2).sum(), rtol=1e-5)
    assert report["sums"]["loss"].weight == weights.sum() and report["finite"] == 1
    assert (report["tokens"], report["real"]) == (3 * (ROWS - 1), 3 * (ROWS - 1) / (4 * ROWS))


def test_the_norm_is_reported_as_it_was_before_clipping():
    batch, clipped = regression_batch(), OptimizerConfig("sgd", 1.0, "constant", clip_norm=0.1)
    ((_, _, plain),) = take(Regression(), [batch], SGD)
    ((after, _, report),) = take(Regression(), [batch], clipped.build(5))
    assert report["grad_norm"] == plain["grad_norm"] > 1
    moved = np.sqrt(sum(((1 - leaf) ** 2).sum() for leaf in after.values()))
    np.testing.assert_allclose(moved, 0.1, rtol=1e-5)


def test_a_batch_without_weight_moves_nothing():
    batch = regression_batch() | {"weights": np.zeros(ROWS, np.float32)}
    ((after, _, report),) = take(Regression(), [batch], SGD)
    assert report["finite"] == 1
    for leaf in after.values():
        np.testing.assert_array_equal(leaf, 1.0)


def drawn(steps, microbatches=1, key=0):
    """[steps, rows]: what every row drew in every step."""
    rows = {"row": np.arange(ROWS, dtype=np.int32)}
    found = take(Noise(), [rows] * steps, SGD, key, microbatches=microbatches)
    weights = np.array([np.ones(ROWS), *(after["a/kernel"] for after, _, _ in found)])
    return weights[:-1] - weights[1:]


@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_every_step_and_row_draws_by_the_runs_key_the_step_and_its_microbatch(microbatches):
    got = drawn(2, microbatches)
    for step in range(2):
        key = jax.random.fold_in(jax.random.key(0), step)
        for row in range(ROWS):
            own, place = key, row
            if microbatches > 1:
                own, place = jax.random.fold_in(key, row % microbatches), row // microbatches
            want = jax.random.uniform(own, (ROWS // microbatches,))[place]
            np.testing.assert_allclose(got[step, row], want, atol=1e-6)
    assert len(np.unique(got.round(5))) == 2 * ROWS
    assert np.abs(got - drawn(2, microbatches, key=1)).min() > 0


def test_evaluation_draws_nothing():
    state = start(Noise(), SGD)
    step = make_eval_step(Noise(), "plain", ONE, ROWS)
    with ONE.context():
        batch = ONE.global_batch({"row": np.arange(ROWS, dtype=np.int32)}, ROWS)
        sums = step(state.trainable, {}, batch, jnp.zeros((1, 1)))
    assert float(sums["loss"].total) == 7.0 * ROWS


@pytest.mark.parametrize("finite_loss", [True, False], ids=["gradient", "loss"])
@pytest.mark.parametrize("rule", ["adamw", "sign"])
def test_what_is_not_finite_changes_neither_parameters_nor_moments(finite_loss, rule):
    good, bad = ({"bad": np.full(ROWS, value, np.float32)} for value in (0, 1))
    # The sign of an infinite gradient is one: the weights say nothing of it, the moments do.
    rules = {
        "adamw": OptimizerConfig(learning_rate=0.1, schedule="constant").build(10),
        "sign": optax.lion(0.1),
    }
    first, second, third = take(Broken(finite_loss), [good, bad, good], rules[rule])
    assert [report["finite"] for _, _, report in (first, second, third)] == [1, 0, 1]
    jax.tree.map(np.testing.assert_array_equal, second[:2], first[:2])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(third[:2]))
    assert (third[0]["a/kernel"] != second[0]["a/kernel"]).all()
