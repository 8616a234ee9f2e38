"""What the interaction losses of stage 1 are worth: stage 1 with both, with each, and without.

Every stage 1 takes as many steps of item-text losses, and those with item-item or user-item losses
take steps of these beside them (`STAGE_ONE`); `text-longer` takes as many steps of item-text losses
as `all` takes altogether, which tells more steps from other losses. Behind each, stage 2 reads the
texts of all training items, with the Q-Former frozen (the adaptor alone trains) or trained, at the
learning rate that few_texts.py chose, and of its run the checkpoint with the lowest validation loss
is measured. nll_content of test items is compared text by text over toy worlds, each with a seed of
its own, and world by world.

    python studies/losses.py [--worlds 0 1 2] [--readers frozen trained] [--model_dir runs/losses]
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence

import few_texts
import numpy as np
import scheduling
from scipy import stats
from steps import Step
from study import Study, plan

from ilm_jax.errors import UserError
from ilm_jax.evaluation.reports import results
from ilm_jax.files import trouble
from ilm_jax.locks import one_writer
from ilm_jax.metrics.intervals import compare
from ilm_jax.metrics.values import MetricValues
from ilm_jax.training import finished

# Losses of stage 1 -> (steps of each kind in turn, steps in all), of which 150 are of item_text but
# in the last.
STAGE_ONE = {
    "all": ({"item_text": 2, "item_item": 1, "user_item": 1}, 300),
    "text+items": ({"item_text": 2, "item_item": 1}, 225),
    "text+users": ({"item_text": 2, "user_item": 1}, 225),
    "text": ({"item_text": 1}, 150),
    "text-longer": ({"item_text": 1}, 300),
}
READERS = {"frozen": {few_texts.FROZEN: ("^adaptor/",)}, "trained": {}}
RATE = 3e-3  # of both readers behind stage 1, with all texts: studies/receipts/few_texts
METRIC = "nll_content"


def run_of(study: Study, reader: str, losses: str) -> pathlib.Path:
    """Folder of a stage 2."""
    return study.folder / f"{reader}-{losses}"


def steps_of(study: Study, readers: Sequence[str]) -> list[Step]:
    """Every step of one world, in order."""
    found = plan(study, ["ilm-rand"], False, until="stage1")
    for losses, (schedule, count) in STAGE_ONE.items():
        name = f"stage1-{losses}"
        bindings = {"CF_TABLE": str(study.table), "SCHEDULE": schedule, "TRAIN_STEPS": count}
        words = study.train(name, study.stage1, **bindings)
        found.append((name, words, study.folder / name / finished.FILE))
    for losses, reader in itertools.product(STAGE_ONE, readers):
        run = run_of(study, reader, losses)
        recipe = study.recipes["ilm"]
        assert recipe is not None
        words = study.train(
            run.name,
            recipe,
            LM_FROM=str(study.lm),
            CF_TABLE=str(study.table),
            QFORMER_FROM=str(study.folder / f"stage1-{losses}"),
            **few_texts.stage_two(RATE),
            **READERS[reader],
        )
        found.append((run.name, words, run / finished.FILE))
        output = run / "evaluation"
        measure = ["evaluate", f"--model_dir={run}", f"--output={output}", *few_texts.MEASURED]
        found.append((f"evaluate {run.name}", measure, output / results.SUMMARY))
    return found


def metric_of(study: Study, reader: str, losses: str) -> MetricValues:
    """nll_content of every test item of one run."""
    return results.read(run_of(study, reader, losses) / "evaluation").metrics[METRIC]


def report(studies: Sequence[Study], readers: Sequence[str]) -> str:
    """The text to print: each row's nll_content, and what it lacks of `all` and has of `text`.

    Raises:
      UserError: if two rows of a world were not measured on the same items.
    """
    lines = []
    for reader in readers:
        rows = {name: [metric_of(study, reader, name) for study in studies] for name in STAGE_ONE}
        lines += ["", f"Q-Former {reader} in stage 2; {METRIC} of test items by world, then pooled"]
        for name, metrics in rows.items():
            each = "  ".join(f"{metric.mean:.4f}" for metric in metrics)
            values, tokens = _joined(metrics)
            pooled = values.sum() / tokens.sum()
            lines.append(f"  {name:12} {each}   {pooled:.4f}")
        lines += [
            _difference(first, rows[first], second, rows[second])
            for first, second in itertools.combinations(STAGE_ONE, 2)
            if first == "all" or second == "text"
        ]
    return "\n".join(lines).strip()


def _difference(
    first: str, ours: Sequence[MetricValues], second: str, theirs: Sequence[MetricValues]
) -> str:
    for one, two in zip(ours, theirs, strict=True):
        if one.index.tolist() != two.index.tolist():
            raise UserError(f"{first} and {second} were measured on different items")
    values, tokens = _joined(ours)
    tested = compare(first, values, second, _joined(theirs)[0], tokens)
    said = f"  {tested}"
    if len(ours) > 1:
        means = [[metric.mean for metric in metrics] for metrics in (ours, theirs)]
        said += f"; over {len(ours)} worlds p = {stats.ttest_rel(*means).pvalue:.2g}"
    return said


def _joined(metrics: Sequence[MetricValues]) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights of all worlds' items."""
    weights = [np.asarray(metric.weights) for metric in metrics]
    return np.concatenate([metric.values for metric in metrics]), np.concatenate(weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the words and runs the study; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="losses.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--worlds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--model_dir", default="runs/losses", help="where everything is written")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--jobs", type=int, default=scheduling.default_jobs())
    flags = parser.parse_args(argv)
    studies = [
        Study(
            f"toy/world{world}" if world else "toy",
            world,
            pathlib.Path(flags.model_dir) / f"world{world}",
            cache_dir=flags.cache_dir,
            jobs=flags.jobs,
        )
        for world in flags.worlds
    ]
    try:
        for study in studies:
            with one_writer(study.folder, "studies/losses.py"):
                scheduling.run_steps(study, steps_of(study, flags.readers))
        print("\n" + report(studies, flags.readers))
    except (UserError, OSError) as error:
        print(f"losses.py: error: {trouble(error) or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
