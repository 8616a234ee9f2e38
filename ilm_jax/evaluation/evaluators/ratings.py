"""Tasks whose answers are ratings."""

import functools
import pathlib

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.evaluation.evaluator import NO_JUDGES, NO_TEXT, EvaluationConfig, Judges, Writer
from ilm_jax.evaluation.measures.ratings import Rated, RatingMeasure, rating_scale, scale_trie
from ilm_jax.evaluation.reports import card
from ilm_jax.evaluation.trained import EvaluatedTask
from ilm_jax.metrics.registry import measure
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen


class RatingEvaluator:
    """Means of the scale under its words' probabilities; see `Evaluator`."""

    def __init__(
        self, task: EvaluatedTask, config: EvaluationConfig, watch: Watch = unseen
    ) -> None:
        self.task, self.config, self.watch = task, config, watch
        self._scale = rating_scale(task.splits)

    @functools.cached_property
    def _measure(self) -> RatingMeasure:
        trie = scale_trie(self._scale, self.task.tokenizer)
        return RatingMeasure(self.task.model, self.task.feed, self._scale, trie)

    def answer(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Rated:
        """A predicted rating for every example."""
        advance = self.watch(f"predicting {self.task.label}", len(numbers))
        return self._measure(params, numbers, advance)

    def metrics(self, answers: Rated) -> Evaluation:
        """The registered metrics of ratings, RMSE, AUC and UAUC."""
        return rating_evaluation(answers, self.config.liked)

    def likelihood(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Evaluation:
        """Nothing: what counts is the answer."""
        return Evaluation([])

    def shown(self, answers: Rated) -> tuple[np.ndarray, np.ndarray]:
        """True and predicted ratings."""
        return answers.ratings, answers.predicted

    def evaluate(
        self, params: PyTree[Array], step: int, judges: Judges = NO_JUDGES
    ) -> tuple[Evaluation, list[Writer]]:
        """The same with the protocol."""
        task, config = self.task, self.config
        if not task.model.objective.predicts_text:
            return Evaluation([], missing={"ratings": NO_TEXT}), []
        sample = task.sample_of_users(config.users)
        answers = self.answer(params, sample.numbers)
        protocol = card.ratings_card(
            task=task.name,
            split=task.split,
            ratings=len(answers.index),
            liked=config.liked,
            users=str(sample),
            ids=task.fingerprint(answers.index),
        )

        def write(output: pathlib.Path) -> list[str]:
            """Writes the answers file; returns its path, relative to `output`."""
            return [task.write_answers(output, step, answers.index, *self.shown(answers))]

        return self.metrics(answers) + Evaluation([], protocol={"ratings": protocol}), [write]


def rating_evaluation(answers: Rated, liked: float) -> Evaluation:
    """All metrics of predicted ratings; those of at least `liked` are positives."""
    return measure("rating", answers) + answers.over_users(liked)
