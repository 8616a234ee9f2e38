"""Every number, flag and list of a configuration is checked where it is bound."""

import dataclasses
import importlib
import math
import pkgutil
import re
import typing
from typing import Annotated

import flax.linen as nn
import pytest

import ilm_jax
from ilm_jax import checks
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.data.examples.task_families import TASK_FAMILIES
from ilm_jax.data.streams.dataset_config import DatasetConfig
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import SettingError, UserError
from ilm_jax.evaluation.infer_eval import InferEvalConfig
from ilm_jax.models.decoder_layers import DecoderConfig
from ilm_jax.models.qformer_layers import QFormerConfig
from ilm_jax.objectives.alignment import Alignment
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.runs import gin_config
from ilm_jax.runs.sweeps import Sweep
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import TrainerConfig

SIZES = {"vocab_size": 8, "num_layers": 2, "embed_dim": 4, "num_heads": 2, "mlp_dim": 4}
QFORMER = QFormerConfig(cf_dim=4, **SIZES)
DATASET = DatasetConfig("item_text")
TRAINER = TrainerConfig(total_steps=2, batch_size=2)
# What a configuration cannot be made without.
REQUIRED = {
    "TrainerConfig": {"total_steps": 2, "batch_size": 2},
    "Schedule": {"shares": {"prompt": 1}},
    "InitFrom": {"path": "run"},
    "DatasetConfig": {"mixture_or_task_name": "item_text"},
    "Mixture": {"rates": {"a": None}},
    "InferEvalConfig": {"dataset": DATASET},
    "DecoderConfig": SIZES,
    "QFormerConfig": {"cf_dim": 4, **SIZES},
    "T5Config": SIZES,
    "SemanticIds": {"tables": ["cf.safetensors"]},
    "RopeScaling": {"kind": "linear", "factor": 2.0},
    "Alignment": {"qformer": QFORMER},
    "LanguageModelling": {"lm": DecoderConfig(**SIZES)},
    "QFormerReader": {"qformer": QFORMER},
    "MLPReader": {"qformer": QFORMER},
    "PromptReader": {"qformer": QFORMER},
    "Run": {
        "model_dir": "run",
        "objective": Alignment(QFORMER),
        "train": {"item_text": DATASET},
        "trainer": TRAINER,
    },
}
OTHERS = {
    "Sweep",
    "Schedule",
    "Mixture",
    "Buckets",
    "Alignment",
    "LanguageModelling",
    "QFormerReader",
    "MLPReader",
    "PromptReader",
    "TextHead",
    "ItemHead",
    "ResidualKMeans",
    "RQVAE",
    "NewTokens",
    "SemanticIds",
    "RopeScaling",
    "InitFrom",
    "FitCF",
    "Columns",
    "Run",
    "TaskSettings",
}
# 0 means something: none, all, never, or as the data have it.
ZERO = {
    "Alignment": "itc_weight itm_weight itg_weight label_smoothing",
    "BertConfig": "dropout norm_eps",
    "CheckpointConfig": "every keep_best outlier",
    "Columns": "core",
    "CritiqueConfig": "hidden",
    "CorpusSettings": "sequential_examples word_variants elm_tasks",
    "DatasetConfig": "max_entities pack block redraw",
    "DecoderConfig": "vocab_size lora_rank norm_eps",
    "DecodingConfig": "pad_id top_k length_penalty",
    "FitCF": "patience",
    "GRU4RecConfig": "dropout",
    "IALSConfig": "nu",
    "InferEvalConfig": "every",
    "InitFrom": "step",
    "ItemKNNConfig": "shrinkage",
    "ItemHead": "weight cf_dim history_weight",
    "LanguageModelling": "target_length word_rows",
    "NewTokens": "count first",
    "MeshConfig": "data fsdp tensor",  # refused with the number of devices in hand
    "OptimizerConfig": "warmup_steps warmup_share end_fraction b1 b2 weight_decay clip_norm",
    "Elm24Settings": "train_items",
    "EvaluationConfig": "liked length_penalty",
    "QFormerConfig": "cf_dim vocab_size dropout pad_id dec_id norm_eps",
    "RQVAE": "commitment restart_every",
    "SASRecConfig": "dropout norm_eps",
    "SampledConfig": "margin l2",
    "SamplerConfig": "power",
    "SequentialConfig": "margin",
    "SplitConfig": "held_out_items",
    "Sweep": "draws",
    "T5Config": "vocab_size lora_rank norm_eps start_id eos_id dropout word_rows",
    "TextHead": "weight",
    "TrainerConfig": "eval_every patience readers",
}
NEGATIVE = {
    "MeshConfig": "data fsdp tensor",
    "DecodingConfig": "length_penalty",
    "EvaluationConfig": "liked length_penalty",
}


def configurations():
    found = {}
    edges = re.compile(r"ilm_jax\.(gin|tasks|__main__|cli|interop|compilation|.*tfds_builder)")
    for module in pkgutil.walk_packages(ilm_jax.__path__, "ilm_jax."):
        if edges.match(module.name):  # no configurations, but TensorFlow
            continue
        for name, owner in vars(importlib.import_module(module.name)).items():
            config = name in OTHERS or name.endswith("Config")
            if config and dataclasses.is_dataclass(owner) and not issubclass(owner, nn.Module):
                found[name] = owner
    own = (TASK_FAMILIES[family].settings for family in TASK_FAMILIES)
    return found | {owner.__name__: owner for owner in own}


CONFIGURATIONS = configurations()


def kind(hint):
    """int, float or bool where the annotation is of one, None among others; else None."""
    if typing.get_origin(hint) is Annotated:
        return kind(typing.get_args(hint)[0])
    kinds = {kind(one) for one in typing.get_args(hint)} | ({hint} & {int, float, bool})
    return next(iter(kinds - {None}), None)


def single(hint):
    return not any("collections.abc" in str(part) or "tuple" in str(part) for part in [hint])


def fields_of(*wanted):
    for name, owner in sorted(CONFIGURATIONS.items()):
        for field, hint in checks.hints_of(owner).items():
            if single(hint) and kind(hint) in wanted:
                yield name, field, kind(hint)


def makes(name, field, value):
    CONFIGURATIONS[name](**{**REQUIRED.get(name, {}), field: value})


def refuses(name, field, value):
    with pytest.raises(UserError, match=rf"{name}\.{field}={re.escape(repr(value))}: give "):
        makes(name, field, value)


@pytest.mark.parametrize(("name", "field", "number"), list(fields_of(int, float)))
def test_a_number_takes_numbers_of_its_range_alone(name, field, number):
    wrong = [math.nan, math.inf, "3", True] + [2.5] * (number is int)
    zero = field.endswith("seed") or field in ZERO.get(name, "").split()
    negative = field in NEGATIVE.get(name, "").split()
    for value in [*wrong, *[0] * (not zero), *[-1] * (not negative)]:
        refuses(name, field, value)
    for value in [*[0] * zero, *[-1] * negative]:
        makes(name, field, value)


@pytest.mark.parametrize(("name", "field", "flag"), list(fields_of(bool)))
def test_a_flag_takes_true_and_false_alone(name, field, flag):
    if (name, field) == ("DecodingConfig", "early_stopping"):  # takes "never" too
        return refuses(name, field, "false")
    for value in ("false", 0, None):
        refuses(name, field, value)


def test_every_configuration_of_the_recipes_is_walked():
    recipes = "\n".join(path.read_text() for path in gin_config.recipe_folder().rglob("*.gin"))
    named = set(re.findall(r"^(?:\w+/)*[a-z_]\w+\.([A-Z]\w+)\.\w+ *=", recipes, re.M))
    assert named - {"Partitioner"} <= set(CONFIGURATIONS)  # whose numbers are MeshConfig's
    assert len(CONFIGURATIONS) >= 30 and len(list(fields_of(int, float))) >= 150


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule({"prompt": 1.5}), "whole number, at least 0 for 'prompt'"),
        (lambda: Schedule({"prompt": "2"}), "whole number, at least 0 for 'prompt'"),
        (lambda: DatasetConfig({"a": -1.0}), "give .*a dictionary of .* at least 0"),
        (lambda: DatasetConfig("a", {"inputs": 1.5}), "at least 0 for 'inputs'"),
        (lambda: TrainerConfig(2, 2, trainable="qformer"), "give a list of a text"),
        (lambda: OptimizerConfig(learning_rate=2**2000), "give a finite number"),
        (lambda: InferEvalConfig("toy"), "give DatasetConfig, as @DatasetConfig"),
        (lambda: TrainerConfig(2, 2, seed=2**32), "at most 4294967294"),
        (lambda: dataclasses.replace(QFORMER, dtype="float64"), "one of float32, bfloat16"),
        (lambda: dataclasses.replace(QFORMER, embed_dim=5), "not divisible by num_heads=2"),
        (lambda: DecoderConfig(**{**SIZES, "embed_dim": 7}), "not divisible by num_heads=2"),
        (lambda: LanguageModelling(lm=QFORMER), "LanguageModelConfig, such as @DecoderConfig"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_whole_floats_are_taken_for_counts_and_lists_for_tuples():
    config = TrainerConfig(total_steps=1e4, batch_size=16.0, trainable=["qformer"])
    assert (config.total_steps, config.batch_size) == (10_000, 16)
    assert type(config.total_steps) is int and config.trainable == ("qformer",)
    assert Schedule({"prompt": 2.0}).cycle == ("prompt", "prompt")


def test_a_setting_error_is_a_value_error_for_callers_in_python():
    with pytest.raises(ValueError, match="IALSConfig.dim=0: give a whole number, at least 1"):
        IALSConfig(dim=0)
    assert issubclass(SettingError, UserError)


@pytest.mark.parametrize(
    "how", ["uniform(a,1)", "uniform(0,inf)", "log(0,1)", "uniform(2,1)", "log(nan,1)"]
)
def test_a_sweep_draws_between_two_finite_numbers_alone(how):
    sweep = Sweep(gin_file=["x.gin"], draws=1, random={"LEARNING_RATE": how})
    with pytest.raises(UserError, match="give two finite numbers, the smaller first"):
        sweep.expand()
