"""Sequential models (SASRec, GRU4Rec) of the next item, from settings to the one trainer and back.

    fit = SequentialConfig().fit_of(splits, model_dir="runs/sasrec")
    factors = fit.fit()

An item's vector is what states are multiplied with, a user's the state behind the last training
interaction, so that a table of both ranks the validation targets. What comes after a longer history
(the test target's holds the validation item) is ranked by `user_vectors`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, Int, Int32, Int64, PyTree

from ilm_jax.cf import text_vectors
from ilm_jax.cf.critiques import CritiqueConfig, Critiques
from ilm_jax.cf.ials import Factors
from ilm_jax.cf.negatives import Sampler, SamplerConfig
from ilm_jax.cf.sequences import Sequences, Windows
from ilm_jax.cf.table_set import unit_rms
from ilm_jax.cf.text_vectors import TextConfig
from ilm_jax.cf.topk import best_items
from ilm_jax.checks import Count, Positive, Seed, Weight, check
from ilm_jax.data.catalogue.splits import TRAIN, Splits
from ilm_jax.data.examples.purchases import NO_ITEM
from ilm_jax.errors import UserError
from ilm_jax.models.next_item import EncoderConfig
from ilm_jax.models.sasrec import SASRecConfig
from ilm_jax.objectives.next_item import NextItem
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.runs.vector_fit import Shapes, TrainedMethod, VectorFit
from ilm_jax.training.optimizers import OptimizerConfig

USERS = 256
"""Histories that are encoded at once."""
ADAM = OptimizerConfig(schedule="constant", weight_decay=0.0, clip_norm=0.0)


@dataclasses.dataclass(frozen=True)
class SequentialConfig(TrainedMethod):
    """A sequential model: its encoder, its loss and its training.

    Attributes:
      encoder: of sequences, such as `SASRecConfig` or `GRU4RecConfig`.
      loss, rank, cutoff, margin, negatives: see `RankingLoss`.
      sampler: how candidates are drawn; "all" with the loss "softmax" is the whole softmax.
      temperature: see `NextItem`.
      text: vectors of the items' texts that are added to the items' own; None: none.
      critiques: what was wished before an item, as a further input; None: none is read.
      optimizer: Adam at a constant rate of .001 by default.
      batch_size: rows of the encoder's `max_length` items; the last of an epoch is filled from its
        start.
      epochs: passes over the training sequences.
      seed: of parameters, order, candidates and dropout.

    Raises:
      UserError: for unknown names, numbers that mean nothing, candidates of the batch's own, or a
        rank correction of candidates that are not uniform.
    """

    encoder: EncoderConfig = SASRecConfig()
    loss: str = "softmax"
    rank: str = "corrected"
    cutoff: Count | None = None
    margin: Weight = 1.0
    negatives: Positive = 1.0
    sampler: SamplerConfig = SamplerConfig("all")
    temperature: Positive | None = None
    text: TextConfig | None = None
    critiques: CritiqueConfig | None = None
    optimizer: OptimizerConfig = ADAM
    batch_size: Count = 128
    epochs: Count = 50
    seed: Seed = 0

    def __post_init__(self) -> None:
        check(self)
        if self.text and self.critiques and self.text.dim != self.critiques.dim:
            raise UserError(
                f"TextConfig.dim={self.text.dim} and CritiqueConfig.dim={self.critiques.dim}: give "
                "both the same, for they share a table"
            )
        self.objective(np.ones(1, np.int64))  # refuses what it cannot be

    def objective(self, counts: Int64[np.ndarray, " items"]) -> NextItem:
        """What is minimised, of a catalogue with these numbers of training interactions by item."""
        return NextItem(
            num_items=len(counts),
            encoder=self.encoder,
            sampler=Sampler.make(self.sampler, counts),
            ranking_loss=RankingLoss(
                self.loss, self.rank, self.cutoff, self.margin, self.negatives
            ),
            temperature=self.temperature,
            text_dim=self.text.dim if self.text else 0,
            wish_dim=self.critiques.dim if self.critiques else 0,
        )

    @property
    def name(self) -> str:
        """The encoder's."""
        return self.encoder.name

    @property
    def optimizer_config(self) -> OptimizerConfig:
        """As it was given."""
        return self.optimizer

    @property
    def reads_texts(self) -> bool:
        """Whether items have texts' vectors."""
        return self.text is not None

    def shapes(self, num_items: int) -> Shapes:
        """See `TrainedMethod.shapes`; a single critique, where they are read."""
        row = jax.ShapeDtypeStruct((self.encoder.max_length,), np.int32)
        names = ["items", "targets", "segment_ids", "positions"]
        names += ["wishes"] if self.critiques else []
        rows = (num_items if self.text else 0) + (1 if self.critiques else 0)
        width = self.text.dim if self.text else self.critiques.dim if self.critiques else 1
        table = jax.ShapeDtypeStruct((max(1, rows), width), np.float32)
        objective = self.objective(np.ones(num_items, np.int64))
        return Shapes(objective, self.batch_size, dict.fromkeys(names, row), table)

    def fit_of(self, splits: Splits, **settings: Any) -> "SequentialFit":
        """The fit to a split's training sequences, and to texts of training items."""
        texts = None
        if self.text is not None:
            texts = text_vectors.fit(splits, self.text).item
            texts = unit_rms(texts, np.logical_not(texts.any(1)))
        told = None if self.critiques is None else Critiques.make(splits, self.critiques)
        before = Sequences.before(splits, TRAIN)
        return SequentialFit(before, self, **settings, texts=texts, critiques=told)


@dataclasses.dataclass(frozen=True, eq=False)
class SequentialFit(VectorFit[Sequences, SequentialConfig]):
    """One fit to sequences; see `VectorFit`.

    Attributes:
      texts: vectors of the items' texts, where the config has them.
      critiques: of training, where the config has them.
    """

    config: SequentialConfig = SequentialConfig()
    texts: Float32[np.ndarray, "items text"] | None = None
    critiques: Critiques | None = None

    @functools.cached_property
    def objective(self) -> NextItem:
        """The objective of the fit."""
        return self.config.objective(self.train.item_counts())

    @functools.cached_property
    def examples(self) -> Windows:
        """Rows of the training sequences."""
        config = self.config
        wishes, hidden = None, 0.0
        if self.critiques is not None and config.critiques is not None:
            wishes, hidden = self.critiques.of, config.critiques.hidden
        length = config.encoder.max_length
        return Windows(self.train, length, config.batch_size, config.seed, wishes, hidden)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """Vectors of texts, and of critiques behind them."""
        told = None if self.critiques is None else self.critiques.vectors
        parts = [part for part in (self.texts, told) if part is not None]
        return np.concatenate(parts) if parts else np.zeros((1, 1), np.float32)

    def user_vectors(
        self,
        histories: Sequences | Sequence[Int[np.ndarray, " length"]],
        step: int | str | None = None,
        critiques: Sequence[str] = (),
    ) -> Float32[np.ndarray, "users dim"]:
        """Vectors of users by their histories, whether training saw them or not, after `fit`.

        Args:
          histories: item rows, oldest first; of long ones the end is read; none give a zero vector.
          step: see `Trainer.params`; None: that of `fit`.
          critiques: what each wishes now, "" for nothing; none: nobody wishes anything.

        Raises:
          UserError: for an item outside the catalogue, a critique without an item before it, or
            one of a model that reads none.
        """
        if not isinstance(histories, Sequences):
            histories = Sequences.of(histories, self.train.num_items)
        params = self.trainer.params(step or self.fitted_step)
        return self._states(params, histories, self._wishes(histories, critiques))

    def recommend(
        self,
        histories: Sequences | Sequence[Int[np.ndarray, " length"]],
        k: int,
        *,
        exclude_seen: bool = True,
        critiques: Sequence[str] = (),
    ) -> Int32[np.ndarray, "users k"]:
        """Rows of the k items that come next most likely, best first; -1 where there are no more.

        Args:
          histories: see `user_vectors`.
          k: length of the lists.
          exclude_seen: whether items of the history are no candidates.
          critiques: see `user_vectors`.

        Raises:
          UserError: as `user_vectors`, or for a k that the catalogue does not have.
        """
        if not isinstance(histories, Sequences):
            histories = Sequences.of(histories, self.train.num_items)
        if not 1 <= k <= self.train.num_items:
            raise UserError(
                f"k={k}: the catalogue has {self.train.num_items} items: give k from 1 to that"
            )
        params = self.trainer.params(self.fitted_step)
        wishes = self._wishes(histories, critiques)
        user, item = self._states(params, histories, wishes), self._items(params)
        return best_items(user, item, histories.met(exclude_seen), k)

    def factors(self, params: PyTree[Array]) -> Factors:
        """Vectors of all users and items; rows that nothing is known of are zero."""
        return Factors(self._states(params, self.train), self._items(params))

    def _items(self, params: PyTree[Array]) -> Float32[np.ndarray, "items dim"]:
        item = self.whole(self.objective.item_vectors)(params, self.table)
        unknown = self.train.item_counts() == 0
        if self.texts is not None:
            unknown &= ~self.texts.any(1)
        item[unknown] = 0.0
        return item

    def _wishes(
        self, histories: Sequences, critiques: Sequence[str]
    ) -> Float32[np.ndarray, "users wish"] | None:
        if not any(critiques):
            return None
        if self.critiques is None:
            raise UserError("the model reads no critiques: train it with runs/sasrec_critiques.gin")
        if len(critiques) != histories.num_users:
            raise UserError(
                f"{len(critiques)} critiques of {histories.num_users} histories: one each"
            )
        for words, length in zip(critiques, histories.lengths.tolist(), strict=True):
            if words and not length:
                raise UserError(NO_ITEM.format(words, "give its history an item"))
        return self.critiques.encode(critiques)

    def _states(
        self,
        params: PyTree[Array],
        histories: Sequences,
        wishes: Float32[np.ndarray, "users wish"] | None = None,
    ) -> Float32[np.ndarray, "users dim"]:
        """A block of users at a time; the last repeats a user, so that one program serves all."""
        length = self.config.encoder.max_length
        size = max(1, min(USERS, histories.num_users))
        found = np.zeros((histories.num_users, self.config.encoder.embed_dim), np.float32)
        # Short histories first: rows are no longer than their block needs, in a few shapes.
        order = np.argsort(histories.lengths, kind="stable")
        for first in range(0, len(order), size):
            users = order[first : first + size]
            longest = min(length, 1 << max(3, int(histories.lengths[users[-1]] - 1).bit_length()))
            rows = np.concatenate([users, np.full(size - len(users), users[-1])])
            said = () if wishes is None else (wishes[rows],)
            states = self._encode(params, *histories.last(rows, longest), self.table, *said)
            found[users] = states[: len(users)]
        return found

    @functools.cached_property
    def _encode(self) -> Callable[..., np.ndarray]:
        return self.whole(self.objective.states)
