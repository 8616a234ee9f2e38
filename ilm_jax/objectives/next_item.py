"""The next item at every place of a sequence: softmax over the catalogue, or sampled candidates.

With state h_t behind the t-th item and item vectors v the score of item i is <h_t, v_i>, or their
cosine over a temperature; the target is the item that came next. Softmax over all items (sampler
"all") is worked off in blocks (vocabulary_loss.py); everything else scores candidates that the
batch shares (shared_negatives.py), of which the target alone is none: what a user has chosen
before may come again.

That the softmax, or many candidates, serves SASRec better than the one negative of its paper:
Klenitskiy and Vasilev 2023 (arXiv 2309.07602). Normalised vectors, a temperature and sampled
softmax: Zhai et al. 2024 (arXiv 2402.17152).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, PyTree

from ilm_jax.cf.negatives import Sampler
from ilm_jax.checks import Count, Dataclass, Number, Positive, check
from ilm_jax.errors import UserError
from ilm_jax.models.applying import applied
from ilm_jax.models.layers import constrain
from ilm_jax.models.next_item import EncoderConfig, NextItemModel
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives import shared_negatives
from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.objectives.ranking_loss import RankingLoss
from ilm_jax.objectives.shared_negatives import Known, Vectors
from ilm_jax.objectives.vocabulary_loss import vocabulary_loss

TOP = "next_item"
NOTHING = -1e30


@dataclasses.dataclass(frozen=True)
class NextItem(Objective):
    """Loss of a sequential model. Parameters: `next_item`.

    Batches hold "items", "targets", "positions" and "segment_ids", each [batch, length]; see
    `cf.sequences.Windows`. The table that a step reads holds the vectors of the items' texts;
    without `text_dim` nothing reads them. With `wish_dim` its rows, behind those of texts if there
    are any, are critiques, and batches hold "wishes", numbers of these rows.

    Attributes:
      num_items: of the catalogue.
      encoder: of sequences.
      sampler: how candidates are drawn.
      ranking_loss: of a place's target against the candidates.
      temperature: cosines divided by it are the scores; None: inner products.
      text_dim: width of the texts' vectors; 0: they are not read.
      wish_dim: width of the critiques' vectors; 0: none are read. With both they are equal.

    Raises:
      UserError: for numbers that mean nothing, candidates of the batch's own, or a rank correction
        of candidates that are not uniform.
    """

    num_items: Count
    encoder: EncoderConfig
    sampler: Sampler
    ranking_loss: RankingLoss = RankingLoss("softmax")
    temperature: Positive | None = None
    text_dim: Number = 0
    wish_dim: Number = 0

    kinds = ("sequence",)

    def __post_init__(self) -> None:
        check(self)
        kind = self.sampler.config.kind
        if kind == "in_batch":
            raise UserError(
                "sampler.kind='in_batch' would score every place against every other of the "
                "batch: 'popularity' with power=1 draws the same items, as many as drawn says"
            )
        if self.ranking_loss.estimates_ranks and not self.sampler.config.is_uniform:
            raise UserError(
                f"{self.ranking_loss.rank} ranks need uniform candidates, not {kind!r}: set "
                "rank='sampled', or sampler.kind='uniform'"
            )

    @property
    def splits_batches(self) -> bool:
        """Each part of a batch would draw candidates of its own."""
        return self._whole_softmax

    @property
    def configs(self) -> Mapping[str, Dataclass]:
        """The encoder's."""
        return {TOP: self.encoder}

    @property
    def model(self) -> NextItemModel:
        """The module."""
        normalised = self.temperature is not None
        return NextItemModel(self.encoder, self.num_items, self.text_dim, self.wish_dim, normalised)

    def init(self, key: jax.Array) -> PyTree[Array]:
        """All parameters, boxed with their logical axes."""
        one, texts = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, max(1, self.text_dim)))
        wishes = jnp.zeros((1, 1, self.wish_dim)) if self.wish_dim else None
        return {TOP: self.model.init(key, one, one, one, texts, wishes=wishes)["params"]}

    def loss(
        self,
        params: PyTree[Array],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "items text"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Sum of `loss` over the targets; without a key the candidates are those of key 0."""
        draws, drops = jax.random.split(jax.random.key(0) if key is None else key)
        wishes: dict[str, Array] = {}
        if self.wish_dim:
            first = self.num_items if self.text_dim else 0
            wishes["wishes"] = jnp.take(table, first + batch["wishes"], axis=0)
            table = self._texts(table)
        states = self._apply(
            params,
            *(batch[name] for name in ("items", "positions", "segment_ids")),
            table,
            key is None,
            rngs={"dropout": drops},
            **wishes,
        )
        weights = (batch["segment_ids"] > 0).astype(jnp.float32)
        targets = batch["targets"]
        if self._whole_softmax:
            output = self._output_layer(params, table)
            with jax.default_matmul_precision("highest"):
                total = vocabulary_loss(states, output, targets, weights).total
        else:
            total = self._sampled(params, states, targets, weights, table, draws)
        return {"loss": Sums(total, weights.sum())}

    def states(
        self,
        params: PyTree[Array],
        items: Int[Array, "batch length"],
        real: Int[Array, "batch length"],
        table: Float[Array, "items text"],
        wishes: Float[Array, "batch wish"] | None = None,
    ) -> Float32[Array, "batch embed"]:
        """States behind the last items of histories that stand on the left; 0 for empty ones.

        Args:
          params: nested.
          items: item rows, oldest first.
          real: 1 where there is an item.
          table: vectors of texts.
          wishes: what was wished behind the last items.
        """
        place = jnp.broadcast_to(jnp.arange(items.shape[1]), items.shape)
        last = jnp.maximum(real.sum(1) - 1, 0)
        said: dict[str, Array] = {}
        if wishes is not None:
            said["wishes"] = jnp.where((place == last[:, None])[..., None], wishes[:, None], 0.0)
        found = self._apply(params, items, place, real, self._texts(table), True, **said)
        found = jnp.take_along_axis(found, last[:, None, None], axis=1)[:, 0]
        return jnp.where(real[:, :1] > 0, found, 0.0)

    def item_vectors(
        self, params: PyTree[Array], table: Float[Array, "items text"]
    ) -> Float32[Array, "items embed"]:
        """Vectors of all items that `states` are multiplied with."""
        found = self._apply(params, None, self._texts(table), method="scoring")
        return found[: self.num_items].astype(jnp.float32)

    def negatives(
        self, targets: Int32[Array, " places"], candidates: Int32[Array, " drawn"]
    ) -> tuple[Bool[Array, "places drawn"], float]:
        """Which candidates are negatives of a place, and the number of all its negatives."""
        return candidates[None, :] != targets[:, None], self.num_items - 1.0

    def _texts(self, table: Float[Array, "rows text"]) -> Float[Array, "items text"]:
        """The items' rows of the table."""
        return table[: self.num_items] if self.wish_dim and self.text_dim else table

    @property
    def _whole_softmax(self) -> bool:
        return self.ranking_loss.name == "softmax" and self.sampler.config.kind == "all"

    @property
    def _scale(self) -> float:
        return 1.0 if self.temperature is None else 1 / self.temperature

    def _apply(self, params: PyTree[Array], *arguments: Any, **settings: Any) -> Array:
        found: Array = applied(self.model, params[TOP], *arguments, **settings)
        return found

    def _output_layer(self, params: PyTree[Array], table: Array) -> OutputLayer:
        """Of the whole table, whose filled rows are no items."""
        vectors = self._apply(params, None, table, method="scoring")
        bias = jnp.where(jnp.arange(len(vectors)) < self.num_items, 0.0, NOTHING)
        return OutputLayer(vectors, bias, self._scale, dtype=self.encoder.dtype)

    def _sampled(
        self,
        params: PyTree[Array],
        states: Float32[Array, "batch length embed"],
        targets: Int[Array, "batch length"],
        weights: Float32[Array, "batch length"],
        table: Array,
        key: Array,
    ) -> Float32[Array, ""]:
        candidates, log_expected = self.sampler.draw(key, targets.reshape(-1))
        positive = self._apply(params, targets, table, method="scoring")

        def rows(x: Array) -> Array:
            """Places of all sequences, one behind the other."""
            return constrain(x.reshape(-1, *x.shape[2:]), "batch", *(None,) * (x.ndim - 2))

        vectors = Vectors(
            rows(states) * self._scale,
            rows(positive),
            self._apply(params, candidates, table, method="scoring"),
        )
        known = Known(rows(targets), candidates, log_expected, rows(weights))
        return shared_negatives.total(self.ranking_loss, self.negatives, vectors, known)
