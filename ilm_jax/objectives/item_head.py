"""`ItemHead`: which item comes next, by its representation and not by its name.

With h the hidden state at the end of a prompt, W and b trained, and k_i what stands for item i,

    u = W h + b        s_i = <u, k_i> / t + b_i        loss = log sum_j exp s_j - s_target

over the whole catalogue, in blocks of rows (vocabulary_loss.py), or a ranking loss on drawn
candidates (ranking.py). What stands for an item is data of the item, so that one which nobody had
chosen when the model was trained is scored as any other. Everything here is float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.checks import Choice, Number, Positive, Weight, check
from ilm_jax.errors import UserError
from ilm_jax.models.applying import applied
from ilm_jax.models.layers import Initializer, unit
from ilm_jax.models.output_layer import OutputLayer
from ilm_jax.objectives.heads import Head, Read
from ilm_jax.objectives.item_losses import Targets, full_softmax, on_candidates
from ilm_jax.objectives.item_scoring import NOWHERE, ItemSource
from ilm_jax.objectives.objective import Sums
from ilm_jax.objectives.ranking_loss import RankingLoss

TOP = "item_head"
VECTORS = ("table", "soft", "row")
SIMILARITIES = ("inner", "cosine")
COSINE_TEMPERATURE = 0.05


@dataclasses.dataclass(frozen=True)
class ItemHead(Head):
    """Scores every item of the catalogue at the end of a prompt. Parameters: `item_head`.

    Attributes:
      weight: of its loss in the sum of several heads' losses.
      cf_dim: width of the table's vectors; 0: the table's.
      vectors: what stands for an item: "table" (its vector v, mapped: v + v M, M from zero), "soft"
        (the mean of its soft tokens, mapped) or "row" (v + r_i, r_i trained from zero).
      similarity: "inner" or "cosine".
      temperature: t above before training, which trains it; None: the square root of the vectors'
        width for "inner", 0.05 for "cosine".
      item_bias: whether items have a bias, trained from zero; one that joins the catalogue later
        has none.
      history_weight: of the items of a history, beside 1 of the item that the prompt asks for at
        its end: each is asked for at the place before its mention, as sequential models learn from
        every place. 0: they are not. For decoders: an encoder has read it whole everywhere.
      loss: on candidates of `sampler`; None: the softmax over the whole catalogue.
      sampler: of candidates.
      catalogues: rows of the table, one entry for each catalogue; set by `with_sizes`.

    Raises:
      UserError: for unknown names, or a rank correction of candidates that are not uniform.
    """

    weight: Weight = 1.0
    cf_dim: Number = 0
    vectors: Annotated[str, Choice(VECTORS)] = "table"
    similarity: Annotated[str, Choice(SIMILARITIES)] = "inner"
    temperature: Positive | None = None
    item_bias: bool = True
    history_weight: Weight = 0.0
    loss: RankingLoss | None = None
    sampler: SamplerConfig = SamplerConfig(drawn=1024)
    catalogues: tuple[ItemRows, ...] = ()

    reads_answers = False
    reads_items = True

    def __post_init__(self) -> None:
        check(self)
        if self.loss and self.loss.estimates_ranks and not self.sampler.is_uniform:
            raise UserError(
                f"ItemHead: {self.loss.rank} ranks need uniform candidates, not "
                f"{self.sampler.kind!r}: set RankingLoss.rank = 'sampled', or SamplerConfig.kind = "
                "'uniform'"
            )

    @property
    def splits_batches(self) -> bool:
        """Over the whole catalogue; a batch's parts would draw candidates of their own."""
        return self.loss is None

    @property
    def scorer(self) -> "ItemHead":
        """Itself."""
        return self

    def with_sizes(self, *, cf_dim: int, items: tuple[ItemRows, ...] = ()) -> "ItemHead":
        """See `Head.with_sizes`."""
        return dataclasses.replace(self, cf_dim=cf_dim, catalogues=self.catalogues or items)

    def rows_of(self, catalogue: str) -> ItemRows:
        """See `ItemScorer.rows_of`."""
        for rows in self.catalogues:
            if rows.catalogue == catalogue:
                return rows
        known = ", ".join(rows.catalogue for rows in self.catalogues) or "none"
        raise UserError(f"the item head knows no items of {catalogue}: its tables are of {known}")

    def init(self, key: jax.Array, lm_dim: int) -> PyTree[Array]:
        """See `Head.init`."""

        def param(
            initializer: Initializer, axes: tuple[str | None, ...], *shape: int
        ) -> Array | nn.LogicallyPartitioned:
            """A parameter boxed with its axes; drawn by a key of its own."""
            keys.append(jax.random.fold_in(key, len(keys)))
            return nn.with_logical_partitioning(initializer, axes)(keys[-1], shape)

        keys: list[Array] = []
        zeros, dim = nn.initializers.zeros, self.cf_dim
        drawn = nn.initializers.normal(lm_dim**-0.5)
        rows = sum(block.rows for block in self.catalogues)
        start = nn.initializers.constant(float(np.log(self._start)))
        own = {
            "user": {
                "kernel": param(drawn, ("embed", "cf"), lm_dim, dim),
                "bias": param(zeros, ("cf",), dim),
            },
            "log_temperature": param(start, ()),
        }
        if self.vectors == "table":
            own["update"] = {"kernel": param(zeros, ("cf", None), dim, dim)}
        elif self.vectors == "soft":
            own["item"] = {"kernel": param(drawn, ("embed", "cf"), lm_dim, dim)}
        else:
            own["rows"] = {"embedding": param(zeros, ("vocab", "cf"), rows, dim)}
        if self.item_bias:
            own["item_bias"] = {"bias": param(zeros, ("vocab",), rows)}
        return {TOP: own}

    @property
    def _start(self) -> float:
        if self.temperature is not None:
            return self.temperature
        return self.cf_dim**0.5 if self.similarity == "inner" else COSINE_TEMPERATURE

    def users(
        self, params: PyTree[Array], hidden: Float[Array, "*batch lm_dim"]
    ) -> Float32[Array, "*batch dim"]:
        """See `ItemScorer.users`; divided by the temperature."""
        own = params[TOP]
        kernel, bias = (own["user"][name].astype(jnp.float32) for name in ("kernel", "bias"))
        with jax.default_matmul_precision("highest"):
            vectors = hidden.astype(jnp.float32) @ kernel + bias
        vectors = unit(vectors) if self.similarity == "cosine" else vectors
        return vectors * jnp.exp(-own["log_temperature"].astype(jnp.float32))

    def items(
        self,
        params: PyTree[Array],
        source: ItemSource,
        rows: ItemRows,
        chosen: Int[Array, " chosen"] | None = None,
    ) -> OutputLayer:
        """See `ItemScorer.items`."""
        own = params[TOP]
        whole = slice(rows.start, rows.start + rows.rows)
        given = source.vectors[whole if chosen is None else rows.start + chosen]
        given = given.astype(jnp.float32)
        first = self._first(rows)
        mine = slice(first, first + rows.rows) if chosen is None else first + chosen
        with jax.default_matmul_precision("highest"):
            if self.vectors == "table":
                vectors = given + given @ own["update"]["kernel"]
            elif self.vectors == "soft":
                soft = source.soft(whole if chosen is None else rows.start + chosen)
                vectors = soft.astype(jnp.float32).mean(-2) @ own["item"]["kernel"]
            else:
                vectors = given + own["rows"]["embedding"][mine]
        vectors = unit(vectors) if self.similarity == "cosine" else vectors
        bias = own["item_bias"]["bias"][mine] if self.item_bias else jnp.zeros(len(given))
        return OutputLayer(vectors, jnp.where((given != 0).any(-1), bias, NOWHERE))

    def _first(self, rows: ItemRows) -> int:
        """Where a catalogue's rows begin among the parameters that have one for each item."""
        before = self.catalogues[: self.catalogues.index(rows)]
        return sum(block.rows for block in before)

    def sums(self, read: Read) -> dict[str, Sums]:
        """`loss`, of `item_loss` the only one: nats per target for a softmax.

        A target without a vector (in validation: training refuses one) counts in no sum.
        """
        if not self.catalogues:
            raise UserError(
                "ItemHead scores the items of an embedding table: give CF_TABLE (in Python: "
                "`with_sizes(items=…)`)"
            )
        targets, batch = read.batch["item_targets"], read.batch
        users = self.users(read.params, read.hidden_at(batch["item_positions"]))
        source = ItemSource(read.table, _soft_tokens(read))
        share = batch.get("item_weights", jnp.ones(targets.shape, jnp.float32))
        total, weight = jnp.float32(0), jnp.float32(0)
        for number, rows in enumerate(self.catalogues):
            local = targets - rows.start
            inside = (local >= 0) & (local < rows.rows)
            local = jnp.where(inside, local, 0)
            # The catalogue of a batch without any table has no vectors at all.
            there = (jnp.take(read.table, rows.start + local, axis=0) != 0).any(-1)
            weights = jnp.where(inside & there, share, 0.0)
            some = Targets(users, local, weights)
            total += self._loss(read, source, rows, some, number)
            weight += weights.sum()
        return {"loss": Sums(total, weight), "item_loss": Sums(total, weight)}

    def _loss(
        self, read: Read, source: ItemSource, rows: ItemRows, targets: Targets, number: int
    ) -> Float32[Array, ""]:
        """Summed over the targets of one catalogue."""
        if self.loss is None:
            return full_softmax(self.items(read.params, source, rows), targets)
        key = jax.random.key(0) if read.key is None else read.key
        return on_candidates(
            lambda chosen: self.items(read.params, source, rows, chosen),
            rows,
            targets,
            self.loss,
            self.sampler,
            jax.random.fold_in(key, number),
            (source.vectors[rows.start : rows.start + rows.rows] != 0).any(-1).sum(),
        )


def _soft_tokens(read: Read) -> Callable[[slice | Array], Array]:
    """Soft tokens of rows of the table, by the model's reader."""

    def soft(rows: slice | Array) -> Array:
        """As `ItemSource.soft`."""
        tokens: Array = applied(read.model, read.params, read.table[rows], method="soft_tokens")
        return tokens

    return soft
