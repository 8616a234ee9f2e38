"""The toy world: a generated catalogue whose truth is known.

Items and users have latent factors. Interactions follow all of them; an item's text shows only
some, through words drawn from its factors. So a model that reads item vectors fitted to
interactions can say more about an unseen text than one that reads text alone, and how much at best
is known exactly: `extras["ceiling"]` holds -log p(words | factors) of every item. On held-out items
of world 0 a content word costs 2.08 nats blind and 1.03 nats by logistic regression on the true
factors (measured by the test of this module).

Pure NumPy over Philox bits, no network. A world is versioned and hashed; change nothing here
without a new VERSION. `make_world(0)` was fixed before any model was compared on it.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from ilm_jax.data import draws
from ilm_jax.data.catalogue.catalogue import Catalogue, count_ties
from ilm_jax.data.sources import toy_language
from ilm_jax.data.sources.dataset_source import DatasetSource

VERSION = "1.0.0"
ITEMS, USERS, DIMS, CLUSTERS = 2000, 3000, 10, 24
SHORTEST, LONGEST, MEAN_EXCESS = 8, 40, 11.5
# Share of an item's (user's) variance that its soft cluster explains; the rest is continuous.
CLUSTER_SHARE = 0.5
# Scale of user . item in the choice of the next item, of popularity, and of the pull towards
# items like the last one.
TASTE, POPULARITY, PULL = 0.6, 0.3, 0.15
# The factors that each field reads. 7, 8 and 9 enter no text.
SUBSPACES = {
    "genre": (0, 1, 2),
    "mood": (1, 3),
    "setting": (2, 4, 5),
    "pace": (3, 6),
    "era": (4, 6),
    "style": (0, 5),
}
# Sharpness of the words by the subspace's dimension: about one nat stays open in each field.
SHARPNESS = {2: 4.0, 3: 3.0}
START, DAY = 1_600_000_000, 86_400


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """The latent variables of a world; for oracles and tests, never for a model.

    Attributes:
      item: factors of the items, unit variance.
      user: factors of the users.
      popularity: log-popularity of the items.
      word_probabilities: per field, p(word | item factors).
      user_words: per field, the same law applied to the user's factors: what the user leans to.
    """

    item: Float[np.ndarray, "items dims"]
    user: Float[np.ndarray, "users dims"]
    popularity: Float[np.ndarray, " items"]
    word_probabilities: dict[str, Float[np.ndarray, "items words"]]
    user_words: dict[str, Float[np.ndarray, "users words"]]


def make_truth(world: int) -> Truth:
    """The latent factors of world number `world` (0 is the default world)."""
    key = ("toy", VERSION, world)
    centres = draws.normals((CLUSTERS, DIMS), *key, "centres")
    factors = {}
    for kind, count in (("item", ITEMS), ("user", USERS)):
        cluster = (draws.uniforms(count, *key, kind, "cluster") * CLUSTERS).astype(np.int64)
        own = draws.normals((count, DIMS), *key, kind, "own")
        mixed = np.sqrt(CLUSTER_SHARE) * centres[cluster] + np.sqrt(1 - CLUSTER_SHARE) * own
        factors[kind] = mixed
    mean, scale = factors["item"].mean(0), factors["item"].std(0)
    item, user = (factors["item"] - mean) / scale, (factors["user"] - mean) / scale
    laws = {field: _directions(key, field) for field in SUBSPACES}
    return Truth(
        item=item,
        user=user,
        popularity=POPULARITY * draws.normals(ITEMS, *key, "popularity"),
        word_probabilities={f: _words_given(item, f, law) for f, law in laws.items()},
        user_words={f: _words_given(user, f, law) for f, law in laws.items()},
    )


def _directions(key: tuple, field: str) -> Float[np.ndarray, "words subspace"]:
    """One unit vector per word, evenly spread, under a rotation of this world's own."""
    dims = len(SUBSPACES[field])
    words = len(toy_language.FIELDS[field])
    if dims == 2:
        angles = 2 * np.pi * np.arange(words) / words
        spread = np.stack([np.cos(angles), np.sin(angles)], 1)
    else:  # the corners of a cube
        spread = (np.indices((2, 2, 2)).reshape(3, -1).T * 2 - 1) / np.sqrt(3)
    rotation, _ = np.linalg.qr(draws.normals((dims, dims), *key, field, "rotation"))
    order = np.argsort(draws.uniforms(words, *key, field, "order"))
    return spread[order] @ rotation


def _words_given(
    factors: Float[np.ndarray, "rows dims"],
    field: str,
    directions: Float[np.ndarray, "words subspace"],
) -> Float[np.ndarray, "rows words"]:
    sub = factors[:, SUBSPACES[field]]
    logits = SHARPNESS[sub.shape[1]] * sub @ directions.T
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def make_world(world: int) -> Catalogue:
    """World number `world` as a catalogue: "toy" for 0, "toy/world<k>" otherwise.

    Its `extras`, where every word is a number into `fields[field]`:
      world, fields {field: words}, words [per item, per field], templates [per item].
      ceiling: content_nats [per item] = -log p(content words | factors), field_nats {field: [per
        item]} its parts, template_nats [per item] = -log p(template): the best possible loss on
        an item's text is content_nats + template_nats, in nats.
      critiques: [user, position, field number, word]: at `position` of the user's sequence, after
        the item before it (of the same top category), the user asks for `word` in that field, and
        the item at `position` has it. Names a word of that item's text: whoever uses it must
        respect both splits.
      narratives: per user the three [field number, word] that the user leans to most, strongest
        first; from the user's factors alone, so no held-out interaction or text is behind them.

    Raises:
      ValueError: if `world` is negative.
    """
    if world < 0:
        raise ValueError(f"world {world}: worlds are numbered from 0")
    key = ("toy", VERSION, world)
    truth = make_truth(world)
    offsets, items = _sequences(key, truth)
    users = np.repeat(np.arange(USERS), np.diff(offsets))
    words = {
        f: _pick(p, draws.uniforms(ITEMS, *key, f, "word"))
        for f, p in truth.word_probabilities.items()
    }
    template_draws = draws.uniforms(ITEMS, *key, "template")
    templates = (template_draws * len(toy_language.TEMPLATES)).astype(np.int64)
    described = [
        toy_language.describe(templates[i], {f: toy_language.FIELDS[f][words[f][i]] for f in words})
        for i in range(ITEMS)
    ]
    timestamps = _timestamps(key, offsets)
    return Catalogue(
        name="toy" if world == 0 else f"toy/world{world}",
        version=VERSION,
        item_ids=[f"t{i:04d}" for i in range(ITEMS)],
        titles=toy_language.titles(ITEMS, *key, "titles"),
        texts=[text for text, _, _ in described],
        content=[spans for _, spans, _ in described],
        categories=_categories(truth),
        user_ids=[f"u{u:04d}" for u in range(USERS)],
        offsets=offsets,
        items=items,
        ratings=_ratings(key, truth, users, items),
        timestamps=timestamps,
        ties=count_ties(offsets, timestamps),
        extras=_extras(world, truth, words, templates, offsets, items),
    )


def _pick(
    weights: Float[np.ndarray, "rows choices"], draw: Float[np.ndarray, " rows"]
) -> Int[np.ndarray, " rows"]:
    """One choice per row with probability proportional to its weight, by the inverse CDF."""
    edges = np.cumsum(weights, 1)
    return np.sum(edges[:, :-1] <= draw[:, None] * edges[:, -1:], 1)


def _sequences(
    key: tuple, truth: Truth
) -> tuple[Int[np.ndarray, " users+1"], Int[np.ndarray, " interactions"]]:
    """Every user's items: softmax(taste + popularity + pull of the last item), no repeats."""
    excess = -MEAN_EXCESS * np.log1p(-draws.uniforms(USERS, *key, "length"))
    lengths = np.minimum(SHORTEST + excess.astype(np.int64), LONGEST)
    draw = draws.uniforms((USERS, LONGEST), *key, "choice")
    pull = np.exp(PULL * truth.item @ truth.item.T)
    chosen = np.full((USERS, LONGEST), -1, np.int64)
    for first in range(0, USERS, 500):  # blocks keep the memory small
        block = np.arange(first, min(first + 500, USERS))
        logits = TASTE * truth.user[block] @ truth.item.T + truth.popularity
        weights = np.exp(logits - logits.max(1, keepdims=True))
        last = None
        for step in range(int(lengths[block].max())):
            alive = lengths[block] > step
            block, weights = block[alive], weights[alive]
            now = weights if last is None else weights * pull[last[alive]]
            last = _pick(now, draw[block, step])
            weights[np.arange(len(block)), last] = 0.0
            chosen[block, step] = last
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return offsets, chosen[chosen >= 0].astype(np.int32)


def _timestamps(
    key: tuple, offsets: Int[np.ndarray, " users+1"]
) -> Int[np.ndarray, " interactions"]:
    """Strictly rising within a user: a first day, then gaps of a second to some days."""
    gaps = 1 - (2 * DAY * np.log1p(-draws.uniforms(int(offsets[-1]), *key, "gap"))).astype(np.int64)
    begin = START + (draws.uniforms(USERS, *key, "begin") * 1000 * DAY).astype(np.int64)
    total = np.cumsum(gaps)
    return begin.repeat(np.diff(offsets)) + total - total[offsets[:-1]].repeat(np.diff(offsets))


def _ratings(
    key: tuple, truth: Truth, users: Int[np.ndarray, " n"], items: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Whole stars 1 to 5: standardised affinity plus noise."""
    affinity = np.sum(truth.user[users] * truth.item[items], 1)
    affinity = (affinity - affinity.mean()) / affinity.std()
    noise = draws.normals(len(items), *key, "rating")
    return np.clip(np.rint(3.5 + 0.8 * affinity + 0.6 * noise), 1, 5).astype(np.float32)


def _categories(truth: Truth) -> list[list[str]]:
    """Two levels: the genre that the factors point to, and within it the mood they point to."""
    genre = truth.word_probabilities["genre"].argmax(1)
    mood = truth.word_probabilities["mood"].argmax(1)
    names = toy_language.FIELDS
    return [
        [f"Genre {names['genre'][g]}", f"Mood {names['mood'][m]}"]
        for g, m in zip(genre, mood, strict=True)
    ]


def _extras(
    world: int,
    truth: Truth,
    words: dict[str, Int[np.ndarray, " items"]],
    templates: Int[np.ndarray, " items"],
    offsets: Int[np.ndarray, " users+1"],
    items: Int[np.ndarray, " interactions"],
) -> dict:
    rows = np.arange(ITEMS)
    nats = {f: -np.log(p[rows, words[f]]) for f, p in truth.word_probabilities.items()}
    # Rounded: the last bits of exp and log differ between processors, and this is hashed.
    ceiling = {
        "content_nats": np.round(sum(nats.values()), 6).tolist(),
        "field_nats": {f: np.round(values, 6).tolist() for f, values in nats.items()},
        "template_nats": [round(float(np.log(len(toy_language.TEMPLATES))), 6)] * ITEMS,
    }
    return {
        "world": world,
        "fields": {f: list(values) for f, values in toy_language.FIELDS.items()},
        "words": np.stack([words[f] for f in SUBSPACES], 1).tolist(),
        "templates": templates.tolist(),
        "ceiling": ceiling,
        "critiques": _critiques(truth, words, offsets, items),
        "narratives": _narratives(truth),
    }


def _critiques(
    truth: Truth,
    words: dict[str, Int[np.ndarray, " items"]],
    offsets: Int[np.ndarray, " users+1"],
    items: Int[np.ndarray, " interactions"],
) -> list[list[int]]:
    """See `make_world`: the field is the one in which the later item gains most of its own word."""
    shelf = truth.word_probabilities["genre"].argmax(1)
    users = np.repeat(np.arange(USERS), np.diff(offsets))
    later = np.flatnonzero((users[1:] == users[:-1]) & (shelf[items[1:]] == shelf[items[:-1]])) + 1
    before, after = items[later - 1], items[later]
    gains = []
    for field, probabilities in truth.word_probabilities.items():
        wanted = words[field][after]
        gain = probabilities[after, wanted] - probabilities[before, wanted]
        gains.append(np.where(wanted != words[field][before], gain, -np.inf))
    field_number = np.argmax(gains, 0)
    differs = np.max(gains, 0) > -np.inf
    word = np.stack(list(words.values()))[field_number, after]
    rows = np.stack([users[later], later - offsets[users[later]], field_number, word], 1)
    return rows[differs].tolist()


def _narratives(truth: Truth) -> list[list[list[int]]]:
    """See `make_world`."""
    strength = np.stack([p.max(1) for p in truth.user_words.values()], 1)
    word = np.stack([p.argmax(1) for p in truth.user_words.values()], 1)
    # Rounded, so that saturated strengths tie everywhere alike and the field order decides.
    best = np.argsort(-np.round(strength, 6), axis=1, kind="stable")[:, :3]
    return np.stack([best, np.take_along_axis(word, best, 1)], 2).tolist()


SOURCE = DatasetSource(
    "toy",
    VERSION,
    lambda folder, dataset: make_world(int(dataset.partition("/world")[2] or 0)),
    pattern=r"(?:world([1-9]\d{0,8}))?",
    generated=True,
    examples=("toy", "toy/world1", "toy/world2", "…"),
    short="toy",
)
