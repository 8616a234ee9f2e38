"""Ratings that a language model predicts, from the probabilities of a scale's words.

The values that training interactions have are the scale. All of them are scored as answers, by
beams as many as there are values, and the prediction is the mean of the scale under the softmax of
the scores: of all predictions the one with the least expected squared error, and a score by which
examples can be ordered, where a generated word would give ties.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Int64, PyTree

from ilm_jax.data.catalogue.splits import Splits
from ilm_jax.data.examples.example import Example
from ilm_jax.data.examples.prompt_tokens import PromptTokenizer
from ilm_jax.data.examples.prompts import rating_words
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.decoding.beam import beam_search
from ilm_jax.decoding.trie import Trie, build_trie
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.passes import (
    Batch,
    ModelOnMesh,
    OnBatch,
    Pass,
    check_numbers,
    embed,
    gathered,
)
from ilm_jax.metrics import scores, texts
from ilm_jax.metrics.values import Evaluation, MetricValues, Statistic

# A scale with more values is no scale: play counts, say.
MOST_VALUES = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Rated:
    """Predicted and true ratings, in order of the example's number.

    Attributes:
      index: number of the example.
      examples: of the prompts: key, user, inputs, target_text, ….
      ratings: what stood there.
      predicted: mean of the scale.
    """

    index: Int64[np.ndarray, " examples"]
    examples: list[Example]
    ratings: Float64[np.ndarray, " examples"]
    predicted: Float64[np.ndarray, " examples"]

    @property
    def predictions(self) -> Float64[np.ndarray, " examples"]:
        """Predicted ratings, as metrics take them."""
        return self.predicted

    @property
    def targets(self) -> Float64[np.ndarray, " examples"]:
        """True ratings, as metrics take them."""
        return self.ratings

    def over_users(self, liked: float) -> Evaluation:
        """RMSE, and with ratings of at least `liked` as positives AUC and UAUC."""
        users = np.array([example["user"] for example in self.examples])
        labels = self.ratings >= liked

        def of(
            metric: Callable[[np.ndarray, np.ndarray], float], first: np.ndarray, second: np.ndarray
        ) -> Statistic:
            """The metric of the chosen rows, users the unit of resampling."""
            return Statistic(lambda rows: metric(first[rows], second[rows]), users)

        statistics = {"rmse": of(scores.rmse, self.ratings, self.predicted)}
        missing = {}
        if labels.all() or not labels.any():
            missing["auc"] = f"{texts.NOT_AVAILABLE} (all ratings lie on one side of {liked:g})"
        else:
            statistics["auc"] = of(scores.auc, labels, self.predicted)
        metrics = []
        by_user = scores.auc_by_user(labels, self.predicted, users)
        if len(by_user.values):
            numbers = np.flatnonzero(np.isin(np.unique(users), by_user.users))
            metrics.append(MetricValues("uauc", "users", numbers, by_user.values))
        else:
            why = "no user has ratings on both sides among these"
            missing["uauc"] = f"{texts.NOT_AVAILABLE} ({why})"
        return Evaluation(metrics, missing=missing, statistics=statistics)


class RatingMeasure:
    """Predicted ratings of a task whose answers are ratings."""

    def __init__(
        self, model: ModelOnMesh, feed: Feed, scale: Float64[np.ndarray, " values"], trie: Trie
    ) -> None:
        """As `Pass`.

        Args:
          model, feed: see there.
          scale: the ratings that there are.
          trie: of their words, see `scale_trie`.
        """
        objective = model.objective

        def step(params: PyTree[Array], batch: Batch, soft: Array, trie: Trie) -> Array:
            """Expected rating [batch]: the scale's values, weighed by their probabilities."""
            embeddings = embed(objective, params, batch, soft)
            values, found = beam_search(
                objective.model.lm, params["lm"], trie, embeddings, batch["lengths"], len(scale)
            )
            weights = jax.nn.softmax(found, axis=-1)
            return jnp.sum(weights * jnp.asarray(scale, jnp.float32)[values], axis=-1)

        self._feed = feed
        self._pass = Pass(model, feed, step, trie, prompts=True)

    def __call__(
        self,
        params: PyTree[Array],
        numbers: Int[np.ndarray, " chosen"] | None = None,
        on_batch: OnBatch = None,
    ) -> Rated:
        """The prediction for every example."""
        index, predicted = gathered(self._pass(params, numbers), on_batch)
        check_numbers(predicted, index, "predicted ratings")
        examples = [dict(self._feed.stream[int(i)]) for i in index]
        ratings = np.array([float(example["target_text"]) for example in examples])
        return Rated(index, examples, ratings, np.asarray(predicted, np.float64))


def rating_scale(splits: Splits) -> Float64[np.ndarray, " values"]:
    """The different ratings of the training interactions, ascending.

    Raises:
      UserError: if there are none, or more than a scale has.
    """
    known = splits.catalogue.ratings[splits.train_mask]
    values = np.unique(known[np.isfinite(known)]).astype(np.float64)
    if not 1 < len(values) <= MOST_VALUES:
        raise UserError(
            f"{splits.catalogue.name} has {len(values)} different ratings in training: "
            f"2 to {MOST_VALUES} make a scale"
        )
    return values


def scale_trie(scale: Float64[np.ndarray, " values"], tokenizer: Tokenizer) -> Trie:
    """The trie of the scale's words; value k is "item" k."""
    words, prompts = [rating_words(value) for value in scale], PromptTokenizer(tokenizer)
    return build_trie([[*prompts.answer(word)[0], tokenizer.eos_id] for word in words], words)
