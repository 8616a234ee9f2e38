"""Exact match, BLEU and ROUGE of generated texts; the last two by sacrebleu and rouge-score.

Both packages come with the extra `eval`; without them the figures read "not available" and
nothing else changes. Every figure has an interval by resampling texts: BLEU, a figure of the whole
corpus, by resampling the counts that each text adds to it.
"""

import functools
import importlib
import importlib.util
import string
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from ilm_jax.errors import UserError
from ilm_jax.evaluation.intervals import Interval

NOT_AVAILABLE = "not available"
REMEDY = "pip install 'ilm_jax[eval]'"
ROUGES = ("rouge1", "rouge2", "rougeL")
_DROPPED = str.maketrans("", "", string.punctuation)


def exact_match(
    generated: Sequence[str], references: Sequence[str], *, normalised: bool = False
) -> Float64[np.ndarray, " texts"]:
    """1 where a text is its reference, else 0; spaces at the ends never count.

    Args:
      generated, references: one each.
      normalised: also ignore case, ASCII punctuation and the width of spaces.
    """
    _paired(generated, references)

    def plain(text: str) -> str:
        return " ".join(text.lower().translate(_DROPPED).split()) if normalised else text.strip()

    pairs = zip(generated, references, strict=True)
    return np.array([plain(a) == plain(b) for a, b in pairs], np.float64)


def rouge(
    generated: Sequence[str], references: Sequence[str], *, stemmer: bool = False
) -> dict[str, Float64[np.ndarray, " texts"]] | None:
    """F measures of each text by name (`ROUGES`); None without rouge-score (Lin 2004)."""
    _paired(generated, references)
    if importlib.util.find_spec("rouge_score") is None:
        return None
    scorer = importlib.import_module("rouge_score.rouge_scorer").RougeScorer(
        list(ROUGES), use_stemmer=stemmer
    )
    scores = [scorer.score(b, a) for a, b in zip(generated, references, strict=True)]
    return {name: np.array([score[name].fmeasure for score in scores]) for name in ROUGES}


def bleu(
    generated: Sequence[str],
    references: Sequence[str],
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Corpus BLEU from 0 to 100 in sacrebleu's standard settings; None without sacrebleu.

    Its signature is nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp (Post 2018).

    Args:
      generated, references: one each.
      level, samples, seed: of the percentile bootstrap over texts.
    """
    counts = bleu_counts(generated, references)
    return None if counts is None else bleu_interval(counts, level, samples, seed)


def bleu_counts(
    generated: Sequence[str], references: Sequence[str]
) -> Int64[np.ndarray, "texts 10"] | None:
    """What each text adds to the corpus: two lengths, n-grams found, n-grams there are.

    Sums of rows make a corpus (see `bleu_of`). None without sacrebleu.
    """
    _paired(generated, references)
    metric = _sacrebleu()
    if metric is None:
        return None
    found = [metric.sentence_score(a, [b]) for a, b in zip(generated, references, strict=True)]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in found], np.int64)


def bleu_of(total: Shaped[np.ndarray, " 10"]) -> float:
    """BLEU of summed counts.

    Raises:
      UserError: without sacrebleu.
    """
    metric = _sacrebleu()
    if metric is None:
        raise UserError(f"BLEU needs sacrebleu: {REMEDY}")
    correct, possible = total[2:6].tolist(), total[6:].tolist()
    return float(metric.compute_bleu(correct, possible, *total[:2].tolist()).score)


def bleu_interval(
    counts: Int64[np.ndarray, "texts 10"], level: float = 0.95, samples: int = 1000, seed: int = 0
) -> Interval:
    """Corpus BLEU of `bleu_counts` with its percentile bootstrap over texts."""
    units = len(counts)
    mean = bleu_of(counts.sum(axis=0))
    if units == 1:
        return Interval(mean, -np.inf, np.inf, level, units, "bootstrap")
    drawn = [bleu_of(counts[rows].sum(axis=0)) for rows in _draws(units, samples, seed)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level, units, "bootstrap")


def bleu_difference(
    first: Int64[np.ndarray, "texts 10"],
    second: Int64[np.ndarray, "texts 10"],
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[Interval, float]:
    """(BLEU of the first - of the second with its interval, p): paired bootstrap (Koehn 2004).

    The p-value is twice the share of samples on the rarer side of 0, at least 2 / samples.
    """
    units = len(first)
    mean = bleu_of(first.sum(axis=0)) - bleu_of(second.sum(axis=0))
    if units == 1:
        return Interval(mean, -np.inf, np.inf, level, units, "bootstrap"), 1.0
    drawn = np.array([
        bleu_of(first[rows].sum(axis=0)) - bleu_of(second[rows].sum(axis=0))
        for rows in _draws(units, samples, seed)
    ])  # fmt: skip
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tail = max(min((drawn <= 0).mean(), (drawn >= 0).mean()), 1 / samples)
    interval = Interval(mean, float(low), float(high), level, units, "bootstrap")
    return interval, float(min(1.0, 2 * tail))


def _draws(units: int, samples: int, seed: int) -> Iterator[Int64[np.ndarray, " units"]]:
    draw = np.random.Generator(np.random.Philox(seed))
    for _ in range(samples):
        yield draw.integers(units, size=units)


@functools.cache
def _sacrebleu() -> Any:
    if importlib.util.find_spec("sacrebleu") is None:
        return None
    # Of single texts the effective order is asked for only to be left in peace: what is kept
    # are their counts.
    return importlib.import_module("sacrebleu.metrics").BLEU(effective_order=True)


def text_means(generated: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """This module's figures by name, without intervals and without what is not available."""
    found = {"exact_match": exact_match(generated, references)}
    found |= rouge(generated, references) or {}
    means = {name: float(values.mean()) for name, values in found.items()}
    counts = bleu_counts(generated, references)
    return means if counts is None else {**means, "bleu": bleu_of(counts.sum(axis=0))}


def _paired(generated: Sequence[str], references: Sequence[str]) -> None:
    if not generated or len(generated) != len(references):
        raise ValueError(f"{len(generated)} texts and {len(references)} references: one each")
