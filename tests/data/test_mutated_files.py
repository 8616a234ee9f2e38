"""Files damaged in 1,000 ways are read right or refused with file and line, by every reader.

The judge is a second reader, slow and written on its own: byte by byte where a format has quotes,
and without any of the checks. What our reader accepts must be what the judge sees, row for row.
"""

import ast
import datetime
import gzip
import json
import math
import re

import numpy as np
import pytest

from ilm_jax.data.formats import interaction_files, item_files
from ilm_jax.data.formats.columns import Columns
from ilm_jax.data.formats.text_records import read_texts
from ilm_jax.data.sources import amazon, custom, movielens, movielens_files, regen
from ilm_jax.errors import UserError
from ilm_jax.tasks.elm24 import ARITY

MUTANTS = 1000
# Whether the file at hand is a table with a header, which may be in other encodings than UTF-8.
TABLES: list[bool] = []
DRAW = np.random.default_rng(0)


def text_of(raw):
    """UTF-8, or UTF-16 with its mark; a table may be Western European as a whole."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except ValueError:
        lines = raw.split(b"\n")
        if not TABLES or any(is_utf_8(line) for line in lines if not line.isascii()):
            raise
        return raw.decode("cp1252")


def is_utf_8(line):
    try:
        return bool(line.decode("utf-8"))
    except ValueError:
        return False


def lines_of(raw):
    text = text_of(raw)
    assert text.endswith("\n")
    return [line.removesuffix("\r") for line in text[:-1].split("\n")]


def csv_records(raw):
    """Fields of a CSV file, character by character."""
    records, record, field, quoted, was = [], [], "", False, False
    text = text_of(raw).replace("\r\n", "\n")
    place = 0
    while place < len(text):
        letter = text[place]
        if quoted:
            if letter == '"' and text[place + 1 : place + 2] == '"':
                field += '"'
                place += 1
            elif letter == '"':
                quoted = False
            else:
                field += letter
        elif letter == '"' and not field and not was:
            quoted = was = True
        elif letter in ",\n":
            record.append(field)
            field, was = "", False
            if letter == "\n":
                records.append(record)
                record = []
        else:
            field += letter
        place += 1
    assert not quoted and not record and not field
    return records


def number(text):
    return math.nan if text in ("", None) else float(text)


def rows_of(found):
    return list(
        zip(found.user, found.item, found.rating.tolist(), found.timestamp.tolist(), strict=True)
    )


def sequences(path):
    return rows_of(interaction_files.read_interactions(path, Columns()))


def slow_sequences(raw):
    found = []
    for line in lines_of(raw):
        user, *items = re.split(r"[ \t]+", line.strip(" \t"))
        found += [(user, item, math.nan, -1) for item in items]
    return found


def pairs(path):
    return rows_of(interaction_files.read_interactions(path, Columns()))


def table(path):
    return rows_of(interaction_files.read_interactions(path, Columns()))


def slow_table(records):
    header, *rows = records
    header = [name.split(":")[0].strip() for name in header]
    place = {name: header.index(name) for name in header}
    find = Columns()
    names = [place.get(find.find(f, header)) for f in ("user", "item", "rating", "timestamp")]
    user, item, rating, time = names
    assert len({"-" in row[time] for row in rows}) < 2
    return [
        (
            row[user],
            row[item],
            np.float32(number(row[rating] if rating is not None else "")),
            slow_time(row[time]),
        )
        for row in rows
    ]


def slow_time(text):
    if "-" not in text:
        return math.floor(float(text)) if "." in text else int(text)
    day, hour, zone = text[:10], text[11:19], text[19:]
    assert zone in ("", "Z", "+01:00")
    days = datetime.date(*map(int, day.split("-"))) - datetime.date(1970, 1, 1)
    h, m, s = map(int, hour.split(":")) if hour else (0, 0, 0)
    assert h < 24 and m < 60 and s < 60 and days.days >= 0
    return 86400 * days.days + 3600 * (h - (zone == "+01:00")) + 60 * m + s


def items(path):
    found = item_files.read_items(path, Columns())
    return [(raw, item.title, item.categories) for raw, item in found.items()]


def slow_items(records):
    header, *rows = records
    header = [re.sub(r"[\s_-]", "", name).lower() for name in header]
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    return [
        (
            c["id"],
            " ".join(c.get("title", "").split()) or c["id"],
            tuple(" ".join(p.split()) for p in c.get("genres", "").split("|") if p.strip()),
        )
        for c in cells
    ]


def slow_quoted_items(raw):
    """RecBole's file whose categories are lists in quotes, letter by letter."""
    header, *rows = [line.split("\t") for line in lines_of(raw)]
    header = [re.sub(r"[\s_-]", "", name.split(":")[0]).lower() for name in header]
    found = []
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        raw_id = cells["itemid"]
        title = cells.get("title", "")
        found.append(
            (
                raw_id,
                " ".join(title.split()) or raw_id,
                tuple(quoted_parts(cells.get("categories", ""))),
            )
        )
    return found


def quoted_parts(cell):
    parts, part, inside = [], "", ""
    for letter in cell:
        if inside and letter == inside:
            parts.append(" ".join(part.split()))
            part, inside = "", ""
        elif inside:
            part += letter
        elif letter in "'\"":
            inside = letter
        else:
            assert letter in ", "
    assert not inside
    return [part for part in parts if part]


def slow_json_items(raw):
    found = []
    for line in lines_of(raw):
        record = json.loads(line)
        title = record.get("title")
        names = record.get("genres") or []
        names = names if isinstance(names, list) else str(names).split("|")
        title = " ".join(str("" if title is None else title).split())
        names = tuple(" ".join(str(name).split()) for name in names if str(name).strip())
        found.append((str(record["id"]), title or str(record["id"]), names))
    return found


def texts(path):
    return [(*key, text.target) for key, text in read_texts(str(path), ARITY).items()]


def slow_texts(raw):
    records = [json.loads(line) for line in lines_of(raw)]
    return [
        (
            r["task"],
            r.get("user_id", ""),
            tuple(r.get("item_ids", [])),
            " ".join(r["target"].split()),
        )
        for r in records
    ]


def reviews(path):
    found, again = amazon.read_reviews(path)
    assert not again or len(found.user) + again  # counted, never silent
    return [*rows_of(found), again]


def slow_reviews(raw):
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    found, seen = [], set()
    for line in lines_of(raw):
        try:
            r = json.loads(line)
        except ValueError:  # as a Python dictionary it may be right
            r = ast.literal_eval(line)
        key = r["reviewerID"], r["asin"]
        if key not in seen:
            found.append((*key, np.float32(r["overall"]), r["unixReviewTime"]))
        seen.add(key)
    return [*found, len(lines_of(raw)) - len(found)]


def users(path):
    reader = regen._Reader(path, regen.Keys())
    reader.read()
    return rows_of(reader.interactions())


def slow_users(raw):
    found = []
    for line in lines_of(raw):
        r = json.loads(line)
        for p in r["purchase_history"]:
            rating = p["review"].get("rating")
            found.append(
                (
                    r["reviewer_id"],
                    p["item"]["asin"],
                    np.float32(math.nan if rating is None else rating),
                    p["review"]["unix_time"],
                )
            )
    return found


def ratings(path):
    found = movielens_files.read_ratings(movielens.RELEASES["25m"], path)
    columns = found.user, found.movie, found.rating, found.timestamp
    return list(zip(*(column.tolist() for column in columns), strict=True))


def slow_ratings(raw):
    header, *rows = [line.split(",") for line in lines_of(raw)]
    assert header == ["userId", "movieId", "rating", "timestamp"]
    return [(int(u), int(m), np.float32(r), int(t)) for u, m, r, t in rows]


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
READERS = {
    "sequences": ("user_sequence.txt", sequences, slow_sequences),
    "pairs": ("interactions.txt", pairs, slow_sequences),
    "csv": ("interactions.csv", table, lambda raw: slow_table(csv_records(raw))),
    "dates": ("interactions.csv", table, lambda raw: slow_table(csv_records(raw))),
    "inter": ("x.inter", table, lambda raw: slow_table([s.split("\t") for s in lines_of(raw)])),
    "items csv": ("items.csv", items, lambda raw: slow_items(csv_records(raw))),
    "items jsonl": ("items.jsonl", items, slow_json_items),
    "items item": ("x.item", items, slow_quoted_items),
    "texts": ("texts.jsonl", texts, slow_texts),
    "reviews": ("reviews.json", reviews, slow_reviews),
    "regen": ("office.jsonl", users, slow_users),
    "ratings": ("ratings.csv", ratings, slow_ratings),
}


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
    name, read, slow = READERS[reader]
    TABLES[:] = [True] * (reader in ("csv", "dates", "inter", "items csv", "items item"))
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
        judged = plain(slow(changed))
    except (ValueError, AssertionError, KeyError, TypeError) as error:
        raise AssertionError((kind, changed[:300], str(error))) from None
    assert same(plain(found), judged), (kind, changed[:300])
    return "read"


@pytest.mark.parametrize("reader", READERS)
def test_a_thousand_damaged_files(tmp_path, reader):
    name, read, slow = READERS[reader]
    raw = RAW[reader].encode()
    (tmp_path / name).write_bytes(raw)
    assert same(plain(read(tmp_path / name)), plain(slow(raw)))
    kinds = list(MUTATIONS)
    found = [outcome(reader, tmp_path, kinds[mutant % len(kinds)]) for mutant in range(MUTANTS)]
    assert found.count("read") > 50 and found.count("refused") > 300, found


def test_a_mutated_gzip_is_refused_too(tmp_path):
    path = tmp_path / "reviews.json.gz"
    raw = gzip.compress(RAW["reviews"].encode())
    good = plain(slow_reviews(raw))
    for _ in range(300):
        changed = MUTATIONS["bytes"](raw) if DRAW.integers(2) else MUTATIONS["truncated"](raw)
        path.write_bytes(changed)
        try:
            found = plain(reviews(path))
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert same(found, good)


def test_a_folder_is_refused_as_a_whole_or_read(tmp_path):
    assert custom.VERSION
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "interactions.csv").write_text(TABLE)
    found = custom.read(tmp_path)
    assert len(found.items) == 20
