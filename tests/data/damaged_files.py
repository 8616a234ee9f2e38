"""Small files of every raw format, twenty kinds of damage, and how each mutant was taken."""

import functools
import json
import re

import numpy as np

from ilm_jax.data.formats import interaction_files, item_files
from ilm_jax.data.formats.columns import Columns
from ilm_jax.data.formats.record_reading import read_interactions, read_items
from ilm_jax.data.formats.text_records import read_texts
from ilm_jax.data.sources import (
    amazon,
    amazon2023,
    goodreads,
    movielens,
    movielens_files,
    regen,
    steam,
    yelp,
)
from ilm_jax.errors import UserError
from ilm_jax.tasks.elm24_texts import ARITY
from tests.data import published_corpora as corpora
from tests.data import slow_readers as slow
from tests.data import slow_records

DRAW = np.random.default_rng(0)


def rows_of(found):
    return list(
        zip(found.user, found.item, found.rating.tolist(), found.timestamp.tolist(), strict=True)
    )


def interactions(path):
    return rows_of(interaction_files.read_interactions(path, Columns()))


def items(path):
    found = item_files.read_items(path, Columns())
    return [(raw, item.title, item.categories) for raw, item in found.items()]


def texts(path):
    return [(*key, text.target) for key, text in read_texts(str(path), ARITY).items()]


def reviews(path):
    found, again = amazon.read_reviews(path)
    assert not again or len(found.user) + again  # counted, never silent
    return [*rows_of(found), again]


def users(path):
    reader = regen._Reader(path, regen.Keys())
    reader.read()
    return rows_of(reader.interactions())


def ratings(path):
    found = movielens_files.read_ratings(movielens.RELEASES["25m"], path)
    users, movies = found.user_ids[found.users], found.movie_ids[found.movies]
    columns = users, movies, found.rating, found.timestamp
    return list(zip(*(column.tolist() for column in columns), strict=True))


def records_of(corpus):
    """A reader of the corpus's interactions, as rows by user, item, rating and time."""

    def read(path):
        found, again = read_interactions([path], corpus.interactions, literals=corpus.literals)
        return [*rows_of(found), again]

    return read


def items_of(corpus, wanted):
    """A reader of the corpus's items."""

    def read(path):
        found = read_items(path, corpus.items, wanted, literals=corpus.literals)
        return [(raw, i.title, i.text, i.categories, i.attributes) for raw, i in found.items()]

    return read


def some_lines(lines):
    return "".join(f"{line}\n" for line in lines[-14:])


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


TABLE = "user,item,rating,timestamp\n" + "".join(
    f"u{k % 5},i{k % 7},{1 + k % 5}.5,{1000 + k}\n" for k in range(20)
)
ITEMS = "id,title,genres\n" + "".join(f'i{k},"Name {k}, the ""k""",a|b{k}\n' for k in range(12))
RAW = {
    "sequences": "".join(f"u{k} i{k} i{k + 1} i{k + 2} i{k + 3} i{k + 4}\n" for k in range(9)),
    "pairs": "".join(f"{k % 4} {k}\n" for k in range(20)),
    "csv": TABLE,
    "dates": "user,item,timestamp\n"
    + "".join(
        f"u{k % 5},i{k % 7},2021-03-{1 + k:02d}{' 10:2' + str(k % 9) + ':59'}{['', 'Z'][k % 2]}\n"
        for k in range(20)
    ),
    "inter": TABLE.replace(",", "\t").replace("user\t", "user_id:token\t"),
    "items csv": ITEMS,
    "items jsonl": json_lines(
        [{"id": f"i{k}", "title": f"Name {k}", "genres": ["a", f"b{k}"]} for k in range(12)]
    ).decode(),
    "items item": "item_id:token\ttitle:token_seq\tcategories:token_seq\n"
    + "".join(f"i{k}\tName {k}\t'A & B', \"C's {k}\"\n" for k in range(12)),
    "texts": json_lines(
        [{"task": "summary", "item_ids": [f"i{k}"], "target": f"It is {k}."} for k in range(12)]
    ).decode(),
    "reviews": json_lines(
        [
            {
                "reviewerID": f"U{k % 3}",
                "asin": f"A{k}",
                "overall": 1.0 + k % 5,
                "unixReviewTime": 1000 + k,
            }
            for k in range(12)
        ]
    ).decode(),
    "regen": json_lines(
        [
            {
                "reviewer_id": f"R{u}",
                "purchase_history": [
                    {
                        "item": {"asin": f"B{k}", "title": "x"},
                        "review": {"rating": 4, "unix_time": 9 + k},
                    }
                    for k in range(3)
                ],
            }
            for u in range(5)
        ]
    ).decode(),
    "ratings": "userId,movieId,rating,timestamp\n"
    + "".join(f"{k % 4},{k},{k % 5 + 0.5},{1000 + k}\n" for k in range(20)),
}
CORPORA = {
    "amazon2023": some_lines(corpora.as_json(corpora.amazon_reviews())),
    "amazon2023 csv": some_lines(corpora.amazon_csv()[:14]),
    "amazon2023 items": some_lines(corpora.as_json(corpora.amazon_items())),
    "steam": some_lines(corpora.as_python(corpora.steam_reviews())),
    "steam items": some_lines(corpora.as_python(corpora.steam_games())),
    "goodreads": some_lines(corpora.as_json(corpora.goodreads_shelvings())),
    "goodreads items": some_lines(corpora.as_json(corpora.goodreads_books())),
    "yelp": some_lines(corpora.as_json(corpora.yelp_reviews())),
    "yelp items": some_lines(corpora.as_json(corpora.yelp_businesses())),
}
RAW |= CORPORA
# By name: the file, our reader, the judge.
READERS = {
    "sequences": ("user_sequence.txt", interactions, slow.sequences),
    "pairs": ("interactions.txt", interactions, slow.sequences),
    "csv": ("interactions.csv", interactions, lambda raw: slow.table(slow.csv_records(raw))),
    "dates": ("interactions.csv", interactions, lambda raw: slow.table(slow.csv_records(raw))),
    "inter": (
        "x.inter",
        interactions,
        lambda raw: slow.table([s.split("\t") for s in slow.lines_of(raw)]),
    ),
    "items csv": ("items.csv", items, lambda raw: slow.items(slow.csv_records(raw))),
    "items jsonl": ("items.jsonl", items, slow.json_items),
    "items item": ("x.item", items, slow.quoted_items),
    "texts": ("texts.jsonl", texts, slow.texts),
    "reviews": ("reviews.json", reviews, slow.reviews),
    "regen": ("office.jsonl", users, slow.users),
    "ratings": ("ratings.csv", ratings, slow.ratings),
    "amazon2023": ("x.jsonl", records_of(amazon2023.CORPUS), slow_records.amazon_2023),
    "amazon2023 csv": ("x.csv", records_of(amazon2023.CORPUS), slow_records.amazon_2023_csv),
    "steam": ("steam_reviews.json", records_of(steam.CORPUS), slow_records.steam),
    "goodreads": ("g.json", records_of(goodreads.CORPUS), slow_records.goodreads),
    "yelp": ("review.json", records_of(yelp.CORPUS), slow_records.yelp),
}
for _name, _corpus, _ids, _judge in (
    (
        "amazon2023",
        amazon2023.CORPUS,
        [f"B{k:03d}" for k in range(9)],
        slow_records.amazon_2023_items,
    ),
    ("steam", steam.CORPUS, [str(700 + k) for k in range(9)], slow_records.steam_items),
    ("goodreads", goodreads.CORPUS, [str(k) for k in range(9)], slow_records.goodreads_items),
    ("yelp", yelp.CORPUS, [f"b-{k}" for k in range(9)], slow_records.yelp_items),
):
    _judged = functools.partial(_judge, wanted=set(_ids))
    READERS[f"{_name} items"] = ("items.json", items_of(_corpus, set(_ids)), _judged)


def replaced(raw, pattern, value):
    """One match of the pattern, drawn, becomes the value."""
    found = list(re.finditer(pattern, raw))
    if not found:
        return raw + b"\n"
    match = found[DRAW.integers(len(found))]
    return raw[: match.start()] + value + raw[match.end() :]


def lines_changed(raw, change):
    lines = raw.splitlines(keepends=True)
    change(lines, int(DRAW.integers(len(lines))))
    return b"".join(lines)


MUTATIONS = {
    "truncated": lambda r: r[: DRAW.integers(len(r))],
    "a byte": lambda r: replaced(r, rb".", bytes([DRAW.integers(256)])),
    "bytes": lambda r: replaced(r, rb".{1,5}", DRAW.bytes(3)),
    "NaN": lambda r: replaced(
        r, rb"\d+(\.\d+)?", [b"NaN", b"nan", b"inf", b"-1", b"1e400"][DRAW.integers(5)]
    ),
    "type": lambda r: replaced(
        r, rb"\d+(\.\d+)?", [b"x", b"", b"true", b"[1]", b"null"][DRAW.integers(5)]
    ),
    "string": lambda r: replaced(
        r, rb'"\w+"', [b"null", b"7", b"[]", b'""', b"{}"][DRAW.integers(5)]
    ),
    "twice": lambda r: lines_changed(r, lambda ls, k: ls.insert(k, ls[-1 - k])),
    "gone": lambda r: lines_changed(r, lambda ls, k: ls.pop(k)),
    "swapped": lambda r: lines_changed(r, lambda ls, k: ls.__setitem__(k, ls[0])),
    "empty line": lambda r: lines_changed(r, lambda ls, k: ls.insert(k, b"\n")),
    "huge": lambda r: lines_changed(
        r, lambda ls, k: ls.__setitem__(k, ls[k][:-1] + b"9" * 200_000 + b"\n")
    ),
    "crlf": lambda r: r.replace(b"\n", b"\r\n"),
    "some crlf": lambda r: lines_changed(
        r, lambda ls, k: ls.__setitem__(k, ls[k].replace(b"\n", b"\r\n"))
    ),
    "utf-8": lambda r: replaced(
        r, rb"\w", [b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80"][DRAW.integers(4)]
    ),
    "bom": lambda r: b"\xef\xbb\xbf" + r,
    "separator": lambda r: replaced(r, rb"[ ,\t:]", [b"", b",,", b"\t\t", b'"'][DRAW.integers(4)]),
    "utf-16": lambda r: r.decode("utf-8").encode("utf-16"),
    "latin": lambda r: replaced(r, rb"[a-z]", b"\xe9"),
    "two encodings": lambda r: replaced(replaced(r, rb"a", b"\xe9"), rb"i", b"\xc3\xa9"),
    "quote": lambda r: replaced(r, rb"[\"',|]", [b"'", b'"', b"|", b"["][DRAW.integers(4)]),
    "zero": lambda r: replaced(r, rb"\w", b"\0"),
}


def same(left, right):
    return repr(left).replace("np.float32(nan)", "nan") == repr(right).replace(
        "np.float32(nan)", "nan"
    )


def plain(rows):
    return [
        tuple(float(v) if isinstance(v, float | np.floating) else v for v in row)
        if isinstance(row, tuple)
        else row
        for row in rows
    ]


def outcome(reader, folder, kind):
    """Damages the reader's file, reads it: "read" as the judge sees it, or "refused"."""
    name, read, judge = READERS[reader]
    slow.TABLES[:] = [True] * (reader in ("csv", "dates", "inter", "items csv", "items item"))
    path = folder / name
    changed = MUTATIONS[kind](RAW[reader].encode())
    path.write_bytes(changed)
    try:
        found = read(path)
    except UserError as error:
        whole = r"no interactions|no items|no ratings|no texts|no reviews|no purchases"
        place = rf"^{re.escape(str(path))}:(\d+: |.*({whole}))"
        assert re.match(place, str(error).replace("\n", " ")), (kind, str(error)[:200])
        assert len(str(error)) < 1000, kind
        return "refused"
    try:
        judged = plain(judge(changed))
    except (ValueError, AssertionError, KeyError, TypeError) as error:
        raise AssertionError((kind, changed[:300], str(error))) from None
    assert same(plain(found), judged), (kind, changed[:300])
    return "read"
