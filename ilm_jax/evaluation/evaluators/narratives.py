"""Tasks whose answers are an item and, behind its soft tokens, what is said of it (LUMEN)."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Array, Int, PyTree

from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluator import NO_JUDGES, EvaluationConfig, Judges, Writer
from ilm_jax.evaluation.evaluators.items import ItemsEvaluator
from ilm_jax.evaluation.evaluators.texts import TextEvaluator
from ilm_jax.evaluation.measures.generation import Generated
from ilm_jax.evaluation.measures.narratives import Marked, NarrativeMeasure
from ilm_jax.evaluation.measures.ranking import Ranked
from ilm_jax.evaluation.trained import EvaluatedTask
from ilm_jax.metrics.values import Evaluation
from ilm_jax.progress import Watch, unseen

# Before the metrics of texts that name the item by its title and say no more.
TITLE = "title"
# Before the metrics of texts behind the true item, whichever was ranked first.
TRUE_ITEM = "true_item"


@dataclasses.dataclass(frozen=True, eq=False)
class Narrated(Generated):
    """Texts, and the items that they are about.

    Attributes:
      items: rows of the catalogue.
      ranked: the lists that they stood first in; None where they were given.
    """

    items: Int[np.ndarray, " texts"] = dataclasses.field(default_factory=lambda: np.zeros(0, int))
    ranked: Ranked | None = None


class NarrativeEvaluator(TextEvaluator):
    """The ranks of a task's items, and the texts behind the items that were ranked first.

    A text that is the item's title stands beside them, as what any text should surpass ("title/"),
    and what is written behind the true item ("true_item/"). See `Evaluator`.
    """

    def __init__(
        self, task: EvaluatedTask, config: EvaluationConfig, watch: Watch = unseen
    ) -> None:
        super().__init__(task, config, watch)
        if task.model.objective.item_scorer is None:
            raise UserError(
                f"{task.label} asks for an item by an item head, and the model has none: train "
                "with runs/lumen.gin, or evaluate regen/joint"
            )
        self._items = ItemsEvaluator(task, config, watch)
        self._marked = Marked(task.catalogue)

    @functools.cached_property
    def _narratives(self) -> NarrativeMeasure:
        task = self.task
        return NarrativeMeasure(
            task.model, task.feed, task.tokenizer, task.answer_length, task.stop_ids
        )

    def answer(self, params: PyTree[Array], numbers: Int[np.ndarray, " chosen"]) -> Narrated:
        """For every example a text behind the item that is ranked first."""
        ranked = self._items.answer(params, numbers)
        found = self._narrated(params, ranked.index, ranked.lists[:, 0])
        return dataclasses.replace(found, ranked=ranked)

    def _narrated(
        self,
        params: PyTree[Array],
        numbers: Int[np.ndarray, " chosen"],
        items: Int[np.ndarray, " chosen"],
        what: str = "",
    ) -> Narrated:
        advance = self.watch(f"writing {self.task.label}{what}", len(numbers))
        found = self._narratives(params, numbers, items, advance)
        return Narrated(**_fields(found), items=items[np.argsort(numbers)])

    def metrics(self, answers: Generated) -> Evaluation:
        """The registered metrics of lists and of texts."""
        assert isinstance(answers, Narrated) and answers.ranked is not None
        return self._items.metrics(answers.ranked) + self.of_texts(answers)

    def of_texts(self, answers: Generated) -> Evaluation:
        """Also how many of the words that tell items apart are true of their items."""
        assert isinstance(answers, Narrated)
        return super().of_texts(answers) + self._marked.evaluation(answers, answers.items.tolist())

    def judged(self, answers: Generated, judges: Judges) -> Evaluation:
        """Also of titles in the place of texts."""
        assert isinstance(answers, Narrated)
        titles = [self.task.catalogue.titles[row] for row in answers.items.tolist()]
        named = dataclasses.replace(answers, predictions=titles)
        return super().judged(answers, judges) + super().judged(named, judges).under(TITLE)

    def evaluate(
        self, params: PyTree[Array], step: int, judges: Judges = NO_JUDGES
    ) -> tuple[Evaluation, list[Writer]]:
        """Ranks, nll of the right texts, and the metrics of the written ones."""
        ranks, writers = self._items.evaluate(params, step, judges)
        texts, more = super().evaluate(params, step, judges)
        evaluation = ranks + texts
        if self.config.generation and self.task.model.objective.predicts_text:
            evaluation += self._of_true_items(params, judges)
        return evaluation, [*writers, *more]

    def _of_true_items(self, params: PyTree[Array], judges: Judges) -> Evaluation:
        stream = self.task.feed.stream
        numbers = self.task.sample_of_texts(self.config.texts).numbers
        true = np.array([stream[int(n)]["target_item"] for n in numbers])
        answers = self._narrated(params, np.asarray(numbers), true, " of the true items")
        return TextEvaluator.judged(self, answers, judges).under(TRUE_ITEM)


def _fields(found: Generated) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are."""
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
