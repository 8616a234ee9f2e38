"""What the studies of collaborative filtering read: a dataset by name, or a file of sequences."""

import argparse
import pathlib

from ilm_jax.cf.interactions import Interactions, catalogue_from_sequences
from ilm_jax.data.prepare import load_catalogue
from ilm_jax.data.splits import SplitConfig, Splits, make_splits


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
