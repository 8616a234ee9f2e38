"""A run knows what it was made from: going on, using it and taking its weights compare that."""

import dataclasses
import json

import numpy as np
import pytest

from ilm_jax.checkpoints import record
from ilm_jax.checkpoints.checkpoints import Checkpoints, InitFrom
from ilm_jax.checkpoints.identity import identity
from ilm_jax.checkpoints.lineage import check_lineage
from ilm_jax.checkpoints.published.sources import Opened
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.training import finished, resuming
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.writers import read_metrics
from tests.data import published_tokenizers
from tests.training.small import TwoLayers, make_trainer

MADE_FROM = {
    "data": {"toy": "d" * 64},
    "table": "a" * 64,
    "tokenizer": "b" * 64,
    "train": {"plain": {"tasks": {"one": {"version": "1", "rate": 1.0, "settings": {"n": 5}}}}},
}


def other(path, value):
    """MADE_FROM with one entry changed."""
    changed = json.loads(json.dumps(MADE_FROM))
    *keys, last = path
    at = changed
    for key in keys:
        at = at[key]
    at[last] = value
    return changed


def files(folder):
    """Every file that is no part of an event log, by its bytes."""
    return {
        path: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tfevents" not in path.name
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"made_from": other(["table"], "c" * 64)}, r"table \(CF_TABLE\) a{12}, now c{12}"),
        ({"made_from": other(["tokenizer"], "c" * 64)}, r"tokenizer \(TOKENIZER\)"),
        ({"made_from": other(["data", "toy"], "c" * 64)}, r"data.toy \(DATASET"),
        ({"made_from": other(["train", "plain", "tasks", "one", "rate"], 2.0)}, "one.rate .* 1.0"),
        ({"made_from": other(["train", "plain", "tasks", "one", "settings", "n"], 6)}, "n .* 6"),
        ({"made_from": other(["train", "plain", "tasks", "two"], {})}, "tasks.two .* now present"),
        ({"optimizer": OptimizerConfig(learning_rate=0.5)}, "learning_rate 0.01, now 0.5"),
        ({"optimizer": OptimizerConfig(learning_rate=0.01, b2=0.9)}, "optimizer.b2 0.98, now 0.9"),
        ({"objective": TwoLayers(blow_up_above=3.0)}, "objective.TwoLayers.blow_up_above"),
        ({"schedule": Schedule({"plain": 1, "scaled": 1})}, r"schedule.plain .* 2, now 1"),
        ({"config": {"seed": 1}}, r"seed \(SEED\) 0, now 1"),
        ({"config": {"total_steps": 2}}, "has made 4 steps, more than TRAIN_STEPS = 2"),
    ],
)
def test_what_a_run_was_made_from_may_not_change_and_a_refusal_leaves_it_whole(
    tmp_path, changes, words
):
    make_trainer(tmp_path, steps=4, made_from=MADE_FROM, config_text="# first\n").fit()
    before = files(tmp_path)
    settings = {"steps": 8, "made_from": MADE_FROM, "config_text": "# second\n", **changes}
    schedule = settings.pop("schedule", None)
    trainer = make_trainer(tmp_path, **settings)
    trainer.schedule = schedule or trainer.schedule
    with pytest.raises(UserError, match=words):
        trainer.fit()
    assert files(tmp_path) == before


@pytest.mark.slow
def test_more_steps_go_on_at_the_rate_where_the_schedule_ended_unless_it_is_stretched(
    tmp_path, capsys
):
    slow = OptimizerConfig(learning_rate=0.01, warmup_steps=2, end_fraction=0.1)
    still = {"optimizer": slow, "made_from": MADE_FROM}
    make_trainer(tmp_path / "a", steps=8, config={"log_every": 1}, **still).fit()
    capsys.readouterr()
    for folder, stretched in (("a", None), ("b", 16)):
        if folder == "b":
            make_trainer(tmp_path / "b", steps=8, config={"log_every": 1}, **still).fit()
        optimizer = dataclasses.replace(slow, decay_steps=stretched)
        trainer = make_trainer(
            tmp_path / folder,
            steps=16,
            config={"log_every": 1, "batch_size": 16},
            **{**still, "optimizer": optimizer},
        )
        finished.write(trainer.model_dir, seconds=1, step=8, validation={}, recipe={}, inputs={})
        trainer.fit()
        said = capsys.readouterr().err
        assert "steps (TRAIN_STEPS) 8, now 16; batch.size 8, now 16" in said
        records = read_metrics(tmp_path / folder / "metrics.jsonl")
        rates = {r["step"]: r["learning_rate"] for r in records if "learning_rate" in r}
        if stretched:
            assert rates[9] > 2 * rates[8] and "optimizer.decay_steps 8, now 16" in said
        else:
            np.testing.assert_allclose([rates[step] for step in range(9, 17)], 0.001, rtol=1e-5)
            assert rates[8] < 0.002 and "OptimizerConfig.decay_steps = 16 would stretch it" in said
        assert not (tmp_path / folder / finished.FILE).exists(), "it is to be written anew"
    # The stretched end is the run's own from now on.
    meta = Checkpoints(str(tmp_path / "b")).latest_meta
    assert resuming.schedule_of(meta) == 16


def test_a_finished_run_run_again_leaves_everything_as_it_was(tmp_path):
    first = make_trainer(tmp_path, steps=4, made_from=MADE_FROM, config_text="# first\n")
    figures = first.fit()
    before = files(tmp_path)
    again = make_trainer(
        tmp_path, steps=4, made_from=MADE_FROM, config_text="# again\n", config={"log_every": 1}
    )
    assert again.fit() == pytest.approx(figures) and again.was_finished and not first.was_finished
    assert files(tmp_path) == before


def test_a_run_of_an_older_version_goes_on_and_names_that_it_knew_are_compared(tmp_path, capsys):
    make_trainer(tmp_path, steps=4, made_from=MADE_FROM).fit()
    here = Checkpoints(str(tmp_path)).latest_meta["made_from"]
    old = {name: value for name, value in here.items() if name != "schedule"} | {"code": "0.0+x"}
    (changed, code) = record.check_resume(old, here, "run")
    assert "schedule (SCHEDULE) nothing, now present" in changed and "0.0+x" in code
    assert "nothing was compared" in record.check_resume(None, here, "run")[0]
    with pytest.raises(UserError, match="seed"):
        record.check_resume({**old, "seed": 7}, here, "run")
    # Of one version, a name that comes in is a change like any other.
    with pytest.raises(UserError, match="schedule"):
        record.check_resume({n: v for n, v in here.items() if n != "schedule"}, here, "run")


def test_another_validation_is_said(tmp_path, capsys):
    make_trainer(
        tmp_path, steps=4, made_from={**MADE_FROM, "validation": {"plain": {"n": 1}}}
    ).fit()
    changed = {**MADE_FROM, "validation": {"plain": {"n": 2}}}
    make_trainer(tmp_path, steps=6, made_from=changed).fit()
    assert "validation.plain.n 1, now 2" in capsys.readouterr().err


def test_weights_that_are_not_those_that_were_saved_are_refused(tmp_path, monkeypatch):
    make_trainer(tmp_path, steps=4, made_from=MADE_FROM).fit()
    real = Checkpoints.resume

    def damaged(self, state):
        state, positions, meta = real(self, state)
        kernel = state.trainable["first/kernel"].at[1, 2].add(1e-6)
        return state.replace(trainable={**state.trainable, "first/kernel": kernel}), positions, meta

    monkeypatch.setattr(Checkpoints, "resume", damaged)
    with pytest.raises(UserError, match="checkpoint of step 4 .* is damaged"):
        make_trainer(tmp_path, steps=6, made_from=MADE_FROM).fit()


@pytest.mark.parametrize("name", ["tokenizer", "table", "data"])
def test_weights_of_a_run_that_was_made_from_something_else_are_refused(tmp_path, name):
    make_trainer(tmp_path / "a", steps=2, made_from=MADE_FROM).fit()
    path = ["data", "toy"] if name == "data" else [name]
    taken = InitFrom(str(tmp_path / "a"))

    def start(folder, made_from, source):
        config = {"init": (source,)}
        return make_trainer(tmp_path / folder, steps=1, made_from=made_from, config=config).fit()

    start("same", MADE_FROM, taken)
    # An objective of one's own reads vectors, but no words by these names.
    if name != "tokenizer":
        with pytest.raises(UserError, match=f"made from another {name} .*InitFrom.allow_different"):
            start("b", other(path, "c" * 64), taken)
    start("c", other(path, "c" * 64), dataclasses.replace(taken, allow_different=(name,)))
    with pytest.raises(UserError, match="allow_different"):
        InitFrom("a", allow_different=("tables",))


def test_only_what_is_read_is_compared_and_a_published_tokenizer_is_read_from_its_folder():
    tokenizer = published_tokenizers.published("llama2").fingerprint
    here = {"tokenizer": "c" * 64, "table": "c" * 64, "data": {"toy": "c" * 64}}
    ours = Opened("run", None, {}, meta={"made_from": MADE_FROM, "tokenizer": "b" * 64})
    source = InitFrom("run", allow_different=("data",))
    words, text, vectors = "lm/embed", "qformer/text_embedding/table", "qformer/queries/table"
    for path, name in ((words, "tokenizer"), (vectors, "table")):
        with pytest.raises(UserError, match=f"another {name} "):
            check_lineage(ours, source, [path], here)
    with pytest.raises(UserError, match="another tokenizer "):
        check_lineage(ours, source, [text], {**here, "table": None})
    check_lineage(ours, source, [vectors], {**here, "table": "a" * 64})
    # Another catalogue has other items: what it was trained on cannot give these away.
    check_lineage(ours, InitFrom("run"), [vectors], {"data": {"beauty": "c" * 64}})
    there = InitFrom(str(published_tokenizers.folder() / "llama2"))
    other = Opened("published", None, {})
    check_lineage(other, there, [words], {**here, "tokenizer": tokenizer})
    with pytest.raises(UserError, match="another tokenizer"):
        check_lineage(other, there, [words], here)


def test_a_trained_run_is_used_with_what_it_was_trained_with():
    here = {**MADE_FROM, "code": "1"}
    assert record.check_use(here, {**here, "code": "2"}, "run") == []
    for path in (["table"], ["tokenizer"], ["data", "toy"]):
        with pytest.raises(UserError, match=path[0]):
            record.check_use(here, other(path, "c" * 64), "run")
    n = ["train", "plain", "tasks", "one", "settings", "n"]
    (said,) = record.check_use(here, other(n, 6), "run")
    assert "settings.n (MIXTURE_OR_TASK_NAME" in said and "5, now 6" in said


def test_a_catalogue_that_others_have_joined_is_used_and_said():
    here = {**MADE_FROM, "table_rows": {"toy/item": 5}}
    grown = {**other(["table"], "c" * 64), "table_rows": {"toy/item": 7}, "data": {"toy": "e" * 64}}
    (said,) = record.check_use(here, grown, "run", ["2 of toy/item"])
    assert said == "note: joined since run was trained, with vectors: 2 of toy/item"
    with pytest.raises(UserError, match="table"):
        record.check_use(here, grown, "run")
    with pytest.raises(UserError, match="tokenizer"):
        record.check_use(here, {**grown, "tokenizer": "c" * 64}, "run", ["2 of toy/item"])


def test_identity_follows_the_content_and_not_the_name(tmp_path):
    run = make_trainer(tmp_path / "run", steps=2, made_from=MADE_FROM)
    run.fit()
    first = identity(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert identity(tmp_path / "moved") == first
    make_trainer(tmp_path / "same", steps=2, made_from=MADE_FROM).fit()
    assert identity(tmp_path / "same") == first
    make_trainer(tmp_path / "other", steps=2, made_from=MADE_FROM, config={"seed": 1}).fit()
    assert identity(tmp_path / "other") != first
    (tmp_path / "file").write_bytes(b"abc")
    assert identity(tmp_path / "file") != identity(tmp_path / "moved/config.gin")
    published = tmp_path / "published"
    published.mkdir()
    (published / "model.safetensors").write_bytes(bytes(3 << 20))
    before = identity(published)
    (published / "model.safetensors").write_bytes(bytes((3 << 20) - 1) + b"x")
    assert identity(published) != before
    with pytest.raises(UserError, match="nothing at"):
        identity(tmp_path / "nowhere")
