import pytest

from ilm_jax import subprocesses
from ilm_jax.errors import UserError


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that `python -m` finds, and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(*lines):
        (tmp_path / "speaks.py").write_text("\n".join(["import sys", *lines]) + "\n")
        return "speaks"

    return write


def test_what_a_process_says_is_wrong_is_one_line_and_progress_is_passed_on(module, capsys):
    name = module(
        "print('cache: half', file=sys.stderr)",
        "print('noise', file=sys.stderr)",
        "print('ilm: error: file:3: bad; mend it', file=sys.stderr)",
        "sys.exit(2)",
    )
    with pytest.raises(UserError, match=r"^file:3: bad; mend it$"):
        subprocesses.run([name], shown=["cache: "])
    assert capsys.readouterr().err == "cache: half\n"


def test_a_process_that_is_killed_is_no_message_to_people(module):
    name = module(
        "import os, signal",
        "print('in the middle', file=sys.stderr, flush=True)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    with pytest.raises(RuntimeError, match="(?s)exited -9.*in the middle"):
        subprocesses.run([name])
