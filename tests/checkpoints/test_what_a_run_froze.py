"""Merging takes the weights that a run was trained on, its scaling and its tokenizer, or none."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.checkpoints.published.entries import Entry, with_lora_merged
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.cli import main as cli
from ilm_jax.data.tokenizers import open_tokenizer_at
from ilm_jax.errors import UserError
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables
from tests.checkpoints.published import LLAMA, publish, weights
from tests.data import published_tokenizers
from tests.training import models
from tests.training.test_stage_two_leaves_the_lm_alone import trainer


def test_a_base_that_changed_since_is_refused(run, tmp_path):
    folder, _ = run
    open_language_model(str(folder / "run"))
    moved = folder / "moved"
    (folder / "base").rename(moved)
    try:
        other = {name: value + 0.01 for name, value in weights(LLAMA).items()}
        publish(tmp_path / "hf", tensors=other)
        converting.to_frozen(f"{tmp_path}/hf", f"{folder}/base", "float32")
        for to in ("frozen", "hugging_face"):
            words = [f"--source={folder}/run", f"--model_dir={tmp_path}/out", f"--to={to}"]
            assert cli.main(["convert", *words]) == 2
        with pytest.raises(UserError, match="are not those that .* froze: restore them"):
            open_language_model(str(folder / "run"))
        assert not (tmp_path / "out").exists()
    finally:
        shutil.rmtree(folder / "base", ignore_errors=True)
        moved.rename(folder / "base")


@pytest.mark.slow
def test_a_frozen_reader_is_compared_by_where_it_came_from(run, tmp_path):
    folder, lm = run
    plain = dataclasses.replace(lm, lora_rank=0)
    shutil.copytree(folder / "run", tmp_path / "reader")
    sources = (
        InitFrom(str(folder / "base")),
        InitFrom(f"{tmp_path}/reader", ("^qformer/",), allow_unused=(".*",)),
    )
    last = trainer(
        tmp_path / "part",
        LanguageModelling(plain, models.READER),
        total_steps=1,
        trainable=("^adaptor/",),
        init=sources,
        allow_fresh=("^adaptor/",),
    )
    last.fit()
    assert open_language_model(f"{tmp_path}/part").notes == []
    meta = tmp_path / "reader/checkpoints/4/meta/metadata"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"weights": "another's"}))
    with pytest.raises(UserError, match="are not those that .* froze"):
        open_language_model(f"{tmp_path}/part")


def test_an_update_that_was_scaled_otherwise_is_another_model(run, tmp_path):
    folder, lm = run
    converting.to_adapter(str(folder / "run"), str(tmp_path / "adapter"))
    objective = LanguageModelling(dataclasses.replace(lm, lora_alpha=32.0), models.READER)
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    with pytest.raises(UserError, match=r"lora_alpha 16.0 \(here 32.0\)"):
        load_sources(
            objective,
            describe_variables(objective),
            [InitFrom(f"{tmp_path}/adapter")],
            (".*",),
            one,
            jax.random.key(0),
        )


def test_an_adapter_on_other_weights_than_its_own_is_said(run, tmp_path):
    folder, lm = run
    converting.to_adapter(str(folder / "run"), str(tmp_path / "adapter"))
    publish(tmp_path / "hf", tensors={n: v + 0.01 for n, v in weights(LLAMA).items()})
    objective = LanguageModelling(lm, models.READER)
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    for base, said in ((folder / "base", 0), (tmp_path / "hf", 1)):
        sources = [InitFrom(f"{tmp_path}/adapter"), InitFrom(str(base))]
        report = load_sources(
            objective, describe_variables(objective), sources, (), one, jax.random.key(0)
        )[1]
        assert report.count("was trained on other frozen weights") == said


def test_an_adapter_alone_is_no_language_model(run, tmp_path):
    folder, _ = run
    converting.to_adapter(str(folder / "run"), str(tmp_path / "adapter"))
    with pytest.raises(UserError, match="low-rank update of lm/.* without lm/.*kernel: is its ba"):
        open_language_model(f"{tmp_path}/adapter")


def entry(*shape):
    return Entry(shape, np.dtype(np.float32), lambda index: np.ones(shape, np.float32)[index])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x/lora_b": None}, "without x/lora_b"),
        ({"x/lora_a": None}, "without x/lora_a"),
        ({"x/kernel": None}, "without x/kernel"),
        ({"x/lora_b": entry(3, 6)}, r"\(4, 2\) by \(3, 6\) does not fit x/kernel \(4, 6\)"),
        ({"x/kernel": entry(6, 4)}, "does not fit"),
    ],
)
def test_a_low_rank_update_without_its_parts_is_refused(changes, message):
    whole = {"x/kernel": entry(4, 6), "x/lora_a": entry(4, 2), "x/lora_b": entry(2, 6)}
    merged = with_lora_merged(whole, 8.0, "it")
    np.testing.assert_array_equal(merged["x/kernel"].read(), np.full((4, 6), 1 + 8 / 2 * 2))
    given = {n: e for n, e in {**whole, **changes}.items() if e is not None}
    with pytest.raises(UserError, match=message):
        with_lora_merged(given, 8.0, "it")


def with_tokenizer(folder, **generation):
    publish(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(published_tokenizers.folder() / "llama3" / name, folder / name)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def test_a_converted_model_names_its_tokenizer(tmp_path):
    source = with_tokenizer(tmp_path / "hf")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    assert cli.main(["convert", f"--source={source}", f"--model_dir={tmp_path}/out"]) == 0
    assert open_tokenizer_at(tmp_path / "out").template.source == "{{ messages }}"
    fingerprint = open_tokenizer_at(source).fingerprint
    assert open_source(f"{tmp_path}/out").meta["tokenizer"] == fingerprint
    # Converted again it is the same; beside another tokenizer it is refused.
    converting.to_frozen(f"{tmp_path}/out", f"{tmp_path}/again", "float32")
    assert open_source(f"{tmp_path}/again").meta["tokenizer"] == fingerprint
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(published_tokenizers.folder() / "qwen2" / name, tmp_path / "out" / name)
    with pytest.raises(UserError, match="another tokenizer than its model was made with"):
        converting.to_frozen(f"{tmp_path}/out", f"{tmp_path}/third", "float32")
    publish(tmp_path / "bare")
    converting.to_frozen(f"{tmp_path}/bare", f"{tmp_path}/none", "float32")
    assert "tokenizer" not in open_source(f"{tmp_path}/none").meta


@pytest.mark.parametrize("through_convert", [True, False])
def test_a_run_stops_where_its_frozen_model_does(tmp_path, through_convert):
    lm = with_tokenizer(tmp_path / "hf", eos_token_id=[901, 17])
    files = ["runs/stage2_ilm.gin", "models/qformer_base.gin"]
    more = []
    if through_convert:
        converting_words = [f"--source={lm}", f"--model_dir={tmp_path}/out"]
        assert cli.main(["convert", *converting_words]) == 0
        lm = tmp_path / "out"
        files.append(f"{lm}/model.gin")
    else:  # the tokenizer's files lie elsewhere, without the model's own
        elsewhere = published_tokenizers.folder() / "llama3"
        assert cli.main(["convert", f"--source={lm}", f"--model_dir={tmp_path}/again"]) == 0
        files.append(f"{tmp_path}/again/model.gin")
        more = [f"TOKENIZER={elsewhere}"]
    bindings = [
        f"LM_FROM={lm}",
        "MODEL_DIR=m",
        "CF_TABLE=c",
        "QFORMER_FROM=q",
        "TRAIN_STEPS=1",
        "BATCH_SIZE=8",
        "TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
        "LEARNING_RATE=0.1",
        *more,
    ]
    recipe = gin_config.build(Run, files, bindings)
    assert recipe.language_model_folders == [str(lm)]
    recipe.__dict__["tokenizer"] = open_tokenizer_at(recipe.dataset.settings.tokenizer)
    assert len(recipe.tokenizer.stop_ids) == (2 if through_convert else 1)
    assert recipe.stop_ids == (901, 17)
