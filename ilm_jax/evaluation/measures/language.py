"""Language metrics: negative log-likelihood over all and over content tokens, bits per byte.

`nll` is the mean over target tokens, in nats, lower is better (`log_perplexity`): total nll of all
examples over their total number of tokens. `nll_content` counts only tokens that carry information,
template boilerplate removed. Sums are kept per example, so that two models can be compared pair by
pair on the same examples. `worth` is what nll gains by the items' own vectors (see worth.py).
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, Int32, Int64, PyTree, Shaped

from ilm_jax.data.streams.feed import Feed
from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures.passes import Batch, ModelOnMesh, OnBatch, Pass
from ilm_jax.metrics import texts
from ilm_jax.metrics.intervals import Interval, mean_interval
from ilm_jax.metrics.values import Evaluation, MetricValues

NO_CONTENT = f"{texts.NOT_AVAILABLE} (no target has a token that carries information)"

UNIT = "held-out texts"


class ExampleSums(NamedTuple):
    """Sums over the target tokens of each row of a batch; see `example_sums`."""

    nll: Float32[Array, " batch"]
    tokens: Float32[Array, " batch"]
    content_nll: Float32[Array, " batch"]
    content_tokens: Float32[Array, " batch"]


def token_nll(
    logits: Float[Array, "*batch vocab"], targets: Int[Array, "*batch"]
) -> Float32[Array, "*batch"]:
    """-log softmax(logits)[target] in nats, in float32 whatever the logits are.

    Targets outside the vocabulary are clipped into it: give them weight 0.
    """
    logits = logits.astype(jnp.float32)
    index = jnp.clip(targets, 0, logits.shape[-1] - 1)[..., None]
    picked = jnp.take_along_axis(logits, index, axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def example_sums(
    nll: Float[Array, "batch length"],
    loss_weights: Float[Array, "batch length"],
    content_weights: Float[Array, "batch length"],
) -> ExampleSums:
    """Sums per row, for use inside a compiled step; weights are 0 or 1.

    Args:
      nll: of every position, from `token_nll`.
      loss_weights: 1 at target tokens.
      content_weights: 1 at target tokens that carry information.
    """
    # where, not a product: 0 * inf would be NaN at a position that does not count.
    return ExampleSums(
        nll=jnp.sum(jnp.where(loss_weights > 0, nll, 0.0), axis=1),
        tokens=jnp.sum(loss_weights > 0, axis=1, dtype=jnp.float32),
        content_nll=jnp.sum(jnp.where(content_weights > 0, nll, 0.0), axis=1),
        content_tokens=jnp.sum(content_weights > 0, axis=1, dtype=jnp.float32),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageResult:
    """Per-example sums, in order of the example's index, and the metrics that they give.

    Attributes:
      swapped: of the same examples, with other items' vectors in the place of their own.
    """

    index: Int64[np.ndarray, " examples"]
    nll_sum: Float64[np.ndarray, " examples"]
    tokens: Float64[np.ndarray, " examples"]
    content_nll_sum: Float64[np.ndarray, " examples"]
    content_tokens: Float64[np.ndarray, " examples"]
    swapped: "LanguageResult | None" = None

    @property
    def nll(self) -> float:
        """Nats per target token."""
        return float(self.nll_sum.sum() / self.tokens.sum())

    @property
    def nll_content(self) -> float:
        """Nats per content token; NaN if no token carries information."""
        total = self.content_tokens.sum()
        return float(self.content_nll_sum.sum() / total) if total else math.nan

    def bits_per_byte(self, num_bytes: Shaped[np.ndarray, " examples"]) -> float:
        """Total nll in bits over the UTF-8 bytes of the target texts (given in order of index).

        Compares models with different tokenizers. The end token's nll counts, its bytes do not.
        """
        return float(self.nll_sum.sum() / math.log(2) / np.sum(num_bytes))

    def interval(self, content: bool = False, **settings: Any) -> Interval:
        """Bootstrap interval of `nll`, or of `nll_content`, over examples."""
        if content:
            return mean_interval(self.content_nll_sum, self.content_tokens, **settings)
        return mean_interval(self.nll_sum, self.tokens, **settings)


class LanguageAccumulator:
    """Collects `ExampleSums` of batches; an example that comes twice counts once."""

    def __init__(self) -> None:
        """Starts empty."""
        self._rows: dict[int, tuple[float, float, float, float]] = {}

    def __bool__(self) -> bool:
        """Whether anything was added."""
        return bool(self._rows)

    def add(self, example_index: Int[np.ndarray, " batch"], sums: ExampleSums) -> None:
        """Adds a batch.

        Args:
          example_index: number of each example; rows with a negative one pad the batch.
          sums: of the same rows.

        Raises:
          UserError: if a sum is not finite.
        """
        columns = np.stack([np.asarray(column, np.float64) for column in sums], axis=1)
        for index, row in zip(np.asarray(example_index).tolist(), columns, strict=True):
            if index < 0 or not row[1]:
                continue
            if not np.isfinite(row).all():
                raise UserError(
                    f"nll of example {index} is not finite: neither are the model's parameters, or "
                    "its logits; choose an earlier --step"
                )
            self._rows.setdefault(index, tuple(row.tolist()))

    def result(self) -> LanguageResult:
        """Everything added so far.

        Raises:
          ValueError: if nothing was added.
        """
        if not self._rows:
            raise ValueError("no example with target tokens")
        index = np.array(sorted(self._rows), np.int64)
        columns = np.array([self._rows[i] for i in index.tolist()], np.float64)
        return LanguageResult(index, *columns.T)


class LanguageMeasure:
    """nll of a task's targets, in nats; also with other items' vectors, where some are given."""

    def __init__(
        self,
        model: ModelOnMesh,
        feed: Feed,
        partners: Int32[np.ndarray, " capacity"] | None = None,
    ) -> None:
        """As `Pass`; `partners` names another row for each row of the embedding table."""
        objective = model.objective

        def step(
            params: PyTree[Array], batch: Batch, table: Array, *others: Array
        ) -> list[tuple[Array, ...]]:
            """Sums per example with its own items, then with each of `others` in their places."""
            batches = [dict(batch)]
            for other in others:
                entities = batch["entities"]
                swapped = jnp.where(entities >= 0, jnp.take(other, jnp.maximum(entities, 0)), -1)
                batches.append({**batch, "entities": swapped})
            return [example_sums(*objective.token_losses(params, b, table)) for b in batches]

        self._pass = Pass(model, feed, step, *(() if partners is None else (partners,)))

    def __call__(
        self,
        params: PyTree[Array],
        numbers: Int[np.ndarray, " chosen"] | None = None,
        on_batch: OnBatch = None,
    ) -> LanguageResult:
        """Sums of every example."""
        own, swapped = LanguageAccumulator(), LanguageAccumulator()
        for index, sums in self._pass(params, numbers):
            for accumulator, found in zip((own, swapped), sums, strict=False):
                accumulator.add(index, found)
            if on_batch is not None:
                on_batch(len(index))
        result = own.result()
        return dataclasses.replace(result, swapped=swapped.result() if swapped else None)


def language_evaluation(result: LanguageResult, no_worth: str = "") -> Evaluation:
    """nll, nll_content, worth and worth_content per token; what is missing says why.

    Args:
      result: the sums.
      no_worth: why nothing was measured with other items' vectors, if so.
    """
    pairs = {
        "nll": (result.nll_sum, result.tokens),
        "nll_content": (result.content_nll_sum, result.content_tokens),
    }
    if result.swapped is not None:
        other = result.swapped
        pairs["worth"] = (other.nll_sum - result.nll_sum, result.tokens)
        content = other.content_nll_sum - result.content_nll_sum
        pairs["worth_content"] = (content, result.content_tokens)
    metrics = [
        MetricValues(name, UNIT, result.index, sums, tokens, name.startswith("worth"))
        for name, (sums, tokens) in pairs.items()
        if tokens.sum()
    ]
    known = {metric.name for metric in metrics}
    missing = {n: NO_CONTENT for n in pairs if n not in known}
    if result.swapped is None and no_worth:
        missing |= dict.fromkeys(("worth", "worth_content"), no_worth)
    return Evaluation(metrics, missing=missing)
