"""From a trained run to figures and files: the body of `ilm evaluate`."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ilm_jax.data.prompt_tokens import PromptTokenizer, target_tokens
from ilm_jax.data.prompts import PromptRenderer
from ilm_jax.errors import UserError
from ilm_jax.evaluation import card, results, run_files, seqio_files, texts
from ilm_jax.evaluation.auto_rater import AutoRater
from ilm_jax.evaluation.figures import Figure
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measure import (
    CHOICES,
    DESCRIPTIONS,
    Trained,
    histories,
    measure_language,
    measure_ranking,
    measure_ratings,
    measure_texts,
)
from ilm_jax.evaluation.measures import Generated, Ranked, colliding
from ilm_jax.evaluation.results import Evaluation
from ilm_jax.evaluation.semantic import Encode
from ilm_jax.evaluation.task_figures import (
    behavioural_figures,
    language_figures,
    rating_evaluation,
    text_evaluation,
)

# Ids are also written without the trie, by so many users, to see how many name an item.
FREE_IDS = 256


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and on how much of it.

    Attributes:
      tasks: short names. The figures of all but descriptions and choices bear their task's name.
      split: "test" or "validation".
      users: size of the fixed sample of a task whose answers are items or ratings; None for all.
      texts: size of the fixed sample of a task whose answers are texts; None for all.
      beams: length of the ranked lists.
      exclude_seen: a user's earlier choices are no candidates.
      ranking, generation: whether items are ranked, and whether texts are written.
      liked: ratings from here on count as liked, for AUC.
    """

    tasks: tuple[str, ...] = (DESCRIPTIONS, CHOICES)
    split: str = "test"
    users: int | None = None
    texts: int | None = None
    beams: int = 10
    exclude_seen: bool = False
    ranking: bool = True
    generation: bool = True
    liked: float = 4.0

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            given = ",".join(self.tasks)
            raise UserError(f"tasks={given!r}: name at least one, and each once")


def evaluate(
    trained: Trained,
    output: str | os.PathLike,
    plan: Plan = Plan(),
    encoder: Encode | None = None,
    rater: AutoRater | None = None,
) -> dict[str, Any]:
    """Measures a run and writes a folder (see `results`); returns evaluation.json's record.

    Every process takes part in measuring, the first one writes.

    Args:
      trained: the run.
      output: the folder.
      plan: what is measured.
      encoder: of sentences, for semantic consistency; None: not available.
      rater: judges generated texts, if there is one.

    Raises:
      UserError: for a task that there is not, or that has nothing to measure.
    """
    evaluator = _Evaluator(trained, pathlib.Path(output), plan, encoder, rater)
    found = Evaluation([], protocol=card.interactions_card(trained.run.splits.report()))
    for task in plan.tasks:
        measured = evaluator.task(task)
        found += measured if task in (DESCRIPTIONS, CHOICES) else measured.under(task)
    if jax.process_index():
        return {}
    language = evaluator.language.get(DESCRIPTIONS) if plan.split == "test" else None
    return results.write(
        output, found,
        model_dir=str(trained.run.model_dir), step=trained.step,
        trainable_params=trained.trainable_params, frozen_params=trained.frozen_params,
        ceiling=None if language is None else results.ceiling(trained, language),
    )  # fmt: skip


class _Evaluator:
    """Measures one task after another, by the figures that its spec names."""

    def __init__(
        self,
        trained: Trained,
        output: pathlib.Path,
        plan: Plan,
        encoder: Encode | None,
        rater: AutoRater | None,
    ) -> None:
        self.trained, self.output, self.plan = trained, output, plan
        self.encoder, self.rater = encoder, rater
        self.language: dict[str, LanguageResult] = {}

    def task(self, task: str) -> Evaluation:
        """All figures of a task."""
        (spec,) = self.trained.dataset(task, self.plan.split).specs()
        if not self.trained.feed(task, self.plan.split).len_epoch:
            raise UserError(f"task {task} has no examples in split {self.plan.split}")
        if "rmse" in spec.metrics:
            return self._ratings(task)
        if any(name.startswith("hr@") for name in spec.metrics):
            return self._ranking(task) if self.plan.ranking else Evaluation([])
        found = self._language(task) if "nll" in spec.metrics else Evaluation([])
        return found + self._texts(task) if self.plan.generation else found

    def _name(self, task: str) -> str:
        trained = self.trained
        return trained.dataset(task, self.plan.split).specs()[0].name(trained.run.dataset.dataset)

    def _language(self, task: str) -> Evaluation:
        found = measure_language(self.trained, task, self.plan.split)
        self.language[task] = found
        protocol = card.language_card(
            task=self._name(task), split=self.plan.split, texts=len(found.index)
        )
        return Evaluation(language_figures(found), protocol={"nll": protocol})

    def _ranking(self, task: str) -> Evaluation:
        trained, plan = self.trained, self.plan
        splits = trained.run.splits
        ranked = measure_ranking(
            trained, plan.users, plan.beams, plan.split, plan.exclude_seen, task
        )
        feed = trained.feed(task, plan.split)
        if not jax.process_index():
            users = [feed.stream[int(i)]["user"] for i in ranked.index]
            folder = self.output if task == CHOICES else self.output / task
            run_files.write_ranks(folder, ranked, users, splits.catalogue.item_ids)
        totals = ranked.totals()
        ids = {name: totals.pop(name) for name in ("valid_ids", "repeated_ids")}
        candidates = feed.stream[0].get("candidates")
        protocol = card.ranking_card(
            task=self._name(task), split=plan.split, users=len(ranked.index),
            users_total=feed.len_epoch, items=splits.catalogue.num_items, beams=plan.beams,
            excludes_history=plan.exclude_seen, history=trained.run.dataset.settings.history,
            candidates=None if candidates is None else len(candidates),
            found=ids | self._free_ids(task, ranked),
        )  # fmt: skip
        before = histories(splits, feed, ranked.index, plan.split)
        return Evaluation(
            ranked.figures(splits.train_counts(), before), totals, {"ranking": protocol}
        )

    def _free_ids(self, task: str, ranked: Ranked) -> dict[str, float]:
        """How well ids come out by themselves: collisions, and what is written without the trie."""
        trained, plan = self.trained, self.plan
        settings = trained.dataset(task, plan.split).naming(task)
        tokenizer = trained.run.tokenizer
        strings = target_tokens(PromptRenderer(trained.run.splits, settings), tokenizer)
        names = {tokenizer.decode(string[:-1]).strip() for string in strings}
        written = measure_texts(
            trained, task, plan.split, min(FREE_IDS, len(ranked.index)), max(map(len, strings))
        )
        valid = [text in names for text in written.predictions]
        return {
            "colliding_ids": colliding(strings),
            "valid_ids_without_trie": float(np.mean(valid)),
            "written_without_trie": len(valid),
        }

    def _texts(self, task: str) -> Evaluation:
        trained, plan = self.trained, self.plan
        found = measure_texts(trained, task, plan.split, plan.texts)
        self._write(task, found.examples, found.targets, found.predictions)
        protocol = card.texts_card(
            task=self._name(task), split=plan.split, texts=len(found.targets),
            length=trained.run.dataset.task_feature_lengths["targets"],
            encoder=getattr(self.encoder, "name", "given") if self.encoder else texts.NOT_AVAILABLE,
            rater=self.rater.name if self.rater else texts.NOT_AVAILABLE,
        )  # fmt: skip
        figures = self._behaviour(found) if task == "user_profile" else []
        if self.rater is not None:
            figures += self.rater.figures(found.predictions, *self._subjects(found))
        return text_evaluation(found, self.encoder) + Evaluation(
            figures, protocol={"texts": protocol}
        )

    def _subjects(self, found: Generated) -> tuple[list[str] | None, list[str] | None]:
        """(words about each text's item, titles that its user chose before); None if not all have
        one."""
        catalogue, splits = self.trained.run.catalogue, self.trained.run.splits
        targets = [int(example.get("target_item", -1)) for example in found.examples]
        items = [f"{catalogue.titles[row]}. {catalogue.texts[row]}" for row in targets]
        users = {raw: row for row, raw in enumerate(catalogue.user_ids)}
        chosen = [users.get(example["user"], -1) for example in found.examples]
        last = self.trained.run.dataset.settings.history
        before = [
            "; ".join(catalogue.titles[row] for row in splits.train_sequence(user)[-last:])
            for user in chosen
        ]
        return items if min(targets) >= 0 else None, before if min(chosen) >= 0 else None

    def _behaviour(self, found: Generated) -> list[Figure]:
        """Of user profiles, where there are vectors of users and an encoder of sentences."""
        run = self.trained.run
        if self.encoder is None or run.tables is None:
            return []
        catalogue, tables = run.catalogue, run.tables
        users = {raw: row for row, raw in enumerate(catalogue.user_ids)}
        chosen = np.array([users[example["user"]] for example in found.examples])
        user_rows = tables.rows(f"{catalogue.name}/user", chosen)
        item_rows = tables.rows(f"{catalogue.name}/item", np.arange(catalogue.num_items))
        warm = np.flatnonzero(~tables.cold[item_rows])
        preferences = tables.vectors[user_rows] @ tables.vectors[item_rows[warm]].T
        words = [catalogue.texts[row] or catalogue.titles[row] for row in warm]
        return behavioural_figures(found, self.encoder, words, preferences.astype(np.float64))

    def _ratings(self, task: str) -> Evaluation:
        trained, plan = self.trained, self.plan
        found = measure_ratings(trained, task, plan.split, plan.users)
        self._write(task, found.examples, found.ratings, found.predicted)
        protocol = card.ratings_card(
            task=self._name(task), split=plan.split, ratings=len(found.index), liked=plan.liked
        )
        return rating_evaluation(found, plan.liked) + Evaluation([], protocol={"ratings": protocol})

    def _write(
        self, task: str, examples: Sequence[Mapping[str, Any]], targets: Any, predictions: Any
    ) -> None:
        if jax.process_index():
            return
        words = PromptTokenizer(self.trained.run.tokenizer).decode_prompt
        asked = [seqio_files.asked(example, words) for example in examples]
        seqio_files.write_answers(
            self.output, self._name(task), self.trained.step, asked, targets,
            prediction=predictions,
        )  # fmt: skip
