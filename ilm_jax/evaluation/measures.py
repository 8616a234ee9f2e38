"""What is measured of a language model: nll of texts, ranks by beams, generated texts.

Each measure is made once for a model's shapes and called with parameters, so that the same program
serves `ilm evaluate` and every evaluation during training.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, Shaped

from ilm_jax.data.examples.prompt_tokens import target_tokens
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.streams.dataset_config import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.greedy import greedy
from ilm_jax.decoding.soft_tokens import look_up
from ilm_jax.decoding.trie import Trie, build_trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.figures import Figure
from ilm_jax.evaluation.language import LanguageAccumulator, LanguageResult, example_sums
from ilm_jax.evaluation.passes import Column, OnBatch, Pass, Setting, gathered
from ilm_jax.metrics import lists
from ilm_jax.metrics import ranking as metrics

CUTOFFS = (1, 5, 10)


@dataclasses.dataclass(frozen=True, eq=False)
class Ranked:
    """The list of every user, in order of the example's number.

    Attributes:
      index: number of the example.
      targets: item row that was next.
      lists: item rows, best first; -1 where a list is short.
      scores: log-probability of each listed item, nats.
      items: size of the catalogue.

    Raises:
      UserError: for a score that is not a number, which no list can be ordered by.
    """

    index: Int64[np.ndarray, " users"]
    targets: Int[np.ndarray, " users"]
    lists: Int[np.ndarray, "users length"]
    scores: Float[np.ndarray, "users length"]
    items: int

    def __post_init__(self) -> None:
        """A model whose parameters are not finite lists nothing, and would be all misses."""
        check_numbers(self.scores, self.index, "the scores of items")

    @property
    def ranks(self) -> Float64[np.ndarray, " users"]:
        """The target's rank from 1; infinity where it is not listed."""
        return lists.ranks_of(self.lists, [np.array([row]) for row in self.targets])[:, 0]

    def figures(
        self,
        counts: Shaped[np.ndarray, " items"] | None = None,
        histories: Sequence[Int[np.ndarray, " history"]] | None = None,
    ) -> list[Figure]:
        """HR, NDCG and MRR; popularity too with `counts`, of training interactions.

        Cut-offs beyond the lists' length are left out: a list of 5 says nothing of HR@10.

        Args:
          counts: training interactions of every item.
          histories: what every user chose, for the popularity lift over it.
        """
        k = self.lists.shape[1]
        cutoffs = [cutoff for cutoff in CUTOFFS if cutoff <= k]
        found = dict(metrics.per_user(self.ranks, cutoffs))
        if counts is not None:
            found[f"popularity@{max(cutoffs)}"] = lists.popularity(self.lists, counts, max(cutoffs))
        if counts is not None and histories is not None:
            found[f"popularity_bias@{max(cutoffs)}"] = lists.popularity_bias(
                self.lists, histories, counts, max(cutoffs)
            )
        return [
            Figure(name, "users", self.index[known], values[known])
            for name, values in found.items()
            if (known := np.isfinite(values)).any()
        ]

    def missing(self, figures: Sequence[Figure]) -> dict[str, str]:
        """Why figures are not among those that `figures` gave, by name."""
        k = self.lists.shape[1]
        kinds = (f"{kind}@{cutoff}" for cutoff in CUTOFFS if cutoff > k for kind in ("hr", "ndcg"))
        short = {name: f"not available (lists hold {k})" for name in kinds}
        top = max((cutoff for cutoff in CUTOFFS if cutoff <= k), default=k)
        known = {figure.name for figure in figures}
        empty = "not available (no list, or no history, has an item that anybody chose)"
        names = (f"popularity@{top}", f"popularity_bias@{top}")
        return short | {name: empty for name in names if name not in known}

    def totals(self) -> dict[str, float]:
        """Figures without an interval: coverage, and what the lists are made of."""
        k = max(cutoff for cutoff in CUTOFFS if cutoff <= self.lists.shape[1])
        real = self.lists >= 0
        return {
            f"coverage@{k}": lists.coverage(self.lists, self.items, k),
            "valid_ids": float((real & (self.lists < self.items)).mean()),
            "repeated_ids": float(lists.repeats(self.lists).sum() / max(1, real.sum())),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """Texts that a model wrote, in order of the example's number.

    Attributes:
      index: number of the example.
      examples: what was asked: key, inputs, target_text, ….
      predictions: what was written, without the end token.
      targets: what stood there.
      ended: share of texts that the model ended itself, within the length.
    """

    index: Int64[np.ndarray, " texts"]
    examples: list[dict[str, Any]]
    predictions: list[str]
    targets: list[str]
    ended: float


def check_numbers(values: np.ndarray, index: Int64[np.ndarray, " examples"], what: str) -> None:
    """Raises UserError where a value is NaN, as all are of a model that diverged."""
    wrong = np.isnan(values).reshape(len(values), -1).any(axis=1)
    if wrong.any():
        first = int(index[np.argmax(wrong)])
        raise UserError(
            f"{what} are not numbers (NaN) in {wrong.sum()} of {len(values)} examples, first in "
            f"example {first}: the model's parameters are not finite; choose an earlier --step"
        )


class LanguageMeasure:
    """nll of a task's targets, in nats."""

    def __init__(self, setting: Setting, feed: Feed) -> None:
        """As `Pass`."""
        objective = setting.objective

        def step(params: Any, batch: Any, table: Any) -> Any:
            return example_sums(*objective.token_losses(params, batch, table))

        self._pass = Pass(setting, feed, step)

    def __call__(
        self,
        params: Any,
        numbers: Int[np.ndarray, " chosen"] | None = None,
        on_batch: OnBatch = None,
    ) -> LanguageResult:
        """Sums of every example."""
        accumulator = LanguageAccumulator()
        for index, sums in self._pass(params, numbers):
            accumulator.add(index, sums)
            if on_batch is not None:
                on_batch(len(index))
        return accumulator.result()


class RankingMeasure:
    """Ranks of a task's targets in the whole catalogue, by beams over a trie of id strings."""

    def __init__(
        self,
        setting: Setting,
        feed: Feed,
        trie: Trie,
        beams: int = 10,
        seen: Sequence[Int[np.ndarray, " history"]] | None = None,
    ) -> None:
        """As `Pass`.

        Args:
          setting, feed: see there.
          trie: of the items' id strings.
          beams: length of the lists.
          seen: item rows that are no candidates, for every example of the feed; the target, where
            it is among them, stays one. None leaves nothing out. Examples that name their
            candidates are ranked among those alone.

        Raises:
          UserError: if the task's answers are no items, or the beams exceed the catalogue.
        """
        first = feed.stream[0] if feed.len_epoch else {}
        if first.get("target_item", -1) < 0:
            raise UserError("ranks were asked of a task whose answers are no items")
        if not 1 <= beams <= trie.num_items:
            raise UserError(f"beams={beams}: give a number from 1 to {trie.num_items}, all items")
        objective = setting.objective

        def step(params: Any, batch: Any, soft: Any, trie: Trie) -> Any:
            embeddings = embed(objective, params, batch, soft)
            return beam_search(
                objective.model.lm, params["lm"], trie, embeddings, batch["lengths"], beams,
                excluded=batch.get("excluded"),
            )  # fmt: skip

        columns: dict[str, Column] = {}
        self._feed, self._items = feed, trie.num_items
        if "candidates" in first:
            columns["excluded"] = self._all_but_candidates
        elif seen is not None:
            columns["excluded"] = _without_targets(feed, seen).__getitem__
        self._pass = Pass(setting, feed, step, trie, prompts=True, columns=columns)

    def __call__(
        self,
        params: Any,
        numbers: Int[np.ndarray, " chosen"] | None = None,
        on_batch: OnBatch = None,
    ) -> Ranked:
        """The list of every user.

        Raises:
          UserError: for an empty list: the target is always a candidate, so the model gives no
            numbers to rank by.
        """
        index, (ranked, scores) = gathered(self._pass(params, numbers), on_batch)
        check_numbers(np.where(ranked[:, 0] < 0, np.nan, 0.0), index, "the scores of items")
        targets = np.array([self._feed.stream[int(i)]["target_item"] for i in index])
        return Ranked(index, targets, ranked, scores, self._items)

    def _all_but_candidates(
        self, numbers: Int[np.ndarray, " rows"]
    ) -> Int[np.ndarray, "rows items"]:
        excluded = np.tile(np.arange(self._items, dtype=np.int32), (len(numbers), 1))
        for row, number in zip(excluded, numbers.tolist(), strict=True):
            row[np.asarray(self._feed.stream[number]["candidates"])] = -1
        return excluded


class GenerationMeasure:
    """Greedily generated answers of a task."""

    def __init__(
        self,
        setting: Setting,
        feed: Feed,
        tokenizer: Tokenizer,
        steps: int,
        stop_ids: Sequence[int] = (),
    ) -> None:
        """As `Pass`.

        Args:
          setting, feed: see there.
          tokenizer: the model's.
          steps: tokens to generate at most.
          stop_ids: that end an answer, beside the tokenizer's eos.
        """
        objective, eos, pad = setting.objective, tokenizer.eos_id, tokenizer.pad_id
        self._stops = (eos, *(number for number in stop_ids if number != eos))

        def step(params: Any, batch: Any, soft: Any) -> Any:
            embeddings = embed(objective, params, batch, soft)
            return greedy(
                objective.model.lm, params["lm"], embeddings, batch["lengths"],
                steps=steps, eos_id=eos, pad_id=pad, stop_ids=self._stops[1:],
            )  # fmt: skip

        self._feed, self._tokenizer = feed, tokenizer
        self._pass = Pass(setting, feed, step, prompts=True)

    def __call__(
        self,
        params: Any,
        numbers: Int[np.ndarray, " chosen"] | None = None,
        on_batch: OnBatch = None,
    ) -> Generated:
        """The answer to every prompt."""
        index, tokens = gathered(self._pass(params, numbers), on_batch)
        examples = [dict(self._feed.stream[int(i)]) for i in index]
        ended = np.isin(tokens, self._stops)
        lengths = np.where(ended.any(1), ended.argmax(1), tokens.shape[1])
        written = [row[:end].tolist() for row, end in zip(tokens, lengths, strict=True)]
        return Generated(
            index, examples,
            predictions=[self._tokenizer.decode(ids).strip() for ids in written],
            targets=[example["target_text"] for example in examples],
            ended=float(ended.any(1).mean()),
        )  # fmt: skip


def _without_targets(
    feed: Feed, seen: Sequence[Int[np.ndarray, " history"]]
) -> Int[np.ndarray, "examples most"]:
    """One row per example, -1 where it has seen fewer items than others."""
    rows = [
        np.setdiff1d(items, [feed.stream[number]["target_item"]])
        for number, items in enumerate(seen)
    ]
    excluded = np.full((len(rows), max(1, *map(len, rows))), -1, np.int32)
    for row, items in zip(excluded, rows, strict=True):
        row[: len(items)] = items
    return excluded


def colliding(sequences: Sequence[Sequence[int]]) -> float:
    """Share of items whose id string is another's too, so that no model can tell them apart."""
    times = collections.Counter(map(tuple, sequences))
    return sum(n for n in times.values() if n > 1) / len(sequences)


def target_trie(prompts: PromptRenderer, tokenizer: Tokenizer) -> Trie:
    """The trie of all items' target strings, tokenised as the task does; some may be shared."""
    names = [prompts.target(row) for row in range(prompts.catalogue.num_items)]
    return build_trie(target_tokens(prompts, tokenizer), names, share=True)


def embed(objective: Any, params: Any, batch: Any, soft: Any) -> Any:
    """Prompts as the language model reads them: words, and soft tokens in the slots."""
    model = objective.model
    if model.adaptor is None:
        return model.lm.apply({"params": params["lm"]}, batch["tokens"], method="embed")
    slots = batch["slot_entity"], batch["slot_query"]
    entities = look_up(soft, batch["entities"])
    return model.apply({"params": params}, batch["tokens"], *slots, entities, method="interleave")
