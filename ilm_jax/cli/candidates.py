"""`ilm candidates`: lists of items to rank, fixed in a file for whoever is compared on them.

Writes JSON lines, a list for every user of validation and test, for the task `ranking`
(`KnowledgeSettings.candidates_file`), and prints how many there are and the file's SHA-256.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from ilm_jax.cli.words import DATASET, parse_flags


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        **DATASET,
        "output": (None, "File to write (default: CACHE_DIR/candidates/DATASET.jsonl)."),
    }
    for name, (value, text) in texts.items():
        flags.DEFINE_string(name, value, text, flag_values=values)
    integers = {
        "candidates": (20, 2, "Items in a list, the right one included."),
        "seed": (0, 0, "Of the draws."),
        "split_seed": (0, 0, "Of the hash that splits the items."),
    }
    for name, (number, least, meaning) in integers.items():
        flags.DEFINE_integer(name, number, meaning, lower_bound=least, flag_values=values)
    flags.DEFINE_enum(
        "drawn",
        "uniform",
        ["uniform", "popularity"],
        "How the others are drawn; popularity: likelier the more often they were chosen.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "held_out_items", 0.1, "Share of the items in each held-out fold.", flag_values=values
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    values = _flags()
    parse_flags(values, "candidates", argv)

    from ilm_jax.data.catalogue.splits import SplitConfig, make_splits
    from ilm_jax.data.examples.candidates import draw_all, write_candidates
    from ilm_jax.data.sources.prepare import load_catalogue
    from ilm_jax.errors import UserError
    from ilm_jax.files import default_cache_dir, sha256_file
    from ilm_jax.locks import one_writer

    name = f"{values.dataset.replace('/', '_')}.jsonl"
    cache_dir = pathlib.Path(values.cache_dir or default_cache_dir()).expanduser()
    path = pathlib.Path(values.output or cache_dir / "candidates" / name).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file, such as {path}.jsonl")
    catalogue = load_catalogue(values.dataset, data_dir=values.data_dir, cache_dir=values.cache_dir)
    splits = make_splits(catalogue, SplitConfig(values.held_out_items, values.split_seed))
    with one_writer(path, "ilm candidates", beside=True):
        lists = draw_all(splits, values.candidates, seed=values.seed, by=values.drawn)
        settings = {"candidates": values.candidates, "drawn": values.drawn, "seed": values.seed}
        write_candidates(path, splits, lists, settings)
    print(f"{len(lists)} lists of {values.candidates}, drawn by {values.drawn}, seed {values.seed}")
    print(f"wrote {path}; sha256 {sha256_file(path)}")
    return 0
