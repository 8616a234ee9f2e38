"""Amazon product reviews with metadata, 2014 and 2018: one record per line, gzip or not.

Reviews are JSON lines {"reviewerID", "asin", "overall", "unixReviewTime", …} in both. Metadata of
2018 are JSON lines too; those of 2014 are Python dictionaries, which are parsed as literals and
never evaluated. Both are published per category, see https://cseweb.ucsd.edu/~jmcauley/datasets.html.

A user's second review of an item is left out (the first stays) and counted, as in the published
5-core files; reviews of items without metadata keep the item by its id. Metadata of 2018 hold
pieces of the pages that they were taken from: scripts, styles and tags never reach a text (see
data/formats/markup.py), and a title or price that is nothing else is missing, which is counted.
The form of 2023 is recognised and refused: it has a source of its own (amazon2023.py).
"""

import array
import collections
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ilm_jax.data import spill
from ilm_jax.data.catalogue.catalogue import Catalogue
from ilm_jax.data.formats import (
    columnar,
    columnar_records,
    markup,
    notes,
    published,
    raw_lines,
    record_lines,
    record_values,
)
from ilm_jax.data.formats.coded import Coded, Coder
from ilm_jax.data.formats.columns import MISSING
from ilm_jax.data.formats.interaction_files import Interactions
from ilm_jax.data.formats.items import Item, ItemTableBuilder
from ilm_jax.data.formats.json_lines import check_escapes
from ilm_jax.data.sources.assemble import assemble
from ilm_jax.data.sources.dataset_source import DatasetSource
from ilm_jax.errors import UserError
from ilm_jax.files import sha256_file

VERSION = "1.1.0"
CORE = 5
LONGEST_DESCRIPTION = 600
_ENDS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_LAYOUT = "the folder holds reviews (reviews_X.json.gz or X.json.gz) and metadata (meta_X.json.gz)"
LONGEST_PRICE = 40


def files(folder: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path | None]:
    """(reviews, metadata or None) of a folder.

    Raises:
      UserError: unless there is one file of reviews and at most one of metadata.
    """
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        hint = published.explain(folder)
        raise UserError(f"{folder}: no such folder{hint}; {_LAYOUT}")
    there = sorted(path for path in folder.iterdir() if path.name.endswith(_ENDS))
    meta = [path for path in there if path.name.startswith("meta")]
    reviews = [path for path in there if path not in meta]
    if len(reviews) != 1 or len(meta) > 1:
        names = ", ".join(path.name for path in there) or "nothing of the kind"
        hint = "" if there else published.explain(folder, ("reviews.json",))
        if not there and any(folder.glob("*.csv")):
            hint = "; ratings alone, as CSV, are a custom dataset: interactions.csv with a header"
        raise UserError(f"{folder}: found {names}{hint}; {_LAYOUT}, one of each")
    return reviews[0], meta[0] if meta else None


def source_hashes(folder: str | os.PathLike) -> dict[str, str]:
    """SHA-256 of the files; errors as `files`."""
    return {path.name: sha256_file(path) for path in files(folder) if path}


def read(folder: str | os.PathLike, name: str, core: int = CORE) -> Catalogue:
    """Dataset `amazon/<name>` after iterative k-core.

    Raises:
      UserError: with file and line, for whatever does not fit.
    """
    review_path, meta_path = files(folder)
    with notes.collected() as said:
        reviews, again = read_reviews(review_path)
        chosen = set(Coded.of(reviews.item).values)
        known = read_metadata(meta_path, chosen) if meta_path else {}
        items = ItemTableBuilder()
        for raw in Coded.of(reviews.item).values:
            items.add(raw, known.get(raw, Item(raw)))
        found = assemble(name, VERSION, reviews, items.done(), core)
    found.extras["reviews_left_out_as_repeats"] = again
    found.extras["items_without_metadata"] = sum(raw not in known for raw in found.item_ids)
    return notes.kept(found, said)


def records(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, record) of JSON lines or of Python dictionaries, gzip or not.

    Raises:
      UserError: with file and line, for anything else.
    """
    for number, line in record_lines.text_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = record_lines.literal(line)
            if record is None:
                raw_lines.fail(path, number, "neither JSON nor a Python dictionary")
        if not isinstance(record, dict):
            raw_lines.fail(path, number, f"a {type(record).__name__} instead of an object")
        if published.is_amazon_2023(record):
            raw_lines.fail(path, number, f"keys {list(record)[:12]}", published.AMAZON_2023)
        check_escapes(path, number, line, record)
        yield number, record


def read_reviews(path: pathlib.Path) -> tuple[Interactions, int]:
    """Reviews as interactions, and how many were left out as a user's second of an item."""
    found = columnar.attempt(path, lambda: reviews_by_columns(path))
    return once(found or reviews_strictly(path))


def reviews_by_columns(path: pathlib.Path) -> Interactions:
    """All reviews of a plain file of JSON lines.

    Raises:
      NotPlainError, UserError, UnicodeDecodeError, pyarrow.ArrowException: where the strict reader
        has to judge.
    """
    import pyarrow

    kinds = {"reviewerID": pyarrow.string(), "asin": pyarrow.string()}
    kinds |= {"overall": pyarrow.float64(), "unixReviewTime": pyarrow.int64()}
    foreign = (*columnar_records.ESCAPES, b'"parent_asin"')
    users, items = columnar.Texts(), columnar.Texts()
    ratings, times = spill.Growing(np.float32), spill.Growing(np.int64)
    for batch in columnar_records.batches(path, kinds, foreign):
        who, what, rating, time = batch.columns
        if any(column.null_count for column in batch.columns):
            raise columnar.NotPlainError("a field is missing")
        values, seconds = rating.to_numpy(), time.to_numpy()
        if not ((values > 0) & (values <= 5) & (seconds >= 0) & (seconds < 2**40)).all():
            raise columnar.NotPlainError("a rating or a time")
        users.append(who)
        items.append(what)
        ratings.append(values)
        times.append(seconds)
    user, item = users.coded(), items.coded()
    for ids, name in ((user, "reviewerID"), (item, "asin")):
        for raw in ids.values:
            _word(path, 1, {name: raw}, name)
    if not len(user):
        raise columnar.NotPlainError("no reviews")
    stamps, lines = times.done(), range(1, len(user) + 1)
    return Interactions(path, user, item, ratings.done(), stamps, stamps, lines)


def reviews_strictly(path: pathlib.Path) -> Interactions:
    """All reviews, line by line."""
    users, items = Coder(), Coder()
    ratings, times, lines = array.array("f"), array.array("q"), array.array("q")
    for line, record in records(path):
        user, item = _word(path, line, record, "reviewerID"), _word(path, line, record, "asin")
        rating, time = record.get("overall"), record.get("unixReviewTime")
        if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 < rating <= 5:
            raw_lines.fail(path, line, f"overall {str(rating)[:40]!r} is no number up to 5")
        if isinstance(time, bool) or not isinstance(time, int) or not 0 <= time < 2**40:
            raw_lines.fail(path, line, f"unixReviewTime {str(time)[:40]!r} is no time in seconds")
        users.append(user)
        items.append(item)
        ratings.append(float(rating))
        times.append(time)
        lines.append(line)
    if not users:
        raise UserError(f"{path}: no reviews in it")
    stamps = np.array(times, np.int64)
    return Interactions(
        path,
        users.done(),
        items.done(),
        np.array(ratings, np.float32),
        stamps,
        stamps,
        np.array(lines, np.int64),
    )


def once(reviews: Interactions) -> tuple[Interactions, int]:
    """(the first review of each item by each user, how many others there were)."""
    users, items = Coded.of(reviews.user), Coded.of(reviews.item)
    pairs = users.codes.astype(np.int64) * len(items.values) + items.codes
    order = np.argsort(pairs, kind="stable")
    again = order[1:][np.diff(pairs[order]) == 0]
    if not len(again):
        return reviews, 0
    keep = np.ones(len(pairs), bool)
    keep[again] = False
    return Interactions(
        reviews.path,
        Coded(users.codes[keep], users.values),
        Coded(items.codes[keep], items.values),
        reviews.rating[keep],
        reviews.timestamp[keep],
        None if reviews.order is None else reviews.order[keep],
        np.asarray(reviews.line)[keep],
    ), len(again)


def _word(path: pathlib.Path, line: int, record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raw_lines.fail(path, line, f"{name} is {str(value)[:40]!r}; keys: {list(record)[:12]}")
    return record_values.word(path, line, record, name)


def read_metadata(path: pathlib.Path, wanted: set[str]) -> dict[str, Item]:
    """Items by asin: title, description (cut after a sentence), categories, brand and price.

    Of an asin that the file has twice (2018's has many) the first stays.
    """
    items: dict[str, Item] = {}
    lost: collections.Counter[str] = collections.Counter()
    for line, record in records(path):
        asin = _word(path, line, record, "asin")
        if asin not in wanted or asin in items:
            continue
        found = {name: _shown(path, line, record, name, lost) for name in _TEXTS}
        title = found["title"] or asin
        items[asin] = Item(
            title=title,
            text=_described(title, found["description"]),
            categories=tuple(_categories(path, line, record)),
            attributes=tuple((name, found[name]) for name in ("brand", "price") if found[name]),
            line=line,
        )
    for name, count in lost.items():
        notes.count(
            count,
            len(items),
            f"items in {path.name} have nothing but a page's script, "
            f"style or the like as {name}, read as missing",
        )
    return items


_TEXTS = ("title", "description", "brand", "price")


def _shown(
    path: pathlib.Path, line: int, record: dict[str, Any], name: str, lost: collections.Counter[str]
) -> str:
    """A field as plain text; "" where it is missing, or has no words of its own (counted)."""
    given = _text(path, line, record, name)
    text = plain(given)
    priced = any(letter.isdigit() for letter in text) and len(text) <= LONGEST_PRICE
    if text in MISSING or (name == "price" and not priced):
        text = ""
    whole = record.get(name)
    there = any(str(part).strip() for part in (whole if isinstance(whole, list) else [given]))
    lost[name] += there and not text
    return text


def _text(path: pathlib.Path, line: int, record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        # Each by itself: one of them may be a script.
        value = " ".join(filter(None, map(plain, value)))
    whole = isinstance(value, int) and not isinstance(value, bool)  # of any length
    number = whole or (isinstance(value, float) and math.isfinite(value))
    if value is not None and not number and not isinstance(value, str):
        raw_lines.fail(path, line, f"{name} is {str(value)[:40]!r}, neither a text nor a number")
    return "" if value is None else str(value)


def _categories(path: pathlib.Path, line: int, record: dict[str, Any]) -> list[str]:
    """2014: a list of paths, of which the longest is taken; 2018: one path."""
    found = record.get("category") or record.get("categories") or []
    if isinstance(found, list) and found and all(isinstance(part, list) for part in found):
        found = max(found, key=len)
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raw_lines.fail(path, line, f"categories are {str(found)[:40]!r}, not a list of texts")
    return [name for name in map(plain, found) if name]


plain = markup.plain


def _described(title: str, text: str) -> str:
    """The description, cut after the last sentence that fits; "" where it says nothing."""
    if len(text) <= LONGEST_DESCRIPTION:
        return text if text != title else ""
    cut = text[:LONGEST_DESCRIPTION]
    end = cut.rfind(". ")
    return cut[: end + 1] if end > 0 else cut[: cut.rfind(" ")] if " " in cut else cut


SOURCE = DatasetSource(
    "amazon",
    VERSION,
    read,
    lambda folder, release: source_hashes(folder),
    pattern=r"[a-z0-9_]{1,40}",
    examples=("amazon/<any name>",),
)
