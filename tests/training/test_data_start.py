"""A run that begins lets soft tokens start as words; a restored or resumed reader is left alone."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from ilm_jax.checkpoints.checkpoints import CheckpointConfig, Checkpoints, InitFrom
from ilm_jax.data.streams.schedule import Schedule
from ilm_jax.errors import UserError
from ilm_jax.models.layers import Dense
from ilm_jax.models.number_rows import NumberRows
from ilm_jax.models.readers import MLPReader, PromptReader, Reader
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.sharding.state import nested
from ilm_jax.training.optimizers import OptimizerConfig
from ilm_jax.training.trainer import Trainer, TrainerConfig
from tests.training import models
from tests.training.one_of_several import Rows

OPTIMIZER = OptimizerConfig(learning_rate=0.01)
WIDTH = models.LM.embed_dim


class Outside(nn.Module):
    @nn.compact
    def __call__(self, vectors, deterministic=True):
        out = Dense(2 * WIDTH, ("cf", None), name="map")(5 + vectors)  # without a bias
        return out.reshape(*vectors.shape[:-1], 2, WIDTH)


@dataclasses.dataclass(frozen=True)
class OutsideReader(Reader):
    """One that the package knows nothing of."""

    num_queries: int = 2
    cf_dim: int = models.CF
    output_layer = "map"

    def build(self, lm_dim):
        return Outside()


MLP = MLPReader(models.QFORMER)
READERS = {
    "qformer": (models.READER, ("adaptor/bias", "adaptor/kernel")),
    "mlp": (MLP, ("adaptor/down/bias", "adaptor/down/kernel")),
    "from outside": (OutsideReader(), ("map/kernel",)),
}


def trainer(folder="", reader=models.READER, mesh=(1, 1, 1), start="data", **config):
    settings = {"total_steps": 2, "batch_size": models.ROWS, "trainable": ("^(?!lm/)",)}
    return Trainer(
        model_dir=str(folder),
        objective=dataclasses.replace(models.ILM, reader=reader, reader_start=start),
        table=models.table(),
        start_rows=np.arange(30),
        sources={"prompt": Rows(None, 0)},
        schedule=Schedule({"prompt": 1}),
        config=TrainerConfig(**{**settings, **config}),
        optimizer=OPTIMIZER,
        checkpoint=CheckpointConfig(every=1),
        partitioner=Partitioner(
            MeshConfig(*mesh), devices=tuple(jax.devices()[: int(np.prod(mesh))])
        ),
    )


def begun(one):
    state, report = one.initial_state(OPTIMIZER.build(2))
    return {**state.trainable, **state.frozen}, report


def soft_tokens(reader, params):
    tokens = reader.build(WIDTH).apply({"params": nested(params)}, models.table()[:30])
    return np.asarray(tokens)


def rms(x):
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("name", READERS)
def test_soft_tokens_of_any_reader_start_centred_and_as_large_as_words(name):
    reader, leaves = READERS[name]
    params, report = begun(trainer(reader=reader))
    soft = soft_tokens(reader, params)
    assert rms(soft) == pytest.approx(rms(params["lm/embedding/embedding"]), rel=1e-3)
    if "bias" in leaves[0]:
        np.testing.assert_allclose(soft.mean((0, 1)), 0, atol=2e-3 * rms(soft))
    assert f"started from data: {', '.join(leaves)} (30 items)" in report
    drawn, report = begun(trainer(reader=reader, start="drawn"))
    assert rms(soft_tokens(reader, drawn)) > 3 * rms(soft)
    assert "nothing starts from data (30 items): soft_tokens_common" in report
    changed = {path for path in params if not np.array_equal(params[path], drawn[path])}
    assert changed == set(leaves)


def test_a_prompt_starts_as_large_as_words_and_knows_no_item():
    reader = PromptReader(models.QFORMER)
    params, _ = begun(trainer(reader=reader))
    soft = soft_tokens(reader, params)
    assert rms(soft) == pytest.approx(rms(params["lm/embedding/embedding"]), rel=1e-3)
    assert (soft == soft[:1]).all() and {p for p in params if not p.startswith("lm/")} == {
        "prompt/embedding"
    }


@pytest.mark.slow
def test_eight_devices_start_as_one():
    one, eight = (begun(trainer(mesh=mesh))[0] for mesh in ((1, 1, 1), (2, 2, 2)))
    for path in READERS["qformer"][1]:
        assert len(eight[path].sharding.device_set) == 8
        np.testing.assert_allclose(eight[path], one[path], rtol=1e-3, atol=1e-5, err_msg=path)


def test_the_checkpoint_tells_what_was_done_and_a_resumed_run_does_it_no_more(
    tmp_path, monkeypatch
):
    trainer(tmp_path / "a", reader=MLP).fit()

    def told(folder):
        checkpoints = Checkpoints(str(folder))
        meta = checkpoints.latest_meta
        checkpoints.close()
        return meta

    first = told(tmp_path / "a")
    record = first["data_start"]
    assert record["leaves"] == list(READERS["mlp"][1]) and record["items"] == 30
    after = record["after"]
    assert after["soft_tokens_rms"] == pytest.approx(after["words_rms"], rel=1e-3)
    assert after["soft_tokens_common"] < 1e-4, "an MLP has a bias for each soft token"
    assert first["made_from"]["objective"]["LanguageModelling"]["reader_start"] == "data"
    for step in ("_redrawn", "_from_data"):
        monkeypatch.setattr(f"ilm_jax.training.data_start.DataStart.{step}", None)
    trainer(tmp_path / "a", reader=MLP, total_steps=3).fit()
    assert told(tmp_path / "a")["data_start"] == record

    monkeypatch.undo()
    source = InitFrom(str(tmp_path / "a"), (".*",))
    taken, report = begun(trainer(reader=MLP, init=(source,), allow_fresh=("^lm/",)))
    assert "nothing starts from data" in report, "what was trained is not drawn anew"
    assert not np.array_equal(taken["adaptor/down/bias"], 0 * taken["adaptor/down/bias"])


def test_what_starts_from_data_and_does_not_train_is_refused():
    frozen = trainer(trainable=("^qformer/",))
    with pytest.raises(UserError, match=r"2 parameters \[adaptor/bias, .*READER_START"):
        frozen.initial_state(OPTIMIZER.build(2))
    state, _ = trainer(trainable=("^qformer/",), start="drawn").initial_state(OPTIMIZER.build(2))
    assert {"adaptor/bias", "adaptor/kernel"} <= set(state.frozen)


def test_what_is_drawn_anew_is_recorded_and_must_train(tmp_path):
    def redrawing(folder="", **config):
        one = trainer(folder, reader=MLP, **config)
        one.objective = dataclasses.replace(one.objective, redraws=NumberRows(ids=(5, 9)))
        return one

    with pytest.raises(UserError, match=r"\[lm/embedding/embedding\] are drawn anew.*redraws"):
        redrawing().initial_state(OPTIMIZER.build(2))
    redrawing(tmp_path, trainable=(".*",)).fit()
    checkpoints = Checkpoints(str(tmp_path))
    record = checkpoints.latest_meta["data_start"]
    checkpoints.close()
    assert record["redrawn"] == ["lm/embedding/embedding"]
    assert record["leaves"] == list(READERS["mlp"][1])
    gone_on = redrawing(tmp_path, trainable=(".*",), total_steps=3)
    gone_on.fit()
    assert gone_on.step == 3
