"""An objective, a stage-1 kind, a reader or a head comes from outside: nothing asks for a class."""

import ast
import dataclasses
import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.compilation.abstract import batch_shapes, needed_flops, programs
from ilm_jax.data.streams.alignment_converter import AlignmentConverter, Entity
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.layouts import Pairs
from ilm_jax.errors import UserError
from ilm_jax.objectives.alignment_kinds import Kind, pairs, register_alignment_kind
from ilm_jax.objectives.heads import Head, TextHead, combined
from ilm_jax.objectives.objective import Objective, Sums
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from tests.training import models

ROOT = pathlib.Path(__file__).parents[2]


def asks_for_a_class(tree):
    """Lines that call isinstance, getattr or hasattr of an objective."""
    for node in ast.walk(tree):
        named = isinstance(node, ast.Call) and ast.unparse(node.func)
        if named in ("isinstance", "getattr", "hasattr"):
            first = ast.unparse(node.args[0]).split(".")[-1]
            if first.strip("_") in ("objective", "sized_objective", "sized", "language"):
                yield node.lineno


def test_nobody_asks_which_class_an_objective_is():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("ilm_jax", "tasks", "launch", "studies")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in asks_for_a_class(ast.parse(path.read_text()))
    ]
    assert not found
    planted = "x = getattr(run.objective, 'qformer', None) or isinstance(objective, Alignment)"
    assert list(asks_for_a_class(ast.parse(planted))) == [1, 1]


def users(at):
    """The contrastive loss between two users, and how far apart their vectors lie."""
    sums = pairs(at)
    apart = jnp.abs(at.vectors("entities") - at.vectors("others")).sum()
    return {**sums, "apart": Sums(apart, jnp.float32(1))}


USERS = Kind(
    "test_user_user",
    Pairs({"entities": Entity("user", "user"), "others": Entity("other_user", "user")}),
    users,
    temperature=0.5,
)


def test_a_kind_of_stage_1_is_one_declaration():
    register_alignment_kind(USERS)
    objective = dataclasses.replace(models.ALIGNMENT, kinds=("item_text", "test_user_user"))
    params = nn.unbox(jax.jit(objective.init)(jax.random.key(0)))
    logs = params["qformer"]["log_temperature"]
    assert set(logs) == {"item_text", "test_user_user"}
    np.testing.assert_allclose(np.exp(logs["test_user_user"]), 0.5, rtol=1e-6)

    layout = objective.layout("test_user_user")
    rows = AlignmentConverter(layout.columns, lambda block, rows: rows + (block == "toy/user"), IDS)
    examples = [{"user": 3, "other_user": 5, "catalogue": "toy", "key": "a"}] * 2
    made = rows(examples)
    assert made["entities"].tolist() == [4, 4] and made["others"].tolist() == [6, 6]
    shapes = batch_shapes(DatasetConfig("item_item"), layout)
    assert {n: x.shape[1:] for n, x in made.items()} == {n: s.shape for n, s in shapes.items()}

    batch = models.alignment_batch("user_item")
    loss = jax.jit(functools.partial(objective.loss, kind="test_user_user", key=None))
    sums = loss(params, batch=batch, table=models.table())
    assert {"loss", "test_user_user", "test_user_user_accuracy", "apart"} == set(sums)
    with pytest.raises(UserError, match="there is a stage-1 kind 'test_user_user' already"):
        register_alignment_kind(dataclasses.replace(USERS, temperature=0.1))
    with pytest.raises(UserError, match="no stage-1 kind 'user_usr'"):
        dataclasses.replace(models.ALIGNMENT, kinds=("user_usr",))


MODULE = """
from ilm_jax import register_alignment_kind
from ilm_jax.data.streams.alignment_converter import Entity
from ilm_jax.data.streams.layouts import Pairs
from ilm_jax.objectives.alignment_kinds import Kind, pairs

backwards = Pairs({"entities": Entity("other"), "others": Entity("row")})
register_alignment_kind(Kind("backwards", backwards, pairs))
"""
RECIPE = """
from __gin__ import dynamic_registration
import my_kind
from ilm_jax.data.streams import dataset_config
from ilm_jax.objectives import alignment
from ilm_jax.runs import run

include "tiny/stage1.gin"

SCHEDULE = {"item_text": 2, "item_item": 1, "user_item": 1, "backwards": 1}
alignment.Alignment.kinds = ("item_text", "item_item", "user_item", "backwards")
run.Run.train = {
    "item_text": @item_text/dataset_config.DatasetConfig(),
    "item_item": @item_item/dataset_config.DatasetConfig(),
    "user_item": @user_item/dataset_config.DatasetConfig(),
    "backwards": @backwards/dataset_config.DatasetConfig(),
}
backwards/dataset_config.DatasetConfig.mixture_or_task_name = "item_item"
"""


def test_a_recipe_adds_a_kind_by_importing_one_module(tmp_path, monkeypatch):
    (tmp_path / "my_kind.py").write_text(MODULE)
    (tmp_path / "my_kind.gin").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    sizes = ["qformer.QFormerConfig.vocab_size=64", "qformer.QFormerConfig.cf_dim=16"]
    run = gin_config.build(Run, [str(tmp_path / "my_kind.gin")], sizes, unnamed="nowhere")
    assert run.objective.kinds == tuple(run.train) == tuple(run.schedule)
    found = programs(run, run.partitioner, table_rows=9, decode_rows=0, decode_steps=0)
    steps = {program.name: program for program in found}
    assert list(steps) == [f"train {kind}" for kind in run.objective.kinds]
    assert "qformer/log_temperature/backwards" in steps["train backwards"].state.trainable
    assert needed_flops(steps["train backwards"]) == needed_flops(steps["train item_item"]) > 0


class IDS:
    pad_id, cls_id = 0, 4


@dataclasses.dataclass(frozen=True)
class ItemHead(Head):
    """Which item stands in the prompt, told from the mean hidden state of the targets."""

    weight: float = 0.5
    cf_dim: int = 0

    def init(self, key, lm_dim):
        kernel = nn.with_logical_partitioning(nn.initializers.normal(0.1), ("embed", "cf"))
        return {"item_head": {"kernel": kernel(key, (lm_dim, self.cf_dim))}}

    def sums(self, read):
        scores = read.hidden.mean(1) @ read.params["item_head"]["kernel"] @ read.table.T
        losses = -jax.nn.log_softmax(scores)[jnp.arange(len(scores)), read.batch["entities"][:, 0]]
        mean = Sums(losses.sum(), jnp.float32(len(losses)))
        return {"loss": mean, "item_nll": mean}


def test_a_head_of_ones_own_learns_beside_the_text():
    lm = dataclasses.replace(models.LM, num_layers=1)
    text = dataclasses.replace(models.TEXT_ONLY, lm=lm, target_length=8)
    both = dataclasses.replace(text, heads=(TextHead(), ItemHead())).with_sizes(cf_dim=models.CF)
    assert both.needs_table and both.cf_dim == models.CF and not text.needs_table
    params = nn.unbox(jax.jit(both.init)(jax.random.key(0)))
    assert set(params) == {"lm", "item_head"}
    batch, table = models.prompt_batch(slots=False), models.table()

    @jax.jit
    def run(params):
        def total(params):
            sums = both.loss(params, "prompt", batch, table, None)
            return sums["loss"].total / sums["loss"].weight, sums

        alone = text.loss(params, "prompt", batch, table, None)
        return jax.value_and_grad(total, has_aux=True)(params), alone

    ((loss, sums), grads), alone = run(params)
    nll, item = (x.total / x.weight for x in (alone["loss"], sums["item_nll"]))
    np.testing.assert_allclose(loss, nll + 0.5 * item, rtol=1e-6)
    np.testing.assert_array_equal(sums["nll_content"], alone["nll_content"])
    assert np.abs(grads["item_head"]["kernel"]).max() > 0
    assert text.splits_batches and not both.splits_batches
    twice = dataclasses.replace(text, heads=(ItemHead(), ItemHead()))
    with pytest.raises(UserError, match=r"ItemHead's parameters \['item_head'\] bear a name twice"):
        jax.eval_shape(twice.init, jax.random.key(0))


def test_the_text_alone_is_the_text_heads_own_sums():
    read = object()
    one = {"loss": Sums(jnp.float32(3), jnp.float32(2))}

    class Head:
        weight = 1.0

        def sums(self, given):
            assert given is read
            return one

    assert combined((Head(),), read) is one


def test_what_is_no_objective_reader_or_head_is_refused():
    with pytest.raises(UserError, match="LanguageModelling.reader=.*such as @QFormerReader"):
        dataclasses.replace(models.ILM, reader=models.QFORMER)
    with pytest.raises(UserError, match="LanguageModelling.heads"):
        dataclasses.replace(models.ILM, heads=(models.QFORMER,))
    with pytest.raises(UserError, match=r"heads = \(\): nothing is learnt"):
        dataclasses.replace(models.ILM, heads=())
    assert isinstance(models.ILM, Objective) and not isinstance(models.QFORMER, Objective)


def test_configurations_can_be_exchanged_by_their_top_key():
    lm, qformer = (dataclasses.replace(c, remat="full") for c in (models.LM, models.QFORMER))
    changed = models.ILM.with_configs({"lm": lm, "qformer": qformer})
    assert changed.configs == {"lm": lm, "qformer": qformer}
    assert models.TEXT_ONLY.with_configs({"lm": lm}).configs == {"lm": lm}
    assert models.ALIGNMENT.with_configs({"qformer": qformer}).configs == {"qformer": qformer}
