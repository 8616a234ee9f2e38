"""An auto-rater: a language model judges generated texts by how likely it answers "yes".

In the manner of REGEN's (Su et al. 2025, arXiv 2503.11924), which asks a large model to rate
narratives; here any decoder of the framework judges, and nothing is sampled. Each criterion is a
question about the text; the rating is

    P(yes) / (P(yes) + P(no)),    P by the likelihood of the answer's tokens after the question

and, where `calibrated`, with the log-odds of the same question about nothing taken off, so that a
model that says "yes" to everything rates everything 1/2 (Zhao et al. 2021, arXiv 2102.09690).
Questions are ours. What a rating is worth depends on the judge: measure it on planted errors first.
"""

import bisect
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float64, PyTree

from ilm_jax.checkpoints.language_models import LoadedModel
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import Rendered, Segment
from ilm_jax.data.streams.converters import PromptConverter
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.language import LanguageMeasure
from ilm_jax.evaluation.measures.passes import ModelOnMesh
from ilm_jax.metrics.values import Evaluation, MetricValues
from ilm_jax.progress import Watch, unseen

NOTHING = "N/A"
_PLACE = re.compile(r"\{(text|item|history)\}")


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One question about a text.

    Attributes:
      name: of the metric.
      question: with the places {text}, and {item} or {history} where it asks of them; ends in one
        space, as prompts do.
      good, bad: the two answers.
    """

    name: str
    question: str
    good: str = "yes"
    bad: str = "no"


FLUENCY = Criterion(
    "rater_fluency", "Text: {text}\nIs this text fluent and well formed? Answer yes or no: "
)
ITEM = Criterion(
    "rater_item",
    "Item: {item}\nText: {text}\nIs everything in the text true of the item? Answer yes or no: ",
)
HISTORY = Criterion(
    "rater_history",
    "Chosen before: {history}\nText: {text}\nDoes the text suit what was chosen before? "
    "Answer yes or no: ",
)


class _Listed(list):
    """A finite stream of examples that are all there."""

    @property
    def len_epoch(self) -> int:
        """As streams have it: examples of one epoch."""
        return len(self)


@dataclasses.dataclass(frozen=True)
class AutoRater:
    """A judge.

    Attributes:
      model: a text-only language model, and where it lies.
      params: its parameters, nested; they stay as they are.
      tokenizer: of that model.
      length: tokens of a question at most; what it is about is cut in the middle to fit.
      criteria: the questions.
      calibrated: take off what the judge answers about nothing.
      name: of the judge, for reports.
    """

    model: ModelOnMesh
    params: PyTree[Array]
    tokenizer: Tokenizer
    length: int = 512
    criteria: tuple[Criterion, ...] = (FLUENCY, ITEM, HISTORY)
    calibrated: bool = True
    name: str = "given"

    @classmethod
    def of_model(cls, model: LoadedModel, name: str = "given", **settings: Any) -> "AutoRater":
        """A language model of a folder as judge; `settings` are fields."""
        judge = ModelOnMesh(model.objective, model.partitioner, np.zeros((1, 1), np.float32))
        return cls(judge, model.params, model.tokenizer, name=name, **settings)

    def __call__(
        self,
        texts: Sequence[str],
        items: Sequence[str] | None = None,
        histories: Sequence[str] | None = None,
        watch: Watch = unseen,
    ) -> dict[str, Float64[np.ndarray, " texts"]]:
        """Ratings from 0 to 1 by name of the criterion; those whose side is not given are left out.

        Args:
          texts: what was generated.
          items: words about the item of each text.
          histories: words about what its user chose before.
          watch: hears how far it is.

        Raises:
          UserError: for no texts, numbers that differ, or a `length` without room for a question.
        """
        return self._rated(texts, items, histories, watch)[0]

    def _rated(
        self,
        texts: Sequence[str],
        items: Sequence[str] | None,
        histories: Sequence[str] | None,
        watch: Watch,
    ) -> tuple[dict[str, Float64[np.ndarray, " texts"]], int]:
        """(ratings, how many texts were judged by a question that had to be cut)."""
        given: dict[str, Sequence[str]] = {"text": texts}
        given |= {} if items is None else {"item": items}
        given |= {} if histories is None else {"history": histories}
        if not texts or any(len(side) != len(texts) for side in given.values()):
            counts = ", ".join(f"{len(side)} for {name}" for name, side in given.items())
            raise UserError(f"the rater needs one of each per text, and a text; given are {counts}")
        asked = [c for c in self.criteria if all(name in given for name in _places(c.question))]
        if not asked:
            raise UserError("no criterion can be asked of what is given: give items or histories")
        rows = [
            dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)
        ]
        rows += [dict.fromkeys(given, NOTHING)] if self.calibrated else []
        fitting = [[self._fitting(criterion, row) for row in rows] for criterion in asked]
        cut = sum(any(side[n] is not rows[n] for side in fitting) for n in range(len(texts)))
        questions = [(c, row) for c, side in zip(asked, fitting, strict=True) for row in side]
        odds = self._log_odds(questions, watch)
        found = {}
        for criterion, part in zip(asked, odds.reshape(len(asked), -1), strict=True):
            own = part[: len(texts)] - (part[-1] if self.calibrated else 0.0)
            found[criterion.name] = 1.0 / (1.0 + np.exp(-own))
        return found, cut

    def evaluation(
        self,
        texts: Sequence[str],
        items: Sequence[str] | None = None,
        histories: Sequence[str] | None = None,
        watch: Watch = unseen,
    ) -> Evaluation:
        """The same as metrics, with intervals over texts; what could not be asked says so.

        `rater_cut` is the share of texts that were judged by a question which had to be cut, where
        there are any.
        """
        ratings, cut = self._rated(texts, items, histories, watch)
        metrics = [
            MetricValues(name, "generated texts", np.arange(len(values)), values)
            for name, values in ratings.items()
        ]
        sides = {"item": items, "history": histories}
        missing = {
            criterion.name: f"not available (not every text has its {place})"
            for criterion in self.criteria
            for place in _places(criterion.question)
            if place in sides and sides[place] is None
        }
        totals = {"rater_cut": cut / len(texts)} if cut else {}
        return Evaluation(metrics, totals, missing=missing)

    def _log_odds(
        self, questions: Sequence[tuple[Criterion, Mapping[str, str]]], watch: Watch
    ) -> Float64[np.ndarray, " questions"]:
        """log P(good) - log P(bad) of each question."""
        answers = [
            self.example(criterion, row, answer)
            for criterion, row in questions
            for answer in (criterion.good, criterion.bad)
        ]
        longest = max(len(example["targets"]) for example in answers)
        converter = PromptConverter({"inputs": self.length, "targets": longest}, self.tokenizer)
        feed = Feed(_Listed(answers), converter)  # type: ignore[arg-type]
        on_batch = watch(f"judging by {self.name}", len(answers))
        measured = LanguageMeasure(self.model, feed)(self.params, on_batch=on_batch)
        nll = measured.nll_sum.reshape(-1, 2)
        return nll[:, 1] - nll[:, 0]

    def _inputs(self, criterion: Criterion, row: Mapping[str, str]) -> list[int]:
        question = Rendered((Segment(0, _filled(criterion.question, row)),))
        return PromptTokenizer(self.tokenizer).prompt(question)[0]

    def _fitting(self, criterion: Criterion, row: Mapping[str, str]) -> Mapping[str, str]:
        """The row with as many characters of each side's two ends as the question has room for."""

        def cut(characters: int) -> dict[str, str]:
            """The row with so many characters of each side."""
            return {name: _shortened(text, characters) for name, text in row.items()}

        def too_long(characters: int) -> bool:
            """Whether the question has no room for them."""
            return len(self._inputs(criterion, cut(characters))) > self.length

        longest = max(len(row[name]) for name in _places(criterion.question))
        if not too_long(longest):
            return row
        fits = bisect.bisect_left(range(longest), True, key=too_long)
        if not fits:
            raise UserError(
                f"AutoRater.length = {self.length}: {criterion.name} asks in more tokens than "
                "that without any text: raise it"
            )
        return cut(fits - 1)

    def example(self, criterion: Criterion, row: Mapping[str, str], answer: str) -> Example:
        """A question with one of its answers, as prompt examples are: for judging or training."""
        words = PromptTokenizer(self.tokenizer)
        inputs = self._inputs(criterion, row)
        targets, _ = words.answer(answer)
        return {
            "key": criterion.name,
            "catalogue": "",
            "history_bounds": [],
            "inputs": np.array(inputs, np.int32),
            "slots": np.array([], np.int32),
            "targets": np.array(targets, np.int32),
            "targets_content": np.ones(len(targets), np.int32),
        }


def _shortened(text: str, characters: int) -> str:
    """The text, or as many characters of its two ends."""
    if len(text) <= characters:
        return text
    last = characters // 2
    return f"{text[: characters - last]} ... {text[len(text) - last :]}"


def _places(question: str) -> list[str]:
    return _PLACE.findall(question)


def _filled(question: str, row: Mapping[str, str]) -> str:
    """In one go, so that braces in a text stay its own."""
    return _PLACE.sub(lambda match: row[match[1]], question)
