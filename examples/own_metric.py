"""Adds two metrics of one's own, of lists and of texts, and evaluates a run with them.

`ilm evaluate`, the evaluation during training and `ilm compare` have them with their intervals
wherever this module is imported: by a recipe's line `import examples.own_metric`, or by

    ilm evaluate --import=examples.own_metric --model_dir=MODEL_DIR

Without a MODEL_DIR of yours it trains a language model of the toy world for some steps first: about
2 minutes on two CPU cores, and too short for good answers.

    python examples/own_metric.py [FOLDER] [--model_dir=MODEL_DIR] [--steps=100]
"""

import argparse
import collections
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

import ilm_jax
from ilm_jax.evaluation.evaluate import evaluate
from ilm_jax.evaluation.evaluator import EvaluationConfig


def alone(predictions: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """Share of a user's list [users, length] that nobody else was shown; -1 fills short lists."""
    shown = collections.Counter(item for row in predictions for item in {*row.tolist()})
    counts = np.vectorize(lambda item: shown[item])(predictions)
    real = predictions >= 0
    return np.sum((counts == 1) & real, axis=1) / np.maximum(1, real.sum(axis=1))


def distinct_2(predictions: Sequence[str], targets: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Different pairs of neighbouring words of each text, and how many it has: sum over sum."""
    words = [text.split() for text in predictions]
    pairs = [list(zip(w, w[1:], strict=False)) for w in words]
    return np.array([len({*p}) for p in pairs]), np.array([len(p) for p in pairs])


# One value per user, one per text; a NaN would say that there is none.
ilm_jax.register_metric(ilm_jax.Metric("alone", "items", alone, higher_is_better=None))
ilm_jax.register_metric(ilm_jax.Metric("distinct_2", "text", distinct_2))


def train(folder: pathlib.Path, steps: int) -> pathlib.Path:
    """A language model that reads prompts in words alone."""
    model_dir = folder / "lm"
    ilm_jax.train(
        "tiny/stage0.gin", MODEL_DIR=model_dir, CACHE_DIR=folder / "cache", TRAIN_STEPS=steps
    )
    return model_dir


def main(folder: pathlib.Path, model_dir: pathlib.Path | None, steps: int) -> None:
    """Prints all metrics of a run, these two among them."""
    lengths = {} if model_dir else {"TASK_FEATURE_LENGTHS": {"inputs": 100, "targets": 36}}
    run = ilm_jax.open_run(model_dir or train(folder, steps), bindings=lengths)
    record = evaluate(run.model, folder / "evaluation", EvaluationConfig(users=64, texts=32))
    for name, interval in record["intervals"].items():
        print(f"{name:20} {interval['mean']:.4f}  [{interval['low']}, {interval['high']}]")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--model_dir", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=100)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(words.folder or pathlib.Path(temporary), words.model_dir, words.steps)
