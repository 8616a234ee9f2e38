"""Tasks whose answers are items: a ranked list of the catalogue's for every user."""

import collections
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.data.examples.prompt_tokens import target_tokens
from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluator import (
    CHOICES,
    NO_JUDGES,
    EvaluationConfig,
    Judges,
    Writer,
)
from ilm_jax.evaluation.measures.generation import GenerationMeasure
from ilm_jax.evaluation.measures.ranking import Ranked, RankingMeasure, histories
from ilm_jax.evaluation.reports import card, run_files
from ilm_jax.evaluation.trained import EvaluatedTask
from ilm_jax.metrics.registry import measure
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen

# Ids are also written without the trie, by so many users, to see how many name an item.
FREE_IDS = 256


class ItemsEvaluator:
    """Lists by beams over the trie of a task's id strings; see `Evaluator`."""

    def __init__(
        self, task: EvaluatedTask, config: EvaluationConfig, watch: Watch = unseen
    ) -> None:
        self.task, self.config, self.watch = task, config, watch
        items = task.catalogue.num_items
        if config.beams > items and config.ranking:
            raise UserError(f"beams={config.beams}: give a number from 1 to {items}, all items")

    @functools.cached_property
    def _measure(self) -> RankingMeasure:
        task, seen = self.task, None
        if self.config.exclude_seen:
            seen = histories(task.splits, task.feed, range(task.feed.len_epoch), task.split)
        return RankingMeasure(task.model, task.feed, task.trie, self.config.beams, seen)

    def answer(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Ranked:
        """A list for every example."""
        advance = self.watch(f"ranking {self.task.label}", len(numbers))
        return self._measure(params, numbers, advance)

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
        task, config = self.task, self.config
        if not config.ranking:
            reason = "not measured (ranking=False, --noranking)"
            return Evaluation([], missing={"ranking": reason}), []
        sample = task.sample_of_users(config.users)
        answers = self.answer(params, sample.numbers)
        measured = self.metrics(answers)
        ids = {name: measured.totals[name] for name in ("valid_ids", "repeated_ids")}
        ids |= self._free_ids(params, sample.measured)
        totals = {name: v for name, v in measured.totals.items() if name not in ids}
        candidates = task.feed.stream[0].get("candidates")
        protocol = card.ranking_card(
            task=task.name,
            split=task.split,
            users=str(sample),
            users_total=sample.total,
            items=task.catalogue.num_items,
            beams=config.beams,
            excludes_history=config.exclude_seen,
            history=task.dataset.settings.history,
            candidates=None if candidates is None else len(candidates),
            ids=task.fingerprint(answers.index, items=True),
            found=ids,
        )
        before = histories(task.splits, task.feed, answers.index, task.split)
        popularity = answers.popularity(task.splits.train_counts(), before)
        ranking = Evaluation(measured.metrics, totals, {"ranking": protocol}, measured.missing)
        return ranking + popularity, [self._writer(answers)]

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

    def _writer(self, answers: Ranked) -> Writer:
        task = self.task.label
        items = self.task.catalogue.item_ids
        users = [self.task.feed.stream[int(number)]["user"] for number in answers.index]
        folder = "" if task == CHOICES else task

        def write(output: pathlib.Path) -> list[str]:
            """Writes the run files; returns their paths, relative to `output`."""
            run_files.write_ranks(output / folder, answers, users, items)
            return [str(pathlib.PurePosixPath(folder, name)) for name in run_files.NAMES]

        return write


def colliding(sequences: Sequence[Sequence[int]]) -> float:
    """Share of items whose id string is another's too, so that no model can tell them apart."""
    times = collections.Counter(map(tuple, sequences))
    return sum(n for n in times.values() if n > 1) / len(sequences)
