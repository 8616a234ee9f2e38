"""Stage 1: aligns Q-Former outputs with texts and with each other.

Per batch kind (Yang et al. 2024, arXiv 2406.02844; item-text losses are BLIP-2's):

    item_text:  ITC + ITM + ITG
    item_item:  contrastive between two items that a user took one after the other
    user_item:  contrastive between a user and an item that the user liked

The kinds themselves stand in alignment_kinds.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.checks import BelowOne, Dataclass, Weight, check
from ilm_jax.data.streams.layouts import Layout
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.models.applying import applied
from ilm_jax.models.qformer import QFormer, QFormerConfig
from ilm_jax.models.qformer_layers import LogTemperatures
from ilm_jax.objectives.alignment_kinds import KINDS, Pass
from ilm_jax.objectives.objective import Objective, Sums, vocabulary

# Entry of `qformer`'s parameters that holds a temperature for each kind.
TEMPERATURES = "log_temperature"


@dataclasses.dataclass(frozen=True)
class Alignment(Objective):
    """The stage-1 objective. Parameters: `qformer` alone.

    Attributes:
      qformer: sizes of the Q-Former and its text branch.
      itc_weight, itm_weight, itg_weight: weights of the three item-text losses.
      label_smoothing: of the contrastive and the caption losses.
      kinds: names of the batch kinds, each with a temperature of its own (alignment_kinds.py).
    """

    qformer: QFormerConfig
    itc_weight: Weight = 1.0
    itm_weight: Weight = 1.0
    itg_weight: Weight = 1.0
    label_smoothing: BelowOne = 0.1
    kinds: tuple[str, ...] = ("item_text", "item_item", "user_item")

    splits_batches = False
    needs_table = True

    def __post_init__(self) -> None:
        check(self)
        for kind in self.kinds:
            KINDS[kind]

    def layout(self, kind: str) -> Layout:
        """The pairs of a kind."""
        return KINDS[kind].layout

    @property
    def cf_dim(self) -> int:
        """Width of the vectors that the Q-Former reads."""
        return self.qformer.cf_dim

    @property
    def configs(self) -> Mapping[str, Dataclass]:
        """The Q-Former's."""
        return {"qformer": self.qformer}

    def with_configs(self, configs: Mapping[str, Any]) -> "Alignment":
        """The same objective with another Q-Former."""
        return dataclasses.replace(self, **configs)

    def with_sizes(
        self,
        *,
        tokenizer: Tokenizer | None = None,
        cf_dim: int | None = None,
        target_length: int = 0,
        items: tuple[ItemRows, ...] = (),
    ) -> "Alignment":
        """The same objective for a tokenizer's ids and a table's width.

        Raises:
          UserError: if the Q-Former has fewer token rows than the tokenizer's ids.
        """
        sized = self.qformer
        if cf_dim is not None:
            sized = dataclasses.replace(sized, cf_dim=cf_dim)
        if tokenizer is not None:
            words = tokenizer.text_vocab_size
            sized = dataclasses.replace(
                sized,
                vocab_size=vocabulary(sized.vocab_size, words, words, sized),
                pad_id=tokenizer.pad_id,
                dec_id=tokenizer.dec_id,
            )
        return dataclasses.replace(self, qformer=sized)

    @property
    def model(self) -> QFormer:
        """The module whose parameters `loss` reads under `qformer`."""
        return QFormer(self.qformer)

    @property
    def temperatures(self) -> LogTemperatures:
        """The module of the kinds' temperatures, whose parameters are among the Q-Former's."""
        return LogTemperatures(tuple((kind, KINDS[kind].temperature) for kind in self.kinds))

    def init(self, key: jax.Array) -> PyTree[Array]:
        """All parameters of both branches, boxed with their logical axes."""
        vectors = jnp.zeros((2, self.qformer.cf_dim))
        text = jnp.ones((2, self.qformer.max_text_length), jnp.int32)
        params = self.model.init(key, vectors, text, method="init_all")["params"]
        temperatures = self.temperatures.init(key, self.kinds[0])["params"]
        return {"qformer": {**params, TEMPERATURES: temperatures}}

    def loss(
        self,
        params: PyTree[Array],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Loss sums of one batch kind; see `Objective.loss`."""
        own = dict(params["qformer"])
        logs = own.pop(TEMPERATURES)
        rngs = {} if key is None else {"dropout": jax.random.fold_in(key, 0)}
        model = self.model.bind({"params": own}, rngs=rngs)
        temperature: Array = applied(self.temperatures, logs, kind)
        return KINDS[kind].loss(Pass(kind, self, model, batch, table, temperature, key))
