"""Trains what recipes describe: from gin to a MODEL_DIR with a record that it is finished."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence

import jax

from ilm_jax.runs import gin_config
from ilm_jax.runs.opening import Bindings, as_texts, run_of_recipe
from ilm_jax.runs.run import Run
from ilm_jax.sharding.processes import writing
from ilm_jax.training import finished
from ilm_jax.training.resuming import validation_at

LEASE = 45.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a call of `train_run`.

    Attributes:
      metrics: of the last validation.
      stopped: it was asked to stop before the last step; the same call goes on from there.
      was_finished: all steps had been made before.
    """

    metrics: Mapping[str, float]
    stopped: bool = False
    was_finished: bool = False


def train(
    recipes: str | Sequence[str],
    *,
    bindings: Bindings = (),
    search_paths: Sequence[str] = (),
    **macros: object,
) -> Mapping[str, float]:
    """Trains one stage, or goes on with it; in a notebook or a script.

        ilm_jax.train("tiny/stage0.gin", MODEL_DIR="runs/lm", TRAIN_STEPS=100)

    Args:
      recipes: such as "tiny/stage1.gin"; see `run_of_recipe`.
      bindings: of parameters, such as {"qformer.QFormerConfig.num_queries": 4}.
      search_paths: folders in which recipes are looked for.
      **macros: such as MODEL_DIR and CF_TABLE.

    Returns:
      The last validation's metrics.

    Raises:
      UserError: for a wrong recipe, or a MODEL_DIR that was made from something else.
    """
    named = [*as_texts(bindings), *as_texts(macros)]
    return train_run(run_of_recipe(recipes, named, search_paths)).metrics


def train_run(
    run: Run,
    *,
    multiprocess: bool = False,
    lease: float = LEASE,
    profile_steps: str = "",
    count_flops: Callable[[Run], Mapping[str, float]] | None = None,
) -> Outcome:
    """Trains a run that gin has just built, as its only writer.

    Args:
      run: of `run_of_recipe`; the operative configuration is its config.gin.
      multiprocess: this is one of several processes that the cluster knows of.
      lease: seconds without a sign of life after which a writer on another host is taken for dead.
      profile_steps: steps to trace into MODEL_DIR/profile, such as "10:15".
      count_flops: gives the FLOPs of a step of each kind, for the log's MFU.

    Raises:
      UserError: see `train`.
    """
    start = time.monotonic()
    run.processes.start(multiprocess)
    with writing(os.fspath(run.model_dir), "ilm train", lease):
        recipe = gin_config.operative_config()
        trainer = run.make_trainer(recipe)
        trainer.profile_steps = profile_steps
        if count_flops is not None:
            trainer.step_flops = count_flops(run)
        inputs = run.inputs()  # as they are read; they may be replaced while the run trains
        metrics = trainer.fit()
        if jax.process_index() or trainer.stopped:  # the record says that a run is finished
            return Outcome(metrics, stopped=trainer.stopped)
        if trainer.was_finished and finished.read(run.model_dir):
            return Outcome(metrics, was_finished=True)
        finished.write(
            run.model_dir,
            seconds=time.monotonic() - start,
            step=trainer.step,
            # Of what evaluation opens, which the last checkpoint need not be.
            validation=validation_at(run.model_dir, trainer.best_step or trainer.step) or metrics,
            recipe=gin_config.bindings_of(recipe),
            inputs=inputs,
        )
    return Outcome(metrics)
