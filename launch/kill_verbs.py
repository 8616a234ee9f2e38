"""Shows that the verbs that read a run survive SIGKILL: nothing is lost and nothing doubled.

    python launch/kill_verbs.py [--kills 20] [--seed 0] [--verbs cache_tasks infer evaluate sweep]

Prepares a small run of stage 2 on the toy world. Then runs each verb once undisturbed, and once
killed at random moments (the whole process group) and started again each time, and compares what
both left: bytes of caches and answers, figures of evaluations and of a sweep's runs. Exit code 1 if
anything differs.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from kill_and_resume import run, start, train_words

from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 6
TASKS = "long_description,sequential_random"


def verb_words(verb: str, folder: pathlib.Path, out: pathlib.Path) -> list[str]:
    """The words after `ilm` (of a sweep: after the script) that write into `out`."""
    cache, trained = folder / "cache", folder / "stage2"
    if verb == "cache_tasks":
        return ["cache_tasks", "--dataset=toy", f"--cache_dir={out}", f"--tasks={TASKS}"]
    if verb == "infer":
        return [
            "infer",
            f"--model_dir={trained}",
            "--task=long_description",
            "--batch_size=4",
            "--max_new_tokens=8",
            f"--output={out}/answers.jsonl",
        ]
    if verb == "evaluate":
        return [
            "evaluate",
            f"--model_dir={trained}",
            "--users=16",
            "--texts=8",
            "--beams=4",
            f"--output={out}",
        ]
    words = train_words(2, out / "none", STEPS, **_sources(folder), CACHE_DIR=cache)
    return [
        "--folder",
        str(out),
        "--jobs=1",
        "--grid",
        "SEED=0|1",
        *(word for word in words[1:] if "MODEL_DIR" not in word),
    ]


def _sources(folder: pathlib.Path) -> dict[str, object]:
    return {
        "CF_TABLE": folder / "cf.safetensors",
        "LM_FROM": folder / "stage0",
        "QFORMER_FROM": folder / "stage1",
    }


def launch(verb: str, folder: pathlib.Path, out: pathlib.Path) -> subprocess.Popen:
    """Starts the verb in a process group of its own."""
    out.mkdir(parents=True, exist_ok=True)
    words = verb_words(verb, folder, out)
    log = (folder / f"{out.name}.log").open("ab")
    how: dict[str, Any] = {"stdout": log, "stderr": log, "start_new_session": True}
    if verb != "sweep":
        return start(words, folder, **how)
    shared = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    command = [sys.executable, str(ROOT / "launch/sweep.py"), *words]
    return subprocess.Popen(command, env=os.environ | shared, **how)


def left(verb: str, out: pathlib.Path) -> dict[str, Any]:
    """What the verb left, without what tells of time; also that nothing temporary remains."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name[0] != ".")
    odd = [path.name for path in files if ".tmp" in path.name]
    if odd:
        raise UserError(f"{verb} left {odd[0]}")
    if verb == "sweep":
        done = {p: json.loads(p.read_text()) for p in out.rglob("last_run.json")}
        return {p.parent.name: last["validation"] for p, last in done.items()}
    if verb == "evaluate":
        record = json.loads((out / "evaluation.json").read_text())
        kept = {name: record[name] for name in ("figures", "intervals", "not_available", "step")}
        rest = [p for p in files if p.suffix in (".jsonl", ".trec")]
        return kept | {str(p.relative_to(out)): p.read_bytes() for p in rest}
    found: dict[str, Any] = {}
    for path in files:
        # TensorFlow writes an example's features in any order: their bytes tell nothing.
        if "tfds" not in path.parts and path.suffix != ".log":
            found[str(path.relative_to(out))] = path.read_bytes()
    if verb == "cache_tasks":
        found["catalogue"] = load_catalogue("toy", cache_dir=str(out)).fingerprint
    return found


def check_verb(verb: str, folder: pathlib.Path, kills: int, draw: random.Random) -> bool:
    """Runs a verb with and without kills and prints the verdict."""
    whole, killed = folder / f"{verb}-whole", folder / f"{verb}-killed"
    begin = time.monotonic()
    if launch(verb, folder, whole).wait():
        raise UserError(f"{verb} failed: see {folder}/{whole.name}.log")
    seconds = time.monotonic() - begin
    hits, starts = 0, 0
    while hits < kills:
        process, starts = launch(verb, folder, killed), starts + 1
        # Later than most of the starting, which writes nothing.
        time.sleep(seconds * draw.uniform(0.2, 0.9))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            hits += 1
        else:  # what earlier starts had left to do took less time: from the beginning
            shutil.rmtree(killed)
    code = launch(verb, folder, killed).wait()
    one, other = left(verb, whole), left(verb, killed)
    different = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    verdict = f"DIFFERS: {different[:4]}" if different or code else "nothing lost, nothing doubled"
    print(
        f"{verb}: {hits} kills in {starts} starts ({seconds:.0f} s undisturbed): {verdict}; "
        f"exit code {code}",
        flush=True,
    )
    return not different and not code


def prepare(folder: pathlib.Path) -> None:
    """Caches, a table, stages 0, 1 and 2 of a few steps."""
    cache = folder / "cache"
    run(
        ["fit_cf", "--dataset=toy", f"--cache_dir={cache}", f"--output={folder}/cf.safetensors"],
        folder,
    )
    table: dict[str, object] = {"CF_TABLE": folder / "cf.safetensors"}
    for stage, sources in ((0, {}), (1, table), (2, _sources(folder))):
        if not (folder / f"stage{stage}").exists():
            words = train_words(stage, folder / f"stage{stage}", STEPS, CACHE_DIR=cache, **sources)
            run(words, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check; 0 if all is equal, 1 if not, 2 for wrong input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = ("cache_tasks", "infer", "evaluate", "sweep")
    parser.add_argument("--kills", type=int, default=20, help="over all verbs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--verbs", nargs="+", default=list(verbs), choices=verbs)
    parser.add_argument("--folder", type=pathlib.Path, help="default: a temporary one")
    flags = parser.parse_args(argv)

    def check(folder: pathlib.Path) -> int:
        """Kills each verb its share of times; 0 if every one recovered."""
        prepare(folder)
        shares = [len(range(i, flags.kills, len(flags.verbs))) for i in range(len(flags.verbs))]
        verdicts = [
            check_verb(verb, folder, share, random.Random(f"{flags.seed} {verb}"))
            for verb, share in zip(flags.verbs, shares, strict=True)
        ]
        return 0 if all(verdicts) else 1

    try:
        if flags.folder is not None:
            flags.folder.mkdir(parents=True, exist_ok=True)
            return check(flags.folder)
        with tempfile.TemporaryDirectory(prefix="ilm-kills-") as temporary:
            return check(pathlib.Path(temporary))
    except UserError as error:
        print(f"kill_verbs: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
