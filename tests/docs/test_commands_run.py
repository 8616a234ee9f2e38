"""What the pages tell people to type runs, in small, in the order of the pages."""

import pytest

from tests.docs import small
from tests.docs.blocks import Block, all_blocks
from tests.some import some

pytestmark = pytest.mark.usefixtures("compile_quickly")
BLOCKS = [block for block in all_blocks() if block.mark]
# The first page makes the runs that the others use.
(FIRST,) = [b for b in BLOCKS if b.page == "docs/getting-started.md"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, compile_quickly):
    """The current folder, with the runs of the first page in it."""
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ILM_CACHE", str(root / "cache"))
        patch.chdir(root)
        small.make_world(root)
        assert small.run(FIRST, patch) == 0
        yield root


def _slow(block: Block):
    marks = [pytest.mark.slow] if block.mark == "slow" else []
    return pytest.param(block, id=str(block), marks=marks)


def test_the_first_page_makes_the_runs_of_the_others(folder):
    made = [folder / "runs/toy" / name for name in ("stage0", "stage1", "ilm", "mlp")]
    for run in made:
        for file in ("config.gin", "model-info.txt", "made_from.json", "metrics.jsonl",
                     "last_run.json"):  # fmt: skip
            assert (run / file).is_file(), (run, file)
    assert (folder / "runs/toy/ilm/evaluation/evaluation.json").is_file()


@pytest.mark.parametrize("block", [_slow(b) for b in some(BLOCKS) if b is not FIRST])
def test_a_block_of_commands_runs(folder, block, monkeypatch):
    code = small.run(block, monkeypatch)
    assert code == (2 if block.mark == "fails" else 0)
