"""What `import ilm_jax` gives: names that exist, imported when they are used."""

import subprocess
import sys

import numpy as np
import pytest

import ilm_jax
from ilm_jax.cli import main as cli
from tests.checkpoints.published import publish


def test_every_name_of_the_face_is_there_and_listed():
    for name in ilm_jax.__all__:
        assert callable(getattr(ilm_jax, name)), name
    assert set(ilm_jax.__all__) <= set(dir(ilm_jax))
    with pytest.raises(AttributeError, match="no attribute 'opn_run'"):
        ilm_jax.opn_run  # noqa: B018


def test_importing_the_face_imports_nothing_else():
    code = (
        "import sys, ilm_jax; "
        "print([n for n in ('jax', 'numpy', 'flax', 'gin', 'tensorflow') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_module_of_ones_own_is_imported_before_the_verb(tmp_path, monkeypatch, capsys):
    (tmp_path / "adds_a_family.py").write_text(
        "import ilm_jax\n"
        "from ilm_jax.checkpoints.published.families import decoders, llama\n"
        "from ilm_jax.checkpoints.published.rules import Family\n"
        "ilm_jax.register_language_model_family("
        "Family(('a_family_of_mine',), llama.config, decoders.rules, **decoders.SHARED))\n"
    )
    config = {"model_type": "a_family_of_mine"}
    publish(tmp_path / "published", config, {"lm_head.weight": np.zeros((2, 2), np.float32)})
    words = ["convert", f"--source={tmp_path}/published", f"--model_dir={tmp_path}/out"]
    assert cli.main(words) == 2
    assert "--import=MODULE" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert cli.main([*words, "--import=adds_a_family"]) == 2
    assert "of a a_family_of_mine model lacks" in capsys.readouterr().err
    assert cli.main([*words, "--import=adds_nothing"]) == 2
    assert "--import=adds_nothing: No module named" in capsys.readouterr().err
