"""Exact match, BLEU and ROUGE of generated texts in any script, by sacrebleu and rouge-score.

Both packages come with the extra `eval`; without them the metrics read "not available" and
nothing else changes. Every metric has an interval by resampling texts: BLEU, a metric of the whole
corpus, by resampling the counts that each text adds to it. What a word is `words` says; how a text
is cut depends on its reference alone, so all models are measured alike on the same texts.
"""

import functools
import importlib
import importlib.util
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from ilm_jax.errors import UserError
from ilm_jax.metrics import words
from ilm_jax.metrics.intervals import Interval, corpus_interval

NOT_AVAILABLE = "not available"
REMEDY = "pip install 'ilm_jax[eval]'"
ROUGES = ("rouge1", "rouge2", "rougeL")
ORDER = 4
NO_WORDS = f"{NOT_AVAILABLE} (no reference has a word or a sign)"
TOO_SHORT = f"{NOT_AVAILABLE} (no reference has {ORDER} words, and BLEU counts runs of {ORDER})"


def exact_match(
    generated: Sequence[str], references: Sequence[str], *, normalised: bool = False
) -> Float64[np.ndarray, " texts"]:
    """1 where a text is its reference, else 0; spaces at the ends and the form of Unicode
    (composed or not) never count.

    Args:
      generated, references: one each.
      normalised: also ignore case, punctuation and signs of any script (unless a text has nothing
        else), and the width of spaces.
    """
    _paired(generated, references)

    def plain(text: str) -> str:
        """The text without what the comparison ignores."""
        if not normalised:
            return words.same_form(text).strip()
        text = words.folded(text)
        kept = "".join(c for c in text if unicodedata.category(c)[0] not in "PS")
        return " ".join((kept if kept.strip() else text).split())

    pairs = zip(generated, references, strict=True)
    return np.array([plain(a) == plain(b) for a, b in pairs], np.float64)


def rouge(
    generated: Sequence[str],
    references: Sequence[str],
    *,
    stemmer: bool = False,
    on_text: Callable[[int], None] | None = None,
) -> dict[str, Float64[np.ndarray, " texts"]] | None:
    """F measures of each text by name (`ROUGES`); None without rouge-score (Lin 2004).

    On ASCII text they are rouge-score's own. Where a reference has no word but signs ("★★★"),
    signs are compared; NaN where it has neither. A reference of one word has no pair of words, so
    its rouge2 is 0, as rouge-score has it.

    Args:
      generated, references: one each.
      stemmer: words of ASCII letters are cut to their stems (Porter 1980; English).
      on_text: hears of every text.
    """
    _paired(generated, references)
    if importlib.util.find_spec("rouge_score") is None:
        return None
    cut = _Words(importlib.import_module("nltk.stem.porter").PorterStemmer() if stemmer else None)
    scorer = importlib.import_module("rouge_score.rouge_scorer").RougeScorer(
        list(ROUGES), tokenizer=cut
    )
    rows = []
    for text, reference in zip(generated, references, strict=True):
        cut.by_signs = not words.words(reference)
        score = scorer.score(reference, text)
        known = bool(cut.tokenize(reference))
        rows.append([score[name].fmeasure if known else np.nan for name in ROUGES])
        if on_text is not None:
            on_text(1)
    return dict(zip(ROUGES, np.array(rows, np.float64).T, strict=True))


class Stemmer(Protocol):
    """A stemmer, such as NLTK's."""

    def stem(self, word: str) -> str:
        """The stem of one word."""
        ...


class _Words:
    """A tokenizer for rouge-score."""

    def __init__(self, stemmer: Stemmer | None = None) -> None:
        self.by_signs = False
        self._stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        """Words, or signs where the reference has no words."""
        if self.by_signs:
            return words.signs(text)
        found = words.words(text)
        if self._stemmer is None:
            return found
        return [self._stemmer.stem(w) if len(w) > 3 and w.isascii() else w for w in found]


def tokenizers(references: Sequence[str]) -> dict[str, str]:
    """What cuts these texts into words, for reports: of ROUGE and of BLEU."""
    ascii_ = sum(reference.isascii() for reference in references)
    others = len(references) - ascii_
    cut = "characters in scripts without spaces, NFC"
    found = f"13a of {ascii_} references in ASCII, intl of the {others} others; {cut}"
    if not others:
        found = "13a"
    elif not ascii_:
        found = f"intl; {cut}"
    return {"rouge": words.NAME, "bleu": found}


def bleu(
    generated: Sequence[str],
    references: Sequence[str],
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Corpus BLEU from 0 to 100 in sacrebleu's standard settings; None without sacrebleu, and where
    no reference has four words.

    Its signature is nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp (Post 2018); texts whose reference
    is not ASCII are cut by sacrebleu's `intl`, and by characters in scripts without spaces.

    Args:
      generated, references: one each.
      level, samples, seed: of the percentile bootstrap over texts.
    """
    counts = bleu_counts(generated, references)
    if counts is None or too_short(counts):
        return None
    return bleu_interval(counts, level, samples, seed)


def bleu_counts(
    generated: Sequence[str], references: Sequence[str]
) -> Int64[np.ndarray, "texts 10"] | None:
    """What each text adds to the corpus: two lengths, n-grams found, n-grams there are.

    Sums of rows make a corpus (see `bleu_of`). None without sacrebleu.
    """
    _paired(generated, references)
    if _sacrebleu() is None:
        return None
    found = [
        _bleu("13a" if b.isascii() else "intl").sentence_score(words.spaced(a), [words.spaced(b)])
        for a, b in zip(generated, references, strict=True)
    ]
    return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in found], np.int64)


def too_short(counts: Int64[np.ndarray, "texts 10"]) -> bool:
    """Whether BLEU of these texts is not defined: no reference has a run of four words."""
    return bool((counts[:, 1] < ORDER).all())


def bleu_of(total: Shaped[np.ndarray, " 10"]) -> float:
    """BLEU of summed counts.

    Raises:
      UserError: without sacrebleu.
    """
    metric = _sacrebleu()
    if metric is None:
        raise UserError(f"BLEU needs sacrebleu: {REMEDY}")
    correct, possible = total[2:6].tolist(), total[6:].tolist()
    lengths = total[:2].tolist()
    return float(metric.compute_bleu(correct, possible, *lengths, smooth_method="exp").score)


def bleu_interval(
    counts: Int64[np.ndarray, "texts 10"], level: float = 0.95, samples: int = 1000, seed: int = 0
) -> Interval:
    """Corpus BLEU of `bleu_counts` with its percentile bootstrap over texts."""
    return corpus_interval(counts, bleu_of, level, samples, seed)


@functools.cache
def _sacrebleu() -> Any:
    if importlib.util.find_spec("sacrebleu") is None:
        return None
    return importlib.import_module("sacrebleu.metrics").BLEU


@functools.cache
def _bleu(tokenizer: str) -> Any:
    # Of single texts the effective order is asked for only to be left in peace: what is kept
    # are their counts.
    return _sacrebleu()(tokenize=tokenizer, effective_order=True)


def text_means(generated: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """This module's metrics by name, without intervals and without what is not available."""
    found = {"exact_match": exact_match(generated, references)}
    found |= rouge(generated, references) or {}
    known = {name: values[np.isfinite(values)] for name, values in found.items()}
    means = {name: float(values.mean()) for name, values in known.items() if len(values)}
    counts = bleu_counts(generated, references)
    if counts is None or too_short(counts):
        return means
    return {**means, "bleu": bleu_of(counts.sum(axis=0))}


def _paired(generated: Sequence[str], references: Sequence[str]) -> None:
    if not generated or len(generated) != len(references):
        raise ValueError(f"{len(generated)} texts and {len(references)} references: one each")
