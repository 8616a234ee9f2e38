"""Amazon Reviews 2023 (Hou et al. 2024, arXiv 2403.03952), one category, in both published forms.

Reviews `<Category>.jsonl` with metadata `meta_<Category>.jsonl`, fields as documented at
https://amazon-reviews-2023.github.io: {"rating", "asin", "parent_asin", "user_id", "timestamp", …}
and {"parent_asin", "main_category", "title", "features", "description", "price", "store",
"categories", "details", …}. Or the rating-only files of its benchmarks, CSV with the header
`user_id,parent_asin,rating,timestamp`: whole (`<Category>.csv`) or in three splits
(`<Category>.train.csv`, `.valid.csv`, `.test.csv`), which are read as one whole, since splits are
made here (see catalogue/splits.py; for "last_out" they are the same). Metadata go with either.

Items are `parent_asin`, by which reviews and metadata are linked: `asin` is a variant such as a
colour. Times are milliseconds. Of a user's reviews of an item the earliest stays, and both must be
in the 5-core, as in the published 5-core files.

What people ran into, and what is done: records are there twice (the first stays, counted); a rating
of 0.0 (kept); `price` null, "None" or a dash (missing); `categories` empty for whole categories
(`main_category` stands in); empty `description` (`features` follow it in the text, as its authors
advise); no record for some items (kept by their ids, counted); `details` as an object, or as text
with an object in it. Books' `author` and `subtitle`, which are not documented, are not read.
"""

from ilm_jax.data.formats.record_forms import InteractionForm, ItemForm
from ilm_jax.data.sources.published_records import RecordCorpus

_HEADER = "user_id,parent_asin,rating,timestamp"
CORPUS = RecordCorpus(
    "amazon2023",
    "1.1.0",
    InteractionForm(
        user="user_id",
        item="parent_asin",
        time="timestamp",
        time_form="milliseconds",
        rating="rating",
        headers=(_HEADER, f"{_HEADER},history"),
    ),
    ItemForm(
        id="parent_asin",
        title=("title",),
        text=("description", "features"),
        categories=("categories", "main_category"),
        attributes=(("brand", ("details.Brand", "store")), ("price", ("price",))),
    ),
    interaction_files=(
        ("{release}.jsonl",),
        ("{release}.csv",),
        ("{release}.train.csv", "{release}.valid.csv", "{release}.test.csv"),
    ),
    item_files=("meta_{release}.jsonl",),
)
SOURCE = CORPUS.source(
    r"[A-Za-z0-9_]{1,60}", ("amazon2023/all_beauty", "amazon2023/<any category>")
)
