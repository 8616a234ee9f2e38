"""A film's description: title, year, genres and tags in two sentences."""

import re

_YEAR = re.compile(r"(.*\S)\s*\((\d{4})\D?(?:\d{4})?\)", re.DOTALL)

Spans = list[tuple[int, int]]


def name_and_year(title: str) -> tuple[str, int | None]:
    """Splits "Toy Story (1995)" into ("Toy Story", 1995); the year is None where there is none."""
    found = _YEAR.fullmatch(title.strip())
    return (found[1], int(found[2])) if found else (title.strip(), None)


def describe(title: str, genres: list[str], tags: list[str]) -> tuple[str, Spans]:
    """The text of a film and the [start, end) spans of its values (name, year, genres, tags)."""
    name, year = name_and_year(title)
    pieces: list[tuple[str, bool]] = [("The film ", False), (name, True)]
    if year is not None:
        pieces += [(" came out in ", False), (str(year), True)]
    if genres:
        lead = " and belongs to " if year is not None else " belongs to "
        pieces += [(lead, False), *_listed(genres)]
    elif year is None:
        pieces.append((" is on record", False))
    pieces.append((".", False))
    if tags:
        pieces += [(" Viewers tag it as ", False), *_listed(tags), (".", False)]
    text, spans = "", []
    for piece, informative in pieces:
        if informative:
            spans.append((len(text), len(text) + len(piece)))
        text += piece
    return text, spans


def _listed(values: list[str]) -> list[tuple[str, bool]]:
    pieces = [(values[0], True)]
    for value in values[1:]:
        pieces += [(", ", False), (value, True)]
    return pieces
