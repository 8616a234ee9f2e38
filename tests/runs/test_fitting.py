"""What item-language models are fed: methods side by side, cold flags, prefix users, recipes."""

import dataclasses
import re

import numpy as np
import pytest

from ilm_jax.cf import evaluation, ials
from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cf.interactions import Interactions
from ilm_jax.cf.negatives import SamplerConfig
from ilm_jax.cf.pairs import Pairs
from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cf.table_set import TableSet
from ilm_jax.cf.text_vectors import TextConfig
from ilm_jax.cli import fit_cf
from ilm_jax.data.catalogue.splits import TRAIN, SplitConfig, make_splits
from ilm_jax.errors import UserError
from ilm_jax.metrics.ranking import ndcg
from ilm_jax.runs import fitting, gin_config
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.sampled import SampledConfig

CONFIG = IALSConfig(dim=4, epochs=3, regularisation=0.01)
WORDS = "red blue green old new small large wood iron glass north south wide thin".split()


@pytest.fixture
def splits(two_tastes):
    """Texts whose words tell an item's half of the catalogue."""
    plain = two_tastes(users=80, items=40)
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS[6 * (row // 20) :][:8], 4)) for row in range(40)]
    catalogue = dataclasses.replace(plain.catalogue, texts=texts)
    return make_splits(catalogue, SplitConfig(held_out_items=0.15))


def test_combined_holds_every_part_scaled_alike(splits):
    table = FitCF(methods=[CONFIG, TextConfig(dim=3)]).fit(splits)
    one = fitting.fit_method(splits, CONFIG)
    assert table.dim == 7 and table.settings["method"] == "combined"
    assert [part["method"] for part in table.settings["parts"]] == ["ials", "text"]
    ratio = table.item[:, :4][one.item.any(1)] / one.item[one.item.any(1)]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)
    for part, cold in ((table.item[:, :4], one.item_cold), (table.item[:, 4:], None)):
        rows = part[~cold] if cold is not None else part[part.any(1)]
        assert np.mean(rows**2) == pytest.approx(1, rel=1e-4)
    # The last item has no interaction but a text, unless its text is held out.
    assert one.item_cold[-1]
    assert table.item_cold[-1] == (splits.item_fold[-1] != TRAIN)


def test_texts_of_held_out_items_have_no_influence(splits):
    config = TextConfig(dim=3)
    before = fitting.fit_method(splits, config)
    hidden = np.flatnonzero(splits.item_fold != TRAIN)
    assert len(hidden) >= 2 and before.item_cold[hidden].all()
    texts = list(splits.catalogue.texts)
    for row in hidden:
        texts[row] = "secret words that nobody may read"
    changed = dataclasses.replace(splits.catalogue, texts=texts)
    after = fitting.fit_method(make_splits(changed, splits.config), config)
    assert after.item.tobytes() == before.item.tobytes()
    assert after.user.tobytes() == before.user.tobytes()
    # Shown texts do matter: halves of the catalogue are told apart by their word.
    shown = np.flatnonzero(splits.item_fold == TRAIN)
    unit = before.item[shown] / np.linalg.norm(before.item[shown], axis=1, keepdims=True)
    like, half = unit @ unit.T, shown // 20
    same = half[:, None] == half[None]
    assert like[same].mean() > like[~same].mean() + 0.2
    with pytest.raises(UserError, match="too few"):
        fitting.fit_method(splits, TextConfig(dim=39))


def test_tables_of_different_splits_do_not_stand_side_by_side(splits):
    one = fitting.fit_method(splits, CONFIG)
    other = make_splits(splits.catalogue, SplitConfig(held_out_items=0.0))
    with pytest.raises(UserError, match="different splits"):
        fitting.side_by_side([one, fitting.fit_method(other, CONFIG)])
    renamed = dataclasses.replace(one, item_ids=["x", *one.item_ids[1:]])
    with pytest.raises(UserError, match="different catalogues"):
        fitting.side_by_side([one, renamed])


def test_prefix_users_have_not_seen_the_last_training_item(splits):
    full = FitCF(methods=[CONFIG]).fit(splits)
    prefix = FitCF(methods=[CONFIG], user_vector="prefix").fit(splits)
    np.testing.assert_array_equal(prefix.item, full.item)
    assert prefix.settings["user_vector"] == "prefix"
    for user in (0, 7):
        known = splits.train_sequence(user)
        expected = ials.fold_in([known[:-1]], full.item, CONFIG)[0]
        np.testing.assert_allclose(prefix.user[user], expected, atol=1e-6)
        assert np.abs(prefix.user[user] - full.user[user]).max() > 1e-3
    vectors = fitting.prefix_users(splits, full.item, CONFIG, np.array([3, 3]), np.array([0, 2]))
    assert not vectors[0].any() and vectors[1].any()
    with pytest.raises(ValueError, match="trains with"):
        fitting.prefix_users(splits, full.item, CONFIG, np.array([3]), np.array([99]))
    with pytest.raises(UserError, match="only 'full'"):
        FitCF(methods=[TextConfig()], user_vector="prefix")
    with pytest.raises(UserError, match="choose 'full'"):
        FitCF(user_vector="half")


def test_early_stopping_writes_the_best_epoch(splits):
    table = FitCF(methods=[dataclasses.replace(CONFIG, epochs=12)], patience=1).fit(splits)
    epoch = table.settings["stopped_at_epoch"]
    alone = fitting.fit_method(splits, dataclasses.replace(CONFIG, epochs=epoch))
    np.testing.assert_allclose(table.item, alone.item, atol=1e-5)  # eight devices and one


def test_a_callback_that_asks_to_stop_is_heard_beside_patience(splits):
    seen = []

    def two(epoch, user, item):
        seen.append(epoch)
        return epoch == 2

    table = FitCF(methods=[dataclasses.replace(CONFIG, epochs=12)], patience=9).fit(splits, two)
    assert seen == [1, 2] and table.settings["stopped_at_epoch"] in seen


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": -1}, "patience=-1: give a whole number, at least 0"),
        ({"every": 0}, "every=0: give a whole number, at least 1"),
        ({"every": 5, "patience": 1}, "every=5 with ials of 3 epochs: nothing would be measured"),
    ],
)
def test_stopping_that_could_never_happen_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        FitCF(methods=[TextConfig(), CONFIG], **settings)
    assert FitCF(methods=[CONFIG], every=5).every == 5  # without patience nothing is measured


def test_a_user_folded_in_is_served_as_well_as_one_trained_with():
    """Users that training never saw: NDCG within 2 % of that of vectors trained with them."""
    draw = np.random.default_rng(0)
    num_users, num_items, groups = 1000, 80, 4
    popularity = 1 / (1.0 + np.arange(num_items // groups))
    chance = popularity / popularity.sum()
    users, items, targets = [], [], []
    for user in range(num_users):
        taste = user % groups * (num_items // groups)
        met = taste + draw.choice(len(chance), 7, replace=False, p=chance)
        users += [user] * 6
        items += met[:-1].tolist()
        targets.append(met[-1])
    train = Interactions.from_pairs(np.array(users), np.array(items), num_users, num_items)
    config = IALSConfig(dim=4, epochs=8, alpha=0.1, regularisation=0.003)
    with_them = ials.fit_interactions(train, config)
    new = np.arange(0, num_users, 3).astype(np.int32)
    known = ~np.isin(train.users, new)
    without = ials.fit(train.users[known], train.items[known], num_users, num_items, config)
    folded = without.user.copy()
    folded[new] = ials.fold_in([train.of(row) for row in new], without.item, config)

    def figure(user: np.ndarray, item: np.ndarray) -> float:
        scorer = evaluation.vector_scorer(user, item)
        ranks = evaluation.rank_targets(scorer, train, new, np.array(targets, np.int32)[new])
        return ndcg(ranks, 10).mean()

    trained = figure(with_them.user, with_them.item)
    assert trained > 0.2
    assert figure(folded, without.item) == pytest.approx(trained, rel=0.02)


def test_new_items_are_folded_in_from_the_users_who_met_them(splits):
    sizes = splits.catalogue.num_users, splits.catalogue.num_items
    users, items = splits.train_interactions()
    fitted = ials.fit(users, items, *sizes, CONFIG)
    turned = Interactions.from_pairs(users, items, *sizes).transposed()
    vectors = ials.fold_in(turned, fitted.user, CONFIG)
    np.testing.assert_allclose(vectors, fitted.item, atol=1e-5)


@pytest.mark.parametrize("recipe", ["cf", "cf_combined", "cf_sampled"])
def test_recipes_fit_and_their_tables_feed_a_table_set(recipe, splits, tmp_path, monkeypatch):
    from ilm_jax.runs import fitting as module

    monkeypatch.setattr(module, "load_catalogue", lambda *_, **__: splits.catalogue)
    small = ["--gin.HELD_OUT_ITEMS=0.15"]
    if recipe != "cf_sampled":
        small += ["--gin.ials.IALSConfig.dim=4", "--gin.ials.IALSConfig.epochs=2"]
    else:
        small += ["--gin.sampled.SampledConfig.dim=4", "--gin.sampled.SampledConfig.epochs=2"]
    small += ["--gin.text_vectors.TextConfig.dim=3"] if recipe == "cf_combined" else []
    words = [f"--gin_file=runs/{recipe}.gin", "--dataset=tiny", f"--output={tmp_path / 't'}"]
    assert fit_cf.main([*words, *small]) == 0
    table = EmbeddingTable.load(tmp_path / "t", splits)
    stacked = TableSet(table)
    assert stacked.dim == (7 if recipe == "cf_combined" else 4)
    assert stacked.cold[stacked.row("tiny/item", 39)] == table.item_cold[39]


def test_a_recipe_and_loose_flags_do_not_mix(tmp_path):
    for flag in ("alpha=0.3", "held_out_items=0.2", "split_seed=1", "seed=2"):
        with pytest.raises(UserError, match=f"--{flag.partition('=')[0]} and a recipe") as error:
            fit_cf.main(["--gin_file=runs/cf.gin", f"--{flag}"])
        (binding,) = re.findall(r"--gin\.(\S+)$", str(error.value))
        gin_config.build(FitCF, ["runs/cf.gin"], [binding])
    with pytest.raises(UserError, match="--extends and a recipe: leave one out"):
        fit_cf.main(["--gin_file=runs/cf.gin", "--extends=cf.safetensors"])
    with pytest.raises(UserError, match="needs a recipe"):
        fit_cf.main(["--gin.SEED=3"])
    with pytest.raises(UserError, match="never read|nothing reads"):
        fit_cf.main(["--gin_file=runs/cf.gin", "--gin.SEDE=3"])


def test_sequences_are_fitted_without_a_dataset(tmp_path, two_tastes, capsys):
    tiny = two_tastes().catalogue
    path = tmp_path / "sequences.txt"
    lines = [f"u{user} " + " ".join(map(str, tiny.sequence(user))) for user in range(60)]
    path.write_text("\n".join(lines) + "\n")
    words = [f"--sequences={path}", "--dataset=mine", "--dim=4", "--epochs=2"]
    assert fit_cf.main([*words, "--held_out_items=0", f"--output={tmp_path / 't'}"]) == 0
    assert EmbeddingTable.load(tmp_path / "t").catalogue == "mine"
    assert "mine 1.0.0: 60 users" in capsys.readouterr().out


SAMPLED = SampledConfig(dim=4, epochs=5, batch_size=64, sampler=SamplerConfig("uniform", 8))


def test_sampled_training_is_a_method_too_and_stops_at_its_best_epoch(splits, monkeypatch):
    figures = iter([0.1, 0.3, 0.2, 0.25])
    monkeypatch.setattr(fitting, "validation_ndcg", lambda _: lambda user, item: next(figures))
    table = FitCF(methods=[SAMPLED], patience=2).fit(splits)
    assert table.settings["method"] == "sampled" and table.settings["sampler"]["drawn"] == 8
    assert table.settings["stopped_at_epoch"] == 2
    assert not table.item[table.item_cold].any()
    alone = FitCF(methods=[dataclasses.replace(SAMPLED, epochs=2)]).fit(splits)
    assert alone.item.tobytes() == table.item.tobytes()
    assert "stopped_at_epoch" not in alone.settings


def test_a_killed_fit_cf_goes_on_from_its_model_dir_to_the_same_table(
    splits, tmp_path, monkeypatch
):
    monkeypatch.setattr(fitting, "load_catalogue", lambda *_, **__: splits.catalogue)

    def fit(name, model_dir):
        words = ["--gin_file=runs/cf_sampled.gin", "--dataset=tiny", f"--output={tmp_path / name}"]
        small = ["dim=4", "epochs=3", "batch_size=64"]
        words += [f"--gin.sampled.SampledConfig.{setting}" for setting in small]
        assert fit_cf.main([*words, f"--model_dir={model_dir}"]) == 0
        return (tmp_path / name).read_bytes()

    expected = fit("alone", tmp_path / "run")
    read, rows = [], Pairs.rows

    def killed(self, indices):
        read.append(indices)
        if indices[0] >= 2 * self.steps * self.batch_size:
            raise KeyboardInterrupt
        return rows(self, indices)

    monkeypatch.setattr(Pairs, "rows", killed)
    with pytest.raises(KeyboardInterrupt):
        fit("killed", tmp_path / "killed_run")
    assert not (tmp_path / "killed").exists()
    begun, read[:] = len(read), []
    monkeypatch.setattr(Pairs, "rows", lambda self, i: read.append(i) or rows(self, i))
    assert fit("killed", tmp_path / "killed_run") == expected
    assert 0 < len(read) < begun
    assert "sampled.SampledConfig.dim = 4" in (tmp_path / "run" / "config.gin").read_text()
    assert fit("again", tmp_path / "run") == expected


def test_only_methods_that_are_trained_in_steps_take_a_model_dir(tmp_path):
    with pytest.raises(UserError, match="step by step"):
        FitCF(methods=[CONFIG], model_dir=str(tmp_path))
