"""Published forms that people point at by mistake, recognised by name."""

import pathlib
from collections.abc import Collection, Sequence

AMAZON_2023 = (
    "this is the form of Amazon Reviews 2023: give the folder of its files as --data_dir of "
    "--dataset amazon2023/<category>; or take its rating-only CSV as interactions.csv of a custom "
    'dataset, with Columns.item = "parent_asin" in columns.gin (and Columns.id = "parent_asin" if '
    "its metadata are the items.jsonl)"
)
# What a folder holds, by files that are there together; "*" stands for any beginning.
_FORMS = (
    (("ratings.dat", "movies.dat", "tags.dat"), "MovieLens 10M, which has no name here"),
    (("ratings.dat", "movies.dat"), "movielens/1m"),
    (("ratings.csv", "movies.csv"), "movielens/32m, movielens/25m or movielens/latest_small"),
    (("u.data", "u.item"), "movielens/100k"),
    (("*.inter",), "RecBole's: --dataset custom"),
    (("user_sequence.txt",), "openp5/… or custom"),
    (("sequential_data.txt",), "openp5/… or custom"),
    (("interactions.*",), "custom"),
    (("meta_*.jsonl",), "amazon2023/<category>"),
    (("meta_*.jsonl.gz",), "amazon2023/<category>"),
    (("steam_reviews.json*",), "steam"),
    (("goodreads_interactions_*",), "goodreads/<genre>"),
    (("yelp_academic_dataset_review.json*",), "yelp"),
    (("meta_*.json.gz",), "amazon/…"),
    (("meta_*.json",), "amazon/…"),
)
_ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar", ".bz2", ".xz")


def is_amazon_2023(keys: Collection[str]) -> bool:
    """Whether a record or header is of Amazon Reviews 2023 by its keys."""
    return "parent_asin" in keys


def explain(folder: pathlib.Path, wanted: Sequence[str] = ()) -> str:
    """What a folder is that lacks the files of a dataset, as "; …", or "" if it is unknown.

    Args:
      folder: what was given as --data_dir.
      wanted: names of files that it should hold.
    """
    if folder.is_file():
        packed = folder.suffix in _ARCHIVES
        return f"; {folder.name} is a file" + (": unpack it and give the folder" if packed else "")
    if not folder.is_dir():
        return ""
    packed_names = [name + end for name in wanted for end in (".gz", ".zip", ".bz2", ".xz")]
    packed_there = [name for name in packed_names if (folder / name).is_file()]
    if packed_there:
        return f"; unpack {packed_there[0]}"
    inside = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir() and wanted and all((path / name).is_file() for name in wanted)
    ]
    if inside:
        return f"; they lie in its folder {inside[0]}"
    for names, what in _FORMS:
        if all(any(folder.glob(name)) for name in names) and not set(names) <= set(wanted):
            return f"; its {' and '.join(names)} are those of {what}"
    archives = [path.name for path in sorted(folder.iterdir()) if path.suffix in _ARCHIVES]
    return f"; unpack {archives[0]}" if archives and wanted else ""
