"""One pass over the examples of a feed: on every process, padded, each example counted once.

The global batch is split over the mesh, so each process converts the rows that its devices hold;
results come back whole to every process. Which devices there are changes nothing but rounding.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int, Int64, PyTree

from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.feed import Feed
from ilm_jax.decoding.soft_tokens import SoftTokenCache, embed_prompts
from ilm_jax.errors import UserError
from ilm_jax.objectives.objective import LanguageObjective
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.training.feeding import global_batch
from ilm_jax.training.host_memory import HOST_MEMORY

BATCH = 64
NO_PROMPTS = "this task has pairs of vectors, not prompts: no text to measure"
Step = Callable[..., PyTree[Array]]
Batch = Mapping[str, Array]
OnBatch = Callable[[int], None] | None
# Numbers of examples to a row for each.
Column = Callable[[Int[np.ndarray, " rows"]], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelOnMesh:
    """A model and where it lies: what all measures of it share.

    Attributes:
      objective: the model, with sizes.
      partitioner: where its parameters lie.
      vectors: the embedding table, an argument of every step.
    """

    objective: LanguageObjective
    partitioner: Partitioner
    vectors: Float32[np.ndarray, "capacity cf"]

    @functools.cached_property
    def soft_tokens(self) -> SoftTokenCache | None:
        """Shared by all measures, so that a model's are computed once; None if it has none."""
        model = self.objective.model
        return None if model.reader is None else SoftTokenCache(model, self.partitioner)

    def entities(self, params: PyTree[Array], *, soft: bool) -> Float[Array, "capacity …"]:
        """Representations of items and users: soft tokens split over the mesh, or whole vectors."""
        if soft and self.soft_tokens is not None:
            return self.soft_tokens(params, self.vectors).values
        return jax.device_put(self.vectors, self.entity_sharding(soft=soft))

    def entity_sharding(self, *, soft: bool) -> NamedSharding:
        """Sharding of `entities`."""
        if soft and self.soft_tokens is not None:
            return NamedSharding(self.partitioner.mesh, PartitionSpec(self.partitioner.batch_axes))
        return self.partitioner.replicated


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """Examples by their place among the chosen numbers; padding behind the last."""

    feed: Feed
    numbers: Int[np.ndarray, " chosen"]
    prompts: bool
    columns: Mapping[str, Column]

    def rows(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Batch rows of the places `indices`, a pure function of them."""
        real = indices < len(self.numbers)
        nothing = len(self.feed.stream)
        numbers = np.where(real, self.numbers[np.where(real, indices, 0)], nothing)
        examples = self.feed.examples(numbers)
        converter = self.feed.converter
        assert isinstance(converter, PromptConverter)
        batch = converter.prompts(examples, numbers) if self.prompts else self.feed.rows(numbers)
        if self.prompts:  # a row of padding still needs a last token to go on from
            batch["lengths"] = np.maximum(batch["lengths"], 1)
        at = np.where(real, numbers, 0)  # what stands in rows of padding is never looked at
        return batch | {name: column(at) for name, column in self.columns.items()}


class Pass:
    """A compiled step and the feed that it runs over; compiled once, for any parameters."""

    def __init__(
        self,
        model: ModelOnMesh,
        feed: Feed,
        step: Step,
        *extras: PyTree[Array | np.ndarray],
        prompts: bool = False,
        columns: Mapping[str, Column] | None = None,
    ) -> None:
        """Prepares the pass.

        Args:
          model: what is measured, on its mesh.
          feed: of a prompt task or a corpus, not repeated.
          step: (params, batch, table, *extras) -> tree of arrays [batch, …]; `table` holds the
            vectors, or with `prompts` the soft tokens if the model has any.
          extras: arrays that every device holds whole, such as a trie.
          prompts: batches hold the prompt alone, for decoding.
          columns: what gives further arrays of a batch, by name.

        Raises:
          UserError: if the feed holds pairs, which no language model can answer.
        """
        check_prompts(feed)
        partitioner = model.partitioner
        shards = partitioner.batch_sharding(0).num_devices
        self.size = -(-BATCH // shards) * shards
        self._model, self._feed, self._prompts = model, feed, prompts
        self._columns = dict(columns or {})
        whole = partitioner.replicated
        self._extras = jax.device_put(extras, whole)
        rows = partitioner.batch_sharding(self.size)
        table = model.entity_sharding(soft=prompts)
        self._step = jax.jit(
            step, in_shardings=(None, rows, table, *(whole for _ in extras)), out_shardings=whole
        )

    def __call__(
        self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"] | None = None
    ) -> Iterator[tuple[Int64[np.ndarray, " real"], PyTree[np.ndarray]]]:
        """Yields (numbers of examples, the step's outputs for them), without padding.

        Args:
          params: nested, on the mesh.
          numbers: of the examples to visit, each once; all of the feed if None.

        Raises:
          UserError: if an output is NaN.
        """
        partitioner = self._model.partitioner
        numbers = np.arange(self._feed.len_epoch) if numbers is None else np.asarray(numbers)
        source = _Chosen(self._feed, numbers, self._prompts, self._columns)
        HOST_MEMORY.give_back()
        with partitioner.context():
            table = self._model.entities(params, soft=self._prompts)
            for start in range(0, len(numbers), self.size):
                batch = global_batch(source, start, self.size, partitioner)
                out = jax.device_get(self._step(params, batch, table, *self._extras))
                real = numbers[start : start + self.size]
                HOST_MEMORY.settle()
                out = jax.tree.map(functools.partial(_head, len(real)), out)
                _check_numbers(real, out)
                yield real, out


def check_prompts(feed: Feed) -> None:
    """Raises UserError if the feed holds pairs, which no language model can answer."""
    if not isinstance(feed.converter, PromptConverter):
        raise UserError(NO_PROMPTS)


def _head(rows: int, array: np.ndarray) -> np.ndarray:
    return array[:rows]


def _check_numbers(numbers: Int[np.ndarray, " real"], out: PyTree[np.ndarray]) -> None:
    """No metric is made of NaN, which a list or a mean over what is known would hide."""
    for leaf in jax.tree.leaves(out):
        if not jax.numpy.issubdtype(leaf.dtype, np.floating):
            continue
        bad = np.isnan(leaf).reshape(len(leaf), -1).any(axis=1)
        if bad.any():
            raise UserError(
                f"the model's answer to example {numbers[bad][0]} is not a number, and to "
                f"{bad.sum()} of {len(bad)} in its batch: are the checkpoint and what it was "
                "trained from sound?"
            )


def gathered(
    found: Iterator[tuple[Int64[np.ndarray, " real"], PyTree[np.ndarray]]], on_batch: OnBatch = None
) -> tuple[Int64[np.ndarray, " examples"], PyTree[np.ndarray]]:
    """All of a pass in order of the examples' numbers; `on_batch` hears how many more are done.

    Raises:
      ValueError: if no example came.
    """
    numbers, outputs = [], []
    for real, out in found:
        numbers.append(real)
        outputs.append(out)
        if on_batch is not None:
            on_batch(len(real))
    if not numbers:
        raise ValueError("no example to measure")
    index = np.concatenate(numbers)
    order = np.argsort(index, kind="stable")
    return index[order], jax.tree.map(lambda *parts: np.concatenate(parts)[order], *outputs)


def check_numbers(values: np.ndarray, index: Int64[np.ndarray, " examples"], what: str) -> None:
    """Raises UserError where a value is NaN, as all are of a model that diverged."""
    wrong = np.isnan(values).reshape(len(values), -1).any(axis=1)
    if wrong.any():
        first = int(index[np.argmax(wrong)])
        raise UserError(
            f"{what} are not numbers (NaN) in {wrong.sum()} of {len(values)} examples, first in "
            f"example {first}: the model's parameters are not finite; choose an earlier --step"
        )


def embed(
    objective: LanguageObjective, params: PyTree[Array], batch: Batch, soft: Array
) -> Float[Array, "batch length embed"]:
    """Prompts as the language model reads them: words, and soft tokens in the slots."""
    model = objective.model
    return embed_prompts(model, params, None if model.reader is None else soft, batch)
