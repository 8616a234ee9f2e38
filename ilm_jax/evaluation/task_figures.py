"""From what was measured of a task to its figures."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from ilm_jax.evaluation import scores, texts
from ilm_jax.evaluation.figures import Figure
from ilm_jax.evaluation.intervals import Interval, interval_over_users
from ilm_jax.evaluation.language import LanguageResult
from ilm_jax.evaluation.measures import Generated
from ilm_jax.evaluation.ratings import Rated
from ilm_jax.evaluation.results import Evaluation
from ilm_jax.evaluation.semantic import Encode, semantic_consistency
from ilm_jax.evaluation.sentence_encoder import REMEDY


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


def text_evaluation(found: Generated, encoder: Encode | None) -> Evaluation:
    """Exact match, ROUGE, BLEU and semantic consistency of texts; what is missing says why."""
    missing: dict[str, str] = {}
    figures = {"exact_match": texts.exact_match(found.predictions, found.targets)}
    rouges = texts.rouge(found.predictions, found.targets)
    counts = texts.bleu_counts(found.predictions, found.targets)
    meaning = semantic_consistency(encoder, found.predictions, found.targets)
    totals = {"ended": found.ended}
    if rouges is None:
        missing |= dict.fromkeys(texts.ROUGES, f"{texts.NOT_AVAILABLE} ({texts.REMEDY})")
    else:
        figures |= rouges
    if counts is None:
        missing["bleu"] = f"{texts.NOT_AVAILABLE} ({texts.REMEDY})"
    else:
        figures["bleu"] = counts
    if meaning is None:
        missing["semantic"] = f"{texts.NOT_AVAILABLE} ({REMEDY}, or --encoder=FOLDER)"
    else:
        figures["semantic_cosine"] = meaning.cosines
        if meaning.score is not None:
            totals["semantic_floor"] = meaning.floor
            span = meaning.ceiling - meaning.floor
            figures["semantic"] = (meaning.cosines - meaning.floor) / span
    unit = "generated texts"
    return Evaluation(
        [Figure(n, unit, found.index, v) for n, v in figures.items()], totals, missing=missing
    )


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


def rating_evaluation(found: Rated, liked: float) -> Evaluation:
    """RMSE, MAE, and with ratings of at least `liked` as positives AUC and UAUC."""
    users = np.array([example["user"] for example in found.examples])
    labels = found.ratings >= liked
    errors = {
        "mse": scores.squared_errors(found.predicted, found.ratings),
        "mae": scores.absolute_errors(found.predicted, found.ratings),
    }
    figures = [Figure(name, "ratings", found.index, values) for name, values in errors.items()]

    def over_users(figure: Callable[[Any, Any], float], truth: np.ndarray) -> Interval:
        return interval_over_users(lambda rows: figure(truth[rows], found.predicted[rows]), users)

    others = {"rmse": over_users(scores.rmse, found.ratings)}
    missing: Mapping[str, str] = {}
    if labels.all() or not labels.any():
        missing = {"auc": f"{texts.NOT_AVAILABLE} (all ratings lie on one side of {liked:g})"}
    else:
        others["auc"] = over_users(scores.auc, labels)
    by_user = scores.auc_by_user(labels, found.predicted, users)
    if len(by_user.values):
        numbers = np.flatnonzero(np.isin(np.unique(users), by_user.users))
        figures.append(Figure("uauc", "users", numbers, by_user.values))
    else:
        why = "no user has ratings on both sides among these"
        missing = {**missing, "uauc": f"{texts.NOT_AVAILABLE} ({why})"}
    return Evaluation(figures, missing=missing, others=others)
