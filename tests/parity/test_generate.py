"""Beams, greedy decoding and draws are those of `transformers`' generate: sequences and scores."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.checkpoints.published import families
from ilm_jax.checkpoints.published.rules import apply
from ilm_jax.decoding.config import Buckets, DecodingConfig
from ilm_jax.decoding.generator import Generator
from ilm_jax.decoding.trie import build_trie
from ilm_jax.models.decoder import Decoder
from ilm_jax.models.t5 import T5
from tests.marks import slow_but_for
from tests.parity import make_generate as reference
from tests.parity.test_t5 import stacked

# One shape for all cases of a kind, so that few programs are compiled.
BUCKETS = Buckets(lengths=(reference.LENGTHS[1],), rows=(200,))


@functools.cache
def golden():
    with np.load(reference.GOLDEN) as file:
        return dict(file)


@functools.cache
def stored_model(kind):
    prefix = f"{kind}/tensor/"
    weights = {k.removeprefix(prefix): v for k, v in golden().items() if k.startswith(prefix)}
    return make_generator(json.loads(str(golden()[f"{kind}/config"])), weights)


def make_generator(options, weights):
    """Our model of a config.json and tensors; every tensor is read."""
    family = families.find(options["model_type"])
    config = family.config(options)
    weights = {family.rename(k): np.asarray(v, np.float32) for k, v in weights.items()}
    rules = family.rules(config)
    assert {rule.source for rule in rules.values()} == set(weights)
    flat = {name: apply(rule, weights.__getitem__) for name, rule in rules.items()}
    lm = T5(config) if options["model_type"] == "t5" else Decoder(config)
    return Generator.for_lm(lm, stacked(flat), buckets=BUCKETS)


def run(generator, case, prompts):
    """(sequences, scores) as the reference gives them."""
    options = reference.options_of(case)
    rules = {name: options[name] for name in ("length_penalty", "early_stopping")}
    batch = {name: prompts[name].astype(np.int32) for name in ("tokens", "lengths")}
    if not reference.is_text(case):
        sequences = reference.catalogue()
        trie = build_trie(sequences)
        found = generator.rank(
            batch, trie, options["num_beams"], excluded=prompts["excluded"], **rules
        )
        assert not (found.items[..., None] == prompts["excluded"][:, None]).any()
        rows = [[sequences[item] for item in items] for items in found.items]
        return rows, found.scores
    stops = (reference.EOS, reference.OTHER_END)
    config = DecodingConfig(
        max_new_tokens=options["max_new_tokens"],
        beams=options["num_beams"],
        **rules,
        stop_ids=stops,
    )
    found = generator.generate(batch, config)
    size = len(prompts["tokens"])
    tokens = found.tokens.reshape(size, options["num_beams"], -1)
    lengths = found.lengths.reshape(size, -1)
    rows = [
        [text[:n].tolist() for text, n in zip(texts, sizes, strict=True)]
        for texts, sizes in zip(tokens, lengths, strict=True)
    ]
    return rows, found.scores.reshape(size, -1)


def ended(text, stops):
    """Up to the first end token; what pads differs."""
    at = [i for i, token in enumerate(text) if token in stops]
    return [int(token) for token in (text[: at[0] + 1] if at else text)]


def compare(case, got, want):
    """Same sequences in the same order; a swap is one only above 1e-5 of difference in score."""
    stops = (reference.EOS, reference.OTHER_END) if reference.is_text(case) else (reference.EOS,)
    swapped = 0
    for row, (texts, scores) in enumerate(zip(*got, strict=True)):
        wanted = [ended(text, stops) for text in want["sequences"][row]]
        if "scores" in want:
            np.testing.assert_allclose(scores, want["scores"][row], atol=2e-5, rtol=1e-6)
        if texts != wanted:
            assert "scores" in want and sorted(texts) == sorted(wanted), row
            there = np.array([scores[texts.index(text)] for text in wanted])
            moved = np.array([a != b for a, b in zip(texts, wanted, strict=True)])
            assert np.abs(there - scores)[moved].max() <= 1e-5, row
            swapped += 1
    return swapped


@pytest.mark.parametrize(
    "case", slow_but_for(reference.CASES, "t5", "t5_text", "llama_never", "llama_true")
)
def test_the_goldens(case):
    prompts = reference.draw_prompts(case)
    want = {
        name: golden()[f"{case}/{name}"]
        for name in ("sequences", "scores")
        if f"{case}/{name}" in golden()
    }
    got = run(stored_model(case.split("_")[0]), case, prompts)
    swaps = compare(case, got, want)
    assert swaps < 3
    # Else the case would say little: lists differ, and hold strings of several lengths.
    assert len({str(texts[0]) for texts in got[0]}) > 10
    assert len({len(text) for texts in got[0] for text in texts}) > 2


@pytest.mark.parametrize("case", ["t5", "llama_true", "llama_text"])
def test_live_models_of_another_seed_agree_too(case):
    pytest.importorskip("torch", reason="live parity needs torch (extra `parity`)")
    pytest.importorskip("transformers", reason="live parity needs transformers (extra `parity`)")
    model = reference.build(case.split("_")[0], seed=3)
    prompts = {name: rows[-40:] for name, rows in reference.draw_prompts(case, seed=3).items()}
    want = reference.generate(model, case, prompts)
    config = json.loads(model.config.to_json_string())
    compare(case, run(make_generator(config, reference.tensors(model)), case, prompts), want)


def test_draws_are_from_the_references_distribution():
    torch = pytest.importorskip("torch", reason="live parity needs torch (extra `parity`)")
    process = pytest.importorskip("transformers.generation.logits_process")
    from ilm_jax.decoding.sampling import warp

    logits = 3 * np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    for temperature, top_k, top_p in ((0.7, 0, 1.0), (1.0, 5, 1.0), (1.3, 0, 0.6), (0.5, 9, 0.9)):
        want = process.TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits))
        want = process.TopKLogitsWarper(top_k)(None, want) if top_k else want
        want = process.TopPLogitsWarper(top_p)(None, want) if top_p < 1 else want
        config = DecodingConfig(sample=True, temperature=temperature, top_k=top_k, top_p=top_p)
        got = warp(jnp.asarray(logits), config)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-6)
        assert (top_k > 0 or top_p < 1) == np.isinf(got).any()
