"""Lists of items that a model gives in answer to prompts, by beams over a trie of id strings.

A measure is made once for a model's shapes and called with parameters, so that the same program
serves `ilm evaluate` and every evaluation during training.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Array, Float, Float64, Int, Int64, PyTree, Shaped

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.prompt_tokens import target_tokens
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.trie import Trie, build_trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.passes import (
    Batch,
    Column,
    ModelOnMesh,
    OnBatch,
    Pass,
    Step,
    check_numbers,
    embed,
    gathered,
)
from ilm_jax.metrics import lists
from ilm_jax.metrics.registry import CUTOFFS
from ilm_jax.metrics.values import Evaluation, MetricValues

NOTHING_POPULAR = "not available (no list, or no history, has an item that anybody chose)"


@dataclasses.dataclass(frozen=True, eq=False)
class Ranked:
    """The list of every user, in order of the example's number.

    Attributes:
      index: number of the example.
      targets: item row that was next.
      lists: item rows, best first; -1 where a list is short.
      scores: of each listed item: its log-probability in nats, or what an item head gives it.
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

    @property
    def predictions(self) -> Int[np.ndarray, "users length"]:
        """The lists, as metrics take them."""
        return self.lists

    def popularity(
        self,
        counts: Shaped[np.ndarray, " items"],
        histories: Sequence[Int[np.ndarray, " history"]],
    ) -> Evaluation:
        """Popularity of the listed items, and its lift over what users chose.

        Args:
          counts: training interactions of every item.
          histories: what every user chose.
        """
        k = self._cutoff
        values = {
            f"popularity@{k}": lists.popularity(self.lists, counts, k),
            f"popularity_bias@{k}": lists.popularity_bias(self.lists, histories, counts, k),
        }
        metrics = [
            MetricValues(name, "users", self.index[known], of[known], higher_is_better=None)
            for name, of in values.items()
            if (known := np.isfinite(of)).any()
        ]
        absent = {*values} - {metric.name for metric in metrics}
        return Evaluation(metrics, missing={n: NOTHING_POPULAR for n in values if n in absent})

    def totals(self) -> dict[str, float]:
        """Numbers without an interval: coverage, and what the lists are made of."""
        k = self._cutoff
        real = self.lists >= 0
        return {
            f"coverage@{k}": lists.coverage(self.lists, self.items, k),
            "valid_ids": float((real & (self.lists < self.items)).mean()),
            "repeated_ids": float(lists.repeats(self.lists).sum() / max(1, real.sum())),
        }

    @property
    def _cutoff(self) -> int:
        return max(cutoff for cutoff in CUTOFFS if cutoff <= self.lists.shape[1])


class ListMeasure:
    """Ranks of a task's targets in the whole catalogue, by a step that lists items."""

    def __init__(
        self,
        model: ModelOnMesh,
        feed: Feed,
        items: int,
        seen: Sequence[Int[np.ndarray, " history"]] | None,
        step: Step,
        *extras: PyTree[Array | np.ndarray],
    ) -> None:
        """As `Pass`.

        Args:
          model, feed, extras: see there.
          items: of the catalogue.
          seen: item rows that are no candidates, for every example of the feed; the target, where
            it is among them, stays one. None leaves nothing out. Examples that name their
            candidates are ranked among those alone.
          step: gives item rows [batch, length], best first, and their scores.

        Raises:
          UserError: if the task's answers are no items.
        """
        first = feed.stream[0] if feed.len_epoch else {}
        if first.get("target_item", -1) < 0:
            raise UserError("ranks were asked of a task whose answers are no items")
        columns: dict[str, Column] = {}
        self._feed, self._items = feed, items
        if "candidates" in first:
            columns["excluded"] = self._all_but_candidates
        elif seen is not None:
            columns["excluded"] = _without_targets(feed, seen).__getitem__
        self._pass = Pass(model, feed, step, *extras, prompts=True, columns=columns)

    def __call__(
        self,
        params: PyTree[Array],
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
        targets = np.array([self._feed.facts(int(i))["target_item"] for i in index])
        return Ranked(index, targets, ranked, scores, self._items)

    def _all_but_candidates(
        self, numbers: Int[np.ndarray, " rows"]
    ) -> Int[np.ndarray, "rows items"]:
        excluded = np.tile(np.arange(self._items, dtype=np.int32), (len(numbers), 1))
        for row, number in zip(excluded, numbers.tolist(), strict=True):
            row[np.asarray(self._feed.stream[number]["candidates"])] = -1
        return excluded


class RankingMeasure(ListMeasure):
    """Lists by beams over a trie of id strings."""

    def __init__(
        self,
        model: ModelOnMesh,
        feed: Feed,
        trie: Trie,
        beams: int = 10,
        seen: Sequence[Int[np.ndarray, " history"]] | None = None,
        length_penalty: float = 0.0,
    ) -> None:
        """As `ListMeasure`.

        Args:
          model, feed, seen: see there.
          trie: of the items' id strings.
          beams: length of the lists.
          length_penalty: see `beam_search`.

        Raises:
          UserError: if the task's answers are no items, or the beams exceed the catalogue.
        """
        if not 1 <= beams <= trie.num_items:
            raise UserError(f"beams={beams}: give a number from 1 to {trie.num_items}, all items")
        objective = model.objective

        def step(
            params: PyTree[Array], batch: Batch, soft: Array, trie: Trie
        ) -> tuple[Array, Array]:
            """Items [batch, beams], best first, and their scores."""
            embeddings = embed(objective, params, batch, soft)
            return beam_search(
                objective.model.lm,
                params["lm"],
                trie,
                embeddings,
                batch["lengths"],
                beams,
                excluded=batch.get("excluded"),
                length_penalty=length_penalty,
            )

        super().__init__(model, feed, trie.num_items, seen, step, trie)


def _without_targets(
    feed: Feed, seen: Sequence[Int[np.ndarray, " history"]]
) -> Int[np.ndarray, "examples most"]:
    """One row per example, -1 where it has seen fewer items than others."""
    rows = [
        np.setdiff1d(items, [feed.facts(number)["target_item"]])
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


def histories(splits: Splits, feed: Feed, numbers: Iterable[int], split: str) -> list[np.ndarray]:
    """All items that the users of these examples had chosen before their targets."""
    rows = splits.catalogue.user_row
    of = splits.test_target if split == "test" else splits.valid_target
    targets = [of(rows[feed.facts(int(i))["user"]]) for i in numbers]
    return [pair[0] if pair else np.array([], int) for pair in targets]
