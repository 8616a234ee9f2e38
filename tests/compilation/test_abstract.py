"""What is compiled ahead of time has the shapes and shardings of what the trainer runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.compilation.abstract import abstract_state, batch_shapes, matrix_entries, sized
from ilm_jax.data.streams.alignment_converter import AlignmentConverter
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.errors import UserError
from ilm_jax.models.counting import count_dot_flops
from ilm_jax.objectives.alignment_kinds import KINDS
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.sharding.freezing import split_by_patterns
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables, initialise, make_state
from tests.training import models

SIZES = ["qformer.QFormerConfig.vocab_size=64", "qformer.QFormerConfig.cf_dim=16"]
LM = ["decoder.DecoderConfig.vocab_size=64"]


class Tokenizer:
    pad_id, cls_id = 0, 4


def build(recipe, *bindings):
    return gin_config.build(Run, [recipe], bindings, unnamed="nowhere")


@pytest.mark.parametrize("kind", list(KINDS))
def test_pairs_have_the_converters_shapes(kind):
    layout = KINDS[kind].layout
    converter = AlignmentConverter(
        layout.columns, lambda _, rows: rows, Tokenizer(), text_length=12
    )
    numbers = {"row": 1, "other": 2, "user": 3}
    example = {**numbers, "catalogue": "toy", "text": np.array([7, 8]), "key": "0"}
    made = converter([example, example])
    dataset = DatasetConfig(kind, {"text": 12}, dataset="toy")
    shapes = batch_shapes(dataset, layout)
    assert {name: (x.shape[1:], x.dtype) for name, x in made.items()} == {
        name: (s.shape, s.dtype) for name, s in shapes.items()
    }


def test_prompts_have_the_shapes_that_the_step_is_compiled_for():
    run = build("tiny/stage2_ilm_rand.gin", *SIZES, *LM)
    layout = run.objective.layout("prompt")
    alone = batch_shapes(run.train_eval["prompt"], layout)
    shapes = batch_shapes(run.train["prompt"], layout)  # examples share rows
    made = models.prompt_batch()
    assert set(made) | {"example_index"} == set(alone) == set(shapes)
    assert alone["tokens"].shape == (136,) and alone["entities"].shape == (5,)
    assert shapes["tokens"].shape == (int(136 * run.train["prompt"].pack_room),)
    for name, array in made.items():
        assert array.dtype.kind == shapes[name].dtype.kind, name


def test_the_state_is_the_trainers():
    run = build("tiny/stage2_ilm_rand.gin", *SIZES, *LM)
    partitioner = Partitioner(MeshConfig(2, 2, 2))
    objective, table = sized(run, 40)
    assert table.shape == (40, 16)
    optimizer = run.optimizer.build(10)
    abstract = abstract_state(objective, run.trainer.trains, partitioner, optimizer)
    variables = describe_variables(objective)
    params = initialise(objective, variables, list(variables), partitioner, jax.random.key(0))
    real = make_state(*split_by_patterns(params, run.trainer.trains), optimizer)
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    for made, planned in zip(jax.tree.leaves(real), jax.tree.leaves(abstract), strict=True):
        assert (made.shape, made.dtype) == (planned.shape, planned.dtype)
        assert made.sharding.is_equivalent_to(planned.sharding, made.ndim)


def test_four_operations_for_each_frozen_entry_and_token():
    """The estimate 4N is what a frozen decoder's products come to, but for attention and head."""
    objective = models.TEXT_ONLY
    variables = describe_variables(objective)
    params = {p: jax.ShapeDtypeStruct(v.shape, v.dtype) for p, v in variables.items()}
    x = jax.ShapeDtypeStruct((4, 24, models.LM.embed_dim), jnp.float32)
    from ilm_jax.sharding.state import nested

    def through(x, params):
        ones = jnp.ones(x.shape[:2], jnp.int32)
        args = ({"params": nested(params)["lm"]}, x, ones, ones)
        return objective.model.lm.apply(*args).sum()

    counted = count_dot_flops(jax.make_jaxpr(jax.grad(through))(x, params))
    width, layers = models.LM.embed_dim, models.LM.num_layers
    attention = 6 * 2 * layers * 4 * 24 * 24 * width  # two products, forward and twice backward
    assert counted == 4 * 4 * 24 * matrix_entries(params) + attention


def test_sizes_that_only_data_knows_must_be_given():
    with pytest.raises(UserError, match="DecoderConfig.vocab_size = 0 leaves it to data"):
        sized(build("tiny/stage2_ilm_rand.gin", *SIZES), 40)
