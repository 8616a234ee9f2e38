"""Wrong input gives one line that names the thing and the remedy, exit code 2, and no files."""

import jax
import pytest

from ilm_jax.cf.ials import IALSConfig
from ilm_jax.cli import main as cli
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.runs.fitting import fit_method
from tests.cli import small_world
from tests.cli.small_world import DECODER, SMALL
from tests.data.small_catalogue import small_catalogue

STAGE_0 = ("--gin_file=tiny/stage0.gin", *SMALL, *DECODER)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder in which a small catalogue stands for the toy world."""
    root = tmp_path_factory.mktemp("wrong")
    small_world.save_world(root)
    return root / "cache"


def save_table(catalogue, path):
    fit_method(make_splits(catalogue), IALSConfig(dim=4, epochs=1)).save(path)
    return path


@pytest.fixture
def refused_training(refused, cache, tmp_path):
    """As `refused`, for `ilm train` of stage 0; no MODEL_DIR may be left behind."""

    def run(*words, recipe=STAGE_0):
        model_dir = tmp_path / "model"
        places = (f"--gin.MODEL_DIR={model_dir}", f"--gin.CACHE_DIR={cache}")
        line = refused("train", *recipe, *places, *words)
        assert not model_dir.exists() and not list(tmp_path.rglob("*.tmp*"))
        return line

    return run


def test_an_unknown_verb_suggests_the_nearest(refused):
    assert "did you mean 'train'" in refused("trian")


def test_a_misspelt_macro_suggests_the_nearest(refused_training):
    line = refused_training("--gin.BATCH_SIZ=3")
    assert "BATCH_SIZ" in line and "did you mean 'BATCH_SIZE'" in line


def test_a_misspelt_scope_or_name_is_named(refused_training):
    assert "trian/X" in refused_training("--gin.trian/X.y=1")
    line = refused_training("--gin.trian/dataset_config.DatasetConfig.seed=1")
    assert "trian/" in line and "did you mean 'train'" in line


def test_a_required_macro_without_a_value_is_asked_for(refused_training, refused, tmp_path):
    line = refused_training(recipe=("--gin_file=tiny/stage1.gin",))
    assert "CF_TABLE has no value: add --gin.CF_TABLE=" in line
    assert "MODEL_DIR has no value" in refused("train", *STAGE_0)


def test_a_recipe_that_does_not_exist_lists_those_that_do(refused_training):
    line = refused_training(recipe=("--gin_file=tiny/stag0.gin",))
    assert "did you mean 'tiny/stage0.gin'" in line


def test_a_mesh_that_does_not_fit_the_devices_gives_their_number(refused_training):
    line = refused_training("--gin.partitioning.MeshConfig.data=3")
    assert "needs 3 devices and there are 8" in line and "MeshConfig.data = -1" in line


def test_a_batch_that_the_mesh_does_not_divide_gives_the_multiple(refused_training):
    line = refused_training("--gin.BATCH_SIZE=12")
    assert "batch size 12" in line and "set BATCH_SIZE to a multiple of 8" in line


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"items": 81}, "81 items, the catalogue has 80"),
        ({"seed": 1}, "made on another split"),
        ({"name": "toy/world1"}, "is of toy/world1, not of toy"),
    ],
    ids=["ids", "interactions", "name"],
)
def test_a_table_of_another_catalogue_says_what_differs(refused_training, tmp_path, other, message):
    catalogue = small_catalogue(**{"items": 80, "users": 60, **other})
    table = save_table(catalogue, tmp_path / "other.safetensors")
    recipe = ("--gin_file=tiny/stage1.gin", f"--gin.CF_TABLE={table}")
    line = refused_training(recipe=recipe)
    assert message in line and "ilm fit_cf" in line and str(table) in line


def test_a_table_that_is_absent_says_how_to_make_it(refused_training, tmp_path):
    recipe = ("--gin_file=tiny/stage1.gin", f"--gin.CF_TABLE={tmp_path}/none.safetensors")
    assert "run `ilm fit_cf" in refused_training(recipe=recipe)


def test_a_bad_number_in_a_ratings_row_gives_file_and_line(refused, tmp_path):
    raw, cache = tmp_path / "raw", tmp_path / "cache"
    raw.mkdir()
    (raw / "movies.csv").write_text("movieId,title,genres\n10,Blue Hill (1999),Drama\n")
    (raw / "tags.csv").write_text("userId,movieId,tag,timestamp\n")
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,10,4.0,90\n7,10,good,91\n")
    words = ("--dataset=movielens/latest_small", f"--data_dir={raw}", f"--cache_dir={cache}")
    line = refused("fit_cf", *words)
    assert f"{raw}/ratings.csv:3: " in line and "good" in line
    made = [path.name for path in cache.rglob("*")]
    begun = (
        "catalogue.json",
        "offsets.npy",
        "dataset_info.json",
        "incomplete",
        ".safetensors",
    )
    assert not [name for name in made if any(part in name for part in begun)], made


def test_an_empty_split_is_named(refused, refused_training, cache):
    line = refused("fit_cf", "--dataset=toy", f"--cache_dir={cache}", "--held_out_items=0.0001")
    assert "no validation and no test items" in line and "--held_out_items=0" in line
    assert "no test items" in refused_training("--gin.HELD_OUT_ITEMS=0.0001")
    assert not (cache / "tables").exists()


@pytest.mark.slow
def test_a_run_does_not_go_on_with_another_architecture(refused, cache, tmp_path):
    model_dir = tmp_path / "model"
    words = ("train", *STAGE_0, f"--gin.MODEL_DIR={model_dir}", f"--gin.CACHE_DIR={cache}")
    assert cli.main(words) == 0
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    line = refused(*words, "--gin.decoder.DecoderConfig.mlp_dim=16", "--gin.TRAIN_STEPS=2")
    changed = "made from something else: objective.LanguageModelling.lm.mlp_dim"
    assert changed in line and "made_from.json" in line
    line = refused(*words, "--gin.decoder.DecoderConfig.num_layers=2", "--gin.TRAIN_STEPS=2")
    assert "objective.LanguageModelling.lm.num_layers" in line
    assert {p: p.read_bytes() for p in model_dir.rglob("*") if p.is_file()} == before


def test_memory_that_a_device_lacks_is_one_line(capsys, monkeypatch):
    def fail(_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 67604823064 bytes."
        )

    monkeypatch.setattr("ilm_jax.cli.doctor.main", fail)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("ilm: error: not enough memory: 63.0 GiB were asked")
