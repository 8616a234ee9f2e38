"""Steam: reviews and games as collected by Kang, Pathak and McAuley (SASRec, 2018).

`steam_reviews.json.gz` and `steam_games.json.gz`, "Version 2" at
https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data: one Python dictionary per line, such as
`{u'username': u'…', u'product_id': u'725280', u'date': u'2017-12-17', u'hours': 0.1, …}`, in which
keys may be missing.

What people ran into, and what is done: lines are no JSON (parsed as literals, never evaluated); a
review has no rating (none is read; `hours` is play time); users go by the names that they gave
themselves, with spaces and signs in them (see `display_names`), since few reviews have a user_id;
about half of the reviews are there more than once (the earliest stays); a game may lack its id, and
one id stands twice; `price` is a number or words such as "Free To Play". Dates are days, so that
the order within a day is that of the file; their zone is not documented and taken as UTC. "Version
1" (Australian users) has another form and is not read.
"""

from ilm_jax.data.formats.record_forms import InteractionForm, ItemForm
from ilm_jax.data.sources.published_records import RecordCorpus

CORPUS = RecordCorpus(
    "steam",
    "1.0.0",
    InteractionForm(
        user="username", item="product_id", time="date", time_form="date", display_names=True
    ),
    ItemForm(
        id="id",
        title=("title", "app_name"),
        categories=("genres", "tags"),
        attributes=(
            ("developer", ("developer",)),
            ("publisher", ("publisher",)),
            ("price", ("price",)),
        ),
        may_lack_id=True,
    ),
    interaction_files=(("steam_reviews.json",),),
    item_files=("steam_games.json",),
    literals=True,
)
SOURCE = CORPUS.source()
