"""`ilm train`: one stage, from gin recipes to a MODEL_DIR."""

from collections.abc import Sequence

from absl import flags


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "Recipe; found in the current folder, --gin_search_paths or among the "
        "shipped ones (such as tiny/stage1.gin). Repeatable; later ones override.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "gin_search_paths", [], "Folders in which recipes are looked for.", flag_values=values
    )
    flags.DEFINE_bool(
        "multiprocess",
        False,
        "This is one of several processes that the cluster knows of (Cloud "
        "TPU pods, Slurm): start the same command on every host.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "profile_steps",
        "",
        "Trace these steps into MODEL_DIR/profile, such as 10:15.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "lease",
        45.0,
        "Seconds without a sign of life after which a process on another host that "
        "wrote into MODEL_DIR is taken for dead.",
        lower_bound=1.0,
        flag_values=values,
    )
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

    from ilm_jax.compilation.abstract import step_flops
    from ilm_jax.runs.opening import run_of_recipe
    from ilm_jax.runs.training import train_run

    run = run_of_recipe(values.gin_file, bindings, values.gin_search_paths)
    outcome = train_run(
        run,
        multiprocess=values.multiprocess,
        lease=values.lease,
        profile_steps=values.profile_steps,
        count_flops=step_flops,
    )

    import jax

    if jax.process_index() or outcome.stopped:
        return 0
    if outcome.was_finished:
        print(f"{run.model_dir} had made all its steps: nothing is written")
    else:
        print(f"wrote {run.model_dir}")
    return 0
