"""Yelp's open dataset: reviews of businesses.

`yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json` (`review.json` and
`business.json` in some years), JSON lines as documented at
https://www.yelp.com/dataset/documentation/main: {"review_id", "user_id", "business_id", "stars",
"date", …} and {"business_id", "name", "city", "state", "categories", …}.

What people ran into, and what is done: dates are texts, a day until 2018 and a second since, of a
zone that is not documented (taken as UTC); `categories` are null, a list in older years, and since
2018 one text with ", " between them although some hold ", " themselves (those that are known, see
`WHOLE`, stay whole); `attributes` are null or texts of Python dictionaries (not read);
`review_count` differs from the number of reviews, since not all are published (not read). A user's
later reviews of a business are left out and counted. Users, tips, photos and check-ins are not
read.
"""

from ilm_jax.data.formats.record_forms import InteractionForm, ItemForm
from ilm_jax.data.sources.published_records import RecordCorpus

WHOLE = (
    "Books, Mags, Music & Video",
    "Beer, Wine & Spirits",
    "Used, Vintage & Consignment",
)
CORPUS = RecordCorpus(
    "yelp",
    "1.0.0",
    InteractionForm(
        user="user_id", item="business_id", time="date", time_form="date", rating="stars"
    ),
    ItemForm(
        id="business_id",
        title=("name",),
        categories=("categories",),
        attributes=(("city", ("city",)), ("state", ("state",))),
        separator=",",
        whole=WHOLE,
    ),
    interaction_files=(("yelp_academic_dataset_review.json",), ("review.json",)),
    item_files=("yelp_academic_dataset_business.json", "business.json"),
)
SOURCE = CORPUS.source()
