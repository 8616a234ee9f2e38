"""Stages 0 and 2: a language model's losses, alone or reading item vectors.

Which row of a comparison it is depends on the parts alone: no reader (`text-zero`, `text-full`), a
soft prompt that is the same for every item (`prompt`), an MLP from vector to soft tokens (`mlp`,
CoLLM's), or a Q-Former and a linear adaptor (`ilm-rand`, `ilm`). What trains is the trainer's
choice.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.checks import Choice, Dataclass, Number, check
from ilm_jax.data.streams.layouts import Layout, Prompts
from ilm_jax.data.tokenizers import Tokenizer, new_tokens, without_new_tokens
from ilm_jax.errors import UserError
from ilm_jax.models.applying import applied
from ilm_jax.models.ilm import ItemLanguageModel, gather_vectors, token_rms
from ilm_jax.models.language_model import LanguageModelConfig
from ilm_jax.models.new_tokens import NewTokens, extend, started
from ilm_jax.models.number_rows import NumberRows
from ilm_jax.models.readers import Reader
from ilm_jax.models.standardising import common_share, root_mean_square
from ilm_jax.objectives.heads import Head, Read, TextHead, combined, text_logits, token_losses
from ilm_jax.objectives.item_scoring import ItemScorer
from ilm_jax.objectives.objective import Objective, Sums, vocabulary

LanguageModelField = Annotated[LanguageModelConfig, "such as @DecoderConfig() or @T5Config()"]
ReaderField = Annotated[Reader, "such as @QFormerReader() or @MLPReader()"]
Start = Annotated[str, Choice(("data", "drawn"))]


@dataclasses.dataclass(frozen=True)
class LanguageModelling(Objective):
    """Losses on target tokens. Parameters: `lm`, and those of the reader and the heads.

    Attributes:
      lm: sizes of the language model, a decoder or an encoder-decoder.
      reader: what turns vectors into soft tokens (models/readers.py); None for a text-only model.
      new_tokens: words that the tokenizer appends (`TaskSettings.new_tokens`) have rows of their
        own beside the language model's table, `lm/new_tokens`, which start from data, as words.
        None: it has rows for all ids itself, as one that is trained from the start can.
      heads: what is learnt from the hidden states; the text alone unless a recipe says more.
      target_length: hidden states are read at no more target tokens of a row than these; None
        reads them everywhere.
      word_rows: whole-word embeddings, which the language model, an encoder-decoder, adds to what
        its encoder reads (`T5Config.word_rows`); 0: as many as `lm` has, none by default.
      redraws: rows of the token table that a run begins with as drawn anew; None: none.
      reader_start: how soft tokens start where the reader's last layer is drawn anew: "data", as
        words (centred over the items, at the scale of the language model's token vectors;
        models/standardising.py), or "drawn", as the draws have it.
    """

    lm: LanguageModelField
    reader: ReaderField | None = None
    new_tokens: NewTokens | None = None
    heads: tuple[Head, ...] = (TextHead(),)
    target_length: Number | None = None
    word_rows: Number = 0
    redraws: NumberRows | None = None
    reader_start: Start = "data"

    kinds = ("prompt",)

    def __post_init__(self) -> None:
        check(self)
        if not self.heads:
            raise UserError("LanguageModelling.heads = (): nothing is learnt; give @TextHead()")
        if self._history_weight and self.lm.encodes:
            raise UserError(
                f"{type(self.lm).__name__} reads a history whole before it answers, so its items "
                "cannot be asked for one by one: leave ItemHead.history_weight at 0"
            )
        if self.word_rows and not self.lm.encodes:
            raise UserError(
                f"LanguageModelling.word_rows = {self.word_rows}: whole-word embeddings are added "
                f"to what an encoder reads, and a {type(self.lm).__name__} has none: give "
                "@t5.T5Config() as lm, or leave word_rows out"
            )
        if self.word_rows:
            object.__setattr__(self, "lm", dataclasses.replace(self.lm, word_rows=self.word_rows))
        else:
            object.__setattr__(self, "word_rows", self.lm.word_rows)

    @property
    def splits_batches(self) -> bool:
        """With one head; means of several are over different numbers of tokens."""
        return len(self.heads) == 1 and self.heads[0].splits_batches

    @property
    def needs_table(self) -> bool:
        """Whether a reader or a head reads vectors of the embedding table."""
        heads = any(head.cf_dim is not None for head in self.heads)
        return heads or self.reader is not None

    @property
    def scores_items(self) -> bool:
        """Whether a head does."""
        return any(head.reads_items for head in self.heads)

    @property
    def _history_weight(self) -> float:
        return max(head.history_weight for head in self.heads)

    @property
    def predicts_text(self) -> bool:
        """Whether a head does."""
        return any(head.reads_answers for head in self.heads)

    @property
    def item_scorer(self) -> ItemScorer | None:
        """The first head's that ranks items."""
        return next((head.scorer for head in self.heads if head.scorer is not None), None)

    @property
    def cf_dim(self) -> int:
        """Width of the vectors that reader and heads read."""
        if self.reader is not None:
            return self.reader.cf_dim
        return next((head.cf_dim for head in self.heads if head.cf_dim is not None), 1)

    @property
    def num_queries(self) -> int:
        """Soft tokens per item; 0 for a text-only model."""
        return self.reader.num_queries if self.reader else 0

    @property
    def configs(self) -> Mapping[str, Dataclass]:
        """The language model's and the reader's."""
        return {"lm": self.lm, **(self.reader.configs if self.reader else {})}

    @property
    def language(self) -> "LanguageModelling":
        """Itself."""
        return self

    def layout(self, kind: str) -> Layout:
        """Prompts whose slots take as many positions as there are soft tokens."""
        queries, encodes = max(1, self.num_queries), self.lm.encodes
        asked = self.scores_items, self.predicts_text
        return Prompts(queries, *asked, not encodes, self.word_rows, self._history_weight, encodes)

    def with_configs(self, configs: Mapping[str, Any]) -> "LanguageModelling":
        """See `Objective.with_configs`."""
        others = {name: config for name, config in configs.items() if name != "lm"}
        reader = self.reader.with_configs(others) if self.reader and others else self.reader
        return dataclasses.replace(self, lm=configs.get("lm", self.lm), reader=reader)

    def with_sizes(
        self,
        *,
        tokenizer: Tokenizer | None = None,
        cf_dim: int | None = None,
        target_length: int = 0,
        items: tuple[ItemRows, ...] = (),
    ) -> "LanguageModelling":
        """The same objective for a tokenizer's ids, a table's width and a dataset's targets.

        Raises:
          UserError: if the language model has fewer token rows than the tokenizer's ids, or a
            published one no rows for those that are appended to them.
        """
        lm, reader, new, redraws = self.lm, self.reader, self.new_tokens, self.redraws
        if tokenizer is not None:
            new = _new_tokens(self, tokenizer)
            own = without_new_tokens(tokenizer) if new and new.count else tokenizer
            size = vocabulary(lm.vocab_size, own.vocab_size, own.least_vocab_size, lm)
            lm = dataclasses.replace(lm, vocab_size=size)
            redraws = redraws.of(own) if redraws else None
        width = self.cf_dim if cf_dim is None else cf_dim
        if reader is not None:
            reader = reader.with_sizes(cf_dim=width, vocab_size=lm.vocab_size)
        return dataclasses.replace(
            self,
            lm=lm,
            reader=reader,
            new_tokens=new,
            redraws=redraws,
            heads=tuple(head.with_sizes(cf_dim=width, items=items) for head in self.heads),
            target_length=target_length or self.target_length,
        )

    @property
    def model(self) -> ItemLanguageModel:
        """Reader and language model, whose parameters `loss` reads."""
        reader = self.reader.build(self.lm.embed_dim) if self.reader else None
        return ItemLanguageModel(reader, extend(self.lm.build(), self.new_tokens))

    def init(self, key: jax.Array) -> PyTree[Array]:
        """All parameters, boxed with their logical axes."""
        ids = jnp.ones((1, 2), jnp.int32)
        vectors = jnp.zeros((1, 1, self.cf_dim))
        params = dict(self.model.init(key, ids, ids, ids, 0 * ids, 0 * ids, vectors)["params"])
        for number, head in enumerate(self.heads):
            own = head.init(jax.random.fold_in(key, number), self.lm.embed_dim)
            if both := sorted(set(own) & set(params)):
                raise UserError(f"{type(head).__name__}'s parameters {both} bear a name twice")
            params |= own
        return params

    def data_start(
        self, params: PyTree[Array], vectors: Float[Array, "items cf"]
    ) -> dict[str, jax.Array]:
        """The reader's, by `reader_start`, and the rows of new words."""
        lm, words, found = self.lm.build(), params["lm"], {}
        if self.new_tokens is not None and self.new_tokens.count:
            rows = started(lm, words, self.new_tokens, self.lm.vocab_size)
            found = {f"lm/{path}": leaf for path, leaf in rows.items()}
        if self.reader is None or self.reader_start != "data":
            return found
        rms = token_rms(lm, words, self.lm.vocab_size)
        return found | self.reader.data_start(params, vectors, rms, self.lm.embed_dim)

    def redrawn(self, params: PyTree[Array], key: jax.Array) -> dict[str, jax.Array]:
        """The token table, with `redraws`' rows anew."""
        if self.redraws is None:
            return {}
        table = params["lm"]["embedding"].get("embedding")
        if table is None:
            raise UserError("LanguageModelling.redraws: a table in int8 has no rows to draw anew")
        return {"lm/embedding/embedding": self.redraws.drawn(table, key)}

    def start_metrics(
        self, params: PyTree[Array], vectors: Float[Array, "items cf"]
    ) -> dict[str, jax.Array]:
        """The scale of soft tokens beside that of words, and how much all items have in common."""
        if self.reader is None:
            return {}
        soft: Array = applied(self.reader.build(self.lm.embed_dim), params, vectors)
        return {
            "words_rms": token_rms(self.lm.build(), params["lm"], self.lm.vocab_size),
            "soft_tokens_rms": root_mean_square(soft),
            "soft_tokens_common": common_share(soft),
        }

    def loss(
        self,
        params: PyTree[Array],
        kind: str,
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None,
    ) -> dict[str, Sums]:
        """Sums of `loss` and the heads' metrics; of text, nll in nats and `nll_content`."""
        return combined(self.heads, self.read(params, batch, table, key))

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
        return token_losses(self.read(params, batch, table, key))

    def target_logits(
        self,
        params: PyTree[Array],
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None = None,
    ) -> tuple[Float[Array, "batch targets vocab"], Int[Array, "batch targets"] | None]:
        """(logits, the positions of the row that they stand at; None for all of them)."""
        read = self.read(params, batch, table, key)
        return text_logits(read), read.at

    def read(
        self,
        params: PyTree[Array],
        batch: dict[str, jax.Array],
        table: Float[Array, "capacity cf"],
        key: jax.Array | None = None,
    ) -> Read:
        """The language model's hidden states at the targets, for the heads."""
        weights = batch["loss_weights"]
        window = None
        if self.target_length is not None:
            window = target_window(_read_at(batch), self.target_length)
        others: dict[str, Array | None] = {}
        if self.lm.encodes:  # an encoder reads no targets, and its decoder runs on the window alone
            others = {"predicts": weights > 0, "window": window, "source": batch.get("source")}
        model = self.model
        hidden: Array = applied(
            model,
            params,
            tokens=batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            slot_entity=batch["slot_entity"],
            slot_query=batch["slot_query"],
            entity_vectors=gather_vectors(table, batch["entities"]),
            deterministic=key is None,
            word_ids=batch["word_ids"] if self.word_rows else None,
            rngs={} if key is None else {"dropout": key},
            **others,
        )
        whole = None if self.lm.encodes else hidden
        if window is not None and not self.lm.encodes:
            hidden = jnp.take_along_axis(hidden, window[..., None], axis=1)
        return Read(model, params, batch, table, hidden, window, key, whole)


def _new_tokens(objective: LanguageModelling, tokenizer: Tokenizer) -> NewTokens | None:
    """The words beside the language model's table, as the tokenizer has them."""
    new, (first, words) = objective.new_tokens, new_tokens(tokenizer)
    if new is None:
        if words and objective.lm.vocab_size:
            raise UserError(
                f"the tokenizer appends {len(words)} words ({words[0]}, …), which a language model "
                "of a given size has no rows for: bind language.LanguageModelling.new_tokens = "
                "@new_tokens.NewTokens() (runs/stage2_semantic.gin), or leave "
                "TaskSettings.new_tokens out"
            )
        return None
    if new.count not in (0, len(words)) or (new.first not in (0, first) and words):
        raise UserError(
            f"NewTokens of {new.count} words from id {new.first} on, and the tokenizer appends "
            f"{len(words)} from {first} on: leave both at 0, for the tokenizer's"
        )
    return dataclasses.replace(new, count=len(words), first=first)


def _read_at(batch: dict[str, jax.Array]) -> Float[Array, "batch length"]:
    """Above 0 where hidden states are read: at targets, and where an item is asked for, which may
    stand before an item's soft tokens, that no token's loss predicts.
    """
    weights, places = batch["loss_weights"], batch.get("item_positions")
    if places is None:
        return weights
    asked = (jnp.arange(weights.shape[1]) == places[..., None]).any(1)
    return jnp.where(asked, 1.0, weights)


def target_window(weights: Float[Array, "batch length"], size: int) -> Int[Array, "batch window"]:
    """Indices of each row's targets, in order, and of other places where there are fewer.

    Projecting these alone to the vocabulary saves most of the output layer's work, since prompts
    are longer than answers. Targets of several examples that share a row come one behind another.
    """
    order = jnp.argsort(weights <= 0, axis=1, stable=True)
    return order[:, : min(size, weights.shape[1])]
