"""Shows that training survives SIGKILL: the same bits as a run that nothing disturbed.

    python launch/kill_and_resume.py [--kills 10] [--seed 0] [--stages 1 2] [--steps 60]

Trains the tiny recipes, shrunk, through `python -m ilm_jax train`: once undisturbed and once killed
and started again each time: at random steps, while a checkpoint is being written, and, every fourth
time, at a random moment of starting.
Then compares the last checkpoints (parameters and optimizer, bit for bit; the streams' positions)
and the logged losses. Exit code 1 if anything differs.
"""

import argparse
import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ilm_jax.errors import UserError
from ilm_jax.files import trouble

SAVE_EVERY = 5
STEP_POLL = 0.002  # seconds
STARTING = 8.0  # seconds in which a start is killed at most
PATIENCE = 600  # seconds without the step that a kill waits for

_EVERYWHERE = {
    "BATCH_SIZE": 8,
    "WARMUP_STEPS": 0,
    "checkpoints.CheckpointConfig.every": SAVE_EVERY,
    "dataset_config.DatasetConfig.truncate_targets": True,
    "trainer.TrainerConfig.eval_batches": 1,
    "trainer.TrainerConfig.log_every": 1,
}
_DECODER = {"decoder.DecoderConfig.embed_dim": 32, "decoder.DecoderConfig.mlp_dim": 64}
_QFORMER = {
    "qformer.QFormerConfig.num_layers": 2,
    "qformer.QFormerConfig.embed_dim": 32,
    "qformer.QFormerConfig.mlp_dim": 64,
}
RECIPES = {
    0: ("tiny/stage0.gin", _EVERYWHERE | _DECODER),
    1: ("tiny/stage1.gin", _EVERYWHERE | _QFORMER),
    2: ("tiny/stage2_ilm.gin", _EVERYWHERE | _DECODER | _QFORMER),
}


def start(words: Sequence[str], folder: pathlib.Path, **streams: Any) -> subprocess.Popen:
    """Starts one verb; all starts share compiled programs, since compiling is nearly all of it."""
    shared = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "ilm_jax", *words]
    return subprocess.Popen(command, env=os.environ | shared, **streams)


def run(words: Sequence[str], folder: pathlib.Path) -> None:
    """Runs one verb to its end.

    Raises:
      UserError: if it fails.
    """
    code = start(words, folder, stdout=subprocess.DEVNULL).wait()
    if code:
        raise UserError(f"`ilm {words[0]}` failed (exit code {code}); see above")


def train_words(stage: int, model_dir: pathlib.Path, steps: int, **macros: object) -> list[str]:
    """The words after `ilm` that train a stage."""
    recipe, bindings = RECIPES[stage]
    values = {"MODEL_DIR": model_dir, "TRAIN_STEPS": steps, **bindings, **macros}
    return ["train", f"--gin_file={recipe}", *(f"--gin.{k}={v}" for k, v in values.items())]


def last_logged(model_dir: pathlib.Path) -> int:
    """The last step in metrics.jsonl; 0 before the first."""
    try:
        lines = (model_dir / "metrics.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"] if lines else 0
    except (OSError, ValueError):  # not there yet, or in the middle of a line
        return 0


def has_reached(model_dir: pathlib.Path, step: int) -> bool:
    """Whether a step has been logged."""
    return last_logged(model_dir) >= step


def is_saving(model_dir: pathlib.Path) -> bool:
    """Whether a checkpoint is being written: orbax does so in a temporary folder."""
    return any((model_dir / "checkpoints").glob("*orbax-checkpoint-tmp*"))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Polls until the condition holds (True) or the process has ended (False)."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > end:
            process.kill()
            raise UserError(f"training made no progress in {PATIENCE} s")
        time.sleep(STEP_POLL)
    return True


def train_with_kills(
    words: Sequence[str], model_dir: pathlib.Path, steps: int, kills: int, draw: random.Random
) -> int:
    """Starts training, kills it, starts it again, …, and lets the last start finish.

    Returns:
      How many kills hit a running process.

    Raises:
      UserError: if training itself fails.
    """
    hits = 0
    for number, target in enumerate(sorted(draw.sample(range(1, steps - 1), kills))):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = start(words, model_dir.parent, **quiet)
        starting = number % 4 == 2
        if starting:
            time.sleep(draw.uniform(0, STARTING))
        elif wait_until(functools.partial(has_reached, model_dir, target), process) and number % 2:
            wait_until(functools.partial(is_saving, model_dir), process)
        time.sleep(draw.uniform(0, 0.02))
        process.kill()
        if process.wait() == -9:
            hits += 1
            moment = " during a save" if is_saving(model_dir) else ""
            wanted = "while starting" if starting else f"wanted {target}"
            print(f"  killed at step {last_logged(model_dir)} ({wanted}){moment}", flush=True)
        elif process.returncode:
            break  # the run below fails in the same way and shows why
    run(words, model_dir.parent)
    return hits


def arrays(model_dir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """{path: array} of the parameters and the optimizer in a checkpoint."""
    import jax
    import orbax.checkpoint as ocp

    found: dict[str, np.ndarray] = {}
    for item in ("params", "optimizer"):
        path = model_dir.absolute() / "checkpoints" / str(step) / item
        with ocp.PyTreeCheckpointer() as reader:
            saved = reader.metadata(path)
            shapes = getattr(saved, "item_metadata", saved)
            # Whatever devices it was written from: those of several processes are not here.
            how = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), getattr(shapes, "tree", shapes)
            )
            tree = reader.restore(path, restore_args=how)
        for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[item + jax.tree_util.keystr(keys)] = np.asarray(leaf)
    return found


def records(model_dir: pathlib.Path) -> list[dict[str, Any]]:
    """What metrics.jsonl holds, times left out."""
    from ilm_jax.training.timing import TIMED, TIMED_PREFIX
    from ilm_jax.training.writers import read_metrics

    return [
        {n: v for n, v in record.items() if n not in TIMED and not n.startswith(TIMED_PREFIX)}
        for record in read_metrics(model_dir / "metrics.jsonl")
    ]


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What differs between two finished runs; empty if they are equal to the bit."""
    from ilm_jax.checkpoints.checkpoints import Checkpoints

    opened = [Checkpoints(folder) for folder in (one, other)]
    steps = [checkpoints.resolve("last") for checkpoints in opened]
    if steps[0] != steps[1]:
        return [f"the last checkpoints are of steps {steps[0]} and {steps[1]}"]
    places = [c.meta(step)["next_example"] for c, step in zip(opened, steps, strict=True)]
    found = [] if places[0] == places[1] else [f"positions {places[0]} and {places[1]}"]
    a, b = arrays(one, steps[0]), arrays(other, steps[1])
    found += [f"{path} is in one of them only" for path in sorted(set(a) ^ set(b))]
    for path in sorted(set(a) & set(b)):
        same = a[path].dtype == b[path].dtype and a[path].shape == b[path].shape
        if not same or a[path].tobytes() != b[path].tobytes():
            found.append(f"{path} differs")
    if records(one) != records(other):
        found.append("metrics.jsonl differs")
    return found


def check_stage(
    stage: int, folder: pathlib.Path, steps: int, kills: int, seed: int, macros: dict[str, object]
) -> bool:
    """Trains a stage twice (in `stage<k>` and `stage<k>-killed`), compares, prints the verdict."""
    whole, killed = folder / f"stage{stage}", folder / f"stage{stage}-killed"
    if not whole.exists():
        run(train_words(stage, whole, steps, **macros), folder)
    words = train_words(stage, killed, steps, **macros)
    hits = train_with_kills(words, killed, steps, kills, random.Random(f"{seed} {stage}"))
    found = differences(whole, killed)
    verdict = "DIFFERS: " + "; ".join(found[:5]) if found else "equal to the bit"
    print(f"stage {stage}: {hits} of {kills} kills hit; after {steps} steps {verdict}", flush=True)
    return not found and hits == kills


def check(
    folder: pathlib.Path,
    *,
    stages: Sequence[int] = (1, 2),
    steps: int = 60,
    kills: int = 10,
    seed: int = 0,
    cache_dir: pathlib.Path | None = None,
    schedule: dict[str, int] | None = None,
) -> bool:
    """Prepares data, stage 0 and the table of the toy world, then checks the stages.

    `schedule` is stage 1's, the recipe's if None. Returns whether all kills hit and all is equal.

    Raises:
      UserError: if there are too few steps, or a verb fails.
    """
    if steps < kills + 2:
        raise UserError(f"--kills={kills} needs at least {kills + 2} --steps")
    cache_dir, table = cache_dir or folder / "cache", folder / "cf.safetensors"
    common: dict[str, object] = {"CACHE_DIR": cache_dir}
    sources: dict[int, dict[str, object]] = {
        0: {},
        1: {"CF_TABLE": table} | ({"SCHEDULE": schedule} if schedule else {}),
        2: {"CF_TABLE": table, "LM_FROM": folder / "stage0", "QFORMER_FROM": folder / "stage1"},
    }
    run(["fit_cf", "--dataset=toy", f"--cache_dir={cache_dir}", f"--output={table}"], folder)
    # What stage 2 starts from; stage 1 is its own undisturbed run.
    for stage in (0, 1) if 2 in stages else ():
        if stage not in stages and not (folder / f"stage{stage}").exists():
            model_dir, macros = folder / f"stage{stage}", common | sources[stage]
            run(train_words(stage, model_dir, steps, **macros), folder)
    return all(
        [check_stage(s, folder, steps, kills, seed, common | sources[s]) for s in sorted(stages)]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check; 0 if all is equal, 1 if not, 2 for wrong input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the steps at which it kills")
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2], choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=pathlib.Path, help="default: a temporary one")
    parser.add_argument("--cache_dir", type=pathlib.Path, help="default: in the folder")
    flags = vars(parser.parse_args(argv))
    folder = flags.pop("folder")
    try:
        if folder is not None:
            return 0 if check(folder, **flags) else 1
        with tempfile.TemporaryDirectory(prefix="ilm-kills-") as temporary:
            return 0 if check(pathlib.Path(temporary), **flags) else 1
    except (UserError, OSError) as error:
        print(f"kill_and_resume: error: {trouble(error) or error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
