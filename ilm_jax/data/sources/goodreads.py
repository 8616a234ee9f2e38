"""Goodreads: the UCSD Book Graph (Wan and McAuley 2018), one genre.

`goodreads_interactions_<genre>.json.gz` (every book on a user's shelves) or, without it,
`goodreads_reviews_<genre>.json.gz`, and `goodreads_books_<genre>.json.gz`, as described at
https://mengtingwan.github.io/data/goodreads.html and shown in the samples of
https://github.com/MengtingWan/goodreads: JSON lines {"user_id", "book_id", "is_read", "rating",
"date_added", "read_at", …} and {"book_id", "title", "description", "popular_shelves", "publisher",
"publication_year", …}, in which all of a book's values are texts, "" where they are missing.

What people ran into, and what is done: a rating of 0 says that there is none; books that were put
on a shelf and never read ("is_read": false) are interactions like the others, as published; dates
are texts in Pacific time (`Tue Nov 17 11:37:35 -0800 2009`), "" where nobody gave one, and some
lie in year 16: `date_added`, which Goodreads set itself, is the time; shelves hold habits
("to-read") among genres, so those are left out. Authors stand by number, their names in a file for
all genres that is not read.
"""

from ilm_jax.data.formats.record_forms import InteractionForm, ItemForm
from ilm_jax.data.sources.published_records import RecordCorpus

# Names of shelves that say what a reader does, not what a book is. Ours, no list of the publisher.
HABITS = frozenset(
    "to-read currently-reading read owned books-i-own own-it i-own my-books my-library library "
    "home-library default wish-list wishlist to-buy favorites favourites all-time-favorites "
    "re-read reread did-not-finish dnf abandoned unfinished maybe want-to-read kindle ebook ebooks "
    "e-books audiobook audiobooks audio books owned-books".split()
)
CORPUS = RecordCorpus(
    "goodreads",
    "1.0.0",
    InteractionForm(
        user="user_id",
        item="book_id",
        time="date_added",
        time_form="ctime",
        rating="rating",
        unrated=0.0,
    ),
    ItemForm(
        id="book_id",
        title=("title", "title_without_series"),
        text=("description",),
        categories=("popular_shelves.name",),
        attributes=(("publisher", ("publisher",)), ("year", ("publication_year",))),
        left_out=HABITS,
        most=5,
    ),
    interaction_files=(
        ("goodreads_interactions_{release}.json",),
        ("goodreads_reviews_{release}.json",),
    ),
    item_files=("goodreads_books_{release}.json",),
)
SOURCE = CORPUS.source(r"[a-z0-9_]{1,60}", ("goodreads/poetry", "goodreads/<any genre>"))
