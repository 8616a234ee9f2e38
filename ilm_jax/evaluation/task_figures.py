"""From what was measured of a task to its figures."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from ilm_jax.evaluation.figures import Figure
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measures import Generated
from ilm_jax.evaluation.ratings import Rated
from ilm_jax.evaluation.results import Evaluation
from ilm_jax.evaluation.semantic import Encode, cannot_read, semantic_consistency
from ilm_jax.evaluation.sentence_encoder import REMEDY
from ilm_jax.metrics import scores, texts
from ilm_jax.metrics.intervals import Interval, interval_over_users

SAMPLES = 1000
NO_CONTENT = f"{texts.NOT_AVAILABLE} (no target has a token that carries information)"
Missing = dict[str, str]


def language_figures(found: LanguageResult) -> list[Figure]:
    """nll and nll_content per token; the latter where any token carries information."""
    pairs = {
        "nll": (found.nll_sum, found.tokens),
        "nll_content": (found.content_nll_sum, found.content_tokens),
    }
    return [
        Figure(name, "held-out texts", found.index, values, tokens)
        for name, (values, tokens) in pairs.items()
        if tokens.sum()
    ]


def language_evaluation(found: LanguageResult) -> Evaluation:
    """`language_figures`, and why the one is missing that may be."""
    figures = language_figures(found)
    known = {figure.name for figure in figures}
    return Evaluation(figures, missing={n: NO_CONTENT for n in ("nll_content",) if n not in known})


def text_evaluation(
    found: Generated, encoder: Encode | None, on_text: Callable[[int], None] | None = None
) -> Evaluation:
    """Exact match, ROUGE, BLEU and semantic consistency of texts; what is missing says why.

    Args:
      found: the texts.
      encoder: of sentences, if there is one.
      on_text: hears how many more texts ROUGE has read.
    """
    unit = "generated texts"
    totals = {"ended": found.ended, "empty": float(np.mean([not t for t in found.predictions]))}
    matches = texts.exact_match(found.predictions, found.targets)
    figures = [Figure("exact_match", unit, found.index, matches)]
    missing: Missing = {}
    rouges = texts.rouge(found.predictions, found.targets, on_text=on_text)
    for name in texts.ROUGES:
        values = np.full(len(matches), np.nan) if rouges is None else rouges[name]
        known = np.isfinite(values)
        if known.any():
            figures.append(Figure(name, unit, found.index[known], values[known]))
        else:
            none = f"{texts.NOT_AVAILABLE} ({texts.REMEDY})"
            missing[name] = none if rouges is None else texts.NO_WORDS
    counts = texts.bleu_counts(found.predictions, found.targets)
    if counts is None:
        missing["bleu"] = f"{texts.NOT_AVAILABLE} ({texts.REMEDY})"
    elif texts.too_short(counts):
        missing["bleu"] = texts.TOO_SHORT
    else:
        figures.append(Figure("bleu", unit, found.index, counts))
    meaning, more, why = _meaning(found, encoder)
    return Evaluation([*figures, *meaning], totals | more, missing=missing | why)


def _meaning(
    found: Generated, encoder: Encode | None
) -> tuple[list[Figure], dict[str, float], Missing]:
    """(figures of semantic consistency, its floor, why what is missing of it is)."""
    if encoder is None:
        why = f"{texts.NOT_AVAILABLE} ({REMEDY}, or --encoder=FOLDER)"
        return [], {}, {"semantic": why}
    why = cannot_read(encoder, found.targets)
    if why:
        return [], {}, {"semantic": why}
    meaning = semantic_consistency(encoder, found.predictions, found.targets)
    assert meaning is not None
    unit = "generated texts"
    figures = [Figure("semantic_cosine", unit, found.index, meaning.cosines)]
    if meaning.score is None:
        one = "a single text has no others' references"
        same = "others' references are as near as a text's own"
        why = f"{texts.NOT_AVAILABLE} ({one if len(meaning.cosines) == 1 else same})"
        return figures, {}, {"semantic": why}
    span = meaning.ceiling - meaning.floor
    figures.append(Figure("semantic", unit, found.index, (meaning.cosines - meaning.floor) / span))
    return figures, {"semantic_floor": meaning.floor}, {}


def behavioural_evaluation(
    found: Generated,
    encoder: Encode,
    item_texts: list[str],
    preferences: Float64[np.ndarray, "texts items"],
) -> Evaluation:
    """`behavioural_figures`, or why there is none."""
    why = cannot_read(encoder, item_texts)
    figures = [] if why else behavioural_figures(found, encoder, item_texts, preferences)
    none = f"{texts.NOT_AVAILABLE} (no user prefers one item to another)"
    return Evaluation(figures, missing={} if figures else {"behavioural": why or none})


def behavioural_figures(
    found: Generated,
    encoder: Callable[..., Float32[np.ndarray, "texts dim"]],
    item_texts: list[str],
    preferences: Float64[np.ndarray, "texts items"],
) -> list[Figure]:
    """Behavioural consistency of user profiles (ELM, arXiv 2310.04475, Equation 2).

    A text encoder orders the items by the cosine of their texts with a generated profile; the
    figure is the rank correlation of that order with the preferences that behaviour gives.

    Args:
      found: profiles.
      encoder: of sentences.
      item_texts: of the items that are ordered.
      preferences: of each profile's user, such as products of CF vectors.
    """
    profiles, items = (
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        for vectors in (encoder(found.predictions), encoder(item_texts))
    )
    values = scores.behavioural_consistency(list(profiles @ items.T), list(preferences))
    known = np.isfinite(values)
    if not known.any():
        return []
    return [Figure("behavioural", "generated texts", found.index[known], values[known])]


def rating_evaluation(
    found: Rated, liked: float, on_sample: Callable[[int], None] | None = None
) -> Evaluation:
    """RMSE, MAE, and with ratings of at least `liked` as positives AUC and UAUC.

    Args:
      found: the ratings.
      liked: see there.
      on_sample: hears how many more bootstrap samples are drawn, of `SAMPLES` for each of two
        figures.
    """
    users = np.array([example["user"] for example in found.examples])
    labels = found.ratings >= liked
    errors = {
        "mse": scores.squared_errors(found.predicted, found.ratings),
        "mae": scores.absolute_errors(found.predicted, found.ratings),
    }
    figures = [Figure(name, "ratings", found.index, values) for name, values in errors.items()]

    def over_users(figure: Callable[[Any, Any], float], truth: np.ndarray) -> Interval:
        return interval_over_users(
            lambda rows: figure(truth[rows], found.predicted[rows]), users, samples=SAMPLES,
            on_sample=on_sample,
        )  # fmt: skip

    others = {"rmse": over_users(scores.rmse, found.ratings)}
    missing: Missing = {}
    if labels.all() or not labels.any():
        missing["auc"] = f"{texts.NOT_AVAILABLE} (all ratings lie on one side of {liked:g})"
    else:
        others["auc"] = over_users(scores.auc, labels)
    by_user = scores.auc_by_user(labels, found.predicted, users)
    if len(by_user.values):
        numbers = np.flatnonzero(np.isin(np.unique(users), by_user.users))
        figures.append(Figure("uauc", "users", numbers, by_user.values))
    else:
        why = "no user has ratings on both sides among these"
        missing["uauc"] = f"{texts.NOT_AVAILABLE} ({why})"
    return Evaluation(figures, missing=missing, others=others)
