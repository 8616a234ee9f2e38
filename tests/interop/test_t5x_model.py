"""Our stage 2 as a T5X model: the same loss, gradients, scores and answers as without T5X."""

import dataclasses
import importlib
import types
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.decoding.greedy import greedy
from ilm_jax.errors import UserError
from ilm_jax.models.t5 import T5Config
from ilm_jax.sharding.partitioning import Partitioner
from ilm_jax.sharding.state import flat
from ilm_jax.training.optimizers import OptimizerConfig
from tests.training import models

with warnings.catch_warnings():
    # T5X's own, where it can be imported.
    warnings.simplefilter("ignore")
    from ilm_jax.interop import t5x_model, t5x_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

LM = T5Config(vocab_size=models.VOCAB, num_layers=1, embed_dim=32, num_heads=4, mlp_dim=48)
OBJECTIVES = {
    "decoder": dataclasses.replace(models.ILM, target_length=6),
    "encoder-decoder": dataclasses.replace(models.ILM, lm=LM, target_length=6),
}


def stub_run(objective):
    """What the model asks of a run."""
    return types.SimpleNamespace(
        objective=objective,
        sized_objective=objective,
        trainer=types.SimpleNamespace(
            trains=("^qformer/", "^adaptor/"),
            total_steps=10,
            init=(),
            allow_fresh=(),
            adapters=(),
            seed=3,
        ),
        partitioner=Partitioner(),
        optimizer=OptimizerConfig(),
        tokenizer=types.SimpleNamespace(eos_id=1, pad_id=0),
        stop_ids=(1,),
        vectors=models.table(),
    )


class Rows:
    """A feed of the test's batch."""

    len_epoch = models.ROWS

    def rows(self, indices):
        batch = models.prompt_batch()
        return {name: value[np.asarray(indices) % models.ROWS] for name, value in batch.items()}


def test_without_t5x_it_imports_and_says_how_to_install_it():
    try:
        importlib.import_module("t5x")
    except ImportError:
        with pytest.raises(
            UserError, match=r"pip install 't5x @ git\+https://github.com/google-research/t5x'"
        ):
            t5x_model.ItemLanguageT5XModel(stub_run(models.ILM))
    else:
        t5x_model.need_t5x()


def test_shards_make_up_the_global_batch_with_their_vectors():
    run = stub_run(models.ILM)
    run.feed = lambda dataset: Rows()
    dataset = types.SimpleNamespace(repeat=False)
    whole = list(t5x_run.batches(run, dataset, 8))
    assert len(whole) == models.ROWS // 8
    parts = [list(t5x_run.batches(run, dataset, 8, shard, 2)) for shard in range(2)]
    for number, batch in enumerate(whole):
        for name, value in batch.items():
            both = np.concatenate([part[number][name] for part in parts])
            np.testing.assert_array_equal(both, value, err_msg=name)
    entities = models.prompt_batch()["entities"]
    np.testing.assert_array_equal(whole[0]["entity_vectors"], models.table()[entities[:8]])
    with pytest.raises(UserError, match="no multiple of the 3 shards"):
        next(t5x_run.batches(run, dataset, 8, 0, 3))


@pytest.fixture(params=OBJECTIVES)
def model(request):
    """(model, batch as T5X gives it, batch as our trainer does, parameters)."""
    pytest.importorskip("t5x", reason="T5X is not installed; it is on no package index")
    run = stub_run(OBJECTIVES[request.param])
    made = t5x_model.ItemLanguageT5XModel(run)
    run.feed = lambda dataset: Rows()
    batch = next(t5x_run.batches(run, types.SimpleNamespace(repeat=False), models.ROWS))
    variables = made.get_initial_variables(jax.random.key(0), {})
    return made, batch, models.prompt_batch(), variables


def test_loss_and_gradients_are_ours_and_the_frozen_part_has_none(model):
    made, batch, ours, variables = model
    params = variables["params"]
    objective = made.objective

    def expected(params):
        total = objective.loss(params, "prompt", ours, models.table(), None)["loss"]
        return total.total

    want, want_grad = jax.jit(jax.value_and_grad(expected))(params)
    step = jax.jit(jax.value_and_grad(lambda p: made.loss_fn(p, batch, None), has_aux=True))
    (loss, metrics), grad = step(params)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert metrics["loss"].compute() == pytest.approx(float(want), rel=1e-5)
    grad, want_grad = flat(grad), flat(want_grad)
    for path, leaf in grad.items():
        if path.startswith("lm/"):
            assert not np.any(leaf), path
        else:
            np.testing.assert_allclose(leaf, want_grad[path], atol=1e-4, err_msg=path)


def test_every_parameter_has_axes_and_only_what_trains_has_slots(model):
    made, _, _, variables = model
    from t5x import train_state

    state = train_state.FlaxOptimTrainState.create(made.optimizer_def, variables)
    params = flat(variables["params"])
    # Two moments of all that trains, and three counters.
    sizes = sum(leaf.size for path, leaf in params.items() if not path.startswith("lm/"))
    slots = sum(np.size(leaf) for leaf in jax.tree.leaves(state.param_states))
    assert 2 * sizes < slots < 2 * sizes + 5
    assert jax.tree.structure(state.as_logical_axes().params) == jax.tree.structure(state.params)
    axes = flat(variables["params_axes"])
    for path, leaf in params.items():
        assert len(axes[f"{path}_axes"].names) == leaf.ndim, path


def test_scores_and_predictions_are_ours(model):
    made, batch, ours, variables = model
    params = variables["params"]
    nll, weights, _ = made.objective.token_losses(params, ours, models.table())
    scores = made.score_batch(params, batch)
    np.testing.assert_allclose(scores, -(nll * weights).sum(1), rtol=1e-5)
    prompts = made.module.apply(
        {"params": params},
        ours["tokens"],
        ours["slot_entity"],
        ours["slot_query"],
        models.table()[ours["entities"]],
        method="embed",
    )
    lengths = jnp.full(models.ROWS, 18)
    want = greedy(made.module.lm, params["lm"], prompts, lengths, steps=6, eos_id=1)
    np.testing.assert_array_equal(made.predict_batch(params, batch), want)


def test_the_run_says_what_parameters_training_starts_from(model, monkeypatch):
    made, batch, _, _ = model
    from t5x import partitioning

    # T5X gives all devices of a CPU to the model axis, more than these widths divide into.
    devices = np.array(jax.devices()).reshape(-1, 2)
    monkeypatch.setattr(
        partitioning, "get_cpu_mesh", lambda: jax.sharding.Mesh(devices, ("data", "model"))
    )
    mesh = partitioning.PjitPartitioner(
        num_partitions=1,
        logical_axis_rules=t5x_run.logical_axis_rules(partitioning.standard_logical_axis_rules()),
    )
    state = t5x_run.SourcesInitializer(
        optimizer_def=made.optimizer_def,
        init_fn=made.get_initial_variables,
        input_shapes={name: value.shape for name, value in batch.items()},
        partitioner=mesh,
    ).from_scratch(jax.random.key(0))
    drawn = flat(nn.unbox(made.objective.init(jax.random.key(made.run.trainer.seed))))
    for path, leaf in flat(state.params).items():
        np.testing.assert_allclose(leaf, drawn[path], atol=1e-6, err_msg=path)
    assert state.params["lm"]["embedding"]["embedding"].sharding.spec[0] == "model"
