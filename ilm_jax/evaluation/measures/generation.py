"""Texts that a model writes in answer to a task's prompts."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Int, Int64, PyTree

from ilm_jax.data.examples.example import Example
from ilm_jax.data.streams.feed import Feed
from ilm_jax.data.tokenizers import Tokenizer
from ilm_jax.decoding.greedy import greedy
from ilm_jax.evaluation.measures.passes import Batch, ModelOnMesh, OnBatch, Pass, embed, gathered


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """Texts that a model wrote, in order of the example's number.

    Attributes:
      index: number of the example.
      examples: of the prompts: key, inputs, target_text, ….
      predictions: what was written, without the end token.
      targets: what stood there.
      ended: share of texts that the model ended itself, within the length.
    """

    index: Int64[np.ndarray, " texts"]
    examples: list[Example]
    predictions: list[str]
    targets: list[str]
    ended: float


class GenerationMeasure:
    """Greedily generated answers of a task."""

    def __init__(
        self,
        model: ModelOnMesh,
        feed: Feed,
        tokenizer: Tokenizer,
        steps: int,
        stop_ids: Sequence[int] = (),
    ) -> None:
        """As `Pass`.

        Args:
          model, feed: see there.
          tokenizer: the model's.
          steps: tokens to generate at most.
          stop_ids: that end an answer, beside the tokenizer's eos.
        """
        objective, eos, pad = model.objective, tokenizer.eos_id, tokenizer.pad_id
        self._stops = (eos, *(number for number in stop_ids if number != eos))

        def step(params: PyTree[Array], batch: Batch, soft: Array) -> Array:
            """Greedy tokens [batch, steps]."""
            embeddings = embed(objective, params, batch, soft)
            return greedy(
                objective.model.lm,
                params["lm"],
                embeddings,
                batch["lengths"],
                steps=steps,
                eos_id=eos,
                pad_id=pad,
                stop_ids=self._stops[1:],
            )

        self._feed, self._tokenizer = feed, tokenizer
        self._pass = Pass(model, feed, step, prompts=True)

    def __call__(
        self,
        params: PyTree[Array],
        numbers: Int[np.ndarray, " chosen"] | None = None,
        on_batch: OnBatch = None,
    ) -> Generated:
        """The answer to every prompt."""
        index, tokens = gathered(self._pass(params, numbers), on_batch)
        examples = [dict(self._feed.stream[int(i)]) for i in index]
        ended = np.isin(tokens, self._stops)
        lengths = np.where(ended.any(1), ended.argmax(1), tokens.shape[1])
        written = [row[:end].tolist() for row, end in zip(tokens, lengths, strict=True)]
        return Generated(
            index,
            examples,
            predictions=[self._tokenizer.decode(ids).strip() for ids in written],
            targets=[example["target_text"] for example in examples],
            ended=float(ended.any(1).mean()),
        )
