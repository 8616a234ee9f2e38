"""Texts that go round in circles, as small models write them where they find no end.

A text loops where some run of words stands three times in a row and takes nine words or more, or
where a run of twelve words or more stands twice in a row. Case, digits and signs do not count, so
that a list whose numbers alone differ loops too; "no, no, no" does not.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

# In these scripts nothing parts words: each character stands for one.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORDS = re.compile(rf"[{_SPACELESS}]|[^\W\d_{_SPACELESS}]+")
LONGEST = 100
TWICE, THRICE = 12, 9


def loop_of(text: str) -> str:
    """The words of a text's first loop, said once; "" where there is none."""
    said = _WORDS.findall(text.casefold())
    for unit in range(1, min(LONGEST, len(said) // 2) + 1):
        # So many words in a row are the one `unit` places before.
        alike = 0
        for place in range(unit, len(said)):
            alike = alike + 1 if said[place] == said[place - unit] else 0
            thrice = alike >= 2 * unit and alike + unit >= THRICE
            if thrice or (alike >= unit >= TWICE):
                start = place + 1 - alike - unit
                return " ".join(said[start : start + unit])
    return ""


def loops(predictions: Sequence[str], targets: Sequence[str]) -> Float64[np.ndarray, " texts"]:
    """1 for each text that loops, else 0."""
    del targets
    return np.array([float(bool(loop_of(text))) for text in predictions], np.float64)
