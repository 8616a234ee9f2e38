"""Semantic consistency: how near in meaning a generated text is to its reference.

The cosine of the two texts' sentence vectors, after ELM's metric of that name (Tennenholtz et al.
2024, arXiv 2310.04475), whose reference is the vector that the model was asked about instead of a
text. It is given raw and between two marks that are measured with the same texts:

    floor    mean cosine of a generated text with the references of all others
    ceiling  mean cosine of a reference with a second reference of its item, or with itself: 1
    score    (raw - floor) / (ceiling - floor)

so that 0 is a text about anything and 1 one as near as people's own. It needs a sentence encoder;
without one the metric reads "not available", and nothing else changes.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from ilm_jax.evaluation.measures.generation import Generated
from ilm_jax.evaluation.measures.sentence_encoder import REMEDY, SentenceEncoder, bundled
from ilm_jax.metrics import scores
from ilm_jax.metrics.intervals import Interval, mean_interval
from ilm_jax.metrics.values import Evaluation, MetricValues
from ilm_jax.progress import Watch

NOT_AVAILABLE = "not available"
MOST_UNKNOWN = 0.05
Encode = Callable[[Sequence[str]], Float32[np.ndarray, "texts dim"]]


@dataclasses.dataclass(frozen=True, eq=False)
class SemanticConsistency:
    """The metric of one set of generated texts.

    Attributes:
      cosines: of each text with its reference.
      raw: their mean with its interval, by resampling texts.
      floor, ceiling: marks of this module's header; the floor is NaN for a single text.
      score: the mean between the marks, with its interval; None unless floor < ceiling.
      encoder: name of the sentence encoder.
    """

    cosines: Float64[np.ndarray, " texts"]
    raw: Interval
    floor: float
    ceiling: float
    score: Interval | None
    encoder: str

    def __str__(self) -> str:
        score = self.score or "undefined"
        return (
            f"{score}, raw {self.raw} between {self.floor:.4f} (others' references) and "
            f"{self.ceiling:.4f}; cosines of {self.encoder}"
        )


class Watched:
    """An encoder that shows how far it is.

    Attributes:
      name: of the encoder.
    """

    def __init__(self, encoder: Encode, watch: Watch) -> None:
        """Of any encoder; only `SentenceEncoder` tells of its batches."""
        self._encoder, self._watch = encoder, watch
        self.name = getattr(encoder, "name", "given")

    def unknown(self, texts: Sequence[str]) -> float:
        """Share of the texts' tokens that the encoder does not know; 0 where it does not say."""
        told = getattr(self._encoder, "unknown", None)
        return 0.0 if told is None else float(told(texts))

    def __call__(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts dim"]:
        """The vector of each text."""
        if not isinstance(self._encoder, SentenceEncoder):
            return self._encoder(texts)
        return self._encoder(texts, self._watch(f"sentence vectors, {self.name}", len(texts)))


def cannot_read(encoder: Encode, texts: Sequence[str]) -> str:
    """Why the encoder's vectors of these texts mean nothing; "" where they do.

    All words that a vocabulary lacks are one token to it, so texts in a script that it was not
    made for have near-equal vectors, whatever they say.
    """
    share = getattr(encoder, "unknown", lambda texts: 0.0)(texts)
    if share <= MOST_UNKNOWN:
        return ""
    name = getattr(encoder, "name", "the given encoder")
    return (
        f"{NOT_AVAILABLE} ({name} does not know {100 * share:.3g} % of these texts' tokens: give "
        "one that reads their script by --encoder=FOLDER)"
    )


def find_encoder(folder: str | None = None) -> SentenceEncoder | None:
    """The user's sentence encoder, else the packaged one, else None.

    Raises:
      UserError: if the user's folder, or the package, is not what it should be.
    """
    return SentenceEncoder(folder) if folder else bundled()


def semantic_consistency(
    encoder: Encode | None,
    generated: Sequence[str],
    references: Sequence[str],
    second_references: Sequence[str] | None = None,
    **settings: Any,
) -> SemanticConsistency | None:
    """The metric, or None without an encoder.

    Args:
      encoder: texts to vectors of any length, such as `SentenceEncoder`.
      generated: one text per unit.
      references: what each should mean.
      second_references: another text of the same meaning for each, for the ceiling.
      **settings: of `mean_interval`.

    Raises:
      ValueError: for no texts, or numbers that differ.
    """
    if encoder is None:
        return None
    if not generated or len(generated) != len(references):
        raise ValueError(f"{len(generated)} texts and {len(references)} references: one each")
    left, right = _units(encoder(generated)), _units(encoder(references))
    cosines = np.sum(left * right, axis=1)
    count = len(cosines)
    # The mean over all pairs that are not one's own: every shuffle at once.
    everything = float(left.sum(0) @ right.sum(0)) - cosines.sum()
    floor = everything / (count * (count - 1)) if count > 1 else math.nan
    ceiling = 1.0
    if second_references is not None:
        if len(second_references) != count:
            raise ValueError(f"{count} texts and {len(second_references)} second references")
        ceiling = float(np.mean(np.sum(right * _units(encoder(second_references)), axis=1)))
    score = None
    if floor < ceiling:
        score = mean_interval((cosines - floor) / (ceiling - floor), **settings)
    name = getattr(encoder, "name", "the given encoder")
    raw = mean_interval(cosines, **settings)
    return SemanticConsistency(cosines, raw, floor, ceiling, score, name)


def _units(vectors: Float32[np.ndarray, "texts dim"]) -> Float64[np.ndarray, "texts dim"]:
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def semantic_evaluation(texts: Generated, encoder: Encode | None) -> Evaluation:
    """Semantic consistency of generated texts and its floor, or why there is none."""
    if encoder is None:
        why = f"{NOT_AVAILABLE} ({REMEDY}, or --encoder=FOLDER)"
        return Evaluation([], missing={"semantic": why})
    why = cannot_read(encoder, texts.targets)
    if why:
        return Evaluation([], missing={"semantic": why})
    meaning = semantic_consistency(encoder, texts.predictions, texts.targets)
    assert meaning is not None
    unit = "generated texts"
    raw = MetricValues("semantic_cosine", unit, texts.index, meaning.cosines)
    if meaning.score is None:
        one = "a single text has no others' references"
        same = "others' references are as near as a text's own"
        why = f"{NOT_AVAILABLE} ({one if len(meaning.cosines) == 1 else same})"
        return Evaluation([raw], missing={"semantic": why})
    values = (meaning.cosines - meaning.floor) / (meaning.ceiling - meaning.floor)
    score = MetricValues("semantic", unit, texts.index, values)
    return Evaluation([raw, score], {"semantic_floor": meaning.floor})


def behavioural_evaluation(
    profiles: Generated,
    encoder: Encode,
    item_texts: Sequence[str],
    preferences: Float64[np.ndarray, "texts items"],
) -> Evaluation:
    """Behavioural consistency of user profiles (ELM, arXiv 2310.04475, Equation 2), or why none.

    A text encoder orders the items by the cosine of their texts with a generated profile; the
    metric is the rank correlation of that order with the preferences that behaviour gives.

    Args:
      profiles: generated.
      encoder: of sentences.
      item_texts: of the items that are ordered.
      preferences: of each profile's user, such as products of CF vectors.
    """
    why = cannot_read(encoder, item_texts)
    if why:
        return Evaluation([], missing={"behavioural": why})
    of_profiles, of_items = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        for vectors in (encoder(profiles.predictions), encoder(item_texts))
    )
    values = scores.behavioural_consistency(list(of_profiles @ of_items.T), list(preferences))
    known = np.isfinite(values)
    if not known.any():
        why = f"{NOT_AVAILABLE} (no user prefers one item to another)"
        return Evaluation([], missing={"behavioural": why})
    metric = MetricValues("behavioural", "generated texts", profiles.index[known], values[known])
    return Evaluation([metric])
