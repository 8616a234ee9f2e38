"""The words of the toy world: content fields, text templates and invented titles.

Every content word belongs to one field and appears in no template, so a character span says which
field it answers. All begin with a consonant: no article gives them away.
"""

import re

from ilm_jax.data import draws

FIELDS: dict[str, tuple[str, ...]] = {
    "genre": (
        "mystery",
        "romance",
        "western",
        "fantasy",
        "thriller",
        "comedy",
        "satire",
        "musical",
    ),
    "mood": (
        "gloomy",
        "cheerful",
        "tense",
        "tender",
        "dreamy",
        "bitter",
        "playful",
        "solemn",
    ),
    "setting": (
        "desert",
        "harbor",
        "mountain",
        "village",
        "metropolis",
        "forest",
        "prairie",
        "laboratory",
    ),
    "pace": (
        "languid",
        "steady",
        "brisk",
        "frantic",
        "halting",
        "rolling",
        "measured",
        "relentless",
    ),
    "era": (
        "medieval",
        "renaissance",
        "victorian",
        "wartime",
        "postwar",
        "futuristic",
        "prehistoric",
        "modern",
    ),
    "style": (
        "minimal",
        "lavish",
        "gritty",
        "polished",
        "surreal",
        "realistic",
        "handmade",
        "theatrical",
    ),
}

TEMPLATES: tuple[str, ...] = (
    "This one is a {genre} with a {mood} mood. It plays out in a {setting} during {era} times, "
    "told at a {pace} pace in a {style} manner.",
    "Expect a {setting} and {era} days. The tale is {mood} and {style}, the tempo stays {pace}, "
    "and the shelf label reads {genre}.",
    "People who like a {pace} tempo and a {style} look will find a {mood} {genre} here, placed in "
    "a {setting} of {era} years.",
    "Kind: {genre}. Feeling: {mood}. Place: {setting}. Tempo: {pace}. Time: {era}. Look: {style}.",
    "In {era} years, somewhere in a {setting}, begins a {style} work of {pace} tempo; call it a "
    "{genre} if you must, but above all it is {mood}.",
)

_ONSETS = ("b", "br", "d", "dr", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u", "ae", "ia", "ou")
_CODAS = ("", "l", "n", "r", "s", "x", "th", "m")


def describe(template: int, words: dict[str, str]) -> tuple[str, list[tuple[int, int]], list[str]]:
    """Fills template number `template` with one word per field.

    Returns:
      the text, the [start, end) span of each content word in order of appearance, and the field
      that each span answers.
    """
    text, spans, fields = "", [], []
    for piece in re.split(r"(\{\w+\})", TEMPLATES[template]):
        if piece.startswith("{"):
            field = piece[1:-1]
            spans.append((len(text), len(text) + len(words[field])))
            fields.append(field)
            piece = words[field]
        text += piece
    return text, spans, fields


def titles(count: int, *keys: draws.Key) -> list[str]:
    """`count` different two-word invented names; they depend on nothing but the keys."""
    found: dict[str, None] = {}
    attempt = 0
    while len(found) < count:
        found[f"{_word(*keys, attempt, 0)} {_word(*keys, attempt, 1)}"] = None
        attempt += 1
    return list(found)


def _word(*keys: draws.Key) -> str:
    syllables = 2 + draws.integer(2, *keys, "syllables")
    word = ""
    for position in range(syllables):
        for part, choices in (("onset", _ONSETS), ("vowel", _VOWELS), ("coda", _CODAS)):
            if part == "coda" and position < syllables - 1:
                continue
            word += choices[draws.integer(len(choices), *keys, position, part)]
    return word.capitalize()
