"""An exported decoding runs in a process without this library, and gives the same tokens."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.prompts import exclusions
from ilm_jax.errors import UserError
from ilm_jax.serving.exporting import FORMAT, Shape, check_replaceable, export
from ilm_jax.serving.requests import Request
from tests.decoding import small
from tests.some import some

SHAPE = Shape(rows=3, length=48, entities=6, excluded=4)
GREEDY = DecodingConfig(max_new_tokens=6)
READER = pathlib.Path(__file__).with_name("export_reader.py")


def asked():
    """Three prompts with one, two and no slots."""
    examples = []
    for number, slots in enumerate(([4], [2, 9], [])):
        words = [30 + number, *[-1] * len(slots), 40, 50 + number]
        examples.append(
            {
                "key": "k",
                "catalogue": "toy",
                "history_bounds": [],
                "inputs": np.array(words),
                "slots": np.array(slots, int),
            }
        )
    return [Request(n, n, "", example) for n, example in enumerate(examples)]


def padded(answerer):
    """The prompts in the exported shape."""
    batch = answerer._prompts(asked())
    found = {
        name: batch[name][:, : SHAPE.length] for name in ("tokens", "slot_entity", "slot_query")
    }
    return {**found, "lengths": batch["lengths"], "entities": batch["entities"]}


def read_elsewhere(folder, prompts):
    """The results of another process, which knows nothing of this library."""
    np.savez(folder.parent / "prompts.npz", **prompts)
    out = folder.parent / "results.npz"
    command = [
        sys.executable,
        str(READER),
        str(folder),
        str(folder.parent / "prompts.npz"),
        str(out),
    ]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    subprocess.run(command, check=True, env=environment, cwd=folder.parent)
    with np.load(out) as arrays:
        return dict(arrays)


@pytest.mark.slow
def test_texts_are_the_same_elsewhere(tmp_path):
    answerer = small.answerer()
    notes = {"model": "somebody's"}
    manifest = export(
        tmp_path / "f",
        answerer.generator,
        GREEDY,
        SHAPE,
        notes=notes,
        platforms=("cpu", "cuda", "tpu"),
        tokenizer=small.tokenizer(),
    )
    assert manifest == json.loads((tmp_path / "f" / "manifest.json").read_text())
    assert manifest["model"] == "somebody's" and manifest["platforms"] == ["cpu", "cuda", "tpu"]
    assert manifest["results"]["tokens"] == {"shape": [3, 6], "dtype": "int32"}
    assert not any(name.startswith(("qformer", "adaptor")) for name in some(manifest["weights"]))
    assert (tmp_path / "f" / "tokenizer.model").is_file()
    found = read_elsewhere(tmp_path / "f", padded(answerer))
    here = answerer.generator.generate(padded(answerer), GREEDY)
    assert len({tuple(row) for row in here.tokens.tolist()}) == 3
    np.testing.assert_array_equal(found["tokens"], here.tokens)
    np.testing.assert_allclose(found["scores"], here.scores, atol=1e-4)


@pytest.mark.slow
def test_rankings_are_the_same_elsewhere_with_weights_inside(tmp_path):
    answerer = small.answerer()
    config = DecodingConfig(beams=5, length_penalty=0.0)
    ids = answerer.renderer.catalogue.item_ids
    export(
        tmp_path / "f",
        answerer.generator,
        config,
        SHAPE,
        trie=answerer.trie,
        closed=True,
        item_ids=ids,
    )
    assert not (tmp_path / "f" / "weights.npz").exists()
    assert json.loads((tmp_path / "f" / "item_ids.json").read_text()) == ids
    free = answerer.generator.rank(padded(answerer), answerer.trie, 5)
    gone = exclusions([free.items[0, :2], [], free.items[2, 1:3], [0, 0, 0, 0]])[:3]
    here = answerer.generator.rank(padded(answerer), answerer.trie, 5, excluded=gone)
    found = read_elsewhere(tmp_path / "f", {**padded(answerer), "excluded": gone})
    np.testing.assert_array_equal(found["items"], here.items)
    np.testing.assert_allclose(found["scores"], here.scores, atol=1e-4)
    assert not set(free.items[0, :2]) & set(found["items"][0])


def test_bfloat16_weights_keep_their_bits(tmp_path):
    generator = small.answerer().generator
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), generator.params)
    manifest = export(tmp_path / "f", dataclasses.replace(generator, params=half), GREEDY, SHAPE)
    name = "lm/embedding/embedding"
    assert manifest["weights"][name] == "bfloat16"
    with np.load(tmp_path / "f" / "weights.npz") as arrays:
        kept = arrays[name].view(jnp.bfloat16)
    np.testing.assert_array_equal(kept, np.asarray(half["lm"]["embedding"]["embedding"]))


def test_what_cannot_be_exported_says_so(tmp_path):
    generator = small.answerer().generator
    with pytest.raises(UserError, match="leave sample out"):
        export(tmp_path / "f", generator, DecodingConfig(sample=True), SHAPE)
    with pytest.raises(UserError, match=r"platforms \['gpu'\]: give some of cpu, cuda"):
        export(tmp_path / "f", generator, GREEDY, SHAPE, platforms=["gpu"])
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.gin").write_text("")  # of a run
    with pytest.raises(UserError, match="is there and no export: name a new folder"):
        export(tmp_path, generator, GREEDY, SHAPE)
    assert [file.name for file in tmp_path.iterdir()] == ["config.gin"]


def test_an_export_is_replaced_and_nothing_else_is(tmp_path):
    for name, said in {"an export": {"format": FORMAT}, "another": {"format": "x"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(said))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("new", "empty", "an export"):
        check_replaceable(tmp_path / name)
    for name in ("another", "file", "."):
        with pytest.raises(UserError, match="no export"):
            check_replaceable(tmp_path / name)
