"""`ilm precompile`: a recipe compiled for its TPU pod on a machine that has no TPU."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from ilm_jax.compilation.abstract import Program
    from ilm_jax.compilation.topology import Topology
    from ilm_jax.sharding.partitioning import Partitioner

    _Compiled = tuple[Topology, Partitioner, Iterator[Program], int]


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "Recipe, as for `ilm train`, such as pods/gemma2_9b_v5e_256.gin.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "gin_search_paths", [], "Folders in which recipes are looked for.", flag_values=values
    )
    flags.DEFINE_bool(
        "fit",
        False,
        "The recipe is one of `ilm fit_cf`, such as pods/sasrec_v5e_16.gin, and table_rows the "
        "catalogue's items.",
        flag_values=values,
    )
    texts = {
        "topology": "Pod, such as v5e:16x16, v5p-128 or v5e:8x8*2. Default: the recipe's TOPOLOGY.",
        "output": "JSON file for the figures.",
        "only": "Part of the names of the programs to compile, such as 'train' or 'decode'.",
        "table": "Folder of such JSON files: print them as one Markdown table, compile nothing.",
    }
    for name, text in texts.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    numbers = {
        "table_rows": (1_000_000, "Items and users that have CF vectors."),
        "decode_rows": (256, "Prompts that are decoded at once; 0 leaves decoding out."),
        "decode_steps": (64, "Tokens that are decoded."),
    }
    for name, (default, text) in numbers.items():
        flags.DEFINE_integer(name, default, text, lower_bound=0, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns 0, or 1 if a program does not fit.

    Nothing is opened but the recipe: neither data nor checkpoints, whose places may be left out.

    Raises:
      UserError: for wrong input, or without the TPU compiler.
    """
    from ilm_jax.cli import words

    bindings, rest = words.split_bindings(argv)
    values = _flags()
    words.parse_flags(values, "precompile", rest)

    if values.table:
        print(_table(values.table), end="")
        return 0

    from ilm_jax.compilation import report, tables
    from ilm_jax.errors import UserError

    if not values.gin_file:
        raise UserError("name a recipe: ilm precompile --gin_file=pods/gemma2_9b_v5e_256.gin")

    topology, partitioner, wanted, steps = (_of_fit if values.fit else _of_run)(values, bindings)
    devices = list(partitioner.mesh.devices.flat)
    chosen = [program for program in wanted if (values.only or "") in program.name]
    if not chosen:
        raise UserError(f"no program's name contains --only={values.only}")
    done, took = report.compile_programs(chosen, topology, devices)
    recipe = values.gin_file[-1].removesuffix(".gin").removeprefix("pods/")
    mesh, rows = partitioner.mesh_config, chosen[0].rows
    record = report.summary(recipe, topology, mesh, rows, steps, done, took)
    print("\n".join(tables.lines(record)))
    if values.output:
        _write(values.output, record)
    return 0 if record["fits"] else 1


def _of_run(values: flags.FlagValues, bindings: Sequence[str]) -> "_Compiled":
    """(pod, its mesh, programs, steps) of a recipe of `ilm train`."""
    from ilm_jax.compilation.abstract import programs
    from ilm_jax.runs import gin_config
    from ilm_jax.runs.run import Run

    run = gin_config.build(
        Run, values.gin_file, bindings, values.gin_search_paths, unnamed="(not opened)"
    )
    topology, partitioner = _pod(values.topology or run.topology, run.partitioner)
    wanted = programs(
        run,
        partitioner,
        table_rows=values.table_rows,
        decode_rows=values.decode_rows,
        decode_steps=values.decode_steps,
    )
    return topology, partitioner, wanted, run.trainer.total_steps


def _of_fit(values: flags.FlagValues, bindings: Sequence[str]) -> "_Compiled":
    """(pod, its mesh, programs, 0: data say how many steps) of a recipe of `ilm fit_cf`."""
    from ilm_jax.compilation.fits import fit_programs
    from ilm_jax.runs import gin_config
    from ilm_jax.runs.fitting import FitCF

    fit = gin_config.build(FitCF, values.gin_file, bindings, values.gin_search_paths)
    topology, partitioner = _pod(values.topology, fit.partitioner)
    return topology, partitioner, fit_programs(fit, partitioner, values.table_rows), 0


def _pod(name: str | None, partitioner: "Partitioner") -> "tuple[Topology, Partitioner]":
    import dataclasses

    from ilm_jax.compilation.topology import Topology
    from ilm_jax.errors import UserError

    if not name:
        raise UserError("the recipe names no TOPOLOGY: add --topology=v5e:16x16, say")
    topology = Topology.parse(name)
    return topology, dataclasses.replace(partitioner, devices=topology.devices())


def _table(folder: str) -> str:
    """One table of the records that were written into a folder."""
    import json
    import pathlib

    from ilm_jax.compilation import tables
    from ilm_jax.errors import UserError

    files = sorted(pathlib.Path(folder).glob("*.json"))
    if not files:
        raise UserError(f"{folder} holds no JSON files of `ilm precompile --output`")
    return tables.markdown([json.loads(file.read_text()) for file in files])


def _write(path: str, record: Mapping[str, object]) -> None:
    import json

    from ilm_jax.files import atomic_write

    with atomic_write(path) as stream:
        json.dump(record, stream, indent=1)
    print(f"wrote {path}")
