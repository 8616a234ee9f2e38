"""Tasks whose answers are texts: their nll, and what the model writes in their place."""

import functools
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.data.catalogue.splits import TEST
from ilm_jax.evaluation.evaluator import (
    DESCRIPTIONS,
    NO_JUDGES,
    NO_TEXT,
    EvaluationConfig,
    Judges,
    Writer,
)
from ilm_jax.evaluation.measures.generation import Generated, GenerationMeasure
from ilm_jax.evaluation.measures.language import (
    LanguageMeasure,
    LanguageResult,
    language_evaluation,
)
from ilm_jax.evaluation.measures.semantic import (
    Watched,
    behavioural_evaluation,
    semantic_evaluation,
)
from ilm_jax.evaluation.measures.sentence_encoder import REMEDY
from ilm_jax.evaluation.measures.worth import partners
from ilm_jax.evaluation.reports import card
from ilm_jax.evaluation.subjects import preferences, subjects
from ilm_jax.evaluation.trained import EvaluatedTask
from ilm_jax.metrics import texts
from ilm_jax.metrics.registry import measure
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen


class TextEvaluator:
    """nll of the right texts, and metrics of greedily written ones; see `Evaluator`."""

    def __init__(
        self, task: EvaluatedTask, config: EvaluationConfig, watch: Watch = unseen
    ) -> None:
        self.task, self.config, self.watch = task, config, watch
        # The last sample's numbers, what scores it, and why nobody trades places in it.
        self._scored: tuple[np.ndarray, LanguageMeasure, str] | None = None

    @functools.cached_property
    def _measure(self) -> GenerationMeasure:
        task = self.task
        return GenerationMeasure(
            task.model, task.feed, task.tokenizer, task.answer_length, task.stop_ids
        )

    def answer(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Generated:
        """A text for every example."""
        advance = self.watch(f"writing {self.task.label}", len(numbers))
        return self._measure(params, numbers, advance)

    def metrics(self, answers: Generated) -> Evaluation:
        """What the answers tell."""
        return self.of_texts(answers)

    def of_texts(self, answers: Generated) -> Evaluation:
        """The registered metrics of texts, and how many were ended or empty."""
        on_text = self.watch(f"comparing {self.task.label}", len(answers.targets))
        return text_evaluation(answers, on_text)

    def judged(self, answers: Generated, judges: Judges) -> Evaluation:
        """`of_texts`, and what a sentence encoder says."""
        encoder = None if judges.encoder is None else Watched(judges.encoder, self.watch)
        return self.of_texts(answers) + semantic_evaluation(answers, encoder)

    def shown(self, answers: Generated) -> tuple[list[str], list[str]]:
        """The texts."""
        return answers.targets, answers.predictions

    def evaluate(
        self, params: PyTree[Array], step: int, judges: Judges = NO_JUDGES
    ) -> tuple[Evaluation, list[Writer]]:
        """Also nll where the task has it, and what the judges say."""
        if not self.task.model.objective.predicts_text:
            return Evaluation([], missing={"texts": NO_TEXT}), []
        evaluation = Evaluation([])
        if "nll" in self.task.spec.metrics:
            evaluation = self._language(params)
        if self.task.spec.answer == "none":
            return evaluation, []
        if not self.config.generation:
            reason = "not measured (generation=False, --nogeneration)"
            return evaluation + Evaluation([], missing={"generation": reason}), []
        written, writer = self._written(params, step, judges)
        return evaluation + written, [writer]

    def likelihood(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Evaluation:
        """nll of the right texts, and what the vectors in the prompts are worth for it."""
        learnt = self.task.model.objective.predicts_text
        if "nll" not in self.task.spec.metrics or not learnt:
            return Evaluation([])
        return language_evaluation(*self._score(params, numbers))

    def _score(
        self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]
    ) -> tuple[LanguageResult, str]:
        """(sums of every example, why none are with other items' vectors)."""
        task = self.task
        if self._scored is None or not np.array_equal(self._scored[0], numbers):
            swap = partners(task.feed, numbers, len(task.model.vectors))
            measure = LanguageMeasure(task.model, task.feed, swap.rows)
            self._scored = numbers, measure, swap.reason
        advance = self.watch(f"scoring {task.label}", len(numbers))
        return self._scored[1](params, numbers, advance), self._scored[2]

    def _language(self, params: PyTree[Array]) -> Evaluation:
        task = self.task
        sample = task.sample_of_texts(self.config.texts)
        result, no_worth = self._score(params, sample.numbers)
        protocol = card.language_card(
            task=task.name,
            split=task.split,
            texts=str(sample),
            ids=task.fingerprint(result.index),
        )
        return language_evaluation(result, no_worth) + Evaluation(
            [], protocol={"nll": protocol}, ceiling=ceiling(task, result)
        )

    def _written(
        self, params: PyTree[Array], step: int, judges: Judges
    ) -> tuple[Evaluation, Writer]:
        task = self.task
        encoder = None if judges.encoder is None else Watched(judges.encoder, self.watch)
        sample = task.sample_of_texts(self.config.texts)
        answers = self.answer(params, sample.numbers)
        protocol = card.texts_card(
            task=task.name,
            split=task.split,
            texts=str(sample),
            length=task.answer_length,
            encoder=texts.NOT_AVAILABLE if encoder is None else encoder.name,
            rater=judges.rater.name if judges.rater else texts.NOT_AVAILABLE,
            words=texts.tokenizers(answers.targets),
            ids=task.fingerprint(answers.index),
            stop_ids=task.stop_ids,
        )
        evaluation = self.judged(answers, judges) + Evaluation([], protocol={"texts": protocol})
        if task.spec.task == "user_profile":
            evaluation += self._behaviour(answers, encoder)
        if judges.rater is not None:
            about = subjects(task, answers.examples)
            evaluation += judges.rater.evaluation(answers.predictions, *about, watch=self.watch)

        def write(output: pathlib.Path) -> list[str]:
            """Writes the answers file; returns its path, relative to `output`."""
            return [task.write_answers(output, step, answers.index, *self.shown(answers))]

        return evaluation, write

    def _behaviour(self, answers: Generated, encoder: Watched | None) -> Evaluation:
        """Of user profiles, where there are vectors of users and an encoder of sentences."""
        why = f"no sentence encoder: {REMEDY}, or --encoder=FOLDER"
        if encoder is not None and self.task.tables is None:
            why = "the run has no CF vectors of users"
        if encoder is None or self.task.tables is None:
            missing = {"behavioural": f"{texts.NOT_AVAILABLE} ({why})"}
            return Evaluation([], missing=missing)
        words, products = preferences(self.task, answers.examples)
        return behavioural_evaluation(answers, encoder, words, products)


def text_evaluation(answers: Generated, on_text: Callable[[int], None] | None = None) -> Evaluation:
    """The registered metrics of texts; `on_text` hears how many more were compared."""
    empty = float(np.mean([not text for text in answers.predictions]))
    totals = {"ended": answers.ended, "empty": empty}
    return measure("text", answers, on_text) + Evaluation([], totals)


def ceiling(task: EvaluatedTask, result: LanguageResult) -> dict[str, float]:
    """The least possible nll of the test items' texts, where their generator knows it.

    It knows it of all texts, not of a sample.
    """
    known = task.catalogue.extras.get("ceiling")
    whole = task.split == "test" and len(result.index) == task.feed.len_epoch
    if not known or task.spec.task != DESCRIPTIONS or not whole:
        return {}
    rows = task.splits.items_in(TEST)
    content = float(np.asarray(known["content_nats"])[rows].sum())
    everything = content + float(np.asarray(known["template_nats"])[rows].sum())
    return {
        "nll": everything / result.tokens.sum(),
        "nll_content": content / result.content_tokens.sum(),
    }
