"""`ilm export`: a trained run's decoding as a folder that jax and numpy alone can run."""

from collections.abc import Sequence

from absl import flags


def _flags() -> flags.FlagValues:
    from ilm_jax.cli import opening

    values = flags.FlagValues()
    opening.define_run(values)
    opening.define_decoding(values, 64)
    flags.DEFINE_string(
        "output", None, "Folder to be made; an earlier export is replaced.", flag_values=values
    )
    flags.DEFINE_enum(
        "answer",
        "text",
        ["text", "items"],
        "text: greedily, or by --beams. items: --beams of the catalogue, best first, by the run's "
        "item head where it has one.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "weights",
        "arguments",
        ["arguments", "constants"],
        "Whether the weights lie beside the function or inside it.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "platforms", ["cpu"], "Lowered for: cpu, cuda, rocm, tpu.", flag_values=values
    )
    numbers = {
        "batch_size": (1, 1, "Prompts at once."),
        "prompt_length": (0, 0, "Positions of a prompt, bos included. 0: as in training."),
        "max_excluded": (64, 1, "Of items: so many may be no candidates, per prompt."),
    }
    for name, (default, least, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, lower_bound=least, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli import opening, words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "export", rest)

    from ilm_jax.errors import UserError

    if not values.output:
        raise UserError("name both folders: ilm export --model_dir=RUN --output=DIR")
    opening.check_decoding(values)

    from ilm_jax.locks import one_writer
    from ilm_jax.serving.exporting import check_replaceable

    check_replaceable(values.output)
    with one_writer(values.output, "ilm export", beside=True):
        return _export(values, bindings)


def _export(values: flags.FlagValues, bindings: Sequence[str]) -> int:
    from ilm_jax import progress
    from ilm_jax.cli import opening
    from ilm_jax.data.tokenizers import record_of
    from ilm_jax.errors import UserError
    from ilm_jax.serving import exporting
    from ilm_jax.serving.answering import Answerer

    run = opening.open_run(values.model_dir, bindings, "export")
    ranks = values.answer == "items"
    # Lists are ten long, and ranked by log p, unless somebody says otherwise.
    for name, value in {"beams": 10, "length_penalty": 0.0}.items():
        if ranks and values[name].using_default_value:
            setattr(values, name, value)
    if ranks and values.beams > run.catalogue.num_items:
        raise UserError(
            f"--beams={values.beams}: give a number from 1 to {run.catalogue.num_items}, all items"
        )
    trained = opening.load(run, values.step)
    base, tokenizer = run.dataset, run.tokenizer
    length = values.prompt_length or base.task_feature_lengths["inputs"] + 1
    answerer = Answerer.of_trained(trained, length=length, slots=base.row_entities)
    progress.note(f"lowering for {', '.join(values.platforms)}")
    manifest = exporting.export(
        values.output,
        answerer.generator,
        opening.decoding(values, run.stop_ids, tokenizer.pad_id),
        exporting.Shape(values.batch_size, length, base.row_entities, values.max_excluded),
        trie=answerer.trie if ranks and not answerer.shelf else None,
        shelf=answerer.shelf if ranks else None,
        platforms=values.platforms,
        closed=values.weights == "constants",
        tokenizer=tokenizer,
        item_ids=run.catalogue.item_ids,
        notes={
            "model": str(values.model_dir),
            "step": trained.step,
            "bos_id": tokenizer.bos_id,
            "tokenizer": tokenizer.fingerprint,
            "prompt_format": record_of(tokenizer),
            "num_queries": trained.objective.num_queries,
            "blocks": {name: [block.start, block.size] for name, block in run.tables.blocks.items()}
            if run.tables
            else {},
        },
    )
    shown = ", ".join(f"{name} {x['shape']}" for name, x in manifest["prompts"].items())
    print(f"takes {shown}; for {', '.join(manifest['platforms'])}")
    print(f"wrote {values.output}")
    return 0
