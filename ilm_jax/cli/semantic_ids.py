"""`ilm semantic_ids`: codes of all items of a dataset, quantised from their vectors.

Reads tables of `ilm fit_cf`, writes a file of codes, which tasks name by `item_codes`, and prints
how the codes are used and how many items share one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from ilm_jax.cli.words import DATASET, parse_flags, split_bindings

if TYPE_CHECKING:
    from ilm_jax.runs.semantic_ids import SemanticIds


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        **DATASET,
        "sequences": (None, "Instead of raw files: lines of `user item item …`, oldest first."),
        "output": (None, "File to write (default: CACHE_DIR/codes/DATASET.safetensors)."),
        "extends": (None, "File of codes whose items keep theirs: new items get codes beside."),
    }
    for name, (value, text) in texts.items():
        flags.DEFINE_string(name, value, text, flag_values=values)
    lists = {
        "gin_file": "Recipe, such as runs/codes_rqvae.gin; then --levels and below do not count.",
        "gin_search_paths": "Folders in which recipes are looked for.",
    }
    for name, text in lists.items():
        flags.DEFINE_multi_string(name, [], text, flag_values=values)
    flags.DEFINE_list(
        "tables", [], "Files of `ilm fit_cf`; several stand side by side.", flag_values=values
    )
    flags.DEFINE_list("levels", ["256"] * 3, "Codes of each level.", flag_values=values)
    integers = {
        "collision_tokens": (16, 1, "Numbers of the last level at least."),
        "seed": (0, 0, "Of the first centroids."),
        "split_seed": (0, 0, "Of the hash that splits the items."),
    }
    for name, (number, least, text) in integers.items():
        flags.DEFINE_integer(name, number, text, lower_bound=least, flag_values=values)
    flags.DEFINE_float(
        "held_out_items", 0.1, "Share of the items in each held-out fold.", flag_values=values
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    With --gin_file (and --gin.NAME=VALUE) a recipe says how; without, the flags do.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.locks import one_writer

    bindings, rest = split_bindings(argv)
    values = _flags()
    parse_flags(values, "semantic_ids", rest)

    from ilm_jax.cf.semantic_ids import report

    making = _from_recipe(values, bindings) if values.gin_file else _from_flags(values, bindings)
    path = making.path
    with one_writer(path, "ilm semantic_ids", beside=True):
        codes = making.make(making.splits())
        codes.save(path)
    print(report(codes))
    print(f"wrote {path}; such as {codes.names[0]} for item {codes.item_ids[0]!r}")
    return 0


_DATA = ("dataset", "data_dir", "cache_dir", "sequences", "tables", "output", "extends")
_METHOD = ("levels", "collision_tokens", "seed", "split_seed", "held_out_items")


def _from_flags(values: flags.FlagValues, bindings: list[str]) -> "SemanticIds":
    from ilm_jax.data.catalogue.splits import SplitConfig
    from ilm_jax.errors import UserError
    from ilm_jax.runs.semantic_ids import ResidualKMeans, SemanticIds

    if bindings:
        raise UserError(f"--gin.{bindings[0]} needs a recipe: add --gin_file=runs/codes.gin")
    try:
        levels = tuple(int(size) for size in values.levels)
    except ValueError as error:
        raise UserError(f"--levels={','.join(values.levels)}: give numbers, as 64,64") from error
    return SemanticIds(
        **{name: getattr(values, name) for name in _DATA if name != "extends"},
        extends=values.extends or "",
        split=SplitConfig(values.held_out_items, values.split_seed),
        method=ResidualKMeans(levels, seed=values.seed),
        collision_tokens=values.collision_tokens,
    )


def _from_recipe(values: flags.FlagValues, bindings: list[str]) -> "SemanticIds":
    from ilm_jax.errors import UserError
    from ilm_jax.runs import gin_config
    from ilm_jax.runs.semantic_ids import SemanticIds

    given = [name for name in _METHOD if values[name].present]
    if given:
        raise UserError(f"--{given[0]} and a recipe: bind it in the recipe's names (--gin.…=…)")
    named = [
        f"semantic_ids.SemanticIds.{name}={values[name].value!r}"
        for name in _DATA
        if values[name].present
    ]
    return gin_config.build(
        SemanticIds, values.gin_file, [*named, *bindings], values.gin_search_paths
    )
