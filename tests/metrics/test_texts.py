"""Text figures equal the libraries' own, and without the libraries they read "not available"."""

import importlib.util

import numpy as np
import pytest

from ilm_jax.evaluation.evaluators.texts import text_evaluation
from ilm_jax.evaluation.measures.generation import Generated
from ilm_jax.metrics import texts

GENERATED = ["the cat sat on the mat", "a dog barks at night", "Nothing at all here.", "same"]
REFERENCES = ["the cat sat on a mat", "a dog barked at the moon", "nothing at all  here", "same"]


def test_exact_match_ignores_what_it_says():
    assert texts.exact_match(GENERATED, REFERENCES).tolist() == [0, 0, 0, 1]
    assert texts.exact_match([" a b "], ["a b"]).tolist() == [1]
    assert texts.exact_match(GENERATED, REFERENCES, normalised=True).tolist() == [0, 0, 1, 1]


def test_bleu_is_sacrebleus_and_its_interval_holds_it():
    sacrebleu = pytest.importorskip("sacrebleu")
    ours = texts.bleu(GENERATED * 10, REFERENCES * 10, samples=100)
    theirs = sacrebleu.corpus_bleu(GENERATED * 10, [REFERENCES * 10]).score
    assert ours.mean == pytest.approx(theirs, abs=1e-9) and 0 < theirs < 100
    assert ours.low < ours.mean < ours.high and ours.units == 40
    assert texts.bleu(REFERENCES, REFERENCES).mean == pytest.approx(100)


def test_rouge_is_rouge_scores_of_each_text():
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    theirs = scorer.RougeScorer(list(texts.ROUGES)).score(REFERENCES[0], GENERATED[0])
    ours = texts.rouge(GENERATED, REFERENCES)
    assert {name: ours[name][0] for name in ours} == pytest.approx(
        {name: score.fmeasure for name, score in theirs.items()}
    )
    assert ours["rouge1"][3] == 1 and ours["rouge2"][0] < ours["rouge1"][0]


def test_rouge_l_by_hand():
    """Longest common subsequence "the cat sat on mat": 5 of 6 words on both sides."""
    pytest.importorskip("rouge_score")
    assert texts.rouge(GENERATED[:1], REFERENCES[:1])["rougeL"][0] == pytest.approx(5 / 6)


def test_without_the_libraries_the_figures_read_not_available(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(texts, "_sacrebleu", lambda: None)
    found = Generated(np.arange(4), [], GENERATED, REFERENCES, 1.0)
    evaluation = text_evaluation(found)
    assert {metric.name: metric.mean for metric in evaluation.metrics} == {
        "exact_match": 0.25,
        "loops": 0,
    }
    assert set(evaluation.missing) == {*texts.ROUGES, "bleu"}
    assert evaluation.missing["bleu"] == "not available (pip install 'ilm_jax[eval]')"


@pytest.mark.parametrize("bad", [([], []), (["a"], ["a", "b"])])
def test_texts_and_references_must_pair(bad):
    for figure in (texts.exact_match, texts.rouge, texts.bleu):
        with pytest.raises(ValueError, match="one each"):
            figure(*bad)


def test_a_single_text_has_no_bounds():
    pytest.importorskip("sacrebleu")
    assert texts.bleu(GENERATED[:1], REFERENCES[:1]).low == -np.inf
