"""One study: the steps from raw data to evaluated rows, each a verb that a person would type.

Finished steps are skipped and half-done ones resume, so an interrupted study goes on where it was.
A step is finished if the same command, made from the same inputs, has left the output that is
there: FOLDER/steps holds a record of each. Anything else is refused, never taken for it.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ilm_jax import __version__
from ilm_jax.checkpoints.identity import identity
from ilm_jax.cli.words import split_bindings
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write, sha256_json
from ilm_jax.locks import one_writer
from ilm_jax.runs import gin_config
from ilm_jax.runs.run import Run
from ilm_jax.training import finished

# Row -> recipe; text-zero is the frozen language model of stage 0 as it stands.
RECIPES = {
    "text-zero": None,
    "prompt": "tiny/stage2_prompt.gin",
    "mlp": "tiny/stage2_mlp.gin",
    "ilm-rand": "tiny/stage2_ilm_rand.gin",
    "ilm": "tiny/stage2_ilm.gin",
    "text-full": "tiny/stage2_text_full.gin",
}
# Rows with soft tokens in the prompts, from the floor of them up.
READER_ROWS = ("prompt", "mlp", "ilm-rand", "ilm")
# What tiny/data.gin sets, for the verb that prepares the caches.
SETTINGS = '{"history": 5, "corpus": {"sequential_examples": 1500, "word_variants": 8}}'
# Stage 0 was trained without prompts, so evaluating it needs the lengths of stage 2.
PROMPT_LENGTHS = {"toy": {"inputs": 100, "targets": 36}}
# MovieLens texts are longer than the toy world's, for which the tiny recipes are cut.
PROMPT_LENGTHS["movielens"] = {"inputs": 136, "targets": 112}
LONGER: dict[str, dict[str, object]] = {
    "stage0": {"TASK_FEATURE_LENGTHS": {"inputs": 0, "targets": 208}},
    "stage1": {
        "TASK_FEATURE_LENGTHS": {"text": 112},
        "qformer.QFormerConfig.max_text_length": 112,
    },
    "stage2": {"TASK_FEATURE_LENGTHS": PROMPT_LENGTHS["movielens"]},
}


@dataclasses.dataclass(frozen=True)
class Study:
    """One dataset, one seed, one folder."""

    dataset: str
    seed: int
    folder: pathlib.Path
    data_dir: str | None = None
    cache_dir: str | None = None

    @property
    def table(self) -> pathlib.Path:
        """The CF vectors of this study."""
        return self.folder / "cf.safetensors"

    @functools.cached_property
    def data(self) -> str:
        """Fingerprint of the catalogue; the first call prepares it."""
        where = {"data_dir": self.data_dir, "cache_dir": self.cache_dir}
        return load_catalogue(self.dataset, **where).fingerprint

    def data_flags(self) -> list[str]:
        """Flags that name the dataset to every data verb."""
        flags = [f"--dataset={self.dataset}"]
        flags += [f"--data_dir={self.data_dir}"] if self.data_dir else []
        return flags + ([f"--cache_dir={self.cache_dir}"] if self.cache_dir else [])

    @property
    def family(self) -> str:
        """The dataset's name without its configuration."""
        return self.dataset.split("/")[0]

    def longer(self, stage: str) -> dict[str, object]:
        """Bindings that make room for a dataset's longer texts."""
        if self.family == "toy":
            return {}
        bindings = LONGER.get(stage, LONGER["stage2"])
        if self.family == "movielens":
            return bindings
        # Texts of any length: what does not fit is cut, and counted.
        return {**bindings, "dataset_config.DatasetConfig.truncate_targets": True}

    def train(self, stage: str, recipe: str, **bindings: object) -> list[str]:
        """The command that trains one stage or row."""
        values = {
            "MODEL_DIR": str(self.folder / stage),
            "DATASET": self.dataset,
            "SEED": self.seed,
            **({"DATA_DIR": self.data_dir} if self.data_dir else {}),
            **({"CACHE_DIR": self.cache_dir} if self.cache_dir else {}),
            **self.longer(stage),
            **bindings,
        }
        words = [f"--gin.{name}={value!r}" for name, value in values.items()]
        return ["train", f"--gin_file={recipe}", *words]

    def train_row(self, row: str, stage: str = "", **bindings: object) -> list[str]:
        """The command that trains a row of the comparison, in the folder `stage` or its own."""
        sources: dict[str, object] = {"LM_FROM": str(self.folder / "stage0")}
        if row in READER_ROWS:
            sources["CF_TABLE"] = str(self.table)
        if row == "ilm":
            sources["QFORMER_FROM"] = str(self.folder / "stage1")
        recipe = RECIPES[row]
        assert recipe is not None, f"{row} is not trained"
        return self.train(stage or row, recipe, **sources, **bindings)


def plan(
    study: Study,
    rows: Sequence[str],
    ranking: bool,
    *,
    until: str = "",
    trained: Mapping[str, str] | None = None,
) -> list[tuple[str, list[str], pathlib.Path]]:
    """(name, words after `ilm`, file that says it is done) of every step, in order.

    Args:
      study, rows, ranking: see `run_study`.
      until: "stage1" leaves out the rows themselves, with their evaluation.
      trained: folders in the study's that hold rows which need no more training.
    """
    folder = study.folder
    steps = [
        (
            "data",
            ["cache_tasks", *study.data_flags(), f"--settings={SETTINGS}", "--workers=2"],
            folder / "data_is_ready",
        ),
        (
            "cf",
            ["fit_cf", *study.data_flags(), f"--output={study.table}", f"--seed={study.seed}"],
            study.table,
        ),
        ("stage0", study.train("stage0", "tiny/stage0.gin"), folder / "stage0/last_run.json"),
    ]
    if "ilm" in rows:
        steps.append(
            (
                "stage1",
                study.train("stage1", "tiny/stage1.gin", CF_TABLE=str(study.table)),
                folder / "stage1/last_run.json",
            )
        )
    if until == "stage1":
        return steps
    for row in rows:
        recipe, place = RECIPES[row], (trained or {}).get(row)
        if recipe is not None and place is None:
            steps.append((row, study.train_row(row), folder / row / "last_run.json"))
        run = folder / (place or (row if recipe else "stage0"))
        output = folder / row / "evaluation"
        command = ["evaluate", f"--model_dir={run}", f"--output={output}"]
        # All users are ranked, all held-out items scored and described.
        command += [] if ranking else ["--noranking", "--nogeneration"]
        if recipe is None:
            lengths = PROMPT_LENGTHS.get(study.family, PROMPT_LENGTHS["movielens"])
            command.append(f"--gin.TASK_FEATURE_LENGTHS={lengths}")
        steps.append((f"evaluate {row}", command, output / "evaluation.json"))
    return steps


def run_study(
    study: Study, rows: Sequence[str], *, ranking: bool = True, **plans: Any
) -> dict[str, float]:
    """Runs every missing step. Returns seconds by step, kept in the folder.

    Args:
      study: whose.
      rows: of the comparison.
      ranking: whether lists and texts are measured beside nll.
      **plans: see `plan`.

    Raises:
      UserError: if a step fails, was stopped, or was made by another command or from other inputs.
    """
    with one_writer(study.folder, "studies/reproduce.py"):
        return _run_steps(study, plan(study, rows, ranking, **plans))


def _run_steps(study: Study, steps: list[tuple[str, list[str], pathlib.Path]]) -> dict[str, float]:
    seconds = read_json(study.folder / "seconds.json")
    outputs: list[pathlib.Path] = []
    for number, (name, command, done) in enumerate(steps, 1):
        if run_step(study, name, command, done, outputs, f"[{number}/{len(steps)}] ", seconds):
            with atomic_write(study.folder / "seconds.json") as stream:
                json.dump(seconds, stream, indent=1)
        outputs.append(_output(done))
    return seconds


def run_step(
    study: Study,
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
    record = _made_from(study, command, earlier)
    found = read_json(file)
    if done.exists():
        _check_made_from(found, record, name, done)
    else:
        _write(file, {**record, "output": ""})  # a kill between two files must not lose the step
        print(f"{label}{name}: ilm {' '.join(command)}", flush=True)
        start = time.monotonic()
        run_verb(command, name, study.folder)
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
        if command[0] == "train" and not done.exists():
            raise UserError(f"step {name!r} was stopped; the same command goes on with it")
        if not done.exists():
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
        found = {}
    if not found.get("output"):
        _write(file, {**record, "output": identity(_output(done))})
    return not found


def _write(file: pathlib.Path, record: dict[str, Any]) -> None:
    with atomic_write(file) as stream:
        json.dump(record, stream, indent=1)


def _output(done: pathlib.Path) -> pathlib.Path:
    """What a step made: a run's folder, or the file itself."""
    return done.parent if done.name == finished.FILE else done


def _made_from(
    study: Study, command: Sequence[str], earlier: Sequence[pathlib.Path]
) -> dict[str, Any]:
    """The command, the data and the outputs of earlier steps that it names."""
    values = {word.partition("=")[2].strip("'") for word in command}
    named = [path for path in earlier if str(path) in values]
    return {
        "command": list(command),
        "data": study.data,
        "recipe": _recipe(command),
        "version": __version__,
        **{str(path): identity(path) for path in named},
    }


def _recipe(command: Sequence[str]) -> str:
    """Digest of the operative configuration of a step that trains."""
    if command[0] != "train":
        return ""
    bindings, rest = split_bindings(command[1:])
    gin_config.build(Run, [word.partition("=")[2] for word in rest], bindings)
    recipe = gin_config.bindings_of(gin_config.operative_config())
    return sha256_json({n: v for n, v in recipe.items() if n not in finished.PLACES})


def _check_made_from(
    found: dict[str, Any], record: dict[str, Any], name: str, done: pathlib.Path
) -> None:
    """Raises UserError unless what is there was made as it would be made now."""
    output = _output(done)
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


def run_verb(command: list[str], name: str, folder: pathlib.Path) -> None:
    """Runs `ilm …`; raises UserError if it fails.

    Programs that one step of a study compiled are read by the next, from `folder`/compiled: rows
    differ in little, and compiling is half the time of a short run.
    """
    shared = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }
    result = subprocess.run(
        [sys.executable, "-m", "ilm_jax", *command], check=False, env={**shared, **os.environ}
    )
    if result.returncode:
        raise UserError(
            f"step {name!r} failed (exit code {result.returncode}); its message is above"
        )


def read_json(path: pathlib.Path) -> dict:
    """The parsed file; empty if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}
