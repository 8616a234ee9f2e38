"""What the studies of collaborative filtering read, and what they keep in a folder."""

import argparse
import json
import pathlib
from typing import Any

from ilm_jax import __version__
from ilm_jax.cf.interactions import Interactions, catalogue_from_sequences
from ilm_jax.data.catalogue.splits import SplitConfig, Splits, make_splits
from ilm_jax.data.sources.prepare import load_catalogue
from ilm_jax.errors import UserError
from ilm_jax.files import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that name the data."""
    parser.add_argument("--dataset", default="toy", help="such as toy or movielens/1m")
    parser.add_argument("--data_dir", help="folder of the raw files (not for toy)")
    parser.add_argument("--cache_dir", help="prepared data (default: $ILM_CACHE or ~/.cache)")
    parser.add_argument("--sequences", help="instead: a file of lines `user item item …`")


def load(arguments: argparse.Namespace) -> tuple[Splits, Interactions]:
    """(leave-one-out splits without held-out items, training interactions)."""
    if arguments.sequences:
        path = pathlib.Path(arguments.sequences)
        catalogue = catalogue_from_sequences(path, f"sequences/{path.parent.name}")
    else:
        catalogue = load_catalogue(
            arguments.dataset, data_dir=arguments.data_dir, cache_dir=arguments.cache_dir
        )
    splits = make_splits(catalogue, SplitConfig(held_out_items=0.0))
    sizes = catalogue.num_users, catalogue.num_items
    return splits, Interactions.from_pairs(*splits.train_interactions(), *sizes)


def claim(folder: pathlib.Path, splits: Splits, **settings: Any) -> None:
    """Notes in a folder of kept results what all of them are of.

    Raises:
      UserError: if it holds results of other data or settings, which would be taken for these.
    """
    path = folder / "about.json"
    about = {"split": splits.fingerprint, "version": __version__, **settings}
    if path.exists() and (kept := json.loads(path.read_text())) != about:
        differing = sorted(name for name in kept | about if kept.get(name) != about.get(name))
        raise UserError(
            f"{folder} holds results of another {', '.join(differing)}: give another --folder"
        )
    with atomic_write(path) as stream:
        json.dump(about, stream)
