"""One device, eight and two processes find the same figures; each example counts once."""

import functools
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from ilm_jax.errors import UserError
from ilm_jax.evaluation.evaluators.items import colliding
from ilm_jax.evaluation.measures.passes import ModelOnMesh, Pass
from ilm_jax.evaluation.measures.ranking import RankingMeasure
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from tests.checkpoints.test_two_processes import free_port
from tests.evaluation import small
from tests.training import models


def mesh(*sizes):
    return Partitioner(MeshConfig(*sizes), devices=tuple(jax.devices()[: int(np.prod(sizes))]))


@functools.cache
def on_one():
    return small.measure_all(mesh(1, 1, 1))


def assert_same(found):
    expected = on_one()
    for name in ("index", "tokens", "users", "targets", "lists", "written", "some", "few"):
        assert found[name] == expected[name], name
    for name in ("nll", "content", "scores"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, err_msg=name)


def test_each_example_counts_once_and_the_lists_are_of_the_catalogue():
    found = on_one()
    assert found["index"] == found["users"] == list(range(small.EXAMPLES))
    assert found["tokens"] == [3.0] * small.EXAMPLES
    assert found["some"] == [2, 9, 30]
    assert found["few"] == [found["lists"][i] for i in found["some"]]
    assert found["targets"] == [small.example(i)["target_item"] for i in found["users"]]
    assert all(len(set(row)) == 10 for row in found["lists"])
    assert len({tuple(row) for row in found["lists"]}) > 10  # prompts do matter


def test_seen_items_leave_the_lists_but_never_the_target():
    """Each user has seen the head of its list, and its target too."""
    before = on_one()["lists"]
    targets = [small.example(number)["target_item"] for number in range(small.EXAMPLES)]
    seen = [np.array([*row[:4], target]) for row, target in zip(before, targets, strict=True)]
    model = ModelOnMesh(models.ILM, mesh(1, 1, 1), models.table())
    ranking = RankingMeasure(model, small.small_feed(), small.small_trie(), 40, seen)
    found = ranking(small.parameters(model.partitioner), np.arange(5))
    for number in range(5):
        gone = {int(row) for row in seen[number]} - {targets[number]}
        listed = found.lists[number][found.lists[number] >= 0]
        assert set(listed.tolist()) == set(range(models.ITEMS)) - gone
    assert np.isfinite(found.ranks).all()


def test_ids_collide_where_two_items_share_one():
    assert colliding([[1, 2], [1, 2], [3], [4]]) == 0.5 and colliding([[1], [2]]) == 0


@pytest.mark.parametrize("sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_eight_devices_find_what_one_finds(sizes):
    assert_same(small.measure_all(mesh(*sizes)))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[2, 1, 1], [1, 2, 1]])
def test_two_processes_find_what_one_finds(sizes):
    address = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.evaluation.one_process", address, str(i), str(sizes)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [p.returncode for p in started] == [0, 0], outputs[0][1] + outputs[1][1]
    for out, _ in outputs:
        assert_same(json.loads(out.splitlines()[-1]))


def test_a_measure_asked_of_the_wrong_output_says_so():
    model = ModelOnMesh(models.ILM, mesh(1, 1, 1), models.table())
    feed = small.small_feed(3)
    with pytest.raises(UserError, match="beams=41: give a number from 1 to 40"):
        RankingMeasure(model, feed, small.small_trie(), beams=41)
    feed.stream[0]["target_item"] = -1
    with pytest.raises(UserError, match="answers are no items"):
        RankingMeasure(model, feed, small.small_trie())
    feed.converter = lambda examples, numbers: {}
    with pytest.raises(UserError, match="pairs of vectors, not prompts"):
        Pass(model, feed, lambda params, batch, table: batch)
