"""From a trained run to figures and files: the body of `ilm evaluate`."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ilm_jax.checks import Count, check
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer, target_tokens
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.errors import UserError
from ilm_jax.evaluation import card, results, run_files, seqio_files
from ilm_jax.evaluation.auto_rater import AutoRater
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measure import (
    CHOICES,
    DESCRIPTIONS,
    histories,
    measure_language,
    measure_ranking,
    measure_ratings,
    measure_texts,
)
from ilm_jax.evaluation.measures import Generated, colliding
from ilm_jax.evaluation.passes import Watch, check_prompts, unseen
from ilm_jax.evaluation.ratings import rating_scale
from ilm_jax.evaluation.results import Evaluation
from ilm_jax.evaluation.sampling import fingerprint
from ilm_jax.evaluation.semantic import Encode, Watched
from ilm_jax.evaluation.sentence_encoder import REMEDY
from ilm_jax.evaluation.subjects import preferences, subjects
from ilm_jax.evaluation.task_figures import (
    SAMPLES,
    behavioural_evaluation,
    language_evaluation,
    rating_evaluation,
    text_evaluation,
)
from ilm_jax.evaluation.trained import TrainedModel
from ilm_jax.metrics import texts

# Ids are also written without the trie, by so many users, to see how many name an item.
FREE_IDS = 256


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and on how much of it.

    Attributes:
      tasks: short names. The figures of all but descriptions and choices bear their task's name.
      split: "test" or "validation".
      users: whose lists and ratings are measured, a fixed sample of so many; None for all.
      texts: that are scored and written, a fixed sample of so many; None for all.
      beams: length of the ranked lists.
      exclude_seen: a user's earlier choices are no candidates.
      ranking, generation: whether items are ranked, and whether texts are written.
      liked: ratings from here on count as liked, for AUC.
    """

    tasks: tuple[str, ...] = (DESCRIPTIONS, CHOICES)
    split: str = "test"
    users: Count | None = None
    texts: Count | None = None
    beams: Count = 10
    exclude_seen: bool = False
    ranking: bool = True
    generation: bool = True
    liked: float = 4.0

    def __post_init__(self) -> None:
        check(self)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            given = ",".join(self.tasks)
            raise UserError(f"tasks={given!r}: name at least one, and each once")


def evaluate(
    trained: TrainedModel,
    output: str | os.PathLike,
    plan: Plan = Plan(),
    encoder: Encode | None = None,
    rater: AutoRater | None = None,
    watch: Watch = unseen,
) -> dict[str, Any]:
    """Measures a run and writes a folder (see `results`); returns evaluation.json's record.

    Every process takes part in measuring, the first one writes, when all is measured: an evaluation
    that was stopped leaves the folder as it was.

    Args:
      trained: the run.
      output: the folder.
      plan: what is measured.
      encoder: of sentences, for semantic consistency; None: not available.
      rater: judges generated texts, if there is one.
      watch: hears how far it is.

    Raises:
      UserError: for a task that there is not, or that has nothing to measure, before any is.
    """
    output = pathlib.Path(output)
    evaluator = _Evaluator(trained, plan, encoder, rater, watch)
    for task in plan.tasks:
        evaluator.check(task)
    found = Evaluation([], protocol=card.interactions_card(trained.splits.report()))
    for task in plan.tasks:
        measured = evaluator.task(task)
        found += measured if task in (DESCRIPTIONS, CHOICES) else measured.under(task)
    if jax.process_index():
        return {}
    language = evaluator.language.get(DESCRIPTIONS) if plan.split == "test" else None
    if language and len(language.index) < trained.feed(DESCRIPTIONS, plan.split).len_epoch:
        language = None  # what the generator knows is of all texts, not of a sample
    return results.write(
        output, found, watch, evaluator.files,
        model_dir=trained.model_dir, step=trained.step,
        trainable_params=trained.trainable_params, frozen_params=trained.frozen_params,
        ceiling=results.ceiling(trained, language) if language else None,
    )  # fmt: skip


class _Evaluator:
    """Measures one task after another, by the figures that its spec names.

    Attributes:
      language: what was scored, by task.
      files: what writes the files, in a folder, and returns their names there.
    """

    def __init__(
        self,
        trained: TrainedModel,
        plan: Plan,
        encoder: Encode | None,
        rater: AutoRater | None,
        watch: Watch,
    ) -> None:
        self.trained, self.plan, self.watch = trained, plan, watch
        self.encoder = None if encoder is None else Watched(encoder, watch)
        self.rater = rater
        self.language: dict[str, LanguageResult] = {}
        self.files: list[results.Writer] = []

    def check(self, task: str) -> None:
        """Raises UserError for what cannot be measured."""
        feed = self.trained.feed(task, self.plan.split)
        check_prompts(feed)
        if not feed.len_epoch:
            raise UserError(f"task {task} has no examples in split {self.plan.split}")
        metrics, trained = self._metrics(task), self.trained
        if "rmse" in metrics:
            rating_scale(trained.splits)
        elif (
            _ranks(metrics) and self.plan.beams > trained.catalogue.num_items and self.plan.ranking
        ):
            raise UserError(
                f"beams={self.plan.beams}: give a number from 1 to "
                f"{trained.catalogue.num_items}, all items"
            )

    def task(self, task: str) -> Evaluation:
        """All figures of a task."""
        metrics = self._metrics(task)
        if "rmse" in metrics:
            return self._ratings(task)
        if _ranks(metrics):
            return self._ranking(task) if self.plan.ranking else _not_asked("ranking")
        found = self._language(task) if "nll" in metrics else Evaluation([])
        return found + (self._texts(task) if self.plan.generation else _not_asked("generation"))

    def _metrics(self, task: str) -> Sequence[str]:
        return self.trained.dataset(task, self.plan.split).specs()[0].metrics

    def _name(self, task: str) -> str:
        trained = self.trained
        return trained.dataset(task, self.plan.split).specs()[0].name(trained.data.dataset)

    def _language(self, task: str) -> Evaluation:
        trained, split = self.trained, self.plan.split
        found = measure_language(trained, task, split, self.plan.texts, self.watch)
        self.language[task] = found
        protocol = card.language_card(
            task=self._name(task), split=split, texts=self._texts_sample(task),
            ids=self._ids(task, found.index),
        )  # fmt: skip
        return language_evaluation(found) + Evaluation([], protocol={"nll": protocol})

    def _ranking(self, task: str) -> Evaluation:
        trained, plan = self.trained, self.plan
        splits = trained.splits
        ranked = measure_ranking(
            trained, plan.users, plan.beams, plan.split, plan.exclude_seen, task, self.watch
        )
        feed = trained.feed(task, plan.split)
        users = [feed.stream[int(i)]["user"] for i in ranked.index]
        folder = "" if task == CHOICES else task

        def write(output: pathlib.Path) -> list[str]:
            run_files.write_ranks(output / folder, ranked, users, splits.catalogue.item_ids)
            return [str(pathlib.PurePosixPath(folder, name)) for name in run_files.NAMES]

        self.files.append(write)
        totals = ranked.totals()
        ids = {name: totals.pop(name) for name in ("valid_ids", "repeated_ids")}
        candidates = feed.stream[0].get("candidates")
        sample = trained.users(task, plan.split, plan.users)
        protocol = card.ranking_card(
            task=self._name(task), split=plan.split, users=str(sample), users_total=sample.total,
            items=splits.catalogue.num_items, beams=plan.beams,
            excludes_history=plan.exclude_seen, history=trained.data.settings.history,
            candidates=None if candidates is None else len(candidates),
            ids=self._ids(task, ranked.index, answers_are_items=True),
            found=ids | self._free_ids(task, sample.measured),
        )  # fmt: skip
        before = histories(splits, feed, ranked.index, plan.split)
        figures = ranked.figures(splits.train_counts(), before)
        return Evaluation(figures, totals, {"ranking": protocol}, ranked.missing(figures))

    def _free_ids(self, task: str, users: int) -> dict[str, float]:
        """How well ids come out by themselves: collisions, and what is written without the trie."""
        trained, plan = self.trained, self.plan
        settings = trained.dataset(task, plan.split).naming(task)
        tokenizer = trained.tokenizer
        strings = target_tokens(PromptRenderer(trained.splits, settings), tokenizer)
        names = {tokenizer.decode(string[:-1]).strip() for string in strings}
        written = measure_texts(
            trained, task, plan.split, steps=max(map(len, strings)), watch=self.watch,
            users=min(FREE_IDS, users),
        )  # fmt: skip
        valid = [text in names for text in written.predictions]
        return {
            "colliding_ids": colliding(strings),
            "valid_ids_without_trie": float(np.mean(valid)),
            "written_without_trie": len(valid),
        }

    def _texts(self, task: str) -> Evaluation:
        trained, plan = self.trained, self.plan
        found = measure_texts(trained, task, plan.split, plan.texts, watch=self.watch)
        self._keep(task, found.examples, found.targets, found.predictions)
        protocol = card.texts_card(
            task=self._name(task), split=plan.split, texts=self._texts_sample(task),
            length=trained.data.task_feature_lengths["targets"],
            encoder=texts.NOT_AVAILABLE if self.encoder is None else self.encoder.name,
            rater=self.rater.name if self.rater else texts.NOT_AVAILABLE,
            words=texts.tokenizers(found.targets), ids=self._ids(task, found.index),
            stop_ids=trained.stop_ids,
        )  # fmt: skip
        more = Evaluation([], protocol={"texts": protocol})
        if task == "user_profile":
            more += self._behaviour(found)
        if self.rater is not None:
            more += self.rater.evaluation(
                found.predictions, *subjects(trained, found.examples), watch=self.watch
            )
        on_text = self.watch(f"comparing {task}", len(found.targets))
        return text_evaluation(found, self.encoder, on_text) + more

    def _behaviour(self, found: Generated) -> Evaluation:
        """Of user profiles, where there are vectors of users and an encoder of sentences."""
        trained = self.trained
        why = f"no sentence encoder: {REMEDY}, or --encoder=FOLDER"
        if self.encoder is not None and trained.tables is None:
            why = "the run has no CF vectors of users"
        if self.encoder is None or trained.tables is None:
            missing = {"behavioural": f"{texts.NOT_AVAILABLE} ({why})"}
            return Evaluation([], missing=missing)
        words, products = preferences(trained, found.examples)
        return behavioural_evaluation(found, self.encoder, words, products)

    def _ratings(self, task: str) -> Evaluation:
        trained, plan = self.trained, self.plan
        found = measure_ratings(trained, task, plan.split, plan.users, self.watch)
        self._keep(task, found.examples, found.ratings, found.predicted)
        protocol = card.ratings_card(
            task=self._name(task), split=plan.split, ratings=len(found.index), liked=plan.liked,
            users=str(trained.users(task, plan.split, plan.users)),
            ids=self._ids(task, found.index),
        )  # fmt: skip
        on_sample = self.watch(f"intervals of {task}", 2 * SAMPLES)
        measured = rating_evaluation(found, plan.liked, on_sample)
        return measured + Evaluation([], protocol={"ratings": protocol})

    def _texts_sample(self, task: str) -> str:
        return str(self.trained.texts(task, self.plan.split, self.plan.texts))

    def _ids(self, task: str, index: np.ndarray, answers_are_items: bool = False) -> str:
        """A fingerprint of what was measured, which two evaluations must share to be compared."""
        stream = self.trained.feed(task, self.plan.split).stream
        items = self.trained.catalogue.item_ids if answers_are_items else None
        return fingerprint((stream[int(number)] for number in index), items)

    def _keep(
        self, task: str, examples: Sequence[Mapping[str, Any]], targets: Any, predictions: Any
    ) -> None:
        """Answers in seqio's format, to be written at the end."""
        words = PromptTokenizer(self.trained.tokenizer).decode_prompt
        name, step = self._name(task), self.trained.step

        def write(output: pathlib.Path) -> list[str]:
            asked = [seqio_files.asked(example, words) for example in examples]
            seqio_files.write_answers(output, name, step, asked, targets, prediction=predictions)
            return [seqio_files.answers_name(name, step)]

        self.files.append(write)


def _ranks(metrics: Sequence[str]) -> bool:
    return any(name.startswith("hr@") for name in metrics)


def _not_asked(what: str) -> Evaluation:
    return Evaluation([], missing={what: f"not measured ({what}=False, --no{what})"})
