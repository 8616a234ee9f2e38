"""One compiled update: loss, gradient of what trains, clip, optimizer, guard."""

from collections.abc import Callable
from typing import Protocol, TypedDict

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import FlatParams, TrainState, nested
from ilm_jax.training.optimizers import global_norm

Batch = dict[str, jax.Array]


class Report(TypedDict):
    """What is reported of a step.

    `tokens` are those that are not padding, and `real` their share of the positions (1 where rows
    are pairs).
    """

    sums: dict[str, Sums]
    grad_norm: jax.Array
    weight_norm: jax.Array
    finite: jax.Array
    tokens: jax.Array
    real: jax.Array


StepResult = tuple[TrainState, Report]


class StepFunction(Protocol):
    """A compiled update."""

    def __call__(
        self, state: TrainState, batch: Batch, table: jax.Array, key: jax.Array, /
    ) -> StepResult:
        """The state after it, and its report."""

    def lower(self, *args: object) -> jax.stages.Lowered:
        """The program for such arguments, or their shapes."""


def gradient(
    objective: Objective,
    kind: str,
    trainable: FlatParams,
    frozen: FlatParams,
    batch: Batch,
    table: jax.Array,
    key: jax.Array,
) -> tuple[FlatParams, dict[str, Sums]]:
    """Gradient of the *summed* loss with respect to `trainable` only, and the sums."""

    def summed(trainable: FlatParams) -> tuple[jax.Array, dict[str, Sums]]:
        """The summed loss, and every sum for the report."""
        sums = objective.loss(nested({**trainable, **frozen}), kind, batch, table, key)
        return sums["loss"].total, sums

    return jax.grad(summed, has_aux=True)(trainable)


def accumulated_gradient(
    objective: Objective,
    kind: str,
    state: TrainState,
    batch: Batch,
    table: jax.Array,
    key: jax.Array,
    microbatches: int,
) -> tuple[FlatParams, dict[str, Sums]]:
    """As `gradient`, over equal microbatches in turn; sums add, so weights stay exact."""
    if microbatches == 1:
        return gradient(objective, kind, state.trainable, state.frozen, batch, table, key)

    # Row r goes to microbatch r % n: each microbatch keeps rows of every batch shard.
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)

    def body(carry: PyTree[Array], xs: PyTree[Array]) -> tuple[PyTree[Array], None]:
        """Adds one microbatch's gradients and sums; its random key is its own."""
        part, index = xs
        grads = gradient(
            objective,
            kind,
            state.trainable,
            state.frozen,
            part,
            table,
            jax.random.fold_in(key, index),
        )
        return jax.tree.map(jnp.add, carry, grads), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(
        lambda p: gradient(objective, kind, state.trainable, state.frozen, p, table, key), first
    )
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(body, zeros, (parts, jnp.arange(microbatches)))[0]


def make_train_step(
    objective: Objective,
    kind: str,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    state: TrainState,
    batch_size: int,
    *,
    microbatches: int = 1,
) -> StepFunction:
    """Compiles the update for one kind of batch, with given in- and out-shardings.

    A step whose loss or gradient is not finite changes nothing but the step count. It reports
    `finite` = 0, as does one whose new weights are not: the trainer stops there and saves neither.

    Args:
      objective: what is minimised.
      kind: which of its batch kinds this step takes.
      optimizer: over `state.trainable`.
      partitioner: mesh and rules.
      state: gives shapes and shardings only.
      batch_size: global.
      microbatches: the batch is split into so many, gradients summed before the update.
    """
    shardings = jax.tree.map(lambda x: x.sharding, state)

    def step(state: TrainState, batch: Batch, table: jax.Array, key: jax.Array) -> StepResult:
        """One update, and what is reported of it."""
        key = jax.random.fold_in(key, state.step)
        grads, sums = accumulated_gradient(objective, kind, state, batch, table, key, microbatches)
        weight = jnp.maximum(sums["loss"].weight, 1e-8)
        # Unconstrained, gradients of sharded parameters may come out replicated.
        grads = {
            path: jax.lax.with_sharding_constraint(g / weight, shardings.trainable[path])
            for path, g in grads.items()
        }
        norm = global_norm(grads)
        finite = jnp.isfinite(sums["loss"].total) & jnp.isfinite(norm)

        def update(_: int, state: TrainState) -> TrainState:
            """The state with new weights and moments."""
            trainable, opt_state = _updated(objective, optimizer, state, grads, table)
            trainable = jax.lax.with_sharding_constraint(trainable, shardings.trainable)
            return state.replace(trainable=trainable, opt_state=opt_state)

        # A loop of one turn or none: weights and moments change in place. A choice between new and
        # old ones would hold both, and read and write all of them once more.
        state = jax.lax.fori_loop(0, jnp.int32(finite), update, state)
        state = state.replace(step=state.step + 1)
        size = global_norm(state.trainable)
        finite &= jnp.isfinite(size)
        return state, _report(batch, sums, norm, size, finite)

    rows, whole = partitioner.batch_sharding(batch_size), partitioner.replicated
    return jax.jit(
        step,
        in_shardings=(shardings, rows, None, whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )


def _updated(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    grads: FlatParams,
    table: jax.Array,
) -> tuple[FlatParams, PyTree[Array]]:
    """What trains after the optimizer's step and the objective's own, and the optimizer's state."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    params = nested({**trainable, **state.frozen})
    return {**trainable, **objective.after_step(params, state.step + 1, table)}, opt_state


def _report(
    batch: Batch, sums: dict[str, Sums], grad_norm: Array, weight_norm: Array, finite: Array
) -> Report:
    tokens, real = jnp.float32(0), jnp.float32(1)
    if (segments := batch.get("segment_ids")) is not None:
        tokens = jnp.sum(segments > 0, dtype=jnp.float32)
        real = tokens / segments.size
    return {
        "sums": sums,
        "grad_norm": grad_norm,
        "weight_norm": weight_norm,
        "finite": jnp.float32(finite),
        "tokens": tokens,
        "real": real,
    }


def make_eval_step(
    objective: Objective, kind: str, partitioner: Partitioner, batch_size: int
) -> Callable[[FlatParams, FlatParams, Batch, jax.Array], dict[str, Sums]]:
    """Compiles the loss without dropout or noise: (trainable, frozen, batch, table) -> sums."""

    def step(
        trainable: FlatParams, frozen: FlatParams, batch: Batch, table: jax.Array
    ) -> dict[str, Sums]:
        """The batch's sums by name, `loss` among them."""
        return objective.loss(nested({**trainable, **frozen}), kind, batch, table, None)

    rows = partitioner.batch_sharding(batch_size)
    return jax.jit(
        step, in_shardings=(None, None, rows, None), out_shardings=partitioner.replicated
    )
