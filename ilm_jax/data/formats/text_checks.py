"""Signs in titles and texts that something went wrong before they reached us: counted, and said."""

import re
from collections.abc import Callable, Sequence

from ilm_jax.data.formats import notes

# UTF-8 that was read as Latin-1 or Windows-1252 and stored again: "Ã©" for "é", "â€™" for "’".
_TWICE = re.compile(
    "[ÃÂ][\u0080-\u00bf]|â€[\u0080-\u00bf™œ\u009d“”–—˜¦]|[ÐÑ][\u0080-\u00bf].[\u0080-\u00bf]"
)
_TOGETHER = 256
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\ufffe\uffff]")


def check(titles: Sequence[str], texts: Sequence[str]) -> None:
    """Notes how many titles and texts hold characters that nobody wrote."""
    signs: list[tuple[str, Callable[[str], object]]] = [
        ("hold U+FFFD, so their characters were lost before", lambda text: "\ufffd" in text),
        ("hold the likes of 'Ã©': UTF-8 that was decoded as something else before", _TWICE.search),
        ("hold control characters", _CONTROL.search),
    ]
    for what, values in (("titles", titles), ("texts", texts)):
        found = [0] * len(signs)
        for first in range(0, len(values), _TOGETHER):
            part = values[first : first + _TOGETHER]
            whole = "\n".join(part)  # no sign begins in one line and ends in the next
            if whole.replace("\n", " ").isprintable() and whole.isascii():
                continue
            for number, (_, has) in enumerate(signs):
                found[number] += sum(bool(has(text)) for text in part) if has(whole) else 0
        for (said, _), count in zip(signs, found, strict=True):
            notes.count(count, len(values), f"{what} {said}")
