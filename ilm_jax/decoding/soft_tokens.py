"""The soft tokens of all items and users, computed once for a set of parameters."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from ilm_jax.checkpoints.fingerprints import fingerprint
from ilm_jax.errors import UserError
from ilm_jax.models.applying import applied
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.training.pacing import Pacer


@dataclasses.dataclass(frozen=True, eq=False)
class SoftTokens:
    """Soft tokens of each row of the embedding table.

    Attributes:
      values: rows split over the mesh's batch axes, filled up with zeros.
      fingerprint: of the parameters and vectors that they were computed from.
    """

    values: Float[Array, "capacity queries lm_dim"]
    fingerprint: str


class SoftTokenCache:
    """Soft tokens of a model, computed when its parameters or the vectors are not the last ones'.

    Attributes:
      computed: how often that was.
    """

    def __init__(
        self, model: ItemLanguageModel, partitioner: Partitioner | None = None, block: int = 1024
    ) -> None:
        """Starts empty.

        Args:
          model: with a reader.
          partitioner: mesh to split the rows over; whole on the default device if None.
          block: rows that the reader reads at once.
        """
        self.computed = 0
        self._model, self._partitioner = model, partitioner
        shards = _shards(partitioner)
        self._block = -(-block // shards) * shards
        self._kept: SoftTokens | None = None
        self._sources: list[Array] = []

    def __call__(
        self, params: PyTree[Array], vectors: Float[Array | np.ndarray, "capacity cf"]
    ) -> SoftTokens:
        """Soft tokens of every row of `vectors` under `params` (the whole model's)."""
        used = {name: part for name, part in params.items() if name != "lm"}
        sources = [vectors, *jax.tree.leaves(used)]
        same = len(sources) == len(self._sources)
        if self._kept is not None and same:
            # The same arrays are the same numbers: JAX's cannot be written to. NumPy's can.
            pairs = zip(sources, self._sources, strict=True)
            if all(a is b and not isinstance(a, np.ndarray) for a, b in pairs):
                return self._kept
        flat = flatten_dict({**used, "vectors": vectors}, sep="/")
        found = fingerprint({path: jnp.asarray(leaf) for path, leaf in flat.items()})
        if self._kept is None or self._kept.fingerprint != found:
            self._kept = SoftTokens(self._compute(used, vectors), found)
            self.computed += 1
        self._sources = sources
        return self._kept

    def _compute(
        self, params: PyTree[Array], vectors: Float[Array | np.ndarray, "capacity cf"]
    ) -> Array:
        rows = np.asarray(vectors)
        shards = _shards(self._partitioner)
        block = min(self._block, -(-len(rows) // shards) * shards)
        rows = np.pad(rows, ((0, -len(rows) % block), (0, 0)))
        if self._partitioner is None:
            place, split = None, None
        else:
            mesh, axes = self._partitioner.mesh, self._partitioner.batch_axes
            place, split = (NamedSharding(mesh, PartitionSpec(a)) for a in (axes, axes))
        pacer, parts = Pacer(), []
        for i in range(0, len(rows), block):
            part = jax.device_put(rows[i : i + block], place)
            compute = functools.partial(_soft_tokens, self._model, params, part)
            parts.append(pacer(compute, lambda tokens: tokens))
        # Which rows are whose does not matter, only that each device holds its share.
        joined = jax.jit(lambda parts: jnp.concatenate(parts), out_shardings=split)
        return joined(parts)


def embed_prompts(
    model: ItemLanguageModel,
    params: PyTree[Array],
    soft: Float[Array, "capacity queries lm_dim"] | None,
    prompts: Mapping[str, Int[Array, "..."]],
) -> Float[Array, "batch length lm_dim"]:
    """Prompts as the language model reads them: words, and soft tokens in the slots.

    Args:
      model: the module.
      params: nested; of the language model alone where the reader has no part in it.
      soft: of the rows of the embedding table; None for words alone.
      prompts: "tokens", with `soft` "slot_entity", "slot_query" and "entities", and "word_ids"
        where the language model has whole-word embeddings, as `PromptConverter.prompts` gives them.

    Raises:
      UserError: for a language model with whole-word embeddings and prompts without word ids.
    """
    tokens, word_ids = prompts["tokens"], prompts.get("word_ids")
    if model.lm.config.word_rows and word_ids is None:
        raise UserError(
            "this language model adds whole-word embeddings, and the prompts have no word_ids: "
            "they come from PromptConverter with a tokenizer's word_begins (ilm export has none)"
        )
    words = () if word_ids is None else (word_ids,)
    if soft is None:
        alone: Array = applied(model.lm, params["lm"], tokens, *words, method="embed")
        return alone
    slots = prompts["slot_entity"], prompts["slot_query"]
    entities = look_up(soft, prompts["entities"])
    inputs = (tokens, *slots, entities, *words)
    both: Array = applied(model, params, *inputs, method="interleave")
    return both


@functools.partial(jax.jit, static_argnames="model")
def _soft_tokens(model: ItemLanguageModel, params: PyTree[Array], vectors: Array) -> Array:
    tokens: Array = applied(model, params, vectors, method="soft_tokens")
    return tokens


def _shards(partitioner: Partitioner | None) -> int:
    if partitioner is None:
        return 1
    sizes = [partitioner.mesh.shape[axis] for axis in partitioner.batch_axes]
    return int(np.prod(sizes))


def look_up(
    values: Float[Array, "capacity queries lm_dim"], entities: Int[Array, "batch entities"]
) -> Float[Array, "batch entities queries lm_dim"]:
    """Rows of the table; anything for absent entities (-1), which no slot names."""
    return jnp.take(values, jnp.maximum(entities, 0), axis=0)
