"""The pages' commands in small: a little world in the toy one's place, few steps, few users."""

import dataclasses
import io
import pathlib
import re
import shlex
import subprocess
import sys

from ilm_jax.cli import main as cli
from ilm_jax.data.sources import toy
from ilm_jax.data.sources.prepare import catalogue_dir
from tests.cli import small_world
from tests.data.small_catalogue import small_catalogue
from tests.docs.blocks import ROOT, Block, blocks_of

LENGTHS = '--gin.TASK_FEATURE_LENGTHS={"inputs": 240, "targets": 60}'
SMALL = [*small_world.SMALL]
# The sizes of the tiny recipes, smaller still; the current folder's recipes come first.
RECIPES = {
    "models/decoder_tiny.gin": ("decoder.DecoderConfig", 1),
    "models/qformer_tiny.gin": ("qformer.QFormerConfig", 2),
}


def make_world(folder: pathlib.Path) -> None:
    """A catalogue with the toy world's ids, and recipes of smaller models.

    Args:
      folder: to be the current one, with $ILM_CACHE = folder/cache.
    """
    plain = small_catalogue(80, 60, 0, "toy")
    catalogue = dataclasses.replace(
        plain,
        item_ids=[f"t{row:04d}" for row in range(80)],
        user_ids=[f"u{row:04d}" for row in range(60)],
    )
    catalogue.ratings[:] = [0.5 + row % 10 / 2 for row in range(len(catalogue.ratings))]
    catalogue.save(catalogue_dir("toy", folder / "cache"), {"builder": toy.VERSION})
    for name, (config, layers) in RECIPES.items():
        text = (ROOT / "gin" / name).read_text()
        text = re.sub(r"(\.(embed|mlp|projection)_dim = )\d+", r"\g<1>16", text)
        text = re.sub(r"(\.num_queries = )\d+", r"\g<1>2", text)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text}\n{config}.num_layers = {layers}\n")
    (folder / "launch").symlink_to(ROOT / "launch")


def make_runs() -> None:
    """What the pages call the quickstart's runs, in the current folder.

    An MLP stands for the Q-Former: it compiles in a fraction of the time, and verbs that read a run
    do not ask what its reader is. The first page's own commands train them all (slowly).
    """
    table = "runs/toy/cf.safetensors"
    verbs = [
        f"ilm fit_cf --dataset toy --output={table}",
        "ilm train --gin_file=tiny/stage0.gin --gin.MODEL_DIR=runs/toy/stage0",
        "ilm train --gin_file=tiny/stage2_mlp.gin --gin.MODEL_DIR=runs/toy/ilm "
        f"--gin.LM_FROM=runs/toy/stage0 --gin.CF_TABLE={table}",
    ]
    for verb in verbs:
        assert cli.main(shlex.split(in_small(verb))[1:]) == 0, verb


def first_page() -> Block:
    """The commands by which the first page makes the runs that the others use."""
    blocks = blocks_of(ROOT / "docs/getting-started.md")
    (found,) = [block for block in blocks if block.mark]
    return found


def in_small(command: str) -> str:
    """The command with what makes it quick, where it says nothing of that itself."""
    extra: list[str] = []
    if re.search(r"\bilm train\b|launch/sweep\.py|-- train\b", command):
        prompts = re.search(r"stage2|knowledge", command)
        extra = [*SMALL, *([LENGTHS] if prompts else [])]
    elif "ilm evaluate" in command:
        extra = ["--users=4", "--texts=2", "--beams=3", "--nogeneration"]
    elif "cf_combined" in command:
        extra = ["--gin.text_vectors.TextConfig.dim=4"]
    elif "cf_sampled" in command:
        extra = ["--gin.negatives.SamplerConfig.drawn=10"]
    elif "runs/sasrec.gin" in command:
        extra = ["--gin.sequential.SequentialConfig.epochs=2"]
    elif "ilm infer" in command:
        extra = ["--beams=3"]
    given = {word.partition("=")[0] for word in shlex.split(command)}
    extra = [word for word in extra if word.partition("=")[0] not in given]
    return f"{command} {shlex.join(extra)}".strip()


def run(block: Block, monkeypatch) -> int:
    """Runs a block in the current folder; returns the exit code of its last command.

    Verbs run in this process, which has all that they import; other commands in a shell. A block
    with shell loops runs in a shell as a whole.
    """
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), {"__name__": str(block)})
        return 0
    commands = [in_small(command) for command in block.commands]
    if any(re.match(r"(for|while|if)\b", command) for command in commands):
        return _shell("\n".join(commands))
    code = 0
    for command in commands:
        said, pipe, words = command.rpartition("| ilm ")
        if pipe:
            done = subprocess.run(said, shell=True, check=True, capture_output=True, text=True)
            monkeypatch.setattr(sys, "stdin", io.StringIO(done.stdout))
        elif command.startswith("ilm "):
            words = command.removeprefix("ilm ")
        else:
            words = ""
        code = cli.main(shlex.split(words)) if words else _shell(command)
        if code:
            break
    return code


def _shell(text: str) -> int:
    return subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=False).returncode
