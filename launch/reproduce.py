"""Runs whole studies by the verbs a person would type, and prints one table.

    python launch/reproduce.py quickstart [--dataset toy] [--data_dir DIR] [--model_dir DIR] [--seed 0]
    python launch/reproduce.py order [--pairs 0:0 1:1 2:2 3:3 4:4] [--model_dir DIR]

`quickstart` runs data, CF, stages 0, 1 and 2 and the evaluation of every row on one dataset.
`order` repeats the three adaptor rows on several (toy world, seed) pairs and tests whether
nll_content of ilm is below ilm-rand, and that below mlp. Finished steps are skipped, half-done
ones resume, so an interrupted study goes on where it was.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time

from ilm_jax.errors import UserError
from ilm_jax.evaluation import report as reports
from ilm_jax.files import atomic_write

# Row -> recipe; text-zero is the frozen language model of stage 0 as it stands.
RECIPES = {
    "text-zero": None,
    "mlp": "tiny/stage2_mlp.gin",
    "ilm-rand": "tiny/stage2_ilm_rand.gin",
    "ilm": "tiny/stage2_ilm.gin",
    "text-full": "tiny/stage2_text_full.gin",
}
ADAPTOR_ROWS = ("mlp", "ilm-rand", "ilm")


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

    def data_flags(self) -> list[str]:
        """Flags that name the dataset to every data verb."""
        flags = [f"--dataset={self.dataset}"]
        flags += [f"--data_dir={self.data_dir}"] if self.data_dir else []
        return flags + ([f"--cache_dir={self.cache_dir}"] if self.cache_dir else [])

    def train(self, stage: str, recipe: str, **bindings: object) -> list[str]:
        """The command that trains one stage or row."""
        values = {
            "MODEL_DIR": str(self.folder / stage),
            "DATASET": self.dataset,
            "SEED": self.seed,
            **({"DATA_DIR": self.data_dir} if self.data_dir else {}),
            **({"CACHE_DIR": self.cache_dir} if self.cache_dir else {}),
            **bindings,
        }
        words = [f"--gin.{name}={value!r}" for name, value in values.items()]
        return ["train", f"--gin_file={recipe}", *words]


def run_study(study: Study, rows: list[str]) -> dict[str, float]:
    """Runs every missing step. Returns seconds of training by stage and row, kept in the folder."""
    folder = study.folder
    steps: list[tuple[str, list[str], pathlib.Path]] = [
        ("data", ["cache_tasks", *study.data_flags()], folder / ".data"),
        ("cf", ["fit_cf", *study.data_flags(), f"--output={study.table}", f"--seed={study.seed}"],
         study.table),
        ("stage0", study.train("stage0", "tiny/stage0.gin"), folder / "stage0/done.json"),
    ]  # fmt: skip
    table, stage0, stage1 = str(study.table), str(folder / "stage0"), str(folder / "stage1")
    if "ilm" in rows:
        steps.append(("stage1", study.train("stage1", "tiny/stage1.gin", CF_TABLE=table),
                      folder / "stage1/done.json"))  # fmt: skip
    for row in rows:
        recipe = RECIPES[row]
        if recipe is not None:
            sources = {"LM_FROM": stage0}
            sources |= {"CF_TABLE": table} if row in ADAPTOR_ROWS else {}
            sources |= {"QFORMER_FROM": stage1} if row == "ilm" else {}
            command = study.train(row, recipe, **sources)
            steps.append((row, command, folder / row / "done.json"))
        trained = folder / (row if recipe else "stage0")
        output = folder / row / "evaluation"
        command = ["evaluate", f"--model_dir={trained}", f"--output={output}"]
        if recipe is None:
            command.append("--gin_file=tiny/evaluate_text_zero.gin")
        steps.append((f"evaluate {row}", command, output / "evaluation.json"))
    seconds = _read_json(folder / "seconds.json")
    for number, (name, command, done) in enumerate(steps, 1):
        if done.exists():
            continue
        print(f"[{number}/{len(steps)}] {name}: ilm {' '.join(command)}", flush=True)
        start = time.monotonic()
        _run(command, name)
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - start
        with atomic_write(folder / "seconds.json") as stream:
            json.dump(seconds, stream, indent=1)
        if not done.exists():
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
    return seconds


def _run(command: list[str], name: str) -> None:
    result = subprocess.run([sys.executable, "-m", "ilm_jax", *command], check=False)
    if result.returncode:
        raise UserError(f"step {name!r} failed (exit code {result.returncode}); its message is above")


def _read_json(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}
