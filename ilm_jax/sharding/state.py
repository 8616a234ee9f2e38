"""The train state, its construction on the mesh, and the table of variables."""

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from ilm_jax.objectives.objective import Objective
from ilm_jax.sharding.freezing import bytes_each, count
from ilm_jax.sharding.partitioning import Partitioner

FlatParams = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step reads and writes; parameters are flat {path: array} dictionaries.

    Attributes:
      step: number of updates made, int32 scalar.
      trainable: what the gradient is taken of.
      frozen: what it is not.
      opt_state: optax state of `trainable` alone.
    """

    step: jax.Array
    trainable: FlatParams
    frozen: FlatParams
    opt_state: optax.OptState


def nested(flat: Mapping[str, object]) -> PyTree[Array]:
    """{"a/b": x} -> {"a": {"b": x}}."""
    return unflatten_dict(dict(flat), sep="/")


def flat(tree: PyTree[Array]) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    return flatten_dict(dict(tree), sep="/")


@dataclasses.dataclass(frozen=True)
class Variable:
    """Shape, type and logical axes of one parameter."""

    shape: tuple[int, ...]
    dtype: DTypeLike
    axes: tuple[str | None, ...]


def describe_variables(objective: Objective) -> dict[str, Variable]:
    """{path: Variable} of an objective's parameters, without allocating any.

    A start asks several times: an objective that can be hashed is traced once.
    """
    try:
        return dict(_variables_of(cast(Hashable, objective)))
    except TypeError:  # cannot be hashed: somebody's fields hold lists or arrays
        return _variables_of.__wrapped__(objective)


@functools.lru_cache(maxsize=8)
def _variables_of(objective: Objective) -> dict[str, Variable]:
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    specs = flat(nn.get_partition_spec(boxed))
    shapes = flat(nn.unbox(boxed))
    return {
        path: Variable(
            leaf.shape, leaf.dtype, tuple(specs[path]) + (None,) * (leaf.ndim - len(specs[path]))
        )
        for path, leaf in shapes.items()
    }


def initialise(
    objective: Objective,
    variables: Mapping[str, Variable],
    paths: Sequence[str],
    partitioner: Partitioner,
    key: jax.Array,
) -> FlatParams:
    """Draws the parameters `paths` straight into their shards (the others are never computed)."""
    if not paths:
        return {}

    def draw(key: jax.Array) -> FlatParams:
        """Only the wanted leaves: XLA removes what draws the others."""
        params = flat(nn.unbox(objective.init(key)))
        return {path: params[path] for path in paths}

    shardings = param_shardings({path: variables[path] for path in paths}, partitioner)
    with partitioner.context():
        return jax.jit(draw, out_shardings=shardings)(key)


def param_shardings(
    variables: Mapping[str, Variable], partitioner: Partitioner
) -> dict[str, NamedSharding]:
    """{path: NamedSharding} by the partitioner's rules."""
    return {path: partitioner.sharding(v.axes, v.shape) for path, v in variables.items()}


def make_state(
    trainable: FlatParams, frozen: FlatParams, optimizer: optax.GradientTransformation
) -> TrainState:
    """A state at step 0, its optimizer slots sharded like the parameters they belong to."""
    slots = jax.eval_shape(optimizer.init, trainable)
    shardings = optimizer_shardings(optimizer, slots, trainable)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(trainable)
    replicated = jax.tree.leaves(shardings)[0].mesh if jax.tree.leaves(shardings) else None
    step = jnp.zeros((), jnp.int32)
    if replicated is not None:
        step = jax.device_put(step, NamedSharding(replicated, jax.P()))
    return TrainState(step=step, trainable=trainable, frozen=frozen, opt_state=opt_state)


def optimizer_shardings(
    optimizer: optax.GradientTransformation, slots: optax.OptState, trainable: FlatParams
) -> optax.OptState:
    """Shardings of the optimizer's state: slots follow their parameter, counters are replicated."""
    shardings = {path: leaf.sharding for path, leaf in trainable.items()}
    first = next(iter(shardings.values()))
    assert isinstance(first, NamedSharding)
    mesh = first.mesh
    return optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        slots,
        shardings,
        transform_non_params=lambda _: NamedSharding(mesh, jax.P()),
    )


def model_info(
    variables: Mapping[str, Variable], trainable: Sequence[str], partitioner: Partitioner
) -> str:
    """The text of model-info.txt: every variable, and totals."""
    rows = [("variable", "shape", "dtype", "logical axes", "sharding", "")]
    for path, v in sorted(variables.items()):
        kind = "trains" if path in set(trainable) else "frozen"
        names = [name or "-" for name in v.axes]
        spec = partitioner.spec(v.axes, v.shape)
        rows.append((path, str(v.shape), jnp.dtype(v.dtype).name, " ".join(names), str(spec), kind))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    train = {path: variables[path] for path in trainable}
    total = count(variables)
    lines += [
        "",
        f"total {total:,}  trains {count(train):,}  frozen {total - count(train):,}",
        f"bytes per parameter {bytes_each(variables):.2f}",
        f"mesh {dict(partitioner.mesh.shape)}",
    ]
    return "\n".join(lines) + "\n"
