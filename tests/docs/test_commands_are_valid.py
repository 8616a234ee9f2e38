"""Every command of the pages names verbs, flags, recipes, bindings and files that are there."""

import ast
import importlib
import importlib.util
import re
import shlex

import pytest

import ilm_jax
from ilm_jax.cli import words
from ilm_jax.cli.main import VERBS
from ilm_jax.errors import UserError
from ilm_jax.runs import gin_config
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.run import Run
from tests.docs.blocks import PAGES, ROOT, all_blocks
from tests.some import some

SHELL = [block for block in all_blocks() if block.language == "bash"]
# Verbs whose recipes these roots build.
ROOTS = {"train": Run, "precompile": Run, "fit_cf": FitCF}
# What a command with a blank in it may leave to the reader.
BLANK = (
    *("TRAIN_STEPS=1", "BATCH_SIZE=8", "LEARNING_RATE=1e-3"),
    'TASK_FEATURE_LENGTHS={"inputs": 8, "targets": 8, "text": 8}',
)
# Words behind a verb where it takes some.
WORDS = {"compare": ("RUN_A", "RUN_B")}
_PATH = re.compile(
    r"(?<![\w/.-])((?:ilm_jax|tests|tasks|gin|docs|launch|studies|examples)/[\w./*-]*\w)"
)


def ilm_commands():
    """(block, verb, the words behind it) of all commands of `ilm`, also behind a launcher."""
    for block in SHELL:
        for line in block.commands:
            line = re.sub(r"^.*\| (?=ilm )", "", line)
            given = shlex.split(line)
            if given and given[0] == "ilm":
                yield block, given[1], given[2:]
            elif "--" in given and "launch/" in line:
                verb, *rest = given[given.index("--") + 1 :]
                yield block, verb, rest


COMMANDS = list(ilm_commands())


def stands_for_more(word):
    """Whether a word is a blank that the reader fills in."""
    return "…" in word or word.startswith("[")


@pytest.mark.parametrize(
    "block, verb, given", some(COMMANDS), ids=[f"{b}-{v}" for b, v, _ in COMMANDS]
)
def test_a_command_is_one_that_its_verb_takes(block, verb, given):
    assert verb in VERBS, str(block)
    if verb == "--help":
        return
    module = importlib.import_module(f"ilm_jax.cli.{verb}")
    given = [w for w in given if not w.startswith("--import=")]  # every verb takes it
    bindings, rest = words.split_bindings([w for w in given if not stands_for_more(w)])
    flags = module._flags()
    words.parse_flags(flags, verb, rest, WORDS.get(verb, ()))
    files = list(getattr(flags, "gin_file", None) or [])
    if verb not in ROOTS or not files:
        return
    # What `ilm convert` makes holds what such a recipe holds.
    files = ["models/llama3_1_8b.gin" if f.endswith("/model.gin") else f for f in files]
    bindings = [b for b in bindings if "$" not in b]
    if verb == "train" and any(map(stands_for_more, given)):
        bindings = [*BLANK, *bindings]
    gin_config.build(ROOTS[verb], files, bindings, unnamed="nowhere")


def test_a_slip_in_a_command_is_noticed():
    with pytest.raises(UserError, match="batch_siz"):
        gin_config.build(
            Run, ["tiny/stage1.gin"], ["trainer.TrainerConfig.batch_siz=3"], unnamed="nowhere"
        )


@pytest.mark.parametrize("block", some(SHELL), ids=str)
def test_programs_and_modules_that_a_block_starts_are_there(block):
    for line in block.commands:
        for script in re.findall(r"(?:bash|python) ((?:[\w.-]+/)+[\w.-]+)", line):
            assert (ROOT / script).is_file(), (str(block), script)
        for module in re.findall(r"python -m (tests[\w.]+)", line):
            assert importlib.util.find_spec(module), (str(block), module)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_that_a_page_names_are_there(page):
    text = page.read_text()
    missing = [
        path
        for path in _PATH.findall(text)
        if not list(ROOT.glob(path.rstrip("/"))) and "NAME" not in path
    ]
    assert not missing


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "block", some([b for b in all_blocks() if b.language == "python"]), ids=str
)
def test_names_that_a_program_imports_are_there(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("ilm_jax"):
            module = importlib.import_module(node.module)
            assert not [a.name for a in node.names if not hasattr(module, a.name)], str(block)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "ilm_jax" or hasattr(ilm_jax, node.attr), (
                str(block),
                node.attr,
            )
