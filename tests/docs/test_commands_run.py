"""What the pages tell people to type runs, in small, in the order of the pages."""

import pytest

from tests.docs import small
from tests.docs.blocks import all_blocks
from tests.some import some

FIRST = small.first_page()
BLOCKS = [block for block in all_blocks() if block.mark and block != FIRST]
QUICK = [block for block in BLOCKS if block.mark != "slow"]
SLOW = [block for block in BLOCKS if block.mark == "slow"]
FILES = ("config.gin", "model-info.txt", "made_from.json", "metrics.jsonl", "last_run.json")


@pytest.fixture
def folder(tmp_path_factory):
    """The current folder, a little world in it."""
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ILM_CACHE", str(root / "cache"))
        patch.chdir(root)
        small.make_world(root)
        yield root


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Such a folder, with the language model and the run that most pages speak of."""
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ILM_CACHE", str(root / "cache"))
        patch.chdir(root)
        small.make_world(root)
        small.make_runs()
        yield root


@pytest.mark.parametrize("block", some(QUICK), ids=str)
def test_a_block_of_commands_runs(runs, block, monkeypatch):
    code = small.run(block, monkeypatch)
    assert code == (2 if block.mark == "fails" else 0)


@pytest.mark.slow
def test_the_first_page_makes_the_runs_by_which_the_long_commands_of_the_others_run(
    folder, monkeypatch
):
    assert small.run(FIRST, monkeypatch) == 0
    for name in ("stage0", "stage1", "ilm", "mlp"):
        absent = [f for f in FILES if not (folder / "runs/toy" / name / f).is_file()]
        assert not absent, name
    assert (folder / "runs/toy/ilm/evaluation/evaluation.json").is_file()
    for block in some(SLOW):
        assert small.run(block, monkeypatch) == 0, str(block)
