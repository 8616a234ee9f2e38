"""What the verbs refuse of a run: senseless numbers, nothing to measure, other tables and rates."""

import pytest

from ilm_jax.cf.ials import IALSConfig
from ilm_jax.data.catalogue.splits import make_splits
from ilm_jax.runs.fitting import fit_method
from tests.cli import small_world
from tests.cli.small_world import DECODER
from tests.cli.trained_run import LENGTHS, refused, run


@pytest.mark.parametrize(
    "words, said",
    [
        (("evaluate", "--users=-1"), "users"),
        (("evaluate", "--beams=0"), "beams"),
        (("evaluate", "--beams=81"), "beams=81: give a number from 1 to 80"),
        (("evaluate", "--liked=nan"), "liked=nan"),
        (("evaluate", "--step=1e1"), "--step=1e1"),
        (("evaluate", "--step=7"), "no checkpoint '7'"),
        (("infer", "--temperature=-1"), "temperature=-1.0"),
        (("infer", "--top_p=nan"), "top_p=nan"),
        (("infer", "--top_p=0"), "top_p=0.0"),
        (("infer", "--length_penalty=nan"), "length_penalty"),
        (("infer", "--answer=items", "--beams=0"), "beams=0"),
        (("infer", "--answer=items", "--beams=81"), "from 1 to 80"),
        (("infer", "--answer=items", "--sample"), "--sample draws texts"),
        (("chat", "--items=81"), "from 1 to 80"),
        (("chat", "--max_new_tokens=0"), "max_new_tokens=0"),
        (("export", "--answer=items", "--beams=81"), "from 1 to 80"),
        (("export", "--batch_size=0"), "batch_size"),
        (("export", "--step=newest"), "--step=newest"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_in_one_line(world, tmp_path, capsys, words, said):
    given = [f"--model_dir={world[2]}"]
    given += [] if words[0] == "chat" else [f"--output={tmp_path / 'none'}"]
    given += ["--task=sequential_random"] if words[0] == "infer" else []
    assert said in refused(capsys, *words, *given)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_refuses_what_has_nothing_to_measure(world, tmp_path, capsys):
    _, _, model_dir = world
    words = ("evaluate", f"--model_dir={model_dir}", f"--output={tmp_path / 'none'}")
    assert "near it: " in refused(capsys, *words, "--tasks=rankng")
    assert "name at least one, and each once" in refused(capsys, *words, "--tasks=")
    assert "tasks='rating,rating'" in refused(capsys, *words, "--tasks=rating,rating")
    assert "pairs of vectors" in refused(capsys, *words, "--tasks=item_text")
    assert not (tmp_path / "none").exists()


def test_a_run_is_used_with_what_it_was_made_from_and_refused_with_anything_else(
    world, tmp_path, capsys
):
    root, catalogue, model_dir = world
    other = tmp_path / "other.safetensors"
    fit_method(make_splits(catalogue), IALSConfig(dim=4, epochs=2)).save(other)
    again = (
        "train",
        "--gin_file=tiny/stage2_mlp.gin",
        f"--gin.CACHE_DIR={root / 'cache'}",
        f"--gin.MODEL_DIR={model_dir}",
        *small_world.SMALL,
        *DECODER,
        LENGTHS,
        f"--gin.LM_FROM={root}/0",
        f"--gin.CF_TABLE={root}/cf.safetensors",
    )
    kept = {f: f.read_bytes() for f in model_dir.iterdir() if f.suffix in (".gin", ".json", ".txt")}
    assert len(kept) == 4
    run(*again)
    assert "had made all its steps: nothing is written" in capsys.readouterr().out
    assert "table (CF_TABLE)" in refused(capsys, *again, f"--gin.CF_TABLE={other}")
    assert "optimizer.learning_rate" in refused(capsys, *again, "--gin.LEARNING_RATE=0.5")
    assert kept == {file: file.read_bytes() for file in kept}
    for verb in (
        ("evaluate", f"--output={tmp_path / 'e'}"),
        ("infer", "--task=sequential_random", f"--output={tmp_path / 'i'}"),
        ("export", f"--output={tmp_path / 'x'}"),
    ):
        words = (verb[0], f"--model_dir={model_dir}", *verb[1:])
        line = refused(capsys, *words, f"--gin.CF_TABLE={other}")
        assert "was trained with something else: table (CF_TABLE)" in line
    assert not list(tmp_path.glob("[eix]"))
