"""Metric functions in seqio's signatures: (targets, predictions) and (targets, scores).

They can be attached to a seqio Task (`metric_fns=[…]`) and are what our own evaluator's files can
be measured again with. Each returns {metric: value}; a metric that is asked of an output that it
does not fit says so in one line.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.metrics import ranking as metrics
from ilm_jax.metrics import scores as score_metrics
from ilm_jax.metrics import texts
from ilm_jax.metrics.words import same_form

MetricFn = Callable[..., dict[str, float]]
CUTOFFS = (1, 5, 10)


def text_metrics(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Exact match, ROUGE and BLEU; the last two where their packages are installed."""
    _paired("text_metrics", targets, predictions)
    _each("text_metrics", "target", targets, str, "a text")
    _each("text_metrics", "prediction", predictions, str, "a text")
    return texts.text_means(list(predictions), list(targets))


def ranking_metrics(
    targets: Sequence[str], predictions: Sequence[Sequence[str]]
) -> dict[str, float]:
    """HR, NDCG and MRR of lists of item names, best first, at cut-offs that a list can fill.

    Raises:
      UserError: if a prediction is one text instead of a list: decode with beams.
    """
    _paired("ranking_metrics", targets, predictions)
    _each("ranking_metrics", "target", targets, str, "an item's name")
    _each(
        "ranking_metrics",
        "prediction",
        predictions,
        list | tuple | np.ndarray,
        "a list of items, best first (decode with beams)",
    )
    ranks = np.full(len(targets), metrics.MISSED)
    for row, (target, listed) in enumerate(zip(targets, predictions, strict=True)):
        # Names are the same however their letters are composed.
        wanted = same_form(target)
        places = [k for k, name in enumerate(listed, 1) if same_form(str(name)) == wanted]
        ranks[row] = places[0] if places else metrics.MISSED
    longest = max(len(listed) for listed in predictions)
    cutoffs = [k for k in CUTOFFS if k <= longest] or [1]
    return {name: float(v.mean()) for name, v in metrics.per_user(ranks, cutoffs).items()}


def rating_metrics(
    targets: Sequence[float], predictions: Sequence[float | str]
) -> dict[str, float]:
    """RMSE and MAE of ratings, given as numbers or as texts of numbers ("4.5")."""
    _paired("rating_metrics", targets, predictions)
    wanted = np.array([_number("rating_metrics", "target", i, x) for i, x in enumerate(targets)])
    found = np.array(
        [_number("rating_metrics", "prediction", i, x) for i, x in enumerate(predictions)]
    )
    return {"rmse": score_metrics.rmse(found, wanted), "mae": score_metrics.mae(found, wanted)}


def auc_metrics(targets: Sequence[Any], scores: Sequence[float]) -> dict[str, float]:
    """AUC of scores against labels 0 and 1; UAUC too where a target is {"label", "user"}.

    Raises:
      UserError: if all labels are alike, so that there is nothing to rank.
    """
    _paired("auc_metrics", targets, scores)
    given = np.array([_number("auc_metrics", "score", i, x) for i, x in enumerate(scores)])
    by_user = isinstance(targets[0], Mapping)
    try:
        labels = np.array([target["label"] if by_user else target for target in targets])
        users = np.array([str(target["user"]) for target in targets]) if by_user else None
        found = {"auc": score_metrics.auc(labels, given)}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f'auc_metrics: targets are labels 0 and 1, or {{"label": 0, "user": …}} ({error})'
        ) from error
    if np.isnan(found["auc"]):
        raise UserError(f"auc_metrics: all {len(labels)} labels are {labels[0]}: nothing to rank")
    return found if users is None else {**found, "uauc": score_metrics.uauc(labels, given, users)}


def sequence_nll(targets: Sequence[object], scores: Sequence[float]) -> dict[str, float]:
    """Mean over examples of -score, where a score is the target's log-likelihood in nats.

    Per example, not per token: `nll` of `ilm evaluate` divides by tokens.
    """
    _paired("sequence_nll", targets, scores)
    given = np.array([_number("sequence_nll", "score", i, x) for i, x in enumerate(scores)])
    if (given > 0).any():
        row = int(np.argmax(given > 0))
        raise UserError(
            f"sequence_nll: score {row} is {given[row]:g}: log-likelihoods are not above 0"
        )
    return {"sequence_nll": float(-given.mean())}


# By the prefix of the names that a task lists (`TaskSpec.metrics`).
_BY_NAME: Mapping[str, MetricFn] = {
    "hr@": ranking_metrics,
    "ndcg@": ranking_metrics,
    "mrr@": ranking_metrics,
    "nll": sequence_nll,
    "auc": auc_metrics,
    "uauc": auc_metrics,
    "rmse": rating_metrics,
    "mae": rating_metrics,
    "bleu": text_metrics,
    "rouge": text_metrics,
    "exact_match": text_metrics,
}


def metric_fns(names: Sequence[str]) -> list[MetricFn]:
    """The functions that give the named metrics, each once.

    Raises:
      UserError: for a name that nothing here gives.
    """
    found: list[MetricFn] = []
    for name in names:
        fns = [fn for prefix, fn in _BY_NAME.items() if name.startswith(prefix)]
        if not fns:
            raise UserError(f"no metric function gives {name!r}; there are {', '.join(_BY_NAME)}")
        if fns[0] not in found:
            found.append(fns[0])
    return found


def _paired(metric: str, targets: Sequence[object], outputs: Sequence[object]) -> None:
    if not len(targets) or len(targets) != len(outputs):
        raise UserError(f"{metric}: {len(targets)} targets and {len(outputs)} outputs: one each")


def _each(
    metric: str, what: str, values: Sequence[object], kind: type | types.UnionType, wanted: str
) -> None:
    for row, value in enumerate(values):
        if not isinstance(value, kind):
            shown = repr(value)
            shown = shown if len(shown) < 40 else shown[:37] + "…"
            raise UserError(f"{metric}: {what} {row} is {shown}, not {wanted}")


def _number(metric: str, what: str, row: int, value: float | str) -> float:
    try:
        # Python reads "4_5" as 45.
        number = float("nan") if "_" in str(value) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise UserError(f"{metric}: {what} {row} is {value!r}, not a number")
    return number
