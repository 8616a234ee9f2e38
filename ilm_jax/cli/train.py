"""`ilm train`: one stage, from gin recipes to a MODEL_DIR."""

from collections.abc import Sequence

from absl import flags


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "gin_file", [], "Recipe; found in the current folder, --gin_search_paths or among the "
        "shipped ones (such as tiny/stage1.gin). Repeatable; later ones override.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_list(
        "gin_search_paths", [], "Folders in which recipes are looked for.", flag_values=values
    )
    flags.DEFINE_bool(
        "multiprocess", False, "This is one of several processes that the cluster knows of (Cloud "
        "TPU pods, Slurm): start the same command on every host.", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "profile_steps", "", "Trace these steps into MODEL_DIR/profile, such as 10:15.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_float(
        "lease", 45.0, "Seconds without a sign of life after which a process on another host that "
        "wrote into MODEL_DIR is taken for dead.", lower_bound=1.0, flag_values=values,
    )  # fmt: skip
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    `--gin.NAME=VALUE` binds macros and parameters, as in t5x.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli import words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "train", rest)

    from ilm_jax.errors import UserError

    if not values.gin_file:
        raise UserError("name a recipe: ilm train --gin_file=tiny/stage0.gin --gin.MODEL_DIR=…")

    import time

    from ilm_jax.runs import gin_config
    from ilm_jax.training.host_memory import keep_freed_memory

    keep_freed_memory()
    import jax

    from ilm_jax.compilation.abstract import step_flops
    from ilm_jax.runs.run import Run
    from ilm_jax.sharding.processes import writing
    from ilm_jax.training import finished

    start = time.monotonic()
    run = gin_config.build(Run, values.gin_file, bindings, values.gin_search_paths)
    run.processes.start(values.multiprocess)
    with writing(run.model_dir, "ilm train", values.lease):
        recipe = gin_config.operative_config()
        trainer = run.make_trainer(recipe)
        trainer.profile_steps = values.profile_steps
        trainer.step_flops = step_flops(run)
        metrics = trainer.fit()
        if jax.process_index() or trainer.stopped:  # the record says that a run is finished
            return 0
        if trainer.was_finished and finished.read(run.model_dir):
            print(f"{run.model_dir} had made all its steps: nothing is written")
            return 0
        finished.write(
            run.model_dir, seconds=time.monotonic() - start, step=trainer.step,
            validation=metrics, recipe=gin_config.bindings_of(recipe), inputs=run.inputs(),
        )  # fmt: skip
    print(f"wrote {run.model_dir}")
    return 0
