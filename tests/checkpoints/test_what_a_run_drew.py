"""What a run drew and froze goes wherever its weights go: no source holds it."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ilm_jax.checkpoints import converting
from ilm_jax.checkpoints.checkpoints import Checkpoints, InitFrom
from ilm_jax.checkpoints.loading import load_sources
from ilm_jax.checkpoints.opening import open_language_model
from ilm_jax.checkpoints.published.sources import open_source
from ilm_jax.errors import UserError
from ilm_jax.objectives.language import LanguageModelling
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import describe_variables
from tests.training import models
from tests.training.test_stage_two_leaves_the_lm_alone import trainer

DREW = ("^qformer/", "/lora_a$")


def begun(folder, objective, base, **config):
    one = trainer(
        folder,
        objective,
        trainable=("^adaptor/", "/lora_b$"),
        init=(InitFrom(str(base)),),
        allow_fresh=("^adaptor/", "/lora_b$", *DREW),
        seed=3,
        **config,
    )
    one.made_from = {"data": {"toy": "one split"}, "tokenizer": "its"}
    return one


@pytest.fixture(scope="module")
def drew(run, tmp_path_factory):
    """(folder of a run that froze its Q-Former and half of its low-rank updates as drawn, its
    objective, its parameters)."""
    folder, lm = run
    objective = LanguageModelling(lm, models.READER)
    one = begun(tmp_path_factory.mktemp("drew") / "run", objective, folder / "base", total_steps=2)
    one.fit()
    return one.model_dir, objective, {**one._state.trainable, **one._state.frozen}


def taken(objective, *sources, seed=9, **more):
    """(parameters from these sources alone, the report)."""
    return load_sources(
        objective,
        describe_variables(objective),
        [s if isinstance(s, InitFrom) else InitFrom(str(s)) for s in sources],
        (".*",),
        Partitioner(MeshConfig(1), devices=(jax.devices()[0],)),
        jax.random.key(seed),
        **more,
    )


def same(found, params):
    for path, value in params.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def test_a_run_and_its_adapter_give_another_run_what_was_drawn(drew, run, tmp_path):
    folder, objective, params = drew
    base = run[0] / "base"
    converting.to_adapter(folder, str(tmp_path / "adapter"))
    for source in (folder, tmp_path / "adapter"):
        found, report = taken(objective, source, base)
        same(found, params)
        assert "fresh 0" in report and "other frozen weights" not in report


@pytest.mark.slow
def test_the_language_model_is_written_with_what_was_drawn(drew, run, tmp_path):
    folder, objective, params = drew
    opened = open_language_model(folder)
    assert opened.notes == []
    converting.to_frozen(folder, str(tmp_path / "frozen"), "float32")
    converting.to_hugging_face(folder, str(tmp_path / "hf"))
    plain = LanguageModelling(dataclasses.replace(objective.lm, lora_rank=0))
    one, other = (taken(plain, tmp_path / name)[0] for name in ("frozen", "hf"))
    same(other, one)
    base, _ = taken(plain, run[0] / "base")
    pairs = [path for path in params if path.endswith("lora_b")]
    for path in pairs:
        stem = path.removesuffix("lora_b")
        update = params[f"{stem}lora_a"] @ params[path] * (objective.lm.lora_alpha / 2)
        kernel = f"{stem}kernel"
        np.testing.assert_allclose(one[kernel], base[kernel] + update, atol=1e-5, err_msg=path)
    assert pairs and any(np.any(params[path]) for path in pairs)


@pytest.mark.slow
def test_a_base_that_changed_is_refused_beside_what_was_drawn(drew, run, tmp_path):
    folder, _, _ = drew
    shutil.copytree(folder, tmp_path / "run")
    meta = tmp_path / "run/checkpoints/2/meta/metadata"
    said = json.loads(meta.read_text())
    assert {name.split("/")[0] for name in said["drawn"]} == {"qformer", "lm"}
    meta.write_text(json.dumps(said | {"frozen": "another"}))
    with pytest.raises(UserError, match="are not those that .* froze"):
        open_language_model(str(tmp_path / "run"))


def test_every_checkpoint_holds_what_was_drawn_and_nothing_that_a_source_gave(drew, run, tmp_path):
    folder, objective, params = drew
    shutil.copytree(folder, tmp_path / "run")
    begun(tmp_path / "run", objective, run[0] / "base", total_steps=3).fit()
    checkpoints = Checkpoints(tmp_path / "run")
    for step in (2, 3):
        drawn, held = checkpoints.meta(step)["drawn"], set(checkpoints.shapes(step))
        assert drawn and set(drawn) <= held and "lm/final_norm/scale" not in held
    checkpoints.close()
    found, _ = taken(objective, tmp_path / "run", run[0] / "base")
    same(found, {path: x for path, x in params.items() if path.startswith("qformer/")})


@pytest.mark.parametrize("form", ["frozen", "hf"])
def test_a_written_model_still_says_what_it_has_seen(drew, tmp_path, form):
    folder, objective, _ = drew
    write = {"frozen": converting.to_frozen, "hf": converting.to_hugging_face}[form]
    write(folder, str(tmp_path / form), "float32")
    assert open_source(str(tmp_path / form)).meta["made_from"] == {
        "data": {"toy": "one split"},
        "tokenizer": "its",
    }
    plain = LanguageModelling(dataclasses.replace(objective.lm, lora_rank=0))
    taken(plain, tmp_path / form, made_from={"data": {"toy": "one split"}})
    with pytest.raises(UserError, match="may have seen what is held out here"):
        taken(plain, tmp_path / form, made_from={"data": {"toy": "another split"}})


@pytest.mark.slow
def test_a_part_that_a_run_froze_and_does_not_hold_is_not_drawn_in_silence(drew, run, tmp_path):
    folder, objective, _ = drew
    third = trainer(
        tmp_path / "third",
        objective,
        total_steps=1,
        trainable=("^adaptor/",),
        init=(InitFrom(folder), InitFrom(str(run[0] / "base"))),
    )
    third.fit()
    assert not any(name.startswith("qformer/") for name in open_source(third.model_dir).entries)
    sources = tmp_path / "third", run[0] / "base"
    with pytest.raises(UserError, match=f"third .* froze 63 param.* came from \\({folder}"):
        taken(objective, *sources, made_from={})
    named = InitFrom(folder, ("^qformer/", "/lora_"), allow_unused=("^adaptor/",))
    _, report = taken(objective, sources[0], named, sources[1], made_from={})
    assert "fresh 0" in report
    reader = InitFrom(str(sources[0]), ("^adaptor/",))  # a Q-Former of its own is asked for
    _, report = taken(objective, reader, sources[1], made_from={})
    assert "fresh 63" in report
