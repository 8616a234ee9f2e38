"""Sequential models under the one trainer: they learn, resume, and rank what comes next."""

import dataclasses

import jax
import numpy as np
import pytest

from ilm_jax.cf import evaluation
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.cf.popularity import popularity_scorer
from ilm_jax.cf.sequences import Sequences, Windows
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.text_vectors import TextConfig
from ilm_jax.cli import fit_cf
from ilm_jax.data.catalogue.splits import TEST, TRAIN, VALID, SplitConfig, make_splits
from ilm_jax.errors import UserError
from ilm_jax.models.gru4rec import GRU4RecConfig
from ilm_jax.models.sasrec import SASRecConfig
from ilm_jax.runs import fitting
from ilm_jax.runs.sequential import SequentialConfig, SequentialFit
from ilm_jax.sharding.partitioning import MeshConfig, Partitioner
from ilm_jax.training.optimizers import OptimizerConfig

SMALL = SequentialConfig(
    SASRecConfig(8, 1, 16, dropout=0.1),
    optimizer=OptimizerConfig(learning_rate=0.01, schedule="constant", weight_decay=0.0),
    batch_size=8,
    epochs=20,
)
UNIFORM = SamplerConfig("uniform", 16)

ONE = Partitioner(devices=(jax.devices()[0],))


@pytest.fixture
def splits(two_tastes):
    """Each user goes on from a first item by the order of rows: that item tells all others."""
    tiny = two_tastes(users=128, items=40)
    catalogue, draw = tiny.catalogue, np.random.default_rng(0)
    lengths = np.diff(catalogue.offsets)
    starts = np.repeat(draw.integers(0, 39, len(lengths)), lengths)
    place = np.arange(len(starts)) - np.repeat(catalogue.offsets[:-1], lengths)
    changed = dataclasses.replace(catalogue, items=((starts + place) % 39).astype(np.int32))
    return make_splits(changed, SplitConfig(held_out_items=0.0))


def fit_of(splits, config=SMALL, partitioner=ONE, **settings):
    return config.fit_of(splits, partitioner=partitioner, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler": SamplerConfig("popularity", 16), "temperature": 0.2},
        {"loss": "bce", "sampler": UNIFORM, "negatives": 4.0},
        {"loss": "warp", "sampler": UNIFORM},
        {"encoder": GRU4RecConfig(8, 1, 16, dropout=0.1)},
    ],
    ids=str,
)
def test_every_loss_and_encoder_learns_what_comes_next(splits, changes):
    fit = fit_of(splits, dataclasses.replace(SMALL, **changes))
    learns(fit, fit.fit(), splits)


def learns(fit, factors, splits):
    """Both targets are ranked far above their popularity, the validation's by the table too."""
    for fold in (VALID, TEST):
        user = fit.user_vectors(Sequences.before(splits, fold))
        scorer = evaluation.vector_scorer(user, factors.item)
        result = evaluation.evaluate(scorer, splits, fold)
        popular = evaluation.evaluate(popularity_scorer(splits.train_counts()), splits, fold)
        assert result.ndcg(10).mean() > 2 * popular.ndcg(10).mean()
        if fold == VALID:
            np.testing.assert_allclose(user, factors.user, atol=1e-5)


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.slow
@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_vectors_bit_for_bit(splits, tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, epochs=3)
    expected = fit_of(splits, config, model_dir=str(tmp_path / "alone")).fit()
    read, rows = [], Windows.rows

    def killed(self, indices):
        read.append(indices)
        if indices[0] >= 2 * self.steps * self.batch_size:
            raise Killed
        return rows(self, indices)

    monkeypatch.setattr(Windows, "rows", killed)
    with pytest.raises(Killed):
        fit_of(splits, config, model_dir=str(tmp_path / "killed")).fit()
    begun, read[:] = len(read), []
    monkeypatch.setattr(Windows, "rows", lambda self, i: read.append(i) or rows(self, i))
    found = fit_of(splits, config, model_dir=str(tmp_path / "killed")).fit()
    assert 0 < len(read) < begun
    assert found.user.tobytes() == expected.user.tobytes()
    assert found.item.tobytes() == expected.item.tobytes()
    for changes, name in (
        ({"batch_size": 4}, "train.sequence.batch_size"),
        ({"temperature": 0.5}, "objective.NextItem.temperature"),
        ({"encoder": SASRecConfig(8, 1, 16, dropout=0.3)}, "objective.NextItem.encoder.dropout"),
    ):
        with pytest.raises(UserError, match=name):
            fit_of(
                splits, dataclasses.replace(config, **changes), model_dir=str(tmp_path / "killed")
            ).fit()


@pytest.mark.slow
def test_eight_devices_end_where_one_does(splits):
    config = dataclasses.replace(SMALL, epochs=2)
    expected = fit_of(splits, config).fit()
    found = fit_of(splits, config, Partitioner(MeshConfig(data=4, fsdp=2))).fit()
    np.testing.assert_allclose(found.item, expected.item, atol=2e-3)
    np.testing.assert_allclose(found.user, expected.user, atol=2e-2)


def test_anybodys_history_is_ranked_and_unknown_items_are_refused(splits):
    fit = fit_of(splits)
    learns(fit, fit.fit(), splits)
    histories = [[0, 1, 2], [], list(range(30)), [7]]
    found = fit.user_vectors(histories)
    assert found.shape == (4, 16) and not found[1].any() and found[0].any()
    end = fit.user_vectors([list(range(22, 30))])  # the last eight are read
    np.testing.assert_allclose(found[2], end[0], atol=1e-5)
    lists = fit.recommend(histories, 5)
    assert lists[0, 0] == 3 and not set(lists[0]) & {0, 1, 2}
    assert fit.recommend([[5, 6, 7]], 40, exclude_seen=False).min() >= 0
    assert sorted(fit.recommend([[5, 6, 7]], 40)[0])[:3] == [-1, -1, -1]
    with pytest.raises(UserError, match="history 0: item row 40 is not in the catalogue"):
        fit.user_vectors([[40]])
    for k in (0, 41):
        with pytest.raises(UserError, match=f"k={k}: the catalogue has 40 items"):
            fit.recommend([[1]], k)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["sasrec", "gru4rec", "sasrec_text"])
def test_recipes_fit_and_write_tables_that_rank(recipe, splits, tmp_path, monkeypatch, capsys):
    words = ["red", "green", "blue", "old", "new", "long"]
    texts = [" ".join(np.random.default_rng(n).choice(words, 3)) for n in range(40)]
    catalogue = dataclasses.replace(splits.catalogue, texts=texts)
    monkeypatch.setattr(fitting, "load_catalogue", lambda *_, **__: catalogue)
    encoder = "gru4rec.GRU4RecConfig" if recipe == "gru4rec" else "sasrec.SASRecConfig"
    small = [f"{encoder}.embed_dim=8", f"{encoder}.max_length=6", "HELD_OUT_ITEMS=0.15"]
    small += ["sequential.SequentialConfig.epochs=6", "sequential.SequentialConfig.batch_size=8"]
    small += ["text_vectors.TextConfig.dim=3"] if recipe == "sasrec_text" else []
    words = [f"--gin_file=runs/{recipe}.gin", "--dataset=tiny", f"--output={tmp_path / 't'}"]
    assert fit_cf.main([*words, *(f"--gin.{one}" for one in small)]) == 0
    table = EmbeddingTable.load(tmp_path / "t")
    named = "sasrec" if recipe == "sasrec_text" else recipe
    assert table.settings["method"] == named and table.dim == 8
    assert f"CF ({named})" in capsys.readouterr().out
    cold = 39 if recipe == "sasrec_text" else None  # nobody met it, but its text may be read
    held = make_splits(catalogue, SplitConfig(held_out_items=0.15)).item_fold
    assert table.item_cold[39] == (cold is None or held[39] != TRAIN)


def test_texts_are_those_of_training_items(splits):
    config = dataclasses.replace(SMALL, text=TextConfig(dim=3), epochs=2)
    draw = np.random.default_rng(0)
    words = ["red", "green", "blue", "old", "new", "long"]
    texts = [" ".join(draw.choice(words, 3)) for _ in range(40)]
    catalogue = dataclasses.replace(splits.catalogue, texts=texts)
    fit = fit_of(make_splits(catalogue, SplitConfig(held_out_items=0.2)), config)
    held = make_splits(catalogue, SplitConfig(held_out_items=0.2)).item_fold != TRAIN
    assert isinstance(fit, SequentialFit) and fit.texts is not None
    assert not fit.texts[held].any() and fit.texts[~held].any(1).all()


@pytest.mark.slow
def test_the_best_epoch_is_what_is_ranked_with(splits, monkeypatch):
    figures = iter([0.1, 0.3, 0.2, 0.25])
    monkeypatch.setattr(fitting, "validation_ndcg", lambda _: lambda user, item: next(figures))
    spec = fitting.FitCF(methods=[SMALL], patience=2, partitioner=ONE)
    run = spec.trained(splits)
    found = run.fit()
    assert run.best_epoch == 2
    alone = fit_of(splits, dataclasses.replace(SMALL, epochs=2)).fit()
    assert alone.item.tobytes() == found.item.tobytes()
    again = run.user_vectors(Sequences.before(splits, TRAIN))
    np.testing.assert_allclose(again, found.user, atol=1e-6)
    with pytest.raises(UserError, match="not trained step by step"):
        fitting.FitCF().trained(splits)
