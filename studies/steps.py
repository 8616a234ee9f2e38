"""Running the steps of a study.

A step is finished if the same command, made from the same inputs, has left the output that is
there: FOLDER/steps holds a record of each. Anything else is refused, never taken for it.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from ilm_jax import __version__
from ilm_jax.checkpoints.identity import identity
from ilm_jax.checkpoints.published.companions import CONVERSION
from ilm_jax.cli import kept_programs
from ilm_jax.cli.words import split_bindings
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json
from ilm_jax.runs import gin_config
from ilm_jax.runs.fitting import FitCF
from ilm_jax.runs.run import Run
from ilm_jax.training import finished

if TYPE_CHECKING:
    from study import Study

HERE = pathlib.Path(__file__).parent
# gin has one configuration, whatever the thread.
_RECIPES = threading.Lock()

# Its name, the words after `ilm` (or a script of this folder and its words), the file that says it
# is done.
Step = tuple[str, list[str], pathlib.Path]


def run_step(
    study: "Study",
    name: str,
    command: list[str],
    done: pathlib.Path,
    earlier: Sequence[pathlib.Path],
    label: str,
    seconds: dict[str, float],
) -> bool:
    """Runs one step unless it is finished; returns whether it ran. Errors as `run_study`.

    Args:
      study: whose step it is.
      name, command: of the step.
      done: file that it leaves last.
      earlier: outputs of the steps before it.
      label: of its line.
      seconds: by step; added to.
    """
    file = study.folder / "steps" / f"{name.replace(' ', '_').replace('/', '_')}.json"
    with _RECIPES:
        record = _made_from(study, command, earlier)
    found = read_json(file)
    if done.exists():
        _check_made_from(found, record, name, done)
    else:
        _write(file, {**record, "output": ""})  # a kill between two files must not lose the step
        print(f"{label}{name}: {' '.join(_spoken(command))}", flush=True)
        start = time.monotonic()
        run_verb(command, name, study.folder, prefix=f"{name}: " if study.jobs > 1 else "")
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
        if command[0] == "train" and not done.exists():
            raise UserError(f"step {name!r} was stopped; the same command goes on with it")
        if not done.exists():
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
        found = {}
    if not found.get("output"):
        _write(file, {**record, "output": identity(output_of(done))})
    return not found


def _write(file: pathlib.Path, record: dict[str, Any]) -> None:
    with atomic_write(file) as stream:
        json.dump(record, stream, indent=1)


def output_of(done: pathlib.Path) -> pathlib.Path:
    """What a step made: a run's or a converted model's folder, or the file itself."""
    return done.parent if done.name in (finished.FILE, CONVERSION) else done


def is_named(path: pathlib.Path, command: Sequence[str]) -> bool:
    """Whether a command names a path, or one in it; also inside JSON."""
    whole = re.compile(re.escape(str(path)) + r"(?![\w.+-])")
    return any(whole.search(word) for word in command)


def _made_from(
    study: "Study", command: Sequence[str], earlier: Sequence[pathlib.Path]
) -> dict[str, Any]:
    """The command, the data, and what it reads: outputs of earlier steps, a published model."""
    named = [str(path) for path in (*earlier, *study.files) if is_named(path, command)]
    named += [word.partition("=")[2] for word in command if word.startswith("--source=")]
    return {
        "command": list(command),
        "data": study.data,
        "recipe": _recipe(command),
        "version": __version__,
        **{name: identity(name) for name in named},
    }


def recipe_bindings(command: Sequence[str], leave_out: Container[str]) -> dict[str, str]:
    """What a step that trains binds, without some names.

    The code's defaults are not in it, so that a setting which is new somewhere makes no other
    recipe of all that was trained before it; they go with the version.
    """
    bindings, rest = split_bindings(command[1:])
    gin_config.build(Run, [word.partition("=")[2] for word in rest], bindings)
    recipe = gin_config.bindings_of(gin_config.operative_config(defaults=False))
    return {name: value for name, value in recipe.items() if name not in leave_out}


def fit_bindings(command: Sequence[str]) -> dict[str, str]:
    """What the recipe of `ilm fit_cf` binds; empty without one, where flags say all."""
    files = [word.partition("=")[2] for word in command if word.startswith("--gin_file=")]
    if not files:
        return {}
    gin_config.build(FitCF, files, split_bindings(command[1:])[0])
    return gin_config.bindings_of(gin_config.operative_config(defaults=False))


def _recipe(command: Sequence[str]) -> str:
    """Digest of what a step that trains or fits binds."""
    if command[0] == "train":
        return sha256_json(recipe_bindings(command, finished.PLACES))
    found = fit_bindings(command) if command[0] == "fit_cf" else {}
    return sha256_json(found) if found else ""


def _check_made_from(
    found: dict[str, Any], record: dict[str, Any], name: str, done: pathlib.Path
) -> None:
    """Raises UserError unless what is there was made as it would be made now."""
    output = output_of(done)
    here = {**record, "output": identity(output) if found.get("output") else ""}
    changed = [key for key in {**found, **here} if found.get(key) != here.get(key)]
    if "command" in changed:
        before, now = set(found.get("command", [])), set(record["command"])
        changed[changed.index("command")] = (
            f"command ({' '.join(sorted(before - now)) or 'nothing'}, now "
            f"{' '.join(sorted(now - before)) or 'nothing'})"
        )
    if changed:
        raise UserError(
            f"{output} is not what step {name!r} would make now: other {', '.join(changed)}; "
            "give another --model_dir, or delete it to have it made anew"
        )


def _spoken(command: Sequence[str]) -> list[str]:
    """The command as a person would type it."""
    script = command[0].endswith(".py")
    return ["python", f"studies/{command[0]}", *command[1:]] if script else ["ilm", *command]


def run_verb(command: list[str], name: str, folder: pathlib.Path, prefix: str = "") -> None:
    """Runs `ilm …`, or a script of this folder; raises UserError if it fails.

    Programs that one step of a study compiled are read by the next, from `folder`/compiled: rows
    differ in little, and compiling is much of the time of a short run.

    Args:
      command: the words after `ilm`, or the script and its words.
      name: of the step, for the message.
      folder: of the study.
      prefix: of every line that it prints, where others print too.
    """
    shared = {
        kept_programs.PLACE: str(folder / "compiled"),
        kept_programs.LEAST_SECONDS: kept_programs.ALL,
    }
    script = command[0].endswith(".py")
    start = [str(HERE / command[0]), *command[1:]] if script else ["-m", "ilm_jax", *command]
    words, env = [sys.executable, *start], {**shared, **os.environ}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if prefix else {}
    with subprocess.Popen(words, env=env, **piped) as process:  # type: ignore[call-overload]
        for line in process.stdout or ():
            print(f"{prefix}{line}", end="", flush=True)
    if process.returncode:
        raise UserError(
            f"step {name!r} failed (exit code {process.returncode}); its message is above"
        )


def read_json(path: pathlib.Path) -> dict:
    """The parsed file; empty if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}
