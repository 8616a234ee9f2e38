"""Stage 1's kinds of batches, each declared once: its arrays, its loss, its temperature.

A kind of one's own is one module: it calls `register_alignment_kind`; a recipe imports it and names
the kind in `Alignment.kinds`, the schedule and `Run.train`.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ilm_jax.data.streams.alignment_converter import Entity, Text
from ilm_jax.data.streams.layouts import Pairs
from ilm_jax.models.ilm import gather_vectors
from ilm_jax.models.qformer import QFormer
from ilm_jax.objectives.contrastive import contrast
from ilm_jax.objectives.generation import caption_loss
from ilm_jax.objectives.matching import matching_loss, with_hard_negatives
from ilm_jax.objectives.objective import Sums
from ilm_jax.registry import Registry

if TYPE_CHECKING:
    from ilm_jax.objectives.alignment import Alignment

INITIAL_TEMPERATURE = 0.07


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """Inputs of a kind's loss.

    Attributes:
      kind: its name.
      objective: weights and smoothing of the losses.
      model: the Q-Former with its parameters.
      batch: the arrays of the kind's layout.
      table: vectors of all entities.
      temperature: the kind's, trained.
      key: of all that is drawn; None in evaluation: no dropout.
    """

    kind: str
    objective: "Alignment"
    model: QFormer
    batch: dict[str, jax.Array]
    table: Float[Array, "capacity cf"]
    temperature: Float[Array, ""]
    key: jax.Array | None

    @property
    def deterministic(self) -> bool:
        """Whether there is no dropout."""
        return self.key is None

    def vectors(self, name: str) -> Float[Array, "batch cf"]:
        """The table's rows that an array of the batch names."""
        return gather_vectors(self.table, self.batch[name])


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of stage-1 batch.

    Attributes:
      name: of the kind, and of its temperature among the parameters.
      layout: arrays of the batch, and the features of the examples that they are made of.
      loss: sums by metric name, as of `Objective.loss`.
      temperature: of its contrastive loss, before training.
    """

    name: str
    layout: Pairs
    loss: Callable[[Pass], dict[str, Sums]]
    temperature: float = INITIAL_TEMPERATURE


KINDS: Registry[Kind] = Registry("stage-1 kind")


def register_alignment_kind(kind: Kind) -> None:
    """Adds a kind under its name.

    Raises:
      UserError: if another kind has the name.
    """
    KINDS.register(kind.name, kind)


def item_text(at: Pass) -> dict[str, Sums]:
    """ITC + ITM + ITG of items with their texts."""
    weights = at.objective
    text: Int[Array, "batch length"] = at.batch["text"]
    vectors, entities = at.vectors("entities"), at.batch["entities"]
    # Evaluation draws negatives too; a fixed key keeps the figure comparable over steps.
    draw = jax.random.key(0) if at.key is None else jax.random.fold_in(at.key, 1)
    items, texts = at.model.features(vectors, text, deterministic=at.deterministic)
    itc = contrast(
        items,
        texts[:, None],
        at.temperature,
        entities,
        entities,
        key=draw,
        label_smoothing=weights.label_smoothing,
    )
    pairs = with_hard_negatives(vectors, text, itc.negative_left, itc.negative_right)
    matches, states, output = at.model.match_and_caption(
        pairs.vectors, pairs.text, deterministic=at.deterministic
    )
    itm = matching_loss(matches, pairs.labels, pairs.weights)
    itg = caption_loss(states, output, text, at.model.config.pad_id, weights.label_smoothing)
    rows = jnp.float32(text.shape[0])
    mean = (
        weights.itc_weight * itc.loss
        + weights.itm_weight * itm["itm"].total / jnp.maximum(itm["itm"].weight, 1)
        + weights.itg_weight * itg.total / jnp.maximum(itg.weight, 1)
    )
    return {
        "loss": Sums(mean * rows, rows),
        "itc": Sums(itc.loss * rows, rows),
        "itc_accuracy": Sums(itc.accuracy * rows, rows),
        **itm,
        "itg": itg,
    }


def pairs(at: Pass) -> dict[str, Sums]:
    """The contrastive loss between `entities` and `others`."""
    # One pass over both, each pair on its row's device.
    both = jnp.stack([at.vectors("entities"), at.vectors("others")], axis=1)
    features = at.model.entity_features(both, deterministic=at.deterministic)
    result = contrast(
        features[:, 0],
        features[:, 1],
        at.temperature,
        at.batch["entities"],
        at.batch["others"],
        label_smoothing=at.objective.label_smoothing,
    )
    rows = jnp.float32(both.shape[0])
    return {
        "loss": Sums(result.loss * rows, rows),
        at.kind: Sums(result.loss * rows, rows),
        f"{at.kind}_accuracy": Sums(result.accuracy * rows, rows),
    }


ITEM_TEXT = Kind("item_text", Pairs({"entities": Entity("row"), "text": Text()}), item_text)
ITEM_ITEM = Kind("item_item", Pairs({"entities": Entity("row"), "others": Entity("other")}), pairs)
USER_ITEM = Kind(
    "user_item", Pairs({"entities": Entity("user", "user"), "others": Entity("row")}), pairs
)
for _kind in (ITEM_TEXT, ITEM_ITEM, USER_ITEM):
    register_alignment_kind(_kind)
