"""A table that others have joined is the trained one in its first rows, or it is another table."""

import dataclasses

import numpy as np
import pytest

from ilm_jax.cf.grown_tables import grown_since, joined
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.table_set import TableSet


def table(items=20, users=6, seed=0, name="shop"):
    draw = np.random.default_rng(seed)
    cold = np.zeros(items, bool)
    cold[3] = True
    vectors = draw.normal(size=(items, 4)).astype(np.float32)
    vectors[cold] = 0
    return EmbeddingTable(
        catalogue=name,
        item=vectors,
        user=draw.normal(size=(users, 4)).astype(np.float32),
        item_cold=cold,
        user_cold=np.zeros(users, bool),
        item_ids=[f"i{row}" for row in range(items)],
        user_ids=[f"u{row}" for row in range(users)],
        split_fingerprint="",
        settings={},
    )


def with_more(old, items=2, users=1, scale=100.0):
    """Far longer vectors behind those that are there."""
    draw = np.random.default_rng(9)
    more = {}
    for kind, count in (("item", items), ("user", users)):
        new = scale * draw.normal(size=(count, old.dim)).astype(np.float32)
        more[kind] = np.concatenate([getattr(old, kind), new])
        more[f"{kind}_cold"] = np.concatenate([getattr(old, f"{kind}_cold"), np.zeros(count, bool)])
        more[f"{kind}_ids"] = [*getattr(old, f"{kind}_ids"), *(f"new {n}" for n in range(count))]
    return dataclasses.replace(old, **more)


def record_of(tables):
    return {"table": tables.fingerprint, "table_rows": tables.sizes}


@pytest.mark.parametrize("normalise", ["rms", "none"])
def test_what_joins_changes_nothing_of_what_was_there(normalise):
    old, film = table(), table(8, 3, 1, "film")
    trained = TableSet(old, film, normalise=normalise)
    files = [with_more(old), film]
    now = TableSet(*files, normalise=normalise)
    found = grown_since(record_of(trained), files, now)
    assert joined(record_of(trained), found) == ["2 of shop/item", "1 of shop/user"]
    there = np.ones(len(trained.vectors), bool)
    there[[20, 21, 512 + 6]] = False
    np.testing.assert_array_equal(found.vectors[there], trained.vectors[there])
    assert found.vectors[~there].any(1).all() and not found.cold[~there].any()
    scale = np.abs(trained.vectors[0] / old.item[0]).mean()
    np.testing.assert_allclose(found.vectors[20], scale * files[0].item[20], rtol=1e-6)


def test_other_tables_do_not_pass_for_grown_ones():
    old = table()
    record = record_of(TableSet(old))
    changed = with_more(old)
    changed.item[5, 0] += 1e-6
    swapped = with_more(old)
    swapped.item[[0, 1]] = swapped.item[[1, 0]]
    fewer = table(19)
    others = [old, changed, swapped, fewer, with_more(old, 600), with_more(table(name="film"))]
    for other in others:
        assert grown_since(record, [other], TableSet(other)) is None
    assert grown_since(None, [old], TableSet(old)) is None
    grown = with_more(old)
    assert grown_since({"table": record["table"]}, [grown], TableSet(grown)) is None
    assert grown_since(record, [], None) is None
