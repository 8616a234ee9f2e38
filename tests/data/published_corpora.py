"""A small world in the published form of every corpus of records, with the oddities people met.

In each of them user u chooses six of thirty items, oldest first: u, u + 1, … modulo 30. Items have
words that no other item has.
"""

import datetime
import gzip
import json

from tests.data.small_catalogue import word

USERS, ITEMS, LENGTH = 60, 30, 6
START = 1_500_000_000  # July 2017


def chosen():
    """(user, item, rating, seconds), neither by user nor by time."""
    rows = [
        (user, (user + k) % ITEMS, 1 + (user + k) % 5, START + 86_400 * (2 * k) + 60 * user)
        for user in range(USERS)
        for k in range(LENGTH)
    ]
    return sorted(rows, key=lambda row: (row[1], -row[3]))


def day(seconds):
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d}"


def pacific(seconds):
    zone = datetime.timezone(datetime.timedelta(hours=-7))
    return f"{datetime.datetime.fromtimestamp(seconds, zone):%a %b %d %H:%M:%S %z %Y}"


def amazon_reviews():
    rows = [
        {
            "rating": 0.0 if number == 5 else float(rating),
            "title": "ok \ud83d",  # of what is not read, half a character is nobody's trouble
            "text": "I'd buy it again",
            "images": [],
            "asin": f"V{item}",
            "parent_asin": f"B{item:03d}",
            "user_id": f"AU{user}",
            "timestamp": 1000 * seconds + 7,
            "helpful_vote": 0,
            "verified_purchase": True,
        }
        for number, (user, item, rating, seconds) in enumerate(chosen())
    ]
    later = rows[3] | {"timestamp": rows[3]["timestamp"] + 9, "rating": 1.0}
    return [later, *rows, rows[7]]


def amazon_items():
    prices = [None, "None", 9.99, "—", "from 3.99"]
    rows = [
        {
            "main_category": "All Beauty",
            "title": f"{word(10 * k)} &amp; <b>mug</b>",
            "average_rating": 4.1,
            "rating_number": 3,
            "features": [f"Is {word(10 * k + 1)}."],
            "description": [] if k % 2 else [f"Holds {word(10 * k + 2)}."],
            "price": prices[k % 5],
            "images": [{"thumb": "x", "hi_res": None}],
            "videos": [],
            "store": "Acme",
            "categories": ["Home", "Kitchen & Dining"] if k == 1 else [],
            "details": {"Brand": "Zig", "Size": "7"} if k == 2 else {},
            "parent_asin": f"B{k:03d}",
            "bought_together": None,
            "author": {"name": "Nobody"},
        }
        for k in range(ITEMS - 1)  # the last one lacks its record
    ]
    rows[4]["details"] = json.dumps({"Brand": "Packed"})
    return [*rows, rows[0] | {"title": "again"}, rows[0] | {"parent_asin": "B999"}]


def amazon_csv(history=False):
    header = "user_id,parent_asin,rating,timestamp"
    lines = [f"AU{u},B{i:03d},{float(r)},{1000 * s + 7}" for u, i, r, s in chosen()]
    if not history:
        return [header, *lines]
    return [f"{header},history", *(f"{line},B001 B002" for line in lines)]


def steam_reviews():
    rows = [
        {
            "username": f"player {user} 100% \u2605",
            "hours": 0.1,
            "products": 41,
            "product_id": str(700 + item),
            "page_order": 0,
            "date": day(seconds),
            "text": 'It\'s "fine" \ud83d',
            "early_access": False,
            "page": 1,
        }
        for user, item, _, seconds in chosen()
    ]
    del rows[2]["hours"]
    return [*rows, *rows, rows[0] | {"username": ""}]


def steam_games():
    rows = [
        {
            "publisher": "Kotoshiro",
            "genres": ["Action", "Indie"],
            "app_name": f"{word(10 * k)} app",
            "title": f"{word(10 * k)} game",
            "url": "http://store",
            "release_date": "2018-01-04",
            "tags": ["Strategy"],
            "price": 4.99 if k else "Free To Play",
            "early_access": False,
            "id": str(700 + k),
            "developer": word(10 * k + 1),
        }
        for k in range(ITEMS)
    ]
    for name, k in (("title", 1), ("genres", 2), ("developer", 3)):
        del rows[k][name]
    nameless = dict(rows[5], title="nameless")
    del nameless["id"]
    return [*rows, nameless, rows[0] | {"title": "again"}]


def goodreads_shelvings():
    rows = [
        {
            "user_id": f"{user:032x}",
            "book_id": str(item + 1),
            "review_id": f"r{number}",
            "is_read": bool(number % 2),
            "rating": 0 if number == 4 else rating,
            "review_text_incomplete": "",
            "date_added": pacific(seconds),
            "date_updated": pacific(seconds + 9),
            "read_at": "",
            "started_at": "Sun Jan 01 00:00:00 -0800 0016",
        }
        for number, (user, item, rating, seconds) in enumerate(chosen())
    ]
    return [*rows, rows[0] | {"date_added": pacific(START + 10**8)}]


def goodreads_books():
    shelves = ["to-read", "poetry", "currently-reading", "classics"]
    return [
        {
            "isbn": "",
            "title": f"{word(10 * k)} verses",
            "title_without_series": f"{word(10 * k)} verses",
            "description": "" if k == 1 else f"Sings of {word(10 * k + 1)}.",
            "popular_shelves": [{"count": "9", "name": name} for name in shelves if k],
            "authors": [{"author_id": "13", "role": ""}],
            "publisher": "" if k == 2 else "Press",
            "publication_year": "" if k == 2 else "2016",
            "is_ebook": "false",
            "book_id": str(k + 1),
        }
        for k in range(ITEMS)
    ]


def yelp_reviews():
    rows = [
        {
            "review_id": f"r{number}",
            "user_id": f"-u_{user}",
            "business_id": f"b-{item}",
            "stars": float(rating),
            "useful": 0,
            "text": "Nice.\n\nVery",
            "date": day(seconds) if number == 1 else f"{day(seconds)} 22:09:11",
        }
        for number, (user, item, rating, seconds) in enumerate(chosen())
    ]
    return [*rows, rows[0] | {"review_id": "x", "date": "2021-01-01 00:00:00"}]


def yelp_businesses():
    categories = [
        None,
        "Gastropubs, Food, Books, Mags, Music & Video, Cafés",
        ["Doctors", "Wills, Trusts, & Probates"],
    ]
    return [
        {
            "business_id": f"b-{k}",
            "name": f"{word(10 * k)} Café",
            "address": "",
            "city": word(10 * k + 1),
            "state": "AZ",
            "latitude": 33.5,
            "stars": 3.5,
            "review_count": 118,
            "is_open": 1,
            "attributes": None if k else {"BusinessParking": "{'garage': False}"},
            "categories": categories[k % 3],
            "hours": None,
        }
        for k in range(ITEMS)
    ]


def as_json(rows):
    return [json.dumps(row) for row in rows]


def as_python(rows):
    """Python 2's way to write a dictionary."""
    lines = []
    for row in rows:
        line = ascii(row)
        for name in row:
            line = line.replace(f"'{name}': '", f"u'{name}': u'")
        lines.append(line)
    return lines


# By dataset: (file, lines) of interactions and of items.
CORPORA = {
    "amazon2023/all_beauty": (
        ("All_Beauty.jsonl", as_json(amazon_reviews())),
        ("meta_All_Beauty.jsonl", as_json(amazon_items())),
    ),
    "steam": (
        ("steam_reviews.json", as_python(steam_reviews())),
        ("steam_games.json", as_python(steam_games())),
    ),
    "goodreads/poetry": (
        ("goodreads_interactions_poetry.json", as_json(goodreads_shelvings())),
        ("goodreads_books_poetry.json", as_json(goodreads_books())),
    ),
    "yelp": (
        ("yelp_academic_dataset_review.json", as_json(yelp_reviews())),
        ("yelp_academic_dataset_business.json", as_json(yelp_businesses())),
    ),
}


def write_lines(folder, name, lines, *, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path = folder / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def write_corpus(folder, dataset, *, packed=False):
    """The files of a corpus, as published or unpacked."""
    for name, lines in CORPORA[dataset]:
        write_lines(folder, name, lines, packed=packed)
    return folder
