"""A recipe's programs with abstract arguments: shapes, types and shardings, and nothing in memory.

They are the trainer's own compiled steps, so what is compiled here is what runs on the pod.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ilm_jax.data.streams.alignment_converter import KINDS as PAIRS
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.decoding.greedy import greedy
from ilm_jax.errors import UserError
from ilm_jax.models.counting import count_dot_flops
from ilm_jax.models.ilm import gather_vectors
from ilm_jax.objectives.alignment import Alignment
from ilm_jax.objectives.language import LanguageModelling
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
    lower: Callable[[], Any]
    products: Callable[[], Any]
    frozen_flops: float = 0.0
    share: float = 0.0
    state: TrainState | None = None


def needed_flops(program: Program) -> int:
    """Products that a step cannot do without, attention's hidden half included."""
    return count_dot_flops(program.products())


def sized(run: Run, table_rows: int) -> tuple[Alignment | LanguageModelling, Struct]:
    """The objective and the embedding table's shape, from the recipe alone.

    Raises:
      UserError: if the recipe leaves a size to the tokenizer or the table, which are not opened.
    """
    objective = run.objective
    if isinstance(objective, LanguageModelling):
        objective = dataclasses.replace(objective, target_length=run.target_length)
    sizes = {"lm": getattr(objective, "lm", None), "qformer": objective.qformer}
    for part, config in sizes.items():
        for field in ("vocab_size", "cf_dim"):
            if config is not None and getattr(config, field, 1) == 0:
                kind = type(config).__name__
                raise UserError(
                    f"{part}: {kind}.{field} = 0 leaves it to data that is not opened here: add "
                    f"--gin.{kind}.{field}=…"
                )
    width = objective.qformer.cf_dim if objective.qformer else 1
    rows = table_rows if objective.qformer else 1
    return objective, Struct((rows, width), jnp.float32)


def abstract_state(
    objective: Any, run: Run, partitioner: Partitioner, optimizer: Any
) -> TrainState:
    """The train state's shapes and shardings, as `make_state` gives them."""
    variables = describe_variables(objective)
    shardings = param_shardings(variables, partitioner)
    params = {p: Struct(v.shape, v.dtype, sharding=shardings[p]) for p, v in variables.items()}
    trainable, frozen = split_by_patterns(params, run.trainer.trains)
    slots = jax.eval_shape(optimizer.init, trainable)
    placed = optimizer_shardings(optimizer, slots, trainable)
    slots = jax.tree.map(lambda x, s: Struct(x.shape, x.dtype, sharding=s), slots, placed)
    step: Any = Struct((), jnp.int32, sharding=partitioner.replicated)
    return TrainState(step=step, trainable=trainable, frozen=frozen, opt_state=slots)


def batch_shapes(dataset: DatasetConfig, num_queries: int) -> dict[str, Struct]:
    """{name: shape of one row} of a dataset's batches, without opening it."""
    kind, lengths = dataset.specs()[0].task, dataset.task_feature_lengths
    one = Struct((), jnp.int32)
    if kind in PAIRS:
        other = {"text": Struct((lengths.get("text", 64),), jnp.int32)}
        rest = other if kind == "item_text" else {"others": one}
        return {"entities": one, "example_index": one, **rest}
    converter = PromptConverter(
        lengths, cast(Any, _NoTokenizer()), num_queries=max(1, num_queries),
        max_entities=dataset.row_entities,
    )  # fmt: skip
    return {name: Struct(x.shape[1:], x.dtype) for name, x in converter([None]).items()}


class _NoTokenizer:
    """What a converter asks of a tokenizer to lay out a row of padding."""

    pad_id, bos_id = 0, 1


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
    objective, table = sized(run, table_rows)
    table = Struct(table.shape, table.dtype, sharding=partitioner.replicated)
    schedule = Schedule(run.schedule or dict.fromkeys(run.train, 1))
    size, queries = run.trainer.batch_size, getattr(objective, "num_queries", 0)
    optimizer = run.optimizer.build(run.trainer.total_steps)
    state = abstract_state(objective, run, partitioner, optimizer)

    def lower_step(kind: str) -> Any:
        rows = _placed(
            batch_shapes(run.train[kind], queries), size, partitioner.batch_sharding(size)
        )
        step: Any = make_train_step(
            objective, kind, optimizer, partitioner, state, size,
            microbatches=run.trainer.microbatches,
        )  # fmt: skip
        with partitioner.context():
            return step.lower(state, rows, table, _key(partitioner))

    def products(kind: str) -> Any:
        plain = without_remat(objective)
        rows = _placed(batch_shapes(run.train[kind], queries), size, None)
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.make_jaxpr(functools.partial(gradient, plain, kind))(
            unplaced(state.trainable), unplaced(state.frozen), rows, unplaced(table), key
        )

    for kind in schedule.kinds:
        lengths = run.train[kind].task_feature_lengths
        yield Program(
            f"train {kind}", size, functools.partial(lower_step, kind),
            functools.partial(products, kind),
            4.0 * size * (lengths.get("inputs", 0) + lengths.get("targets", 0))
            * matrix_entries(state.frozen),
            schedule.shares[kind] / sum(schedule.shares.values()), state,
        )  # fmt: skip
    if isinstance(objective, LanguageModelling) and decode_rows:
        dataset = run.train[schedule.kinds[0]]
        everything = {**state.trainable, **state.frozen}
        length = dataset.task_feature_lengths["inputs"]
        call, shapes = decoding(objective, dataset, decode_steps)
        plain_call, _ = decoding(without_remat(objective), dataset, decode_steps)

        def lower_decoding() -> Any:
            rows = _placed(shapes, decode_rows, partitioner.batch_sharding(decode_rows))
            with partitioner.context():
                return jax.jit(call, out_shardings=partitioner.replicated).lower(
                    everything, rows, table
                )

        def decoded_products() -> Any:
            rows = _placed(shapes, decode_rows, None)
            return jax.make_jaxpr(plain_call)(unplaced(everything), rows, unplaced(table))

        yield Program(
            "decode", decode_rows, lower_decoding, decoded_products,
            2.0 * decode_rows * (length + decode_steps) * matrix_entries(state.frozen),
        )  # fmt: skip


def step_flops(run: Run) -> dict[str, float]:
    """{kind: operations that one step needs}, for the MFU; empty where the peak is not known."""
    if not peak_flops():
        return {}
    opened = dataclasses.replace(run, objective=run.sized_objective)
    found = programs(
        opened, run.partitioner, table_rows=len(run.vectors), decode_rows=0, decode_steps=0
    )
    return {p.name.removeprefix("train "): float(needed_flops(p)) for p in found}


def unplaced(tree: Any) -> Any:
    """The same shapes without shardings."""
    return jax.tree.map(lambda x: Struct(x.shape, x.dtype), tree)


def matrix_entries(params: Mapping[str, Any]) -> int:
    """Entries of the matrices that every token meets; tables of tokens are not among them."""
    return sum(
        int(np.prod(x.shape)) for path, x in params.items()
        if path.rsplit("/", 1)[-1] in ("kernel", "kernel_int8")
    )  # fmt: skip


def without_remat(objective: Any) -> Any:
    """The objective that keeps all activations and computes attention by its formula."""
    changes: dict[str, Any] = {}
    for name in ("lm", "qformer"):
        config = getattr(objective, name, None)
        if config is not None:
            plain = {"remat": "none"}
            if hasattr(config, "attention_backend"):
                plain["attention_backend"] = "xla"
            changes[name] = dataclasses.replace(config, **plain)
    return dataclasses.replace(objective, **changes)


def decoding(
    objective: LanguageModelling, dataset: DatasetConfig, steps: int
) -> tuple[Callable[..., jax.Array], dict[str, Struct]]:
    """Soft tokens, prompt and greedy continuation as one function, and the shapes of a row."""
    model = objective.model
    shapes = batch_shapes(dataset, objective.num_queries)
    length = dataset.task_feature_lengths["inputs"]
    shapes = {
        name: Struct((length,), shapes[name].dtype)
        for name in ("tokens", "slot_entity", "slot_query")
    } | {"entities": shapes["entities"], "lengths": Struct((), jnp.int32)}

    def decode(params: Any, batch: Any, table: Any) -> jax.Array:
        params = nested(params)
        x: Any = model.apply(
            {"params": params}, batch["tokens"], batch["slot_entity"], batch["slot_query"],
            gather_vectors(table, batch["entities"]), method="embed",
        )  # fmt: skip
        return greedy(model.lm, params["lm"], x, batch["lengths"], steps=steps, eos_id=1)

    return decode, shapes


def bytes_per_device(tree: Any) -> int:
    """Bytes that one device holds of abstract arrays."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * np.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
    )
