"""A recipe's programs with abstract arguments: shapes, types and shardings, and nothing in memory.

They are the trainer's own compiled steps, so what is compiled here is what runs on the pod.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr
from jax.sharding import NamedSharding
from jaxtyping import Array, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.layouts import Layout
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.decoding.greedy import greedy
from ilm_jax.errors import UserError
from ilm_jax.models.applying import applied
from ilm_jax.models.counting import count_dot_flops
from ilm_jax.models.ilm import gather_vectors
from ilm_jax.objectives.objective import LanguageObjective, Objective
from ilm_jax.runs.run import Run
from ilm_jax.sharding.freezing import split_by_patterns
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import (
    TrainState,
    describe_variables,
    nested,
    optimizer_shardings,
    param_shardings,
)
from ilm_jax.training.step import gradient, make_train_step
from ilm_jax.training.timing import peak_flops

Struct = jax.ShapeDtypeStruct
AnyObjective = TypeVar("AnyObjective", bound=Objective)


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled function of a run.

    Attributes:
      name: "train prompt", "decode", …
      rows: of its global batch.
      lower: traces and lowers it for the mesh; returns jax's Lowered.
      products: the same computation of one device that keeps every activation and has no
        kernels, as a jaxpr: its products are what must be computed.
      frozen_flops: 4 (or 2, decoding) for each frozen matrix entry and token: the estimate.
      share: of the schedule's steps that it is; 0 for decoding.
      state: of a training step.
    """

    name: str
    rows: int
    lower: Callable[[], jax.stages.Lowered]
    products: Callable[[], ClosedJaxpr]
    frozen_flops: float = 0.0
    share: float = 0.0
    state: TrainState | None = None


def needed_flops(program: Program) -> int:
    """Products that a step cannot do without, attention's hidden half included."""
    return count_dot_flops(program.products())


def sized(run: Run, table_rows: int) -> tuple[Objective, Struct]:
    """The objective and the embedding table's shape, from the recipe alone.

    Raises:
      UserError: if the recipe leaves a size to the tokenizer or the table, which are not opened.
    """
    objective = run.objective
    for part, config in objective.configs.items():
        for field in ("vocab_size", "cf_dim"):
            if getattr(config, field, 1) == 0:
                kind = type(config).__name__
                raise UserError(
                    f"{part}: {kind}.{field} = 0 leaves it to data that is not opened here: add "
                    f"--gin.{kind}.{field}=…"
                )
    if objective.needs_table and not objective.cf_dim:
        raise UserError("the width of the vectors is left to a table that is not opened here")
    rows = table_rows if objective.needs_table else 1
    items = (ItemRows("items", 0, rows, np.ones(rows, np.int64)),) if objective.scores_items else ()
    objective = objective.with_sizes(target_length=run.target_length, items=items)
    return objective, Struct((rows, objective.cf_dim), jnp.float32)


def abstract_state(
    objective: Objective,
    trains: Sequence[str],
    partitioner: Partitioner,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """The train state's shapes and shardings, as `make_state` gives them."""
    variables = describe_variables(objective)
    shardings = param_shardings(variables, partitioner)
    params: PyTree[Struct] = {
        p: Struct(v.shape, v.dtype, sharding=shardings[p]) for p, v in variables.items()
    }
    trainable, frozen = split_by_patterns(params, trains)
    slots = jax.eval_shape(optimizer.init, trainable)
    placed = optimizer_shardings(optimizer, slots, trainable)
    slots = jax.tree.map(lambda x, s: Struct(x.shape, x.dtype, sharding=s), slots, placed)
    step: PyTree[Struct] = Struct((), jnp.int32, sharding=partitioner.replicated)
    return TrainState(step=step, trainable=trainable, frozen=frozen, opt_state=slots)


def batch_shapes(dataset: DatasetConfig, layout: Layout) -> dict[str, Struct]:
    """{name: shape of one row} of a dataset's batches, without opening it."""
    row = layout.blank(dataset)
    return {name: Struct(x.shape[1:], x.dtype) for name, x in row.items()}


def _placed(
    shapes: Mapping[str, Struct], rows: int, sharding: NamedSharding | None
) -> dict[str, Struct]:
    return {n: Struct((rows, *s.shape), s.dtype, sharding=sharding) for n, s in shapes.items()}


def _key(partitioner: Partitioner) -> Struct:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return Struct(key.shape, key.dtype, sharding=partitioner.replicated)


def programs(
    run: Run, partitioner: Partitioner, *, table_rows: int, decode_rows: int, decode_steps: int
) -> Iterator[Program]:
    """The steps of a recipe's schedule, and decoding for a language model.

    Args:
      run: from the recipe.
      partitioner: its mesh and rules over the devices to compile for.
      table_rows: of the embedding table.
      decode_rows: prompts decoded at once; 0 leaves decoding out.
      decode_steps: tokens decoded.
    """
    objective, shape = sized(run, table_rows)
    table = Struct(shape.shape, shape.dtype, sharding=partitioner.replicated)
    schedule = Schedule(run.schedule or dict.fromkeys(run.train, 1))
    optimizer = run.optimizer.build(run.trainer.total_steps)
    state = abstract_state(objective, run.trainer.trains, partitioner, optimizer)
    for kind in schedule.kinds:
        dataset = run.train[kind]
        lengths = dataset.task_feature_lengths
        tokens = lengths.get("inputs", 0) + lengths.get("targets", 0)
        size = run.trainer.batch_size
        yield step_program(
            partitioner,
            objective,
            kind,
            Batches(size, batch_shapes(dataset, objective.layout(kind)), table),
            optimizer,
            state,
            microbatches=run.trainer.microbatches,
            frozen_flops=4.0 * size * tokens * matrix_entries(state.frozen),
            share=schedule.shares[kind] / sum(schedule.shares.values()),
        )
    language = objective.language
    if language is not None and decode_rows:
        dataset = run.train[schedule.kinds[0]]
        yield _decode(language, dataset, partitioner, state, table, decode_rows, decode_steps)


@dataclasses.dataclass(frozen=True)
class Batches:
    """What a step reads: the rows of a global batch, the shapes of one, and the table."""

    rows: int
    row: Mapping[str, Struct]
    table: Struct


def step_program(
    partitioner: Partitioner,
    objective: Objective,
    kind: str,
    batches: Batches,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    *,
    microbatches: int = 1,
    frozen_flops: float = 0.0,
    share: float = 1.0,
) -> Program:
    """The training step of one batch kind; `frozen_flops` and `share` as in `Program`."""
    size, table = batches.rows, batches.table

    def lower() -> jax.stages.Lowered:
        """The training step, lowered for the mesh."""
        rows = _placed(batches.row, size, partitioner.batch_sharding(size))
        parts = {"microbatches": microbatches}
        step = make_train_step(objective, kind, optimizer, partitioner, state, size, **parts)
        with partitioner.context():
            return step.lower(state, rows, table, _key(partitioner))

    def products() -> ClosedJaxpr:
        """Jaxpr of the gradient on one device, without rematerialization: counts model FLOPs."""
        rows = _placed(batches.row, size, None)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.make_jaxpr(functools.partial(gradient, without_remat(objective), kind))(
            unplaced(state.trainable), unplaced(state.frozen), rows, unplaced(table), key
        )

    return Program(f"train {kind}", size, lower, products, frozen_flops, share, state)


def _decode(
    language: LanguageObjective,
    dataset: DatasetConfig,
    partitioner: Partitioner,
    state: TrainState,
    table: Struct,
    size: int,
    steps: int,
) -> Program:
    """Decoding of prompts of a dataset's lengths."""
    everything = {**state.trainable, **state.frozen}
    call, shapes = decoding(language, dataset, steps)
    plain_call, _ = decoding(without_remat(language), dataset, steps)

    def lower() -> jax.stages.Lowered:
        """The decoding call, lowered for the mesh."""
        rows = _placed(shapes, size, partitioner.batch_sharding(size))
        with partitioner.context():
            jitted = jax.jit(call, out_shardings=partitioner.replicated)
            return jitted.lower(everything, rows, table)

    def products() -> ClosedJaxpr:
        """Jaxpr of the same call on one device: counts model FLOPs."""
        rows = _placed(shapes, size, None)
        return jax.make_jaxpr(plain_call)(unplaced(everything), rows, unplaced(table))

    tokens = size * (dataset.task_feature_lengths["inputs"] + steps)
    frozen_flops = 2.0 * tokens * matrix_entries(state.frozen)
    return Program("decode", size, lower, products, frozen_flops)


def step_flops(run: Run) -> dict[str, float]:
    """{kind: operations that one step needs}, for the MFU; empty where the peak is not known."""
    if not peak_flops():
        return {}
    opened = dataclasses.replace(run, objective=run.sized_objective)
    found = programs(
        opened, run.partitioner, table_rows=len(run.vectors), decode_rows=0, decode_steps=0
    )
    return {p.name.removeprefix("train "): float(needed_flops(p)) for p in found}


def unplaced(tree: PyTree[Array]) -> PyTree[Struct]:
    """The same shapes without shardings."""
    return jax.tree.map(lambda x: Struct(x.shape, x.dtype), tree)


def matrix_entries(params: PyTree[Array]) -> int:
    """Entries of the matrices that every token meets; tables of tokens are not among them."""
    return sum(
        int(np.prod(x.shape))
        for path, x in params.items()
        if path.rsplit("/", 1)[-1] in ("kernel", "kernel_int8")
    )


def without_remat(objective: AnyObjective) -> AnyObjective:
    """The objective that keeps all activations and computes attention by its formula."""
    plain = {"remat": "none", "attention_backend": "xla"}
    configs = {
        top: dataclasses.replace(config, **{n: v for n, v in plain.items() if hasattr(config, n)})
        for top, config in objective.configs.items()
    }
    return objective.with_configs(configs)


def decoding(
    objective: LanguageObjective, dataset: DatasetConfig, steps: int
) -> tuple[Callable[..., jax.Array], dict[str, Struct]]:
    """Soft tokens, prompt and greedy continuation as one function, and the shapes of a row."""
    model = objective.model
    shapes = batch_shapes(dataset, objective.layout(objective.kinds[0]))
    length = dataset.task_feature_lengths["inputs"]
    shapes = {
        name: Struct((length,), shapes[name].dtype)
        for name in ("tokens", "slot_entity", "slot_query")
    } | {"entities": shapes["entities"], "lengths": Struct((), jnp.int32)}

    def decode(
        params: PyTree[Array], batch: Mapping[str, jax.Array], table: jax.Array
    ) -> jax.Array:
        """Greedy tokens [batch, steps] for the prompts of a batch."""
        params = nested(params)
        x: Array = applied(
            model,
            params,
            batch["tokens"],
            batch["slot_entity"],
            batch["slot_query"],
            gather_vectors(table, batch["entities"]),
            method="embed",
        )
        return greedy(model.lm, params["lm"], x, batch["lengths"], steps=steps, eos_id=1)

    return decode, shapes


def bytes_per_device(tree: PyTree[Array]) -> int:
    """Bytes that one device holds of abstract arrays."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * np.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
    )
