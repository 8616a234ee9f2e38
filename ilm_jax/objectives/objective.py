"""The protocol of objectives, for training, compilation, evaluation and checkpoints."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.checks import Dataclass
from ilm_jax.data.streams.layouts import Layout
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError

if TYPE_CHECKING:
    from ilm_jax.models.ilm import ItemLanguageModel
    from ilm_jax.objectives.item_scoring import ItemScorer


class Sums(NamedTuple):
    """A mean kept as its parts, so that averages over microbatches and batches are exact."""

    total: Float[Array, ""]
    weight: Float[Array, ""]


def vocabulary(given: int, ids: int, least: int, config: object) -> int:
    """Rows of a token table: as many as the config says, or `ids` of them if it says 0.

    Published tables are often larger than their tokenizer, padded to a round number.

    Raises:
      UserError: if the config says fewer than `least`.
    """
    if 0 < given < least:
        raise UserError(
            f"{type(config).__name__}.vocab_size={given}, but the tokenizer's ids need {least} "
            "rows: give at least as many, or 0 for the tokenizer's own number"
        )
    return given or ids


@runtime_checkable
class Objective(Dataclass, Protocol):
    """A loss with the modules whose parameters it trains; a dataclass: a run records its fields.

    Subclass it to answer only what differs from the defaults: `kinds`, `init` and `loss` are what
    every objective says itself, and `layout` one that a recipe's datasets feed.
    """

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the batch kinds that `loss` takes, each with its own compiled step."""

    @property
    def splits_batches(self) -> bool:
        """Whether microbatches give the same gradient.

        Not so for contrastive losses, whose negatives are the whole global batch.
        """
        return True

    @property
    def needs_table(self) -> bool:
        """Whether `loss` reads a table of vectors, which the run must then name."""
        return False

    @property
    def scores_items(self) -> bool:
        """Whether `loss` scores the table's items, so that every target needs a vector."""
        return False

    @property
    def cf_dim(self) -> int:
        """Width of the vectors that it reads; 0: the table's, once it is opened."""
        return 1

    @property
    def num_queries(self) -> int:
        """Soft tokens that stand for an item in a prompt; 0 where items have none."""
        return 0

    @property
    def word_rows(self) -> int:
        """Whole-word embeddings of its language model, for which prompts number words; 0: none."""
        return 0

    @property
    def configs(self) -> Mapping[str, Dataclass]:
        """Configurations of its models by top key of the parameters; checkpoints record them."""
        return {}

    @property
    def language(self) -> "LanguageObjective | None":
        """Itself, where it answers prompts and can be decoded and measured; else None."""
        return None

    def layout(self, kind: str) -> Layout:
        """How a dataset's examples become the batches of a kind.

        Raises:
          UserError: for a kind that is none of `kinds`, or is not made from tasks' examples.
        """
        raise UserError(
            f"{type(self).__name__} makes no batches {kind!r} from tasks: answer its `layout`, or "
            "give the trainer sources of your own"
        )

    def with_sizes(
        self,
        *,
        tokenizer: Tokenizer | None = None,
        cf_dim: int | None = None,
        target_length: int = 0,
        items: tuple[ItemRows, ...] = (),
    ) -> Self:
        """The same objective with the sizes that its recipe left to data.

        Args:
          tokenizer: of the run's tasks; None where it is not opened: sizes are the recipe's.
          cf_dim: width of the table's vectors; None where it is not opened.
          target_length: target tokens of a row at most; 0: not known, or rows are no prompts.
          items: rows of the table that hold each catalogue's items; none where it is not opened.

        Raises:
          UserError: for sizes of the recipe that do not fit.
        """
        return self

    def with_configs(self, configs: Mapping[str, Any]) -> Self:
        """The same objective with these in the place of some of `configs`."""
        return self

    def init(self, key: jax.Array) -> PyTree[Array]:
        """Parameters with their logical axes (boxed), nested, top keys as in the house style."""

    def data_start(
        self, params: PyTree[Array], vectors: Float[Array, "items cf"]
    ) -> dict[str, jax.Array]:
        """Leaves that start from data, in the place of drawn ones, by path; traced.

        A run that begins takes them where all of them would start fresh.

        Args:
          params: nested, drawn or restored.
          vectors: of training items, a sample.
        """
        return {}

    def redrawn(self, params: PyTree[Array], key: jax.Array) -> dict[str, jax.Array]:
        """Leaves that a run begins with in the place of drawn or restored ones, by path; traced.

        For what shall start anew, wherever the rest comes from. They come before `data_start`.

        Args:
          params: nested, drawn or restored.
          key: for what is drawn.
        """
        return {}

    def start_metrics(
        self, params: PyTree[Array], vectors: Float[Array, "items cf"]
    ) -> dict[str, jax.Array]:
        """Scalars by name of the parameters that a run begins with, for its report; traced."""
        return {}

    def loss(
        self,
        params: PyTree[Array],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Sums by metric name; "loss" is what is minimised. `key` None: no dropout."""

    def after_step(
        self, params: PyTree[Array], step: Int[Array, ""], table: Float[Array, "capacity cf"]
    ) -> dict[str, jax.Array]:
        """Trained leaves that a step sets beside the optimizer's update, by path; traced.

        Args:
          params: nested, after the update.
          step: number of updates made, this one included.
          table: as in `loss`.
        """
        return {}


class LanguageObjective(Objective, Protocol):
    """An objective whose model answers prompts: what evaluation and decoding read of it."""

    @property
    def target_length(self) -> int | None:
        """Target tokens of a row at most; None: as many as its positions."""

    @property
    def predicts_text(self) -> bool:
        """Whether it learns what answers say; else it ranks items alone."""

    @property
    def item_scorer(self) -> "ItemScorer | None":
        """What ranks items by their representations; None: their names alone tell them."""

    @property
    def model(self) -> "ItemLanguageModel":
        """The module whose parameters `loss` reads."""

    def target_logits(
        self,
        params: PyTree[Array],
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None = None,
    ) -> tuple[Float[Array, "batch targets vocab"], Int[Array, "batch targets"] | None]:
        """(logits, the positions of the row that they stand at; None for all of them)."""

    def token_losses(
        self,
        params: PyTree[Array],
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None = None,
    ) -> tuple[
        Float[Array, "batch targets"], Float[Array, "batch targets"], Float[Array, "batch targets"]
    ]:
        """(nll in nats, loss weight, content weight) of each target token."""
