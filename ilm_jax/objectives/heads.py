"""Heads compute losses from a language model's hidden states; `TextHead` predicts tokens.

A head is a configuration, a dataclass; its parameters, if it has any, stand under top keys of their
own beside `lm`. One of your own needs no change here: a class that answers `Head`, bound in a
recipe (`language.LanguageModelling.heads = (@heads.TextHead(), @my_head.MyHead())`).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.checks import Choice, Weight, check
from ilm_jax.models.applying import applied
from ilm_jax.models.ilm import ItemLanguageModel
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives.generation import weighted
from ilm_jax.objectives.item_scoring import ItemScorer
from ilm_jax.objectives.objective import Sums
from ilm_jax.objectives.vocabulary_loss import TokenLosses, vocabulary_loss


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
    """A batch that the language model has read.

    Attributes:
      model: reader and language model.
      params: of everything, by top key.
      batch: of the kind "prompt", whole rows.
      table: vectors of all entities.
      hidden: final hidden states at the targets.
      at: their places in the row; None for all places.
      key: of what is drawn; None in evaluation.
      whole: hidden states at all places of the row, where they are there.
    """

    model: ItemLanguageModel
    params: PyTree[Array]
    batch: Mapping[str, jax.Array]
    table: Float[Array, "capacity cf"]
    hidden: Float[Array, "batch targets lm_dim"]
    at: Int[Array, "batch targets"] | None
    key: jax.Array | None
    whole: Float[Array, "batch length lm_dim"] | None = None

    def column(self, name: str) -> Array:
        """An array [batch, length] of the batch at the places of `hidden`: [batch, targets]."""
        whole = self.batch[name]
        return whole if self.at is None else jnp.take_along_axis(whole, self.at, axis=1)

    def hidden_at(self, places: Int[Array, "batch items"]) -> Float[Array, "batch items lm_dim"]:
        """Hidden states at places of the row; -1: at any.

        Where the states of all places are not there, places are among those of `hidden`.
        """
        places, states = jnp.maximum(places, 0), self.hidden
        if self.whole is not None:
            states = self.whole
        elif self.at is not None:
            places = jnp.argmax(self.at[:, None, :] == places[..., None], axis=-1)
        return jnp.take_along_axis(states, places[..., None], axis=1)


@runtime_checkable
class Head(Protocol):
    """The configuration of a head; subclass it to answer only what differs from the defaults."""

    @property
    def weight(self) -> float:
        """Of its loss in the sum of several heads' losses."""
        return 1.0

    @property
    def cf_dim(self) -> int | None:
        """Width of the embedding table's vectors; 0: the table's; None: it reads no table."""
        return None

    @property
    def reads_answers(self) -> bool:
        """Whether its rows hold the answers' tokens; where no head does, they end at the prompt."""
        return True

    @property
    def reads_items(self) -> bool:
        """Whether its rows say which items they ask for: `item_positions`, `item_targets`."""
        return False

    @property
    def history_weight(self) -> float:
        """Of the items of a history, which rows ask for too, each where those before it end; 0:
        rows do not.
        """
        return 0.0

    @property
    def splits_batches(self) -> bool:
        """Whether microbatches give the same gradient."""
        return True

    @property
    def scorer(self) -> ItemScorer | None:
        """What ranks the catalogue's items, where the head does; evaluation and answers use it."""
        return None

    def with_sizes(self, *, cf_dim: int, items: tuple[ItemRows, ...] = ()) -> Self:
        """The same head for a table's width, and the rows of its items if the table is opened."""
        if self.cf_dim is None:
            return self
        return dataclasses.replace(self, cf_dim=cf_dim)  # type: ignore[type-var]

    def init(self, key: jax.Array, lm_dim: int) -> PyTree[Array]:
        """Its parameters by top key, boxed with their logical axes; {} for none.

        Args:
          key: for what is drawn.
          lm_dim: width of the hidden states.
        """
        return {}

    def sums(self, read: Read) -> dict[str, Sums]:
        """Sums by metric name; "loss" is the head's own loss."""


@dataclasses.dataclass(frozen=True)
class TextHead(Head):
    """The next token, by the language model's own output layer; no parameters.

    Attributes:
      weight: of its loss, the nll in nats per target token.
      mean_by: what the loss is a mean over: "tokens" of a batch, or "examples", each the mean over
        its own tokens.
    """

    weight: Weight = 1.0
    mean_by: Annotated[str, Choice(("tokens", "examples"))] = "tokens"

    def __post_init__(self) -> None:
        check(self)

    def sums(self, read: Read) -> dict[str, Sums]:
        """`loss`, the nll, and `nll_content`."""
        weights = read.column("loss_weights")
        if self.mean_by == "examples":
            weights = per_example(weights, read.column("segment_ids"))
        losses, content = text_losses(read, weights), read.column("content_weights")
        return {
            "loss": Sums(losses.total, weights.sum()),
            "nll_content": weighted(losses.each, content),
        }


def text_logits(read: Read) -> Float[Array, "batch targets vocab"]:
    """Next-token logits in float32."""
    logits: Array = applied(read.model, read.params, read.hidden, method="logits")
    return logits


def per_example(
    weights: Float[Array, "batch targets"], segment_ids: Int[Array, "batch targets"]
) -> Float[Array, "batch targets"]:
    """The weights over their sum in their example: the sum of all is the number of examples."""
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    sums = jnp.einsum("bst,bt->bs", same.astype(weights.dtype), weights)
    return jnp.where(weights > 0, weights / jnp.maximum(sums, 1e-8), 0)


def text_losses(read: Read, weights: Float[Array, "batch targets"] | None = None) -> TokenLosses:
    """nll of the target tokens in nats, and their sum by weights, `loss_weights` if None."""
    output: OutputLayer = applied(read.model, read.params, method="output_layer")
    weights = read.column("loss_weights") if weights is None else weights
    return vocabulary_loss(read.hidden, output, read.column("targets"), weights)


def token_losses(
    read: Read,
) -> tuple[
    Float[Array, "batch targets"], Float[Array, "batch targets"], Float[Array, "batch targets"]
]:
    """(nll in nats, loss weight, content weight) of each target token."""
    losses = text_losses(read).each
    return losses, read.column("loss_weights"), read.column("content_weights")


def combined(heads: tuple[Head, ...], read: Read) -> dict[str, Sums]:
    """The sums of all heads; of several, "loss" is the weighted sum of their mean losses.

    It is weighed by the first head's weight, so that batches of different size average as its do;
    where a batch has nothing for that head, by the next one's.
    """
    found = [head.sums(read) for head in heads]
    if len(heads) == 1 and heads[0].weight == 1:
        return found[0]
    weights = [sums["loss"].weight for sums in found]
    weight = functools.reduce(lambda one, other: jnp.where(one > 0, one, other), weights)
    total = sum(
        head.weight * sums["loss"].total * (weight / jnp.where(own > 0, own, 1))
        for head, sums, own in zip(heads, found, weights, strict=True)
    )
    merged = {name: value for sums in reversed(found) for name, value in sums.items()}
    return {**merged, "loss": Sums(jnp.asarray(total), weight)}
