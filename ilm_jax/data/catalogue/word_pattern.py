"""The words of a text for regular expressions, in scripts whose letters carry marks too.

Python's `\\w` leaves out combining marks, and so cuts words of Devanagari, Thai and decomposed
Latin into pieces; what it does with other text stays as it is.
"""

import functools
import re
import sys
import unicodedata


@functools.cache
def marks() -> str:
    """All combining marks, as what stands inside the brackets of a pattern."""
    found = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M"]
    ranges: list[list[int]] = []
    for code in found:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


@functools.cache
def word(inner: str = "") -> re.Pattern[str]:
    """Runs of letters, their marks, digits and "_"; characters of `inner` may stand between two."""
    run = rf"\w[\w{marks()}]*"
    return re.compile(rf"{run}(?:[{inner}]{run})*" if inner else run)


@functools.cache
def letters() -> re.Pattern[str]:
    """The same without "_"."""
    return re.compile(rf"[^\W_](?:[^\W_]|[{marks()}])*")
