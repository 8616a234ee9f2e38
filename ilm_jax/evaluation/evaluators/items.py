"""Tasks whose answers are items: a ranked list of the catalogue's for every user."""

import collections
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.data.examples.prompt_tokens import target_tokens
from ilm_jax.data.examples.task_specs import ITEM_THEN_TEXT
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluator import (
    CHOICES,
    NO_JUDGES,
    EvaluationConfig,
    Judges,
    Writer,
)
from ilm_jax.evaluation.measures.generation import GenerationMeasure
from ilm_jax.evaluation.measures.head_ranking import HeadMeasure
from ilm_jax.evaluation.measures.ranking import ListMeasure, Ranked, RankingMeasure, histories
from ilm_jax.evaluation.reports import card, run_files
from ilm_jax.evaluation.trained import EvaluatedTask
from ilm_jax.metrics.registry import measure
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen

# Ids are also written without the trie, by so many users, to see how many name an item.
FREE_IDS = 256
# Before the metrics of lists by id strings, where the model has an item head too.
ID_STRINGS = "id_strings"


class ItemsEvaluator:
    """Lists of a task's items; see `Evaluator`.

    The model's item head gives them, where it has one; beams over the trie of the items' id strings
    give them, where it learnt what answers say. Of a model with both, the metrics of id strings
    stand behind "id_strings/".
    """

    def __init__(
        self, task: EvaluatedTask, config: EvaluationConfig, watch: Watch = unseen
    ) -> None:
        self.task, self.config, self.watch = task, config, watch
        self._scorer = task.model.objective.item_scorer
        items = task.catalogue.num_items
        if config.beams > items and config.ranking:
            raise UserError(f"beams={config.beams}: give a number from 1 to {items}, all items")

    @functools.cached_property
    def _seen(self) -> list[np.ndarray] | None:
        task = self.task
        if not self.config.exclude_seen:
            return None
        return histories(task.splits, task.feed, range(task.feed.len_epoch), task.split)

    @functools.cached_property
    def _by_names(self) -> ListMeasure:
        task, config = self.task, self.config
        how = config.beams, self._seen, config.length_penalty
        return RankingMeasure(task.model, task.feed, task.trie, *how)

    @functools.cached_property
    def _by_head(self) -> ListMeasure | None:
        task, length = self.task, self.config.beams
        if self._scorer is None:
            return None
        name = task.catalogue.name
        return HeadMeasure(task.model, task.feed, self._scorer, name, length, self._seen)

    def answer(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Ranked:
        """A list for every example, by the item head where there is one."""
        return self._ranked(self._by_head or self._by_names, params, numbers)

    def _ranked(
        self, measure: ListMeasure, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]
    ) -> Ranked:
        by = " by id strings" if self._scorer is not None and measure is not self._by_head else ""
        advance = self.watch(f"ranking {self.task.label}{by}", len(numbers))
        return measure(params, numbers, advance)

    def metrics(self, answers: Ranked) -> Evaluation:
        """The registered metrics of lists, coverage, and what the lists are made of."""
        return measure("items", answers) + Evaluation([], answers.totals())

    def likelihood(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Evaluation:
        """Nothing: what counts is the answer."""
        return Evaluation([])

    def shown(self, answers: Ranked) -> tuple[list[str], list[list[str]]]:
        """Raw ids of the targets and of the lists' items."""
        items = self.task.catalogue.item_ids
        names = [[items[row] for row in rows if row >= 0] for rows in answers.lists]
        return [items[row] for row in answers.targets], names

    def evaluate(
        self, params: PyTree[Array], step: int, judges: Judges = NO_JUDGES
    ) -> tuple[Evaluation, list[Writer]]:
        """Also popularity, and how well ids come out by themselves."""
        if not self.config.ranking:
            reason = "not measured (ranking=False, --noranking)"
            return Evaluation([], missing={"ranking": reason}), []
        if self._by_head is None:
            return self._evaluate(self._by_names, params)
        evaluation, writers = self._evaluate(self._by_head, params)
        named = self.config.id_strings and self.task.spec.answer != ITEM_THEN_TEXT
        if self.task.model.objective.predicts_text and named:
            by_names, more = self._evaluate(self._by_names, params, ID_STRINGS)
            return evaluation + by_names.under(ID_STRINGS), writers + more
        return evaluation, writers

    def _evaluate(
        self, measure: ListMeasure, params: PyTree[Array], folder: str = ""
    ) -> tuple[Evaluation, list[Writer]]:
        """All of one way to rank; its files go to this folder of the task's."""
        task, config = self.task, self.config
        sample = task.sample_of_users(config.users)
        answers = self._ranked(measure, params, sample.numbers)
        measured = self.metrics(answers)
        ids = {name: measured.totals[name] for name in ("valid_ids", "repeated_ids")}
        by_head = measure is self._by_head
        if not by_head:
            ids |= self._free_ids(params, sample.measured)
        found = self._without_vectors(answers) if by_head else ids
        totals = {name: v for name, v in measured.totals.items() if name not in ids}
        protocol = card.ranking_card(
            task=task.name,
            split=task.split,
            users=str(sample),
            users_total=sample.total,
            items=task.catalogue.num_items,
            beams=config.beams,
            excludes_history=config.exclude_seen,
            history=task.dataset.settings.history,
            candidates=task.candidates(answers.index),
            ids=task.fingerprint(answers.index, items=True),
            found=found,
            score=card.BY_HEAD if by_head else card.by_names(config.length_penalty),
        )
        before = histories(task.splits, task.feed, answers.index, task.split)
        popularity = answers.popularity(task.splits.train_counts(), before)
        ranking = Evaluation(measured.metrics, totals, {"ranking": protocol}, measured.missing)
        return ranking + popularity, [self._writer(answers, folder)]

    def _without_vectors(self, answers: Ranked) -> dict[str, float]:
        """How many targets no list can hold, for want of a vector."""
        model, name = self.task.model, self.task.catalogue.name
        assert self._scorer is not None
        rows = self._scorer.rows_of(name).start + answers.targets
        return {"targets_without_vector": int((~model.vectors[rows].any(axis=1)).sum())}

    def _free_ids(self, params: PyTree[Array], users: int) -> dict[str, float]:
        """How well ids come out by themselves: collisions, and what is written without the trie."""
        task = self.task
        strings = target_tokens(task.renderer, task.tokenizer)
        names = {task.tokenizer.decode(string[:-1]).strip() for string in strings}
        numbers = task.sample_of_users(min(FREE_IDS, users)).numbers
        advance = self.watch(f"writing {task.label}", len(numbers))
        written = GenerationMeasure(
            task.model, task.feed, task.tokenizer, max(map(len, strings)), task.stop_ids
        )(params, numbers, advance)
        valid = [text in names for text in written.predictions]
        return {
            "colliding_ids": colliding(strings),
            "valid_ids_without_trie": float(np.mean(valid)),
            "written_without_trie": len(valid),
        }

    def _writer(self, answers: Ranked, way: str) -> Writer:
        task = self.task.label
        items = self.task.catalogue.item_ids
        users = [self.task.feed.facts(int(number))["user"] for number in answers.index]
        folder = pathlib.PurePosixPath("" if task == CHOICES else task, way)

        def write(output: pathlib.Path) -> list[str]:
            """Writes the run files; returns their paths, relative to `output`."""
            run_files.write_ranks(output / folder, answers, users, items)
            return [str(folder / name) for name in run_files.NAMES]

        return write


def colliding(sequences: Sequence[Sequence[int]]) -> float:
    """Share of items whose id string is another's too, so that no model can tell them apart."""
    times = collections.Counter(map(tuple, sequences))
    return sum(n for n in times.values() if n > 1) / len(sequences)
