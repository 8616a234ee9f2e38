"""Every shipped pod recipe and sweep builds, and its mesh and batch fit the pod that it names."""

import math

import pytest

from ilm_jax.compilation.abstract import batch_shapes, sized
from ilm_jax.compilation.topology import Topology
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.runs.sweeps import RECIPE, Sweep
from ilm_jax.sharding.state import describe_variables

FOLDER = gin_config.recipe_folder()
NO_RUNS = ("stage2.gin", "sasrec_v5e_16.gin")  # a part of others, and a fit
PODS = sorted(p.name for p in (FOLDER / "pods").glob("*.gin") if p.name not in NO_RUNS)
SWEEPS = sorted(p.name for p in (FOLDER / "sweeps").glob("*.gin"))


@pytest.mark.parametrize("recipe", PODS)
def test_a_pod_recipe_fits_its_pod(recipe):
    run = gin_config.build(Run, [f"pods/{recipe}"], [], unnamed="nowhere")
    topology = Topology.parse(run.topology)
    ici, dcn = run.partitioner.mesh_config.resolve(topology.chips)
    assert math.prod(dcn) == topology.slices
    data, fsdp, _ = (a * b for a, b in zip(ici, dcn, strict=True))
    assert run.trainer.batch_size % (data * fsdp) == 0
    objective, table = sized(run, 1000)
    assert table.shape == (1000, 128)
    if objective.language is not None:
        assert run.train["prompt"].pack > 1 and objective.lm.dtype == "bfloat16"
        rows = batch_shapes(run.train["prompt"], objective.layout("prompt"))
        # The TPU kernel takes lengths in blocks of 128, and T5's encoder adds a place.
        (length,) = rows["tokens"].shape
        assert (length + objective.lm.encodes) % 128 == 0
        assert rows["entities"].shape == (64,)
    else:
        assert run.trainer.batch_size == 32_768 and len(run.train) == 3


@pytest.mark.parametrize("recipe", SWEEPS)
def test_a_sweep_recipe_names_runs(recipe):
    sweep = gin_config.build(Sweep, [f"sweeps/{recipe}"], [])
    runs = sweep.expand()
    # Differences need seeds, choices of a rate do not.
    assert len(runs) > 4 and (sweep.tuned or sweep.seed_name in sweep.varied)
    one = dict(next(iter(runs.values())))
    recipes = [*sweep.gin_file, *filter(None, [one.pop(RECIPE, None)])]
    bindings = [f"{name}={value!r}" for name, value in one.items()]
    gin_config.build(Run, recipes, bindings, unnamed="nowhere")


def test_a_pod_recipe_takes_an_item_head():
    """Shapes of the batch and of the parameters that have an entry for each item."""
    files = ["pods/gemma2_2b_v5e_16.gin", "runs/stage2_items.gin"]
    run = gin_config.build(Run, files, [], unnamed="nowhere")
    objective, table = sized(run, 4096)
    rows = batch_shapes(run.train["prompt"], objective.layout("prompt"))
    assert rows["item_targets"].shape == rows["item_positions"].shape == (run.train["prompt"].pack,)
    variables = describe_variables(objective)
    assert variables["item_head/item_bias/bias"].shape == table.shape[:1] == (4096,)
    assert variables["item_head/user/kernel"].shape == (objective.lm.embed_dim, 128)
    assert run.trainer.adapters and not objective.predicts_text
