"""A second reader of the corpora of records, the judge of ours: written on its own."""

import ast
import datetime
import gzip
import json
import math
import time
import unicodedata
import urllib.parse

import numpy as np

from ilm_jax.data.formats.markup import plain
from ilm_jax.data.sources.goodreads import HABITS
from tests.data.slow_readers import csv_records, lines_of

NOTHING = {"", "nan", "NaN", "None", "null", "NULL", "<NA>"}


def records(raw):
    for line in lines_of(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw):
        try:
            yield json.loads(line)
        except ValueError:
            yield ast.literal_eval(line)


def told(rows, unit=1):
    """Rows (user, item, rating, time) without a user's later ones of an item, and their number."""
    best = {}
    for number, (user, item, rating, when) in enumerate(rows):
        if (user, item) not in best or when < best[user, item][1]:
            best[user, item] = (number, when, rating)
    kept = sorted((number, pair, rating, when) for pair, (number, when, rating) in best.items())
    found = [(*pair, np.float32(rating), when // unit) for _, pair, rating, when in kept]
    return [*found, len(rows) - len(best)]


def amazon_2023(raw):
    return told(
        [
            (str(r["user_id"]), str(r["parent_asin"]), float(r["rating"]), int(r["timestamp"]))
            for r in records(raw)
        ],
        1000,
    )


def amazon_2023_csv(raw):
    header, *rows = csv_records(raw)
    assert header[:4] == ["user_id", "parent_asin", "rating", "timestamp"]
    return told([(r[0], r[1], float(r[2]), int(r[3])) for r in rows], 1000)


def steam(raw):
    rows = []
    for r in records(raw):
        name = "".join(
            urllib.parse.quote(c, errors="surrogatepass")
            if c == "%" or (c != " " and unicodedata.category(c)[0] in "CZ") or c.isspace()
            else c
            for c in r["username"]
        )
        if name:
            rows.append((name, str(r["product_id"]), math.nan, midnight(r["date"])))
    return told(rows)


def midnight(text):
    return 86400 * (datetime.date.fromisoformat(text[:10]) - datetime.date(1970, 1, 1)).days + (
        sum(int(n) * 60**k for k, n in enumerate(reversed(text[11:].split(":"))))
        if text[10:]
        else 0
    )


def goodreads(raw):
    rows = []
    for r in records(raw):
        _, month, day, clock, zone, year = r["date_added"].split(" ")
        when = time.strptime(f"{day} {month} {year} {clock} +0000", "%d %b %Y %H:%M:%S %z")
        hours = int(zone[1:3]) + int(zone[3:]) / 60
        seconds = int(time.mktime((*when[:8], 0))) - time.timezone
        seconds -= round(3600 * (-hours if zone[0] == "-" else hours))
        rating = float(r["rating"]) or math.nan
        rows.append((str(r["user_id"]), str(r["book_id"]), rating, seconds))
    return told(rows)


def yelp(raw):
    return told(
        [
            (str(r["user_id"]), str(r["business_id"]), float(r["stars"]), midnight(r["date"]))
            for r in records(raw)
        ]
    )


def texts(value):
    """What a value says: a list of texts on one line each, without markup."""
    values = value if isinstance(value, list) else [value]
    flat = [part for v in values for part in (v if isinstance(v, list) else [v])]
    found = [str(v) for v in flat if v is not None and str(v).strip() not in NOTHING]
    return [text for text in map(plain, found) if text]


def first(*values):
    return next((found for found in map(texts, values) if found), [])


def named(**values):
    pairs = [(name, ", ".join(found)) for name, found in values.items()]
    return tuple((n, v) for n, v in pairs if any(c.isalnum() for c in v) and len(v) <= 40)


def items(raw, wanted, name, read):
    found = {}
    for r in records(raw):
        if name in r and str(r[name]) in wanted and str(r[name]) not in found:
            title, text, categories, attributes = read(r)
            title = " ".join(title) or str(r[name])
            text = " ".join(text)
            assert len(text) <= 600 or "9" * 600 in text  # none of these files is longer
            categories = tuple(dict.fromkeys(categories))
            found[str(r[name])] = (title, "" if text == title else text, categories, attributes)
    return [(raw_id, *rest) for raw_id, rest in found.items()]


def amazon_2023_items(raw, wanted):
    def read(r):
        details = r.get("details") or {}
        details = json.loads(details) if isinstance(details, str) else details
        return (
            texts(r.get("title")),
            texts(r.get("description")) + texts(r.get("features")),
            first(r.get("categories"), r.get("main_category")),
            named(brand=first(details.get("Brand"), r.get("store")), price=texts(r.get("price"))),
        )

    return items(raw, wanted, "parent_asin", read)


def steam_items(raw, wanted):
    def read(r):
        more = {name: texts(r.get(name)) for name in ("developer", "publisher", "price")}
        categories = first(r.get("genres"), r.get("tags"))
        return first(r.get("title"), r.get("app_name")), [], categories, named(**more)

    return items(raw, wanted, "id", read)


def goodreads_items(raw, wanted):
    def read(r):
        shelves = texts([shelf.get("name") for shelf in r.get("popular_shelves") or []])
        shelves = [name for name in dict.fromkeys(shelves) if name not in HABITS][:5]
        return (
            first(r.get("title"), r.get("title_without_series")),
            texts(r.get("description")),
            shelves,
            named(publisher=texts(r.get("publisher")), year=texts(r.get("publication_year"))),
        )

    return items(raw, wanted, "book_id", read)


def yelp_items(raw, wanted):
    def read(r):
        given = texts(r.get("categories"))
        if len(given) == 1:
            text = given[0].replace("Books, Mags, Music & Video", "Books; Mags; Music & Video")
            parts = [part.strip().replace(";", ",") for part in text.split(",")]
            given = [part for part in parts if part]
        return (
            texts(r.get("name")),
            [],
            given,
            named(city=texts(r.get("city")), state=texts(r.get("state"))),
        )

    return items(raw, wanted, "business_id", read)
