"""Semantic consistency: marks, intervals, and what is said without an encoder."""

import json

import numpy as np
import pytest

from ilm_jax.evaluation.measures import semantic
from ilm_jax.evaluation.measures.generation import Generated
from ilm_jax.evaluation.measures.semantic import semantic_consistency, semantic_evaluation
from ilm_jax.evaluation.reports.report import Row, write_report


def encode(texts):
    """Counts of the letters a, b, c, d: vectors whose cosines one can do by hand."""
    return np.array([[text.count(letter) for letter in "abcd"] for text in texts], np.float32)


REFERENCES = ["aa", "bb", "c", "d"]


def test_the_reference_itself_scores_one_and_others_references_zero():
    same = semantic_consistency(encode, REFERENCES, REFERENCES)
    assert same.raw.mean == pytest.approx(1) and same.score.mean == pytest.approx(1)
    assert same.floor == pytest.approx(0) and same.ceiling == 1
    moved = semantic_consistency(encode, REFERENCES[1:] + REFERENCES[:1], REFERENCES)
    assert moved.raw.mean == pytest.approx(0)
    assert moved.floor == pytest.approx(1 / 3)
    assert moved.score.mean == pytest.approx(-0.5)


def test_the_floor_is_the_mean_over_every_pair_of_strangers():
    rng = np.random.default_rng(0)
    generated = ["".join(rng.choice(list("abcd"), 9)) for _ in range(40)]
    references = ["".join(rng.choice(list("abcd"), 9)) for _ in range(40)]
    result = semantic_consistency(encode, generated, references)
    left, right = encode(generated), encode(references)
    left = left / np.linalg.norm(left, axis=1, keepdims=True)
    right = right / np.linalg.norm(right, axis=1, keepdims=True)
    table = left @ right.T
    strangers = table[~np.eye(40, dtype=bool)]
    assert result.floor == pytest.approx(strangers.mean(), abs=1e-6)
    assert result.raw.mean == pytest.approx(np.trace(table) / 40, abs=1e-6)
    assert result.raw.method == "bootstrap" and result.raw.low < result.raw.mean < result.raw.high
    assert result.score.mean == pytest.approx(
        (result.raw.mean - result.floor) / (1 - result.floor), abs=1e-6
    )


def test_a_second_reference_lowers_the_ceiling():
    second = ["ab", "b", "cd", "d"]
    result = semantic_consistency(encode, second, REFERENCES, second)
    assert result.ceiling == pytest.approx((2 + 2 * 0.5**0.5) / 4)
    assert result.score.mean == pytest.approx(1)


def test_without_room_between_the_marks_there_is_no_score():
    same = semantic_consistency(encode, ["a", "a"], ["a", "a"])
    assert same.score is None and "undefined" in str(same)
    one = semantic_consistency(encode, ["a"], ["ab"])
    assert one.score is None and one.raw.mean == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("bad", [([], []), (["a"], ["a", "b"])])
def test_texts_and_references_must_pair(bad):
    with pytest.raises(ValueError, match="one each"):
        semantic_consistency(encode, *bad)


def test_without_weights_the_report_says_not_available(tmp_path, monkeypatch):
    monkeypatch.setattr(semantic, "bundled", lambda: None)
    encoder = semantic.find_encoder()
    assert encoder is None
    found = Generated(np.arange(1), [], ["a"], ["a"], 1.0)
    assert semantic_evaluation(found, encoder).missing["semantic"].startswith("not available")
    write_report(tmp_path / "report.json", "toy", 0, [Row("ilm", {"nll": 1.0})], protocol={})
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["rows"][0]["semantic"] is None


def test_a_missing_package_is_no_error(monkeypatch):
    from ilm_jax.evaluation.measures import sentence_encoder

    monkeypatch.setattr(sentence_encoder, "PACKAGE", "no-such-package-of-weights")
    assert sentence_encoder.bundled() is None


def test_an_encoder_is_not_asked_about_a_script_that_it_cannot_read():
    def encoder(texts):
        return encode(texts)

    encoder.unknown = lambda texts: np.mean([not text.isascii() for text in texts])
    texts = Generated(np.arange(2), [], ["a", "b"], ["рек", "лес"], 1.0)
    missing = semantic_evaluation(texts, encoder).missing
    assert "does not know 100 % of these texts' tokens" in missing["semantic"]
    read = semantic_evaluation(Generated(np.arange(2), [], ["a", "b"], ["a", "b"], 1.0), encoder)
    assert "semantic" not in read.missing


def test_a_score_between_marks_that_are_none_says_why():
    one = semantic_evaluation(Generated(np.arange(1), [], ["a"], ["ab"], 1.0), encode)
    assert "a single text" in one.missing["semantic"]
    assert "semantic_cosine" in {metric.name for metric in one.metrics}
