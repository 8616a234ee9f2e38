"""Metrics and answers in the files of seqio's JSONLogger, written without TensorFlow.

`<task>-metrics.jsonl` gets one line per evaluation, {"step", metric: value, …};
`<task>-<step>.jsonl` one line per example, {"input", "target", "prediction" or "score"}.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ilm_jax.data.examples.example import Example
from ilm_jax.files import atomic_write


def append_metrics(
    folder: str | os.PathLike, task: str, step: int, metrics: Mapping[str, float]
) -> None:
    """Adds a line; lines of this step and later ones, left by a run that was resumed, go."""
    path = pathlib.Path(folder) / f"{task}-metrics.jsonl"
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in old if json.loads(line)["step"] < step]
    numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    with atomic_write(path) as stream:
        stream.writelines(line + "\n" for line in kept)
        stream.write(json.dumps({"step": step, **numbers}) + "\n")


def write_answers(
    folder: str | os.PathLike,
    task: str,
    step: int,
    examples: Iterable[Example],
    targets: Iterable[object],
    **inferences: Iterable[object],
) -> None:
    """Writes the answers to all examples.

    Args:
      folder: made if absent.
      task: registered name.
      step: of the parameters.
      examples: of the prompts; arrays become lists.
      targets: what stood there.
      **inferences: `prediction=…` or `score=…`, one per example.
    """
    names = list(inferences)
    with atomic_write(pathlib.Path(folder) / answers_name(task, step)) as stream:
        for example, target, *found in zip(examples, targets, *inferences.values(), strict=True):
            plain = {name: _plain(value) for name, value in example.items()}
            line = {"input": plain, "target": _plain(target)}
            line |= {name: _plain(value) for name, value in zip(names, found, strict=True)}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def answers_name(task: str, step: int) -> str:
    """Of the file that `write_answers` writes."""
    return f"{task}-{step:06}.jsonl"


def input_fields(example: Example, words: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """An example's fields in a file, by seqio's names: `inputs` and `inputs_pretokenized`, ….

    Args:
      example: of a prompt task.
      words: of its inputs, such as `PromptTokenizer.decode_prompt`.
    """
    hidden = ("targets_content", "history_bounds", "target_text")
    shown = {
        name: value
        for name, value in example.items()
        if name not in hidden and not (isinstance(value, np.ndarray) and not len(value))
    }
    return {
        **shown,
        "inputs_pretokenized": words(np.asarray(example["inputs"]).tolist()),
        "targets_pretokenized": example["target_text"],
    }


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
