"""The map of items: figures of outputs whose answer is known."""

import json

import numpy as np
import pytest


@pytest.fixture
def study(script):
    return script("item_map")


def clusters(spread, seed=0):
    rng = np.random.default_rng(seed)
    centres = 10 * np.eye(3, 8)
    categories = np.repeat(np.array(["a", "b", "c"]), 40)
    return np.repeat(centres, 40, axis=0) + spread * rng.normal(size=(120, 8)), categories


def test_neighbours_of_apart_clusters_are_alike_and_of_noise_by_chance(study):
    apart = study.view(*clusters(0.01))
    assert apart.alike.min() == 1.0 and apart.explained > 0.99
    assert apart.directions == pytest.approx(2.0, abs=0.01)  # three centres span a plane
    outputs, categories = clusters(0.01)
    mixed = study.view(outputs, np.random.default_rng(1).permutation(categories))
    assert mixed.alike.mean() == pytest.approx(study.by_chance(categories), abs=0.06)
    assert study.by_chance(categories) == pytest.approx(39 / 119)
    round_cloud = study.view(np.random.default_rng(2).normal(size=(5000, 8))[:400], np.zeros(400))
    assert 7 < round_cloud.directions <= 8 and round_cloud.alike.min() == 1.0


def test_the_record_is_json_of_the_items_that_are_drawn(study):
    shown = np.array([3, 50, 119])
    found = study._plain(study.view(*clusters(0.5)), shown, np.arange(120) < 12)
    again = json.loads(json.dumps(found))
    assert 0 < again["alike_held_out"] <= 1
    assert len(again["places"]) == 3 and max(abs(x) for p in again["places"] for x in p) <= 1000


@pytest.mark.slow  # vectors are fitted and stage 1 is trained, for two steps
def test_a_small_world_is_mapped(study, tmp_path, capsys):
    import scheduling

    made = study.Study("toy", 0, tmp_path, jobs=1)
    steps = [s for s in study.plan(made, ["ilm"], False, until="stage1") if s[0] != "stage0"]
    assert [name for name, *_ in steps] == ["cf", "stage1"]
    short = ["--gin.TRAIN_STEPS=2", "--gin.BATCH_SIZE=8", "--gin.SCHEDULE={'item_text': 1}"]
    steps[1] = (steps[1][0], [*steps[1][1], *short], steps[1][2])
    scheduling.run_steps(made, steps)
    record = study.measured(made)
    assert record["items"] > 1000 and set(record["views"]) == set(study.VIEWS)
    assert len(record["titles"]) == len(record["category"]) == study.SHOWN
    # Two steps change little, and not nothing.
    views = [record["views"][name]["alike"] for name in ("untrained", "stage 1")]
    assert views[0] == pytest.approx(views[1], abs=0.1)
    assert record["views"]["untrained"]["places"] != record["views"]["stage 1"]["places"]
    assert "neighbours alike" in study.said(record)
