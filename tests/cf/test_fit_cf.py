"""`ilm fit_cf` writes a table of exactly this split and prints it beside popularity."""

import pytest

from ilm_jax.cf.table import EmbeddingTable
from ilm_jax.cli import fit_cf
from ilm_jax.errors import UserError
from ilm_jax.runs import fitting

FLAGS = ["--dataset=tiny", "--held_out_items=0", "--dim=4", "--epochs=3"]


@pytest.fixture
def splits(two_tastes, monkeypatch):
    splits = two_tastes()
    monkeypatch.setattr(fitting, "load_catalogue", lambda *_, **__: splits.catalogue)
    return splits


def test_writes_the_table_and_prints_the_comparison(tmp_path, splits, capsys):
    assert fit_cf.main([*FLAGS, f"--cache_dir={tmp_path}"]) == 0
    table = EmbeddingTable.load(tmp_path / "tables" / "tiny.safetensors", splits)
    assert table.dim == 4 and table.settings["epochs"] == 3
    said = capsys.readouterr().out
    for words in ("CF (iALS)", "popularity", "Recall@20", "epoch 3/3", "1 users without targets"):
        assert words in said
    assert "2 items, 0 users" in said and str(tmp_path / "tables") in said


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--alpha=0", "alpha=0.0: give"),
        ("--dim=0", "dim"),
        ("--dims=3", "dims"),
        ("more", "unexpected"),
    ],
)
def test_wrong_flags_are_user_errors_and_write_nothing(tmp_path, splits, flag, message):
    with pytest.raises(UserError, match=message):
        fit_cf.main([*FLAGS, f"--output={tmp_path / 'x'}", flag])
    assert not list(tmp_path.iterdir())


def test_a_fit_that_diverges_is_a_user_error_and_writes_nothing(tmp_path, splits):
    weights = ["--alpha=1e-30", "--regularisation=1e-30"]
    with pytest.raises(UserError, match="non-finite"):
        fit_cf.main([*FLAGS, f"--output={tmp_path / 'x'}", *weights])
    assert not list(tmp_path.iterdir())
