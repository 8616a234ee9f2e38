"""A second reader of every raw format, the judge of ours: slow, and written on its own.

Byte by byte where a format has quotes, and without any of the checks: what is no file of the format
raises whatever Python raises.
"""

import ast
import datetime
import gzip
import json
import math
import re

import numpy as np

from ilm_jax.data.formats.columns import Columns

# Whether the file at hand is a table with a header, which may be in other encodings than UTF-8.
TABLES: list[bool] = []


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


def sequences(raw):
    found = []
    for line in lines_of(raw):
        user, *items = re.split(r"[ \t]+", line.strip(" \t"))
        found += [(user, item, math.nan, -1) for item in items]
    return found


def table(records):
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
            seconds(row[time]),
        )
        for row in rows
    ]


def seconds(text):
    if "-" not in text:
        return math.floor(float(text)) if "." in text else int(text)
    day, hour, zone = text[:10], text[11:19], text[19:]
    assert zone in ("", "Z", "+01:00")
    days = datetime.date(*map(int, day.split("-"))) - datetime.date(1970, 1, 1)
    h, m, s = map(int, hour.split(":")) if hour else (0, 0, 0)
    assert h < 24 and m < 60 and s < 60 and days.days >= 0
    return 86400 * days.days + 3600 * (h - (zone == "+01:00")) + 60 * m + s


def items(records):
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


def quoted_items(raw):
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


def json_items(raw):
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


def texts(raw):
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


def reviews(raw):
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


def users(raw):
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


def ratings(raw):
    header, *rows = [line.split(",") for line in lines_of(raw)]
    assert header == ["userId", "movieId", "rating", "timestamp"]
    return [(int(u), int(m), np.float32(r), int(t)) for u, m, r, t in rows]
