"""Stages 0 and 2: next-token loss of a language model, alone or reading item vectors.

Which row of a comparison it is depends on the parts alone: no adaptor (`text-zero`, `text-full`),
an MLP from vector to soft tokens (`mlp`, CoLLM's), or a Q-Former and a linear adaptor (`ilm-rand`,
`ilm`). What trains is the trainer's choice.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.checks import Number, check
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.models.baselines import MLPAdaptor, matching_hidden
from ilm_jax.models.decoder import Decoder, DecoderConfig
from ilm_jax.models.ilm import ItemLanguageModel, gather_vectors
from ilm_jax.models.layers import Dense
from ilm_jax.models.qformer import QFormer, QFormerConfig
from ilm_jax.models.t5 import T5, T5Config
from ilm_jax.objectives.generation import token_cross_entropy, weighted
from ilm_jax.objectives.objective import Sums, vocabulary


@dataclasses.dataclass(frozen=True)
class LanguageModelling:
    """Next-token loss on target tokens. Parameters: `lm`, and `qformer`, `adaptor` where present.

    Attributes:
      lm: sizes of the language model, a decoder or an encoder-decoder.
      qformer: sizes of the Q-Former; None for a text-only model.
      mlp: use an MLP in the Q-Former's place, with as many soft tokens, and as many parameters as
        that Q-Former and its linear adaptor to within 10 %.
      target_length: logits are computed for at most so many target tokens per row; None computes
        them everywhere.
    """

    lm: DecoderConfig | T5Config
    qformer: QFormerConfig | None = None
    mlp: bool = False
    target_length: Number | None = None

    def __post_init__(self) -> None:
        check(self)

    kinds = ("prompt",)
    splits_batches = True

    def with_sizes(self, *, tokenizer: Tokenizer, cf_dim: int) -> "LanguageModelling":
        """The same objective for a tokenizer's ids and a table's width.

        Raises:
          UserError: if the language model has fewer token rows than the tokenizer's ids.
        """
        least = tokenizer.least_vocab_size
        size = vocabulary(self.lm.vocab_size, tokenizer.vocab_size, least, self.lm)
        lm = dataclasses.replace(self.lm, vocab_size=size)
        qformer = self.qformer
        if qformer is not None:  # its text branch, hence its vocabulary, is stage 1's alone
            words = qformer.vocab_size or size
            qformer = dataclasses.replace(qformer, vocab_size=words, cf_dim=cf_dim)
        return dataclasses.replace(self, lm=lm, qformer=qformer)

    @property
    def num_queries(self) -> int:
        """Soft tokens per item; 0 for a text-only model."""
        return self.qformer.num_queries if self.qformer else 0

    @property
    def model(self) -> ItemLanguageModel:
        """The module whose parameters `loss` reads."""
        width = self.lm.embed_dim
        lm = T5(self.lm) if isinstance(self.lm, T5Config) else Decoder(self.lm)
        if self.qformer is None:
            return ItemLanguageModel(qformer=None, adaptor=None, lm=lm)
        if self.mlp:
            hidden = matching_hidden(self.qformer, width)
            reader = MLPAdaptor(hidden, self.qformer.num_queries, width, **self.qformer.types)
            return ItemLanguageModel(qformer=None, adaptor=reader, lm=lm)
        linear = Dense(width, ("embed", None), use_bias=True, **self.qformer.types)
        return ItemLanguageModel(QFormer(self.qformer), linear, lm)

    def init(self, key: jax.Array) -> dict[str, Any]:
        """All parameters, boxed with their logical axes."""
        ids = jnp.ones((1, 2), jnp.int32)
        vectors = jnp.zeros((1, 1, self.qformer.cf_dim if self.qformer else 1))
        return self.model.init(key, ids, ids, ids, 0 * ids, 0 * ids, vectors)["params"]

    def loss(
        self,
        params: dict[str, Any],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Sums of `loss` (nll in nats per target token) and `nll_content`."""
        losses, weights, content = self.token_losses(params, batch, table, key)
        correct = weighted(losses, weights)
        return {"loss": correct, "nll_content": weighted(losses, content)}

    def token_losses(
        self,
        params: dict[str, Any],
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None = None,
    ) -> tuple[
        Float[Array, "batch targets"], Float[Array, "batch targets"], Float[Array, "batch targets"]
    ]:
        """(nll in nats, loss weight, content weight) of each target token."""
        logits, at = self.target_logits(params, batch, table, key)
        targets, weights, content = (
            batch[name] if at is None else jnp.take_along_axis(batch[name], at, axis=1)
            for name in ("targets", "loss_weights", "content_weights")
        )
        return token_cross_entropy(logits, targets), weights, content

    def target_logits(
        self,
        params: dict[str, Any],
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None = None,
    ) -> tuple[Float[Array, "batch targets vocab"], Int[Array, "batch targets"] | None]:
        """(logits, the positions of the row that they stand at; None for all of them)."""
        weights = batch["loss_weights"]
        window = None
        if self.target_length is not None:
            window = target_window(weights, self.target_length)
        encodes = isinstance(self.lm, T5Config)
        # An encoder reads no targets, and its decoder runs on the window alone.
        others: Any = {"predicts": weights > 0, "window": window} if encodes else {}
        hidden: Any = self.model.apply(
            {"params": params},
            tokens=batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            slot_entity=batch["slot_entity"],
            slot_query=batch["slot_query"],
            entity_vectors=gather_vectors(table, batch["entities"]),
            deterministic=key is None,
            rngs={} if key is None else {"dropout": key},
            **others,
        )
        if window is not None and not encodes:
            hidden = jnp.take_along_axis(hidden, window[..., None], axis=1)
        logits: Any = self.model.apply({"params": params}, hidden, method="logits")
        return logits, window


def target_window(weights: Float[Array, "batch length"], size: int) -> Int[Array, "batch window"]:
    """Indices of each row's targets, in order, and of other places where there are fewer.

    Projecting these alone to the vocabulary saves most of the output layer's work, since prompts
    are longer than answers. Targets of several examples that share a row come one behind another.
    """
    order = jnp.argsort(weights <= 0, axis=1, stable=True)
    return order[:, : min(size, weights.shape[1])]
