"""Signs in titles and texts that something went wrong before they reached us: counted, and said."""

import re
from collections.abc import Callable, Sequence

from ilm_jax.data.formats import notes

# UTF-8 that was read as Latin-1 or Windows-1252 and stored again: "Ã©" for "é", "â€™" for "’".
_TWICE = re.compile(
    "[ÃÂ][\u0080-\u00bf]|â€[\u0080-\u00bf™œ\u009d“”–—˜¦]|[ÐÑ][\u0080-\u00bf].[\u0080-\u00bf]"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\ufffe\uffff]")


def check(titles: Sequence[str], texts: Sequence[str]) -> None:
    """Notes how many titles and texts hold characters that nobody wrote."""
    signs: list[tuple[str, Callable[[str], object]]] = [
        ("hold U+FFFD, so their characters were lost before", lambda text: "\ufffd" in text),
        ("hold the likes of 'Ã©': UTF-8 that was decoded as something else before", _TWICE.search),
        ("hold control characters", _CONTROL.search),
    ]
    for what, values in (("titles", titles), ("texts", texts)):
        for said, has in signs:
            notes.count(sum(bool(has(value)) for value in values), len(values), f"{what} {said}")
