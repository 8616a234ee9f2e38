"""Generates and ranks with one model: prompts are padded to buckets, each compiled once.

    generator = Generator(model, params, soft=SoftTokenCache(model)(params, vectors).values)
    texts = generator.generate(converter.prompts(examples), DecodingConfig(max_new_tokens=32))
    items, scores = generator.rank(converter.prompts(examples), build_trie(strings), beams=10)

A batch of prompts is what `PromptConverter.prompts` gives, or {"tokens", "lengths"} of text alone,
or {"tokens", "mask"} with padding on either side.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Float32, Int, Int32, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.decoding import programs, sampling
from ilm_jax.decoding.config import Buckets, DecodingConfig, EarlyStopping
from ilm_jax.decoding.exhaustive import cut_into_blocks
from ilm_jax.decoding.prompts import Prompts, align, check_rows, pieces
from ilm_jax.decoding.sampling import Continuations
from ilm_jax.decoding.steps import LanguageModel
from ilm_jax.decoding.trie import Trie
from ilm_jax.errors import UserError
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.objectives.item_scoring import ItemScorer
from ilm_jax.sharding.partitioning import Partitioner

Batch = Mapping[str, np.ndarray | jax.Array]
GREEDY = DecodingConfig()


@dataclasses.dataclass(frozen=True, eq=False)
class Shelf:
    """The items of a catalogue as a model's item head ranks them.

    Attributes:
      scorer: the model's.
      rows: of the catalogue.
      vectors: the embedding table; it may hold items that joined after training.
    """

    scorer: ItemScorer
    rows: ItemRows
    vectors: Float[Array | np.ndarray, "capacity cf"]


class Ranked(NamedTuple):
    """The best items of each row, best first: -1 and -inf behind the last candidate."""

    items: Int32[np.ndarray, "batch n"]
    scores: Float32[np.ndarray, "batch n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """A trained model ready to answer.

    Attributes:
      model: an item-language model, or with `for_lm` a bare language model.
      params: its parameters, on the partitioner's mesh if there is one.
      soft: soft tokens of every row of the embedding table, see `SoftTokenCache`; None for a model
        that reads text alone.
      buckets: shapes that programs are compiled for.
      partitioner: mesh to split batches over; the default device if None.
    """

    model: ItemLanguageModel
    params: PyTree[Array]
    soft: Float[Array, "capacity queries lm_dim"] | None = None
    buckets: Buckets = Buckets()
    partitioner: Partitioner | None = None

    @classmethod
    def for_lm(cls, lm: LanguageModel, params: PyTree[Array], **others: Any) -> "Generator":
        """A generator of a language model without soft tokens; `params` are its own."""
        return cls(ItemLanguageModel(None, lm), {"lm": params}, **others)

    def generate(self, batch: Batch, config: DecodingConfig = GREEDY) -> Continuations:
        """Continuations of every prompt: one each, or `config.beams`, best first.

        Args:
          batch: prompts; draws depend on "example_index" where given, else on the row's number.
          config: greedy, drawn or by beams.

        Returns:
          NumPy arrays: tokens [batch, steps] or [batch, beams, steps], lengths and scores alike.

        Raises:
          UserError: for an over-long or empty prompt, or slots without soft tokens.
        """
        parts = []
        for prompts in self._pieces(batch):
            with self._mesh():
                parts.append(programs.generate(self.model, self.params, self.soft, prompts, config))
        return Continuations(*self._join(parts, batch))

    def stream(
        self, batch: Batch, config: DecodingConfig = GREEDY, chunk: int = 8
    ) -> Iterator[Int32[np.ndarray, "batch some"]]:
        """As `generate` without beams, as tokens appear: `chunk` at a time, the first at once.

        Raises:
          UserError: as `generate`, or for beams.
        """
        if config.beams > 1:
            raise UserError(f"beams={config.beams}: only one continuation can be streamed")
        prompts = next(self._pieces(batch))
        rows = prompts.rows
        real = len(batch["tokens"])
        if real > len(rows):
            raise UserError(f"{real} prompts at once: stream at most {len(rows)}")
        with self._mesh():
            state = programs.start(self.model, self.params, self.soft, prompts, config)
            yield self._fetch(state.token)[:real, None]
            left = config.max_new_tokens - 1
            while left and self._fetch(state.is_open).any():
                state, tokens = sampling.advance(
                    self.model.lm, self.params["lm"], state, jnp.asarray(rows), config, chunk
                )
                yield self._fetch(tokens)[:real, :left]
                left -= min(left, chunk)

    def rank(
        self,
        batch: Batch,
        trie: Trie,
        beams: int,
        *,
        excluded: Int[np.ndarray, "batch excluded"] | None = None,
        catalogue: Int[np.ndarray, " batch"] | None = None,
        length_penalty: float = 0.0,
        early_stopping: EarlyStopping = False,
    ) -> Ranked:
        """The best `beams` items of every prompt, by beams over the catalogue's strings.

        Args:
          batch: prompts.
          trie: see `build_trie`.
          beams: length of the lists.
          excluded: per row, items that are no candidates, -1 behind them (see `exclusions`).
          catalogue: which of the trie's catalogues each row searches; the first if None.
          length_penalty, early_stopping: as in `DecodingConfig`; 0 ranks by log p(item | prompt).

        Raises:
          UserError: as `generate`, for more beams than items, or a row that is none of them.
        """
        check_rows(trie, excluded, catalogue)
        parts = []
        for prompts in self._pieces(batch, excluded=excluded, catalogue=catalogue):
            with self._mesh():
                parts.append(
                    programs.rank(
                        self.model,
                        self.params,
                        self.soft,
                        prompts,
                        trie,
                        beams=beams,
                        length_penalty=length_penalty,
                        early_stopping=early_stopping,
                    )
                )
        return Ranked(*self._join(parts, batch))

    def rank_by_head(
        self,
        batch: Batch,
        shelf: Shelf,
        count: int,
        *,
        excluded: Int[np.ndarray, "batch excluded"] | None = None,
    ) -> Ranked:
        """The best `count` items of every prompt by the model's item head, in one pass.

        Args:
          batch: prompts.
          shelf: the items.
          count: length of the lists.
          excluded: per row, items that are no candidates, -1 behind them (see `exclusions`).

        Raises:
          UserError: as `generate`, or for more items than there are.
        """
        parts = []
        for prompts in self._pieces(batch, excluded=excluded):
            with self._mesh():
                found = programs.rank_items(
                    self.model,
                    self.params,
                    self.soft,
                    jnp.asarray(shelf.vectors),
                    prompts,
                    scorer=shelf.scorer,
                    rows=shelf.rows,
                    count=count,
                )
                parts.append(found)
        return Ranked(*self._join(parts, batch))

    def rank_exhaustively(
        self,
        batch: Batch,
        trie: Trie,
        keep: int,
        *,
        excluded: Int[np.ndarray, "batch excluded"] | None = None,
        catalogue: int = 0,
        length_penalty: float = 0.0,
        block: int = 64,
    ) -> Ranked:
        """As `rank`, by scoring every string of one catalogue: exact, and slow.

        Args:
          block: nodes of the trie that are read at once; memory is rows * block * vocabulary
            floats, with the rows of the batch's bucket.

        Raises:
          UserError: as `rank`.
        """
        if not 1 <= keep <= trie.items[catalogue]:
            raise UserError(f"keep={keep}: give a number from 1 to {trie.items[catalogue]}, all")
        check_rows(trie, excluded, catalogue)
        blocks = cut_into_blocks(trie, max(block, trie.depth), catalogue)
        parts = []
        for prompts in self._pieces(batch, excluded=excluded):
            with self._mesh():
                parts.append(
                    programs.rank_all(
                        self.model,
                        self.params,
                        self.soft,
                        prompts,
                        trie,
                        blocks,
                        keep=keep,
                        length_penalty=length_penalty,
                    )
                )
        return Ranked(*self._join(parts, batch))

    def score(
        self, batch: Batch, trie: Trie, catalogue: int = 0, block: int = 64
    ) -> Float32[np.ndarray, "batch items"]:
        """log p(item | prompt) of every item of a catalogue, in order of the rows."""
        every = trie.items[catalogue]
        ranked = self.rank_exhaustively(batch, trie, every, catalogue=catalogue, block=block)
        scores = np.empty_like(ranked.scores)
        np.put_along_axis(scores, ranked.items, ranked.scores, axis=1)
        return scores

    def _pieces(self, batch: Batch, **others: Any) -> Iterator[Prompts]:
        if self.soft is None and (np.asarray(batch.get("slot_entity", -1)) >= 0).any():
            raise UserError("a prompt has slots, and the generator no soft tokens: give `soft`")
        buckets = self.buckets
        if self.partitioner is not None:
            mesh = self.partitioner.mesh
            shards = int(np.prod([mesh.shape[axis] for axis in self.partitioner.batch_axes]))
            buckets = dataclasses.replace(buckets, multiple=shards)
        for prompts in pieces(align(batch), buckets, **others):
            yield self._place(prompts)

    def _place(self, prompts: Prompts) -> Prompts:
        if self.partitioner is None:
            return prompts
        sharding = self.partitioner.batch_sharding(len(prompts.lengths))
        return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), prompts)

    def _mesh(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.partitioner is None else self.partitioner.context()

    def _fetch(self, array: Array) -> np.ndarray:
        if array.is_fully_addressable:
            return np.asarray(array)
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))

    def _join(self, parts: list[tuple[Array, ...]], batch: Batch) -> list[np.ndarray]:
        """Arrays of all pieces, without the rows that fill them up."""
        columns = zip(*parts, strict=True)
        rows = len(batch["tokens"])
        return [np.concatenate([self._fetch(a) for a in column])[:rows] for column in columns]
