"""Sentence vectors equal sentence-transformers', for the packaged model and for a user's folder."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.evaluation.measures import sentence_encoder
from ilm_jax.evaluation.measures.sentence_encoder import SentenceEncoder, bundled
from ilm_jax.pretrained import packages
from tests.parity.make_sentences import FOLDER, SENTENCES, TINY_TEXTS, minilm

TINY = FOLDER / "tiny"


def cosines(left, right):
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return (left * right).sum(1) / lengths


@pytest.fixture(scope="module")
def packaged():
    encoder = bundled()
    if encoder is None:
        pytest.skip(f"not installed: {sentence_encoder.REMEDY}")
    return encoder


@pytest.mark.parametrize("live", [False, True], ids=["golden", "live"])
def test_minilm_equals_the_reference(packaged, live):
    if live:
        pytest.importorskip("sentence_transformers")
    with np.load(FOLDER / "minilm.npz", allow_pickle=False) as arrays:
        want = minilm() if live else arrays["vectors"]
    got = packaged(SENTENCES)
    assert len(SENTENCES) == 50 and got.shape == want.shape == (50, 384)
    assert cosines(got, want).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


def test_a_text_has_one_vector_whatever_stands_beside_it(packaged):
    alone = packaged(SENTENCES[30:31])
    np.testing.assert_allclose(packaged(SENTENCES)[30:31], alone, atol=1e-5)


def test_minilm_knows_english_and_says_that_it_does_not_know_thai(packaged):
    assert packaged.unknown(["A calm tale of a northern sea, and of wood"]) == 0
    assert packaged.unknown(["เรื่องทะเลสงบ"]) == 1 and packaged.unknown([""]) == 0


def changed(tmp_path, file, change):
    """A copy of the small folder with one JSON file changed."""
    folder = tmp_path / "copy"
    shutil.copytree(TINY, folder)
    found = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(change(found)))
    return folder


def without_normalize(modules):
    return modules[:2]


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "mean, normalised"])
@pytest.mark.parametrize("old", [False, True], ids=["new spelling", "old spelling"])
def test_pooling_and_normalisation_are_those_of_the_folder(tmp_path, pooling, old):
    with np.load(TINY / "golden.npz", allow_pickle=False) as arrays:
        want = arrays[pooling]
    mode = pooling.split(",")[0]
    names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
    flags = {f"pooling_mode_{name}": kind == mode for kind, name in names.items()}
    folder = changed(
        tmp_path, "1_Pooling/config.json", lambda _: flags if old else {"pooling_mode": mode}
    )
    if "normalised" not in pooling:
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps(without_normalize(modules)))
    got = SentenceEncoder(folder)(TINY_TEXTS)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_folder_as_it_was_saved_is_read_with_its_length():
    encoder = SentenceEncoder(TINY)
    assert encoder.recipe.max_length == 8 and encoder.name == "tiny"
    with np.load(TINY / "golden.npz", allow_pickle=False) as arrays:
        assert cosines(encoder(TINY_TEXTS), arrays["mean, normalised"]).min() >= 0.9999


@pytest.mark.parametrize(
    "file, change, named",
    [
        ("1_Pooling/config.json", lambda _: {"pooling_mode": "lasttoken"}, "lasttoken"),
        ("1_Pooling/config.json", lambda _: {"pooling_mode": ["cls", "max"]}, "cls, max"),
        (
            "1_Pooling/config.json",
            lambda _: {"pooling_mode_weightedmean_tokens": True},
            "pooling_mode_weightedmean_tokens",
        ),
        (
            "modules.json",
            lambda m: [*m[:2], {"type": "sentence_transformers.models.Dense", "path": "2"}],
            "Dense",
        ),
        ("config_sentence_transformers.json", lambda _: {"default_prompt_name": "query"}, "query"),
        ("config.json", lambda c: c | {"model_type": "mpnet"}, "mpnet"),
        ("config.json", lambda c: c | {"hidden_act": "relu"}, "hidden_act"),
        ("config.json", lambda c: c | {"intermediate_size": 20}, "shape"),
    ],
)
def test_what_is_not_built_is_refused_by_name(tmp_path, file, change, named):
    with pytest.raises(UserError, match=named):
        SentenceEncoder(changed(tmp_path, file, change))


def test_a_folder_without_modules_is_refused(tmp_path):
    folder = changed(tmp_path, "modules.json", lambda m: m)
    (folder / "modules.json").unlink()
    with pytest.raises(UserError, match="modules.json is missing"):
        SentenceEncoder(folder)


def test_other_weights_in_the_package_are_refused(packaged, monkeypatch):
    name = sentence_encoder.PACKAGE
    other = dataclasses.replace(packages.KNOWN[name], sha256="0" * 64)
    monkeypatch.setitem(packages.KNOWN, name, other)
    with pytest.raises(UserError, match="--force-reinstall"):
        bundled()


def test_programs_are_compiled_once_per_length():
    encoder = SentenceEncoder(TINY)
    encoder(TINY_TEXTS)
    before = sentence_encoder._encode._cache_size()
    encoder(TINY_TEXTS * 20)
    SentenceEncoder(TINY)(TINY_TEXTS[:1])
    assert sentence_encoder._encode._cache_size() == before
