"""`ilm convert` in and out: the same bits, the same fingerprint, recipes that go on with it."""

import json
import shutil

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints import converting, orbax_checkpoint
from ilm_jax.checkpoints.checkpoints import InitFrom
from ilm_jax.checkpoints.fingerprints import fingerprint
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.cli import main as cli
from ilm_jax.errors import UserError
from ilm_jax.models.decoder import DecoderConfig
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables
from tests.checkpoints.published import LLAMA, T5, publish
from tests.data import published_tokenizers
from tests.training import models

SCALED = {
    **LLAMA,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def load(path, config, mesh=None, step="best"):
    objective = LanguageModelling(config)
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    return load_sources(
        objective,
        describe_variables(objective),
        [InitFrom(str(path), step=step)],
        (),
        mesh or one,
        jax.random.key(0),
    )[0]


def same(a, b):
    assert set(a) == set(b)
    for path in a:
        assert a[path].dtype == b[path].dtype, path
        np.testing.assert_array_equal(np.asarray(a[path]), np.asarray(b[path]), err_msg=path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_converted_model_is_the_published_one_bit_for_bit(tmp_path, dtype, capfd, monkeypatch):
    # Tables and kernels in several chunks of rows, as those of large models are.
    monkeypatch.setattr(orbax_checkpoint, "CHUNK_BYTES", 1024)
    publish(tmp_path / "hf", SCALED)
    words = [f"--source={tmp_path / 'hf'}", f"--model_dir={tmp_path / 'out'}", f"--dtype={dtype}"]
    assert cli.main(["convert", *words]) == 0
    printed = capfd.readouterr()
    assert "100%" in printed.err and "s left" in printed.err
    config = open_source(str(tmp_path / "hf")).config
    config = DecoderConfig(**{**config.__dict__, "param_dtype": dtype})
    mesh = Partitioner(MeshConfig(1, 4, 2))
    params = load(tmp_path / "out", config, mesh)
    assert 1 < open_source(str(tmp_path / "out")).entries["lm/head/embedding"].step < 64
    same(params, load(tmp_path / "hf", config, mesh))
    # The fingerprint is that of a run which freezes it, on any mesh, scanned or not.
    stated = json.loads((tmp_path / "out" / "conversion.json").read_text())["fingerprint"]
    apart = DecoderConfig(**{**config.__dict__, "scan_layers": False})
    assert fingerprint(params) == fingerprint(load(tmp_path / "out", apart)) == stated
    assert f"fingerprint {stated}" in printed.out
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]


def test_its_recipe_gives_stage_two_the_same_configuration(tmp_path):
    publish(tmp_path / "hf", SCALED)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(published_tokenizers.folder() / "llama3" / name, tmp_path / "hf" / name)
    assert cli.main(["convert", f"--source={tmp_path}/hf", f"--model_dir={tmp_path}/out"]) == 0
    files = ["runs/stage2_ilm.gin", "models/qformer_base.gin", f"{tmp_path}/out/model.gin"]
    bindings = [
        f"LM_FROM={tmp_path}/out",
        "MODEL_DIR=m",
        "CF_TABLE=c",
        "QFORMER_FROM=q",
        "TRAIN_STEPS=1",
        "BATCH_SIZE=8",
        "TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
        "LEARNING_RATE=0.1",
    ]
    run = gin_config.build(Run, files, bindings)
    published = open_source(str(tmp_path / "hf")).config
    half = {"dtype": "bfloat16", "param_dtype": "bfloat16"}
    assert run.objective.lm == DecoderConfig(**{**published.__dict__, **half})
    assert run.dataset.settings.tokenizer == f"{tmp_path}/out"
    assert run.trainer.init[0].path == f"{tmp_path}/out"
    # With low-rank updates and int8 on top.
    more = [*files, "runs/stage2_lora.gin", "models/int8.gin"]
    run = gin_config.build(Run, more, [*bindings, "LORA_TARGETS=('.*',)", "LORA_RANK=4"])
    assert (run.objective.lm.lora_rank, run.objective.lm.quantized) == (4, True)
    assert run.trainer.trains == ("^qformer/", "^adaptor/", "/lora_[ab]$")


def test_no_other_tokenizer_takes_the_place_of_one_that_is_missing(tmp_path, capfd):
    publish(tmp_path / "hf")
    assert cli.main(["convert", f"--source={tmp_path}/hf", f"--model_dir={tmp_path}/out"]) == 0
    assert "holds no tokenizer" in capfd.readouterr().err
    files = ["runs/stage2_ilm.gin", "models/qformer_base.gin", f"{tmp_path}/out/model.gin"]
    bindings = [
        f"LM_FROM={tmp_path}/out",
        "MODEL_DIR=m",
        "CF_TABLE=c",
        "QFORMER_FROM=q",
        "TRAIN_STEPS=1",
        "BATCH_SIZE=8",
        "TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
        "LEARNING_RATE=0.1",
    ]
    with pytest.raises(UserError, match="TOKENIZER has no value: add --gin.TOKENIZER"):
        gin_config.build(Run, files, bindings)
    run = gin_config.build(Run, files, [*bindings, "TOKENIZER=there"])
    assert run.dataset.settings.tokenizer == "there"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source=absent"], "name both folders"),
        (["--source=absent", "--model_dir=o"], "absent is no folder"),
        (["--source=absent", "--model_dir=o", "--to=adapter", "--dtype=float32"], "keeps the bits"),
        (["--source=absent", "--model_dir=.", "--to=frozen"], "exists"),
    ],
)
def test_wrong_words_give_one_line(tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "something").touch()
    assert cli.main(["convert", *words]) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_broken_download_leaves_no_folder(tmp_path):
    tensors = publish(tmp_path / "hf")
    del tensors["model.norm.weight"]
    publish(tmp_path / "hf", tensors=tensors)
    with pytest.raises(UserError, match="restored .*fresh 1 .*final_norm.*unused 0"):
        converting.to_frozen(str(tmp_path / "hf"), str(tmp_path / "out"), "float32")
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_tensors_of_other_shapes_than_the_config_s_are_refused(tmp_path):
    publish(tmp_path / "hf")
    config = {**LLAMA, "intermediate_size": 40}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"restored 21; .*other shapes 9 \[lm/layer_00/mlp/gate"):
        converting.to_frozen(str(tmp_path / "hf"), str(tmp_path / "out"), "float32")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_adapter_folder_gives_back_what_was_trained(run, tmp_path):
    folder, _ = run
    facts = converting.CardFacts(dataset="toy", tasks={"elm24_toy_long_description": 1.0})
    converting.to_adapter(str(folder / "run"), str(tmp_path / "adapter"), facts=facts)
    saved, back = open_source(str(folder / "run")), open_source(str(tmp_path / "adapter"))
    assert set(saved.entries) == set(back.entries)
    tops = {name.split("/")[0] for name in back.entries}
    assert tops == {"qformer", "adaptor", "lm"}
    assert all("/lora_" in name for name in back.entries if name.startswith("lm/"))
    for name, entry in saved.entries.items():
        np.testing.assert_array_equal(entry.read(), back.entries[name].read())
    config = json.loads((tmp_path / "adapter" / "config.json").read_text())
    made = json.loads((folder / "base" / "conversion.json").read_text())
    base = config["base_model"]
    assert (base["name"], base["fingerprint"]) == ("hf", made["fingerprint"])
    assert config["configs"]["lm"][1]["lora_rank"] == 2
    card = (tmp_path / "adapter" / "README.md").read_text()
    header, body = card.split("---\n")[1:]
    assert 'base_model: "hf"' in header and '- "toy"' in header and "value: 1.25" in header
    assert made["fingerprint"] in body and "BATCH_SIZE = 16" in body and "1.0000 to 1.5000" in body
    assert f"- source of the base model: {made['source']}" in body
    assert all(f"{file}: `{digest}`" in body for file, digest in made["sha256"].items())
    assert (tmp_path / "adapter" / "tokenizer_config.json").is_file()


@pytest.mark.slow
def test_a_run_starts_from_an_adapter_folder(run, tmp_path):
    folder, lm = run
    converting.to_adapter(str(folder / "run"), str(tmp_path / "adapter"))
    objective = LanguageModelling(lm, models.READER)
    sources = [InitFrom(str(tmp_path / "adapter")), InitFrom(str(folder / "base"))]
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    variables = describe_variables(objective)
    again = [InitFrom(str(folder / "run")), sources[1]]
    key = jax.random.key(0)
    same(*(load_sources(objective, variables, s, (), one, key)[0] for s in (sources, again)))


def logits(config, params):
    objective = LanguageModelling(config)
    from ilm_jax.sharding.state import nested

    ids = np.random.default_rng(0).integers(0, 64, (2, 9))
    ones = np.ones_like(ids)
    model, tree = objective.model, {"params": nested(params)}
    at = np.broadcast_to(np.arange(9), ids.shape)
    hidden = model.apply(tree, ids, at, ones, 0 * ids - 1, 0 * ids, np.zeros((2, 1, 1)))
    return model.apply(tree, hidden, method="logits")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["frozen", "hugging_face"])
def test_merged_logits_are_the_unmerged_ones(run, tmp_path, to):
    folder, lm = run
    objective = LanguageModelling(lm)
    sources = [
        InitFrom(str(folder / "run"), parameters=("lora",), allow_unused=(".*",)),
        InitFrom(str(folder / "base")),
    ]
    one = Partitioner(MeshConfig(1), devices=tuple(jax.devices()[:1]))
    unmerged, _ = load_sources(
        objective, describe_variables(objective), sources, (), one, jax.random.key(0)
    )
    plain = DecoderConfig(**{**lm.__dict__, "lora_rank": 0})
    before = load(folder / "base", plain)
    out = str(tmp_path / "merged")
    if to == "frozen":
        converting.to_frozen(str(folder / "run"), out, "float32")
    else:
        converting.to_hugging_face(str(folder / "run"), out)
        assert json.loads((tmp_path / "merged" / "config.json").read_text())["vocab_size"] == 64
    merged = load(out, plain)
    expected = logits(lm, unmerged)
    np.testing.assert_allclose(logits(plain, merged), expected, atol=1e-5)
    assert np.abs(logits(plain, before) - expected).max() > 1e-3


@pytest.mark.parametrize("config", [LLAMA, T5], ids=["llama", "t5"])
def test_a_published_folder_goes_out_as_it_came_in(tmp_path, config):
    tensors = publish(tmp_path / "hf", config)
    converting.to_frozen(str(tmp_path / "hf"), str(tmp_path / "base"), "float32")
    converting.to_hugging_face(str(tmp_path / "base"), str(tmp_path / "out"))
    source = open_source(str(tmp_path / "out")).source
    assert set(source.names()) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(source.read(name), values)
