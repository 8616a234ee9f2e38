"""Stage 1: aligns Q-Former outputs with texts and with each other.

Per batch kind (Yang et al. 2024, arXiv 2406.02844; item-text losses are BLIP-2's):

    item_text:  ITC + ITM + ITG
    item_item:  contrastive between two items that a user took one after the other
    user_item:  contrastive between a user and an item that the user liked
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.checks import BelowOne, Weight, check
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.models.ilm import gather_vectors
from ilm_jax.models.qformer import QFormer, QFormerConfig
from ilm_jax.objectives.contrastive import contrast
from ilm_jax.objectives.generation import caption_loss
from ilm_jax.objectives.matching import matching_loss, with_hard_negatives
from ilm_jax.objectives.objective import Sums, vocabulary


@dataclasses.dataclass(frozen=True)
class Alignment:
    """The stage-1 objective. Parameters: `qformer` alone.

    Attributes:
      qformer: sizes of the Q-Former and its text branch.
      itc_weight, itm_weight, itg_weight: weights of the three item-text losses.
      label_smoothing: of the contrastive and the caption losses.
    """

    qformer: QFormerConfig
    itc_weight: Weight = 1.0
    itm_weight: Weight = 1.0
    itg_weight: Weight = 1.0
    label_smoothing: BelowOne = 0.1

    def __post_init__(self) -> None:
        check(self)

    kinds = ("item_text", "item_item", "user_item")
    splits_batches = False

    def with_sizes(self, *, tokenizer: Tokenizer, cf_dim: int) -> "Alignment":
        """The same objective for a tokenizer's ids and a table's width.

        Raises:
          UserError: if the Q-Former has fewer token rows than the tokenizer's ids.
        """
        words = tokenizer.text_vocab_size
        size = vocabulary(self.qformer.vocab_size, words, words, self.qformer)
        sized = dataclasses.replace(
            self.qformer, vocab_size=size, cf_dim=cf_dim,
            pad_id=tokenizer.pad_id, dec_id=tokenizer.dec_id,
        )  # fmt: skip
        return dataclasses.replace(self, qformer=sized)

    @property
    def model(self) -> QFormer:
        """The module whose parameters `loss` reads under `qformer`."""
        return QFormer(self.qformer)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """All parameters of both branches, boxed with their logical axes."""
        vectors = jnp.zeros((2, self.qformer.cf_dim))
        text = jnp.ones((2, self.qformer.max_text_length), jnp.int32)
        return {"qformer": self.model.init(key, vectors, text, method="init_all")["params"]}

    def loss(
        self,
        params: dict[str, Any],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Loss sums of one batch kind; see `Objective.loss`."""
        bound = self.model.bind(
            {"params": params["qformer"]},
            rngs={} if key is None else {"dropout": jax.random.fold_in(key, 0)},
        )
        vectors = gather_vectors(table, batch["entities"])
        if kind == "item_text":
            return self._item_text(bound, batch, vectors, key)
        return self._pairs(
            bound, kind, batch, vectors, gather_vectors(table, batch["others"]), key is None
        )

    def _item_text(
        self,
        model: QFormer,
        batch: dict[str, jax.Array],
        vectors: Float[Array, "batch cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        still = key is None
        text: Int[Array, "batch length"] = batch["text"]
        # Evaluation draws negatives too; a fixed key keeps the figure comparable over steps.
        draw = jax.random.key(0) if key is None else jax.random.fold_in(key, 1)
        items, texts = model.features(vectors, text, deterministic=still)
        itc = contrast(
            items,
            texts[:, None],
            model.temperature("item_text"),
            batch["entities"],
            batch["entities"],
            key=draw,
            label_smoothing=self.label_smoothing,
        )
        pairs = with_hard_negatives(vectors, text, itc.negative_left, itc.negative_right)
        matches, captions = model.match_and_caption(pairs.vectors, pairs.text, deterministic=still)
        itm = matching_loss(matches, pairs.labels, pairs.weights)
        itg = caption_loss(captions, text, self.qformer.pad_id, self.label_smoothing)
        rows = jnp.float32(text.shape[0])
        mean = (
            self.itc_weight * itc.loss
            + self.itm_weight * itm["itm"].total / jnp.maximum(itm["itm"].weight, 1)
            + self.itg_weight * itg.total / jnp.maximum(itg.weight, 1)
        )
        return {
            "loss": Sums(mean * rows, rows),
            "itc": Sums(itc.loss * rows, rows),
            "itc_accuracy": Sums(itc.accuracy * rows, rows),
            **itm,
            "itg": itg,
        }

    def _pairs(
        self,
        model: QFormer,
        kind: str,
        batch: dict[str, jax.Array],
        left: Float[Array, "batch cf"],
        right: Float[Array, "batch cf"],
        still: bool,
    ) -> dict[str, Sums]:
        both = jnp.stack([left, right], axis=1)  # one pass, each pair on its row's device
        features = model.entity_features(both, deterministic=still)
        result = contrast(
            features[:, 0],
            features[:, 1],
            model.temperature(kind),
            batch["entities"],
            batch["others"],
            label_smoothing=self.label_smoothing,
        )
        rows = jnp.float32(left.shape[0])
        return {
            "loss": Sums(result.loss * rows, rows),
            kind: Sums(result.loss * rows, rows),
            f"{kind}_accuracy": Sums(result.accuracy * rows, rows),
        }
