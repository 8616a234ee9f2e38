"""A run with an item head answers a recommendation by it, in one pass over the prompt."""

import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.cf.item_rows import ItemRows
from ilm_jax.data.examples.prompts import PromptRenderer
from ilm_jax.decoding.config import DecodingConfig
from ilm_jax.decoding.generator import Shelf
from ilm_jax.errors import UserError
from ilm_jax.models.ilm import gather_vectors
from ilm_jax.objectives.item_head import ItemHead
from ilm_jax.objectives.item_scoring import ItemSource
from ilm_jax.serving.exporting import Shape, export
from ilm_jax.serving.requests import PromptFile, Writer
from tests.decoding import small

ROWS = ItemRows("toy", 0, small.ITEMS, np.ones(small.ITEMS, int))
HEAD = dataclasses.replace(ItemHead(), cf_dim=6, catalogues=(ROWS,))
VECTORS = np.random.default_rng(1).normal(size=(small.ITEMS + small.USERS, 6)).astype(np.float32)


def params():
    drawn = HEAD.init(jax.random.key(0), 16)["item_head"]
    own = jax.tree.map(lambda x: x.value, drawn, is_leaf=lambda x: hasattr(x, "value"))
    noise = np.random.default_rng(2)
    own = jax.tree.map(lambda x: x + 0.3 * noise.normal(size=x.shape).astype(np.float32), own)
    return {**small.params(), "item_head": own}


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "in.jsonl"
    prompts = [f"after {{item:i{n}}} and {{item:i{n + 2}}}, what" for n in range(5)]
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    renderer = PromptRenderer(small.splits(), small.SETTINGS)
    return list(PromptFile(str(path), Writer(renderer, small.tokenizer(), 3, small.LENGTH)))


def answerer():
    plain = small.answerer()
    ready = dataclasses.replace(plain.generator, params=params())
    return dataclasses.replace(plain, generator=ready, shelf=Shelf(HEAD, ROWS, VECTORS))


def scores(given, requests):
    """Of every item, from hidden states as training reads them."""
    batch = {n: jnp.asarray(x) for n, x in given._prompts(requests).items()}
    places = ("tokens", "positions", "segment_ids", "slot_entity", "slot_query")
    vectors = gather_vectors(jnp.asarray(VECTORS), batch["entities"])
    hidden = small.model().apply({"params": params()}, *(batch[n] for n in places), vectors)
    last = jnp.take_along_axis(hidden, (batch["lengths"] - 1)[:, None, None], axis=1)[:, 0]
    items = HEAD.items(params(), ItemSource(jnp.asarray(VECTORS), None), ROWS)
    return np.asarray(HEAD.users(params(), last) @ items.table.T + items.bias)


def test_items_come_by_the_heads_scores_without_those_that_are_excluded(asked):
    given = answerer()
    want, names = scores(given, asked), small.splits().catalogue.item_ids
    gone = [[3], [], [0, 1, 2], [9], list(range(small.ITEMS))]
    found = given.items(asked, small.ITEMS, gone)
    for row, excluded, score in zip(found, gone, want, strict=True):
        order = [i for i in np.argsort(-score, kind="stable") if i not in excluded]
        assert [item["id"] for item in row["items"]] == [names[i] for i in order]
        np.testing.assert_allclose(
            [item["score"] for item in row["items"]], score[order], rtol=1e-4, atol=1e-5
        )
    assert found[-1]["stop"] == "no candidate" and found[0]["stop"] == "end"
    assert found[0]["text"] == given.renderer.target(names.index(found[0]["items"][0]["id"]))


def test_an_item_that_joined_the_table_later_is_ranked(asked):
    given = answerer()
    rows = ItemRows("toy", 0, small.ITEMS, np.ones(small.ITEMS, int))
    early = VECTORS.copy()
    early[5] = 0  # no vector yet
    head = dataclasses.replace(HEAD, item_bias=False, catalogues=(rows,))
    ranked = [
        given.generator.rank_by_head(given._prompts(asked), Shelf(head, rows, v), small.ITEMS)
        for v in (early, VECTORS)
    ]
    before, after = (found.items for found in ranked)
    assert not (before == 5).any() and (before[:, -1] == -1).all()
    assert (after == 5).any(1).all()
    for one, two in zip(before, after, strict=True):
        assert one[one >= 0].tolist() == [item for item in two if item != 5]


def test_numbers_that_are_none_and_lists_that_are_too_long_are_refused(asked):
    given = answerer()
    with pytest.raises(UserError, match=f"a list of {small.ITEMS + 1} items: toy has"):
        given.items(asked, small.ITEMS + 1)
    nothing = jax.tree.map(lambda x: x * np.nan, params())
    ready = dataclasses.replace(given.generator, params=nothing)
    with pytest.raises(UserError, match="not numbers"):
        dataclasses.replace(given, generator=ready).items(asked, 3)


@pytest.mark.slow
def test_an_exported_head_ranks_alike(asked, tmp_path):
    given = answerer()
    shape = Shape(rows=5, length=48, entities=6, excluded=4)
    config = DecodingConfig(beams=small.ITEMS)
    manifest = export(tmp_path / "f", given.generator, config, shape, shelf=given.shelf)
    batch = given._prompts(asked)
    wide = ("tokens", "slot_entity", "slot_query")
    prompts = {name: batch[name][:, : shape.length] for name in wide}
    prompts |= {name: batch[name] for name in ("lengths", "entities")}
    prompts["excluded"] = np.tile(np.array([3, 9, -1, -1], np.int32), (5, 1))
    assert set(manifest["prompts"]) == set(prompts)
    with np.load(tmp_path / "f" / "weights.npz") as arrays:
        weights = dict(arrays)
    function = jax.export.deserialize(
        bytearray((tmp_path / "f" / "function.jaxexport").read_bytes())
    )
    found = function.call(weights, prompts)
    want = given.items(asked, small.ITEMS, [[3, 9]] * 5)
    names = small.splits().catalogue.item_ids
    for items, row in zip(np.asarray(found["items"]), want, strict=True):
        assert [names[i] for i in items if i >= 0] == [item["id"] for item in row["items"]]
