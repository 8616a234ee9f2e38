"""`ilm evaluate`: figures of a trained run on held-out items and users."""

from collections.abc import Sequence

from absl import flags


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        "model_dir": "Folder of the run (its config.gin says the rest).",
        "output": "Folder for evaluation.json and per_example.npz (default: MODEL_DIR/evaluation).",
        "step": "Checkpoint: a step, 'best' (lowest validation loss) or 'last'. Default: best.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    numbers = {
        "users": (500, "Users of the fixed sample that is ranked; 0 for all."),
        "beams": (10, "Length of the ranked lists."),
    }
    for name, (default, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, lower_bound=0, flag_values=values)
    flags.DEFINE_bool("ranking", True, "Also rank; --noranking measures nll alone.",
                      flag_values=values)  # fmt: skip
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    `--gin.NAME=VALUE` overrides what the run was trained with, such as
    `--gin.TASK_FEATURE_LENGTHS="{'inputs': 76, 'targets': 36}"`.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli import words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "evaluate", rest)

    import pathlib

    from ilm_jax.errors import UserError

    if not values.model_dir:
        raise UserError("name a run: ilm evaluate --model_dir=DIR")
    model_dir = pathlib.Path(values.model_dir)
    config = model_dir / "config.gin"
    if not config.is_file():
        raise UserError(f"{model_dir} holds no config.gin: is it the MODEL_DIR of a run?")

    from ilm_jax.training.host_memory import keep_freed_memory

    keep_freed_memory()
    from ilm_jax.cli import gin_config
    from ilm_jax.evaluation import measure, results
    from ilm_jax.training.run import Run

    bindings = [f"MODEL_DIR={str(model_dir)!r}", *bindings]
    run = gin_config.build(Run, [str(config)], bindings)
    trained = measure.load_trained(run, values.step or "best")
    language = measure.measure_language(trained)
    ranking = None
    if values.ranking:
        ranking = measure.measure_ranking(trained, values.users or None, values.beams)
    output = pathlib.Path(values.output or model_dir / "evaluation")
    record = results.write(output, trained, language, ranking, values.beams)
    for name, value in record["figures"].items():
        print(f"{name:12} {value:.4f}")
    print(f"wrote {output}/evaluation.json and per_example.npz")
    return 0
