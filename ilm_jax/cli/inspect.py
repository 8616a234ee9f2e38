"""`ilm inspect`: what a dataset holds, which tasks and mixtures there are, and how examples look.

ilm inspect --dataset custom --data_dir DIR       validates a folder of yours, and shows samples
ilm inspect --dataset toy                         tasks and mixtures with sizes and rates
ilm inspect --dataset toy --task bpr --num 3      examples of one task, slots visible
ilm inspect --dataset toy --task bpr --full       lengths of all its examples too

Sizes come from indices and samples are made when they are shown, so that it answers at once.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from ilm_jax.cli.words import DATASET, parse_flags

if TYPE_CHECKING:
    from ilm_jax.data.catalogue.splits import Splits
    from ilm_jax.data.examples.task_settings import TaskSettings
    from ilm_jax.data.formats.columns import Columns
    from ilm_jax.data.tokenizers import Tokenizer


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    texts = {
        **DATASET,
        "settings": ("{}", 'JSON of task settings to change, such as {"history": 20}.'),
        "task": (None, "Show examples of this task, by its full or short name."),
        "split": ("train", "train, validation or test."),
    }
    for name, (default, text) in texts.items():
        flags.DEFINE_string(name, default, text, flag_values=values)
    flags.DEFINE_bool(
        "full",
        False,
        "Count every task, whatever that takes; with --task: lengths of all its examples.",
        flag_values=values,
    )
    flags.DEFINE_integer("num", 3, "Examples to show.", lower_bound=1, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Runs the verb with the words after it; returns the exit code.

    Raises:
      UserError: for wrong input.
    """
    from ilm_jax.cli.inspect_tasks import overview, show, statistics

    values = _flags()
    parse_flags(values, "inspect", argv)

    from ilm_jax.data.catalogue.splits import make_splits
    from ilm_jax.data.examples.settings_json import settings_from
    from ilm_jax.data.examples.task_families import find_spec
    from ilm_jax.data.examples.task_settings import SPLITS
    from ilm_jax.data.sources.prepare import load_catalogue
    from ilm_jax.data.sources.registry import source_of
    from ilm_jax.data.tokenizers.losses import of_catalogue
    from ilm_jax.errors import UserError
    from ilm_jax.files import default_cache_dir

    if values.split not in SPLITS:
        raise UserError(f"no split {values.split!r}; there are {', '.join(SPLITS)}")
    spec = find_spec(values.dataset, values.task) if values.task else None
    settings = settings_from(_json(values.settings))
    cache_dir = pathlib.Path(values.cache_dir or default_cache_dir()).expanduser()
    source = source_of(values.dataset)
    if values.data_dir and source.custom_format:
        print(recognised(values.data_dir), flush=True)
    catalogue = load_catalogue(values.dataset, data_dir=values.data_dir, cache_dir=cache_dir)
    splits = make_splits(catalogue, settings.split)
    tokenizer = known_tokenizer(values.dataset, settings, splits, cache_dir)
    if spec is not None:
        print(show(spec, splits, settings, tokenizer, values.split, values.num))
        if values.full:
            print("\n" + statistics(spec, splits, settings, tokenizer))
        return 0
    print(facts(splits))
    if tokenizer is not None:
        for losses in of_catalogue(tokenizer, catalogue.titles, catalogue.texts):
            print(f"note: {losses.described()}")
    if source.first_look and values.data_dir and not values.full:
        for sample in source.first_look:
            spec = find_spec(values.dataset, sample)
            print("\n" + show(spec, splits, settings, tokenizer, values.split, values.num))
        print(f"\nall tasks with their sizes: ilm inspect --dataset {values.dataset}")
        return 0
    print("\n" + overview(values.dataset, splits, settings, tokenizer, values.full))
    return 0


def _json(text: str) -> dict[str, Any]:
    from ilm_jax.cli.cache_tasks import parse_settings

    return parse_settings(text)


def recognised(folder: str) -> str:
    """Which files of a user's folder are what, and under which names their columns are read."""
    from ilm_jax.data.formats import notes
    from ilm_jax.data.formats.columns import read_columns
    from ilm_jax.data.sources import custom

    found = custom.recognise(folder)
    columns = read_columns(found.interactions.parent)
    with notes.collected():  # the catalogue has them all
        lines = [f"interactions  {found.interactions}", *_read_as(found.interactions, columns)]
        lines.append(f"items         {found.items or 'none: items go by their ids'}")
        lines += _read_as(found.items, columns) if found.items else []
    if found.columns:
        given = {name: value for name, value in vars(columns).items() if value}
        lines.append(f"columns       {found.columns}")
        lines.append(_UNDER + ", ".join(f"{n} = {v!r}" for n, v in given.items()))
    here = sorted(path for path in found.interactions.parent.iterdir() if path.is_file())
    others = [path.name for path in here if path not in found.files and path.name[0] != "."]
    if others:
        lines.append(f"not read      {', '.join(others)}")
    return "\n".join(lines)


_UNDER = " " * 14


def _read_as(path: pathlib.Path, columns: "Columns") -> list[str]:
    """Which column is read as what, how lists are cut, and which are not read."""
    from ilm_jax.data.sources import custom

    found = custom.read_as(path, columns)
    if not found.fields:
        return []
    line = _UNDER + ", ".join(f"{field} = {name}" for field, name in found.fields.items())
    line += f" ({found.categories})" if found.categories else ""
    return [line + (f"; not read: {', '.join(found.unread)}" if found.unread else "")]


def facts(splits: "Splits") -> str:
    """Counts of a catalogue and its split, and what deserves a look."""
    import numpy as np

    catalogue, report = splits.catalogue, splits.report()
    lengths = np.diff(catalogue.offsets)
    rated = float(np.mean(np.isfinite(catalogue.ratings))) if len(catalogue.ratings) else 0.0
    lines = [
        f"{report['dataset']} {report['version']}: {report['users']} users, "
        f"{catalogue.num_items} items, {report['interactions']} interactions "
        f"({report['train_interactions']} train)",
        f"per user {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}; "
        f"rated {rated:.0%}; items of the folds train / validation / test "
        + " / ".join(str(count) for count in report["items"].values()),
    ]
    notes = {
        "users without targets (under 3 interactions)": report["users_under_three_interactions"],
        "users whose last two interactions tie in time": report["users_with_tied_last_two"],
        "items without a training interaction": report["cold_items"],
        "items whose title is their id": sum(
            title == raw for title, raw in zip(catalogue.titles, catalogue.item_ids, strict=True)
        ),
        "items that share their title with another": catalogue.num_items
        - len(set(catalogue.titles)),
        "interactions with an item chosen before": catalogue.extras.get("repeats", 0),
    }
    lines += [f"note: {count} {what}" for what, count in notes.items() if count]
    if any(catalogue.extras.get("left_out", {}).values()):
        lines.append(f"note: left out by the k-core {catalogue.extras['left_out']}")
    if catalogue.extras.get("untimed"):
        lines.append("note: no timestamps; the order of the file is taken as the order in time")
    lines += [f"note: {note}" for note in catalogue.extras.get("notes", [])]
    return "\n".join(lines)


def known_tokenizer(
    dataset: str, settings: "TaskSettings", splits: "Splits", cache_dir: pathlib.Path
) -> "Tokenizer | None":
    """The tokenizer that the settings name or that has been trained; None before that."""
    from ilm_jax.data.examples.task_keys import tokenizer_path
    from ilm_jax.data.streams.task_tokenizer import laid_out

    path = tokenizer_path(dataset, settings, splits.catalogue.fingerprint, cache_dir)
    if not settings.tokenizer and not path.exists():
        return None
    return laid_out(path, settings)
