"""Low-rank updates: nothing else of the language model trains, in the table and in the program."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import Checkpoints, InitFrom
from ilm_jax.errors import UserError
from ilm_jax.models.counting import count_dot_flops, count_dots
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.freezing import count, split_by_patterns, trainable_table
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import nested
from tests.models.small import decoder_config, flat, init
from tests.some import some
from tests.training import models
from tests.training.test_stage_two_leaves_the_lm_alone import trainer

ROWS, LENGTH, RANK = 2, 8, 3
TARGETS = ("query|value", "down")
ADAPTERS = ("/lora_[ab]$",)
ONES = jnp.ones((ROWS, LENGTH), jnp.int32)
POSITIONS = jnp.broadcast_to(jnp.arange(LENGTH), ONES.shape)


def model_and_params(**changes):
    config = decoder_config(lora_rank=RANK, lora_targets=TARGETS, **changes)
    model = LanguageModelling(config).model
    batch = (ONES, POSITIONS, ONES, ONES * 0 - 1, ONES * 0, jnp.zeros((ROWS, 1, 1)))
    return config, model, flat(init(model, *batch)), batch


@pytest.mark.parametrize("scan", [True, False])
def test_only_the_updates_train_in_the_table_and_in_the_program(scan):
    config, model, params, batch = model_and_params(scan_layers=scan)

    def program(patterns):
        trainable, frozen = split_by_patterns(params, patterns)

        def loss(trainable, frozen):
            bound = model.bind({"params": nested(trainable | frozen)})
            return jax.nn.logsumexp(bound.logits(bound(*batch)), -1).sum()

        return jax.make_jaxpr(jax.grad(loss))(trainable, frozen)

    trainable, frozen = split_by_patterns(params, ADAPTERS)
    shapes = {"query": (32, 32), "value": (32, 16), "down": (48, 32)}
    expected = config.num_layers * sum(RANK * (a + b) for a, b in shapes.values())
    assert count(trainable) == expected
    total = trainable_table(trainable, frozen).splitlines()[-2].split()
    assert total == ["total", f"{expected:,}", f"{count(frozen):,}"]
    # Everything else that full training computes are the gradients of the matrices.
    matrices = [
        x.shape for p, x in params.items() if p.endswith(("/kernel", "embedding/embedding"))
    ]
    dots = sum(shape[0] if len(shape) == 3 else 1 for shape in matrices)
    assert dots == 7 * config.num_layers + 1
    full, adapted = program((".*",)), program(ADAPTERS)
    flops = sum(2 * ROWS * LENGTH * math.prod(shape) for shape in matrices)
    if not scan:
        # Nothing below the first layer trains, so nothing is handed on there: not through query,
        # key and value, nor the A of two of them, nor to the keys. A scan treats all layers alike.
        dots += 3 + 2 + 1
        handed = 32 * 32 + 2 * 32 * 16 + 2 * 32 * RANK
        scores = 2 * ROWS * LENGTH**2 * config.num_heads * config.head_width
        flops += 2 * ROWS * LENGTH * handed + scores
    assert count_dots(full) - count_dots(adapted) == dots
    assert count_dot_flops(full) - count_dot_flops(adapted) == flops


@pytest.mark.slow
def test_a_run_moves_the_updates_alone_and_saves_nothing_else(tmp_path):
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    stage_0 = trainer(tmp_path / "stage0", models.TEXT_ONLY, total_steps=2)
    stage_0.partitioner = one
    stage_0.fit()
    config = decoder_config(**{**models.LM.__dict__, "lora_rank": RANK, "lora_targets": (".*",)})
    run = trainer(
        tmp_path / "lora",
        LanguageModelling(config),
        total_steps=5,
        trainable=(),
        adapters=ADAPTERS,
        init=(InitFrom(str(tmp_path / "stage0")),),
    )
    run.partitioner = one
    optimizer = run.optimizer.build(5)
    before, report = run.initial_state(optimizer)
    assert "fresh 14 " in report
    old = jax.tree.map(np.array, (before.trainable, before.frozen))
    run.fit()
    saved = Checkpoints(run.model_dir)
    assert saved.shapes(5) and all("/lora_" in name for name in saved.shapes(5))
    after, _, _ = saved.resume(run.initial_state(optimizer)[0])
    assert all(np.any(np.asarray(after.trainable[p]) != old[0][p]) for p in some(old[0]))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.array, after.frozen), old[1])
    slots = [x.shape for x in jax.tree.leaves(after.opt_state) if x.shape]
    assert sorted(slots) == sorted(2 * [x.shape for x in after.trainable.values()])


def test_the_updates_stay_float32_beside_weights_in_bfloat16():
    _, _, params, _ = model_and_params(param_dtype="bfloat16")
    kinds = {path.split("/")[-1]: leaf.dtype.name for path, leaf in params.items()}
    assert (kinds["lora_a"], kinds["lora_b"], kinds["kernel"]) == ("float32",) * 2 + ("bfloat16",)


def test_a_target_that_is_no_projection_is_named():
    with pytest.raises(UserError, match="'querry' matches no projection: query, key"):
        decoder_config(lora_targets=("value", "querry"))
